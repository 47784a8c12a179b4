//! Fuzzes `callboard::ingress::http::admin::fuzz_query`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::ingress::http::admin::fuzz_query(data));
