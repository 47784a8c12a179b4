//! Fuzzes `callboard_engine::quantity::fuzz_quantity`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::quantity::fuzz_quantity(data));
