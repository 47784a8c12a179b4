//! Fuzzes `callboard::invoke::fuzz_url`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::invoke::fuzz_url(data));
