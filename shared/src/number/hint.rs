//! What a person can do about a number that is stuck, and when it is due.

use std::time::Duration;

use serde::Serialize;

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

/// That a number is stuck, and the way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    code: &'static str,
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
                    Some(snapshot) if snapshot.status == State::QrPending => {
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
}

/// What an answer says beside the state.
#[derive(Serialize)]
pub struct Advice {
    /// That the number is stuck: a stable word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// All that a person needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The way on alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

impl Advice {
    /// The hint that is due, else the message.
    pub fn new(hint: Option<Hint>, message: Option<Sentence>, language: Language) -> Self {
        let Some(hint) = hint else {
            let message = message.map(|message| message.text(language).to_owned());
            return Self { code: None, message, hint: None };
        };
        let (what, way_on) = (hint.what.text(language), hint.way_on.text(language));
        Self { code: Some(hint.code), message: Some(format!("{what} {way_on}")), hint: Some(way_on) }
    }
}
