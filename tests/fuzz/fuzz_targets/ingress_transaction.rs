//! Fuzzes `callboard::ingress::http::actors::fuzz_transaction`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::ingress::http::actors::fuzz_transaction(data));
