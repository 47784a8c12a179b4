//! Fuzzes `callboard_engine::actor_config::fuzz_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callboard_engine::actor_config::fuzz_config(data));
