//! Fuzzes `callboard::invoke::method::fuzz_normalize`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::invoke::method::fuzz_normalize(data));
