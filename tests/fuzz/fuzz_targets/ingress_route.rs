//! Fuzzes `callboard::ingress::http::route::fuzz_route`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard::ingress::http::route::fuzz_route(data));
