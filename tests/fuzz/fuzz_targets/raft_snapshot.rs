//! Fuzzes `callboard_raft::fuzz_snapshot`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_raft::fuzz_snapshot(data));
