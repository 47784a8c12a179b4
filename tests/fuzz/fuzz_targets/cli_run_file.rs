//! Fuzzes `callboard::cli::fuzz_run_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::cli::fuzz_run_file(data));
