//! What is known of a session: live from the platform, or remembered in `whatsapp_sessions`.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::platform::{SessionState, Status};
use crate::store::Snapshot;

pub use crate::store::State;

/// A `connected` that was seen so recently is believed.
const CONNECTED_HOLDS: Duration = Duration::from_secs(10);

/// A QR that was seen so recently can still be scanned: the platform makes a new one every 20 to 30 s.
pub(super) const QR_HOLDS: Duration = Duration::from_secs(25);

/// What is known of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: State,
    /// The QR to scan; only with [`State::QrIssued`].
    pub qr: Option<String>,
    /// When that QR was first seen.
    pub qr_at: Option<UnixMs>,
    /// The platform's own word; nothing where it was not asked.
    pub status: Option<Status>,
}

impl View {
    /// A session that was started and has shown nothing yet.
    pub fn starting() -> Self {
        Self { state: State::QrPending, qr: None, qr_at: None, status: None }
    }

    /// A session with a QR to scan.
    pub fn scannable(qr: String) -> Self {
        Self { state: State::QrIssued, qr: Some(qr), ..Self::starting() }
    }

    /// A session that the platform does not know.
    pub fn lost() -> Self {
        Self::live(Status { state: SessionState::Lost, word: String::new() }, None)
    }

    /// Whether the platform does not know the session.
    pub fn is_lost(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.state == SessionState::Lost)
    }

    /// Whether the platform has shown it, and not the hope that it is coming up.
    pub fn is_seen(&self) -> bool {
        self.status.is_some() || self.qr.is_some()
    }

    /// The platform's own word, for what we do not know how to name.
    pub fn platform_status(&self) -> Option<&str> {
        self.status.as_ref().map(|status| status.word.as_str()).filter(|word| !word.is_empty())
    }

    /// Whether a phone is linked.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// From the platform's word and its QR.
    pub fn live(status: Status, qr: Option<String>) -> Self {
        let (state, qr) = match (&status.state, qr) {
            (SessionState::Connected, _) => (State::Connected, None),
            (SessionState::Offline | SessionState::Lost, _) => (State::Disconnected, None),
            (_, Some(qr)) => (State::QrIssued, Some(qr)),
            (_, None) => (State::QrPending, None),
        };
        Self { state, qr, qr_at: None, status: Some(status) }
    }

    /// From the mirror, whatever its age; but a QR that is older than it can be scanned is none.
    pub fn last_seen(snapshot: &Snapshot, now: UnixMs) -> Self {
        let qr = snapshot.qr.as_ref().filter(|_| snapshot.qr_at.is_some_and(|at| at.until(now) < QR_HOLDS));
        let (state, qr) = match (snapshot.status, qr) {
            (State::Connected, _) => (State::Connected, None),
            (State::QrIssued, Some(qr)) => (State::QrIssued, Some(qr.clone())),
            (State::QrIssued | State::QrPending, _) => (State::QrPending, None),
            (State::Disconnected | State::Unknown, _) => (State::Disconnected, None),
        };
        Self { state, qr_at: snapshot.qr_at.filter(|_| qr.is_some()), qr, status: None }
    }

    /// From the mirror, where it is recent enough to be believed.
    pub(crate) fn recent(snapshot: &Snapshot, now: UnixMs) -> Option<Self> {
        let view = Self::last_seen(snapshot, now);
        let is_recent = match view.state {
            State::Connected => snapshot.at <= now && snapshot.at.until(now) < CONNECTED_HOLDS,
            State::QrIssued => view.qr_at.is_some_and(|at| at <= now),
            _ => false,
        };
        is_recent.then_some(view)
    }

    /// Whether the mirror shows the same.
    pub(crate) fn is_mirrored_in(&self, snapshot: &Snapshot) -> bool {
        snapshot.status == self.state && snapshot.qr == self.qr
    }
}

#[cfg(test)]
mod tests;
