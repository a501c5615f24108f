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

/// What an answer says beside the number's state.
#[derive(Default, Serialize)]
pub struct Advice {
    /// That the number is stuck: a stable word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// All that a person needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The way on alone, where the number is stuck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

impl Advice {
    /// For a number that is not stuck.
    pub fn message(message: Sentence, language: Language) -> Self {
        Self { message: Some(message.text(language).to_owned()), ..Self::default() }
    }

    /// The advice that is due for a number in the state of `view`, which the mirror holds too; none, where it is not stuck.
    pub fn due(
        number: &Number,
        view: &View,
        webhook: Webhook,
        now: UnixMs,
        language: Language,
    ) -> Option<Self> {
        let is_over = |since: Option<UnixMs>, limit| since.is_some_and(|since| since.until(now) > limit);
        let (code, what, way_on) = match (view.state, view.status.as_ref().map(|status| status.state)) {
            (State::Connected, _) if webhook == Webhook::Pending => {
                ("webhook_pending", say::MESSAGES_MISSING, say::WAIT_OR_TELL)
            }
            (State::Connected, _) => return None,
            (_, Some(SessionState::Lost)) => ("session_lost", say::SESSION_LOST, say::RECONNECT),
            (_, Some(SessionState::PasskeyRequired)) => {
                ("passkey_required", say::PASSKEY_WANTED, say::CONFIRM_PASSKEY)
            }
            (State::QrPending, _) if is_over(starting_since(number), STARTS_WITHIN) => {
                ("start_stuck", say::STARTING_LONG, say::RECONNECT)
            }
            (State::QrIssued, _)
                if number.first_connected_at.is_none()
                    && is_over(number.credentials_saved_at, SCANNED_WITHIN) =>
            {
                ("qr_not_scanned", say::QR_WAITING, say::SCAN)
            }
            _ => return None,
        };
        let way_on = way_on.text(language);
        let message = Some(format!("{} {way_on}", what.text(language)));
        Some(Self { code: Some(code), message, hint: Some(way_on) })
    }
}

/// Since when a number with nothing to show has been starting, as far as that is known.
pub(super) fn starting_since(number: &Number) -> Option<UnixMs> {
    match &number.snapshot {
        // New credentials are a new start.
        Some(snapshot) if snapshot.status == State::QrPending => {
            Some(snapshot.at).max(number.credentials_saved_at)
        }
        Some(_) => None,
        // The mirror has no room for it: a number that was never linked has been starting all its life.
        None => number.credentials_saved_at.filter(|_| number.first_connected_at.is_none()),
    }
}

#[cfg(test)]
mod tests;
