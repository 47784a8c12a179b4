//! Fuzzes `callboard::app::http1::fuzz_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::app::http1::fuzz_answer(data));
