//! Fuzzes `callboard::cli::fuzz_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::cli::fuzz_answer(data));
