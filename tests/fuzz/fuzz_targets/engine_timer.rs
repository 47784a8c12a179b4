//! Fuzzes `callboard_engine::timer::fuzz_timer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::timer::fuzz_timer(data));
