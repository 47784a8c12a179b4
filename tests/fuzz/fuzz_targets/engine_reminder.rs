//! Fuzzes `callboard_engine::reminder::fuzz_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::reminder::fuzz_request(data));
