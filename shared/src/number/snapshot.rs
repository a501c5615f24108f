//! A number's state, from the platform or from the snapshot in `whatsapp_sessions`.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::store::Snapshot;
use crate::wpp::{SessionState, Status};

pub use crate::store::State;

/// How long a `connected` snapshot answers unforced polls.
const CONNECTED_TTL: Duration = Duration::from_secs(10);

/// How long a QR code can be scanned: the platform makes a new one every 20 to 30 s.
pub(super) const QR_TTL: Duration = Duration::from_secs(25);

/// What is known about a number's session.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownState {
    /// The state.
    pub state: State,
    /// The QR code to scan, with [`State::QrIssued`].
    pub qr: Option<String>,
    /// When that QR was first seen.
    pub qr_at: Option<UnixMs>,
    /// The status that the platform reported, or that follows from its 404.
    pub status: Option<Status>,
}

impl KnownState {
    /// Returns the state of a session that was started and has no status yet.
    pub fn starting() -> Self {
        Self { state: State::QrPending, qr: None, qr_at: None, status: None }
    }

    /// Returns the state of a session with a QR code to scan.
    pub fn qr_issued(qr: String) -> Self {
        Self { state: State::QrIssued, qr: Some(qr), ..Self::starting() }
    }

    /// Returns the state of a session that the platform does not know.
    pub fn lost() -> Self {
        Self::live(Status { state: SessionState::Lost, word: String::new() }, None)
    }

    /// Whether the platform does not know the session.
    pub(super) fn is_lost(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.state == SessionState::Lost)
    }

    /// Whether it has a status or a QR code. A session that was only started has neither.
    pub fn is_reported(&self) -> bool {
        self.status.is_some() || self.qr.is_some()
    }

    /// Returns the platform's own word for the state, if it gave one.
    pub(super) fn platform_status(&self) -> Option<&str> {
        self.status.as_ref().map(|status| status.word.as_str()).filter(|word| !word.is_empty())
    }

    /// Whether a phone is connected.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Returns the state that the platform's status and QR code mean.
    pub fn live(status: Status, qr: Option<String>) -> Self {
        let (state, qr) = match (&status.state, qr) {
            (SessionState::Connected, _) => (State::Connected, None),
            (SessionState::Offline | SessionState::Lost, _) => (State::Disconnected, None),
            (_, Some(qr)) => (State::QrIssued, Some(qr)),
            (_, None) => (State::QrPending, None),
        };
        Self { state, qr, qr_at: None, status: Some(status) }
    }

    /// Returns the state in a snapshot of any age. A QR code that can no longer be scanned is left out.
    pub(super) fn of_snapshot(snapshot: &Snapshot, now: UnixMs) -> Self {
        let qr = snapshot.qr.as_ref().filter(|_| snapshot.qr_at.is_some_and(|at| at.until(now) < QR_TTL));
        let (state, qr) = match (snapshot.state, qr) {
            (State::Connected, _) => (State::Connected, None),
            (State::QrIssued, Some(qr)) => (State::QrIssued, Some(qr.clone())),
            (State::QrIssued | State::QrPending, _) => (State::QrPending, None),
            (State::Disconnected | State::Unknown, _) => (State::Disconnected, None),
        };
        Self { state, qr_at: snapshot.qr_at.filter(|_| qr.is_some()), qr, status: None }
    }

    /// Returns the state in a snapshot, if it is recent enough to answer an unforced poll.
    pub(super) fn recent(snapshot: &Snapshot, now: UnixMs) -> Option<Self> {
        let known = Self::of_snapshot(snapshot, now);
        let is_recent = match known.state {
            State::Connected => snapshot.at <= now && snapshot.at.until(now) < CONNECTED_TTL,
            State::QrIssued => known.qr_at.is_some_and(|at| at <= now),
            _ => false,
        };
        is_recent.then_some(known)
    }

    /// Whether the snapshot holds the same.
    pub(super) fn is_in(&self, snapshot: &Snapshot) -> bool {
        snapshot.state == self.state && snapshot.qr == self.qr
    }
}

#[cfg(test)]
mod tests;
