//! Fuzzes `callboard_engine::duration::fuzz_parse`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::duration::fuzz_parse(data));
