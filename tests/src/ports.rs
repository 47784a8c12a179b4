//! Free loopback ports.
//!
//! They lie below the kernel's range for outgoing connections, so none is taken by a passing client between being
//! chosen and being bound; each process starts at a place of its own and never gives out a port twice.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A port that nothing listens on, by TCP or UDP.
pub fn free() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(u32::MAX);
    // Only the first caller sees the unset value; a lost race costs nothing but another starting place.
    if NEXT.load(Ordering::Relaxed) == u32::MAX {
        NEXT.store(std::process::id().wrapping_mul(977) % COUNT, Ordering::Relaxed);
    }
    for _ in 0..COUNT {
        let port = (FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("0.0.0.0", port)).is_ok()
            && UdpSocket::bind(("0.0.0.0", port)).is_ok();
        if is_free {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
