//! What a person can do about a number that does not get on, and when it is due.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::UnixMs;
use crate::number::session::Webhook;
use crate::number::view::{State, View};
use crate::platform::SessionState;
use crate::sentence::{self as say, Language, Sentence};
use crate::store::Number;

/// A session that has been starting for longer is stuck.
const STARTS_WITHIN: Duration = Duration::from_secs(2 * 60);

/// A QR that waits for longer has been forgotten, or cannot be scanned.
const SCANNED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// An addition to an answer: that a number is stuck, and the way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// A stable word for programs.
    pub code: &'static str,
    what: Sentence,
    way_on: Sentence,
}

const SESSION_LOST: Hint = Hint { code: "session_lost", what: say::LINK_LOST, way_on: say::RECONNECT };

const PASSKEY_REQUIRED: Hint =
    Hint { code: "passkey_required", what: say::PASSKEY_WANTED, way_on: say::CONFIRM_PASSKEY };

const START_STUCK: Hint = Hint { code: "start_stuck", what: say::STARTING_LONG, way_on: say::RECONNECT };

const QR_NOT_SCANNED: Hint = Hint { code: "qr_not_scanned", what: say::QR_WAITING, way_on: say::SCAN };

const WEBHOOK_PENDING: Hint =
    Hint { code: "webhook_pending", what: say::MESSAGES_MISSING, way_on: say::WAIT_OR_TELL };

impl Hint {
    /// The hint that is due for a number in the state of `view`, which the mirror holds too.
    pub fn due(number: &Number, view: &View, webhook: Webhook, now: UnixMs) -> Option<Self> {
        let long_since = |at: Option<UnixMs>, limit| at.is_some_and(|at| at.until(now) > limit);
        match (view.state, view.status.as_ref().map(|status| &status.state)) {
            (State::Connected, _) => (webhook == Webhook::Pending).then_some(WEBHOOK_PENDING),
            (_, Some(SessionState::Lost)) => Some(SESSION_LOST),
            (_, Some(SessionState::PasskeyRequired)) => Some(PASSKEY_REQUIRED),
            (State::QrPending, _) => {
                let since = match &number.snapshot {
                    // New credentials are a new start.
                    Some(snapshot) if snapshot.status == "pairing" => {
                        Some(snapshot.at).max(number.credentials_saved_at)
                    }
                    Some(_) => None,
                    // The mirror has no room for it: a number that was never linked has been starting all its life.
                    None => number.credentials_saved_at.filter(|_| number.first_connected_at.is_none()),
                };
                long_since(since, STARTS_WITHIN).then_some(START_STUCK)
            }
            (State::QrIssued, _) if number.first_connected_at.is_none() => {
                long_since(number.credentials_saved_at, SCANNED_WITHIN).then_some(QR_NOT_SCANNED)
            }
            _ => None,
        }
    }

    /// Puts the hint into an answer: as `message` all that a person needs, as `hint` the way on alone.
    pub fn add_to(self, answer: &mut Value, language: Language) {
        let (what, way_on) = (self.what.text(language), self.way_on.text(language));
        answer["code"] = json!(self.code);
        answer["message"] = json!(format!("{what} {way_on}"));
        answer["hint"] = json!(way_on);
    }
}
