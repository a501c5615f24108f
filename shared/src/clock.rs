//! Points in time, in one unit, and the one place that reads the wall clock.

use std::num::NonZeroU8;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};

/// RFC 3339, always with milliseconds.
const TO_THE_MILLISECOND: EncodedConfig =
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits: NonZeroU8::new(3) }).encode();

/// A point in time: milliseconds since 1970, the unit of `wppJwtExpiresAt` and of Lambda's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// Returns the point this much later; saturates.
    pub(crate) fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Returns the point this much earlier; saturates.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Returns the distance between two points, in either order. So a clock set back a little makes nothing
    /// look old, and one set back a lot makes nothing look new forever.
    pub fn apart(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// Formats it as RFC 3339 in UTC, which JavaScript's `Date` reads. Returns `None` outside the years 0 to 9999.
    pub(crate) fn to_rfc3339(self) -> Option<String> {
        let nanos = i128::from(self.0) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Iso8601::<TO_THE_MILLISECOND>).ok()
    }

    /// Returns the time from `self` to `later`, or zero if `later` is not later.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

impl From<UnixMs> for SystemTime {
    /// A point before 1970 becomes 1970.
    fn from(UnixMs(ms): UnixMs) -> Self {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
    }
}

/// Returns whole milliseconds; saturates.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Reads the machine's clock. What decides about a token takes `now` as an argument instead.
#[allow(clippy::disallowed_methods, reason = "the one reading of the clock")]
pub fn now() -> UnixMs {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(millis(since_1970))
}
