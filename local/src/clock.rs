//! The only place in this crate that reads the machine's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the one reading of the clock")]
pub fn unix_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the current instant, to measure a duration.
#[allow(clippy::disallowed_methods, reason = "the one reading of the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}
