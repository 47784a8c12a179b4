//! Fuzzes `callboard::bench::fuzz_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::bench::fuzz_head(data));
