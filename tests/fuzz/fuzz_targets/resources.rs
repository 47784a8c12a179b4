//! Fuzzes `callboard::resources::fuzz_resources`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::resources::fuzz_resources(data));
