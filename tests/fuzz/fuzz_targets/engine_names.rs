//! Fuzzes `callboard_engine::names::fuzz_name`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::names::fuzz_name(data));
