//! Fuzzes `callboard::ingress::server::fuzz_upgrade`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::ingress::server::fuzz_upgrade(data));
