//! Fuzzes `callboard_storage::codec::fuzz_decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_storage::codec::fuzz_decode(data));
