//! Fuzzes `callboard_engine::schedule::fuzz_schedule`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::schedule::fuzz_schedule(data));
