//! Fuzzes `callboard_engine::json::fuzz_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::json::fuzz_json(data));
