//! Fuzzes `callboard::telemetry::trace::fuzz_context`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::telemetry::trace::fuzz_context(data));
