//! How fresh what is told of a number is, and when it is worth asking again.

use std::ops::Not;
use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixMs;
use crate::number::hint::starting_since;
use crate::number::view::{QR_HOLDS, State};
use crate::record::Source;
use crate::store::Number;

/// The shortest pause between two questions: a person stands there with the phone in hand.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);

/// And the longest one: a scan is still noticed while somebody looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A pause is this part of the time in which nothing has happened.
const PART: u32 = 30;

/// What an answer says of its own freshness.
#[derive(Debug, PartialEq, Serialize)]
pub struct Freshness {
    source: Source,
    seen_at: Option<String>,
    #[serde(skip_serializing_if = "Not::not")]
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_qr_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_good_until: Option<String>,
    /// Nothing where nothing more comes by itself.
    poll_after_ms: Option<u64>,
}

impl Freshness {
    /// Of a number that is in this state by that source; with the time at which its QR was first seen, as far as it has one
    /// and somebody has noted that.
    pub fn of(number: &Number, state: State, qr_at: Option<UnixMs>, source: Source, now: UnixMs) -> Self {
        let mirrored_at = number.snapshot.as_ref().map(|snapshot| snapshot.at);
        let seen_at = if source == Source::Live { Some(now) } else { mirrored_at };
        let since = match state {
            _ if source == Source::Stale => Some(seen_at),
            State::QrPending => Some(starting_since(number)),
            // One that was linked before says nothing of when somebody began to link it again.
            State::QrIssued => {
                Some(number.credentials_saved_at.filter(|_| number.first_connected_at.is_none()))
            }
            State::Connected | State::Disconnected | State::Unknown => None,
        };
        Self {
            source,
            seen_at: seen_at.and_then(UnixMs::to_rfc3339),
            stale: source == Source::Stale,
            last_qr_at: qr_at.and_then(UnixMs::to_rfc3339),
            qr_good_until: qr_at.and_then(|at| at.plus(QR_HOLDS).to_rfc3339()),
            poll_after_ms: since.map(|since| pause(since, now).as_secs() * 1000),
        }
    }
}

/// How long to wait where nothing has happened since then.
pub(crate) fn pause(since: Option<UnixMs>, now: UnixMs) -> Duration {
    let stood = since.map_or(Duration::ZERO, |since| since.until(now));
    (stood / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
