//! Fuzzes `callboard::invoke::target::fuzz_target`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::invoke::target::fuzz_target(data));
