//! The harness of the tests: the real binary as a process, a scriptable app on a real socket, and plain clients.
//!
//! Everything here looks at Callboard from outside: a command line, sockets, files and signals. Nothing links the
//! product, so a test that passes says something about the program a user runs. Waiting is always for an event with
//! a bound ([`wait::eventually`]); the only waits of fixed length are those that show that something does *not*
//! happen ([`wait::stays`]), and those of an app that is slow on purpose ([`wait::busy`]).

pub mod app;
pub mod binary;
pub mod cluster;
pub mod http;
pub mod node;
pub mod ports;
pub mod process;
pub mod raw;
pub mod reaper;
pub mod wait;

use std::sync::OnceLock;

/// The runtime of everything that must outlive a single test function: apps shared by several tests run here.
pub fn background() -> &'static tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("background")
                .enable_all()
                .build()
                .expect("start the background runtime")
        })
        .handle()
}
