//! Fuzzes `callboard_raft::fuzz_apply`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_raft::fuzz_apply(data));
