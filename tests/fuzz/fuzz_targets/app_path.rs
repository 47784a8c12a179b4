//! Fuzzes `callboard::app::path::fuzz_path`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::app::path::fuzz_path(data));
