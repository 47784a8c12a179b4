//! Fuzzes `callboard::host::opened::fuzz_replay`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::host::opened::fuzz_replay(data));
