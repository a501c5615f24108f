//! What a person can do about a number that does not get on: every such sentence, and when it is due.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::UnixMs;
use crate::number::Webhook;
use crate::store::Number;
use crate::view::{State, View};
use crate::wpp::Link;

/// A session that has been starting for longer is stuck.
const STARTS_WITHIN: Duration = Duration::from_secs(2 * 60);

/// A QR that waits for longer has been forgotten, or cannot be scanned.
const SCANNED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// For an organisation without the number that was asked for.
pub const CREATE_FIRST: &str = "Create a number first.";

/// For a number whose key or session the platform no longer knows.
pub const RECREATE: &str =
    "Create this number again (force_recreate with its session), then scan the new QR code.";

/// An addition to an answer: that a number is stuck, and the way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// A stable word for programs.
    pub code: &'static str,
    /// A sentence for a person.
    pub sentence: &'static str,
}

const SESSION_LOST: Hint = Hint { code: "session_lost", sentence: RECREATE };

const PASSKEY_REQUIRED: Hint = Hint {
    code: "passkey_required",
    sentence: "WhatsApp asks for a passkey. Open WhatsApp on the phone, confirm the passkey there, then come back here.",
};

const START_STUCK: Hint = Hint {
    code: "start_stuck",
    sentence: "The number has been starting for minutes. Connect it again; if that does not help, create it again \
        (force_recreate with its session).",
};

const QR_NOT_SCANNED: Hint = Hint {
    code: "qr_not_scanned",
    sentence: "The QR code is still waiting. On the phone, open WhatsApp, Settings, Linked devices, Link a device, and \
        scan the code that is shown now.",
};

const WEBHOOK_PENDING: Hint = Hint {
    code: "webhook_pending",
    sentence: "The number is linked, but messages to it do not arrive here yet. We keep trying; if this stays, please tell support.",
};

impl Hint {
    /// The hint that is due for a number in the state of `view`, which the mirror holds too.
    pub fn due(number: &Number, view: &View, webhook: Webhook, now: UnixMs) -> Option<Self> {
        let long_since = |at: Option<UnixMs>, limit| at.is_some_and(|at| at.until(now) > limit);
        match (view.state, view.status.as_ref().map(|status| &status.link)) {
            (State::Connected, _) => (webhook == Webhook::Pending).then_some(WEBHOOK_PENDING),
            (_, Some(Link::Lost)) => Some(SESSION_LOST),
            (_, Some(Link::PasskeyRequired)) => Some(PASSKEY_REQUIRED),
            (State::QrPending, _) => {
                let since = match &number.seen {
                    // New credentials are a new start.
                    Some(seen) if seen.status == "pairing" => Some(seen.at).max(number.credentials_saved_at),
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

    /// Puts the hint into an answer.
    pub fn add_to(self, answer: &mut Value) {
        answer["code"] = json!(self.code);
        answer["hint"] = json!(self.sentence);
    }
}
