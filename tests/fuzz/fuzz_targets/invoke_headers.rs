//! Fuzzes `callboard::invoke::fuzz_headers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::invoke::fuzz_headers(data));
