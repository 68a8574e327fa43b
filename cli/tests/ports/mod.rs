//! Addresses for tests.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A TCP address on loopback that is free, below the ports that the system gives to outgoing connections: until it is listened
/// at, one of those could take it.
pub fn free_tcp() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        if let Ok(free) = TcpListener::bind(("127.0.0.1", 10_000 + (n % 20_000) as u16)) {
            return free.local_addr().unwrap();
        }
    }
}
