//! Ports for child processes, which are told a number before they listen on it.

use std::net::TcpListener;

use crate::Result;

/// Below the range that systems take for outgoing connections, so that none of these can sit on the port of a server
/// that is being restarted.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// How many ports to try: far more than it takes while some of [`RANGE`] are free.
const TRIES: u32 = 1000;

/// A port of the loopback address that nobody listens on.
///
/// # Errors
/// When no free one turns up.
pub fn free() -> Result<u16> {
    for _ in 0..TRIES {
        let port = fastrand::u16(RANGE);
        if is_free(port) {
            return Ok(port);
        }
    }
    Err("every port of 127.0.0.1 is in use".into())
}

/// Whether a server could listen on this port of the loopback address now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
