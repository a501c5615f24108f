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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::Status;

    const NOW: UnixMs = UnixMs(10_000_000);
    const MINUTE: i64 = 60_000;

    /// A number whose credentials and mirror are so old.
    fn number(saved: Option<i64>, connected: bool, mirror: Option<(&str, i64)>) -> Number {
        let ago = |age| NOW.0 - age;
        let mirror = mirror
            .map(|(status, age)| json!({"status": status, "qr": null, "qr_at_ms": null, "at_ms": ago(age)}));
        serde_json::from_value(json!({
            "integration_id": uuid::Uuid::nil(), "organization_id": uuid::Uuid::nil(), "settings": {},
            "credentials_saved_at_ms": saved.map(ago), "first_connected_at_ms": connected.then_some(1),
            "webhook_url": null, "news_if_connected": false, "snapshot": mirror,
        }))
        .unwrap()
    }

    fn seen(state: SessionState, qr: Option<&str>) -> View {
        View::live(Status { state, word: String::new() }, qr.map(str::to_owned))
    }

    #[test]
    fn a_hint_is_due_where_a_person_can_do_something() {
        use SessionState::{Connected, Lost, Offline, PasskeyRequired, QrRequired, Starting};
        let (pairing, issued) = (|age| Some(("pairing", age)), |age| Some(("qr_issued", age)));
        let (starting, scannable) = (seen(Starting, None), seen(QrRequired, Some("2@")));
        for (number, view, webhook, expected) in [
            (number(None, true, None), seen(Connected, None), Webhook::Pending, Some("webhook_pending")),
            (number(None, true, None), seen(Connected, None), Webhook::Registered, None),
            (number(None, true, None), seen(Lost, None), Webhook::Pending, Some("session_lost")),
            (number(None, true, None), seen(Offline, None), Webhook::Pending, None),
            (
                number(None, true, None),
                seen(PasskeyRequired, None),
                Webhook::Pending,
                Some("passkey_required"),
            ),
            // Starting, by the mirror.
            (
                number(None, true, pairing(2 * MINUTE + 1)),
                starting.clone(),
                Webhook::Pending,
                Some("start_stuck"),
            ),
            (number(None, true, pairing(2 * MINUTE)), starting.clone(), Webhook::Pending, None),
            (number(Some(MINUTE), true, pairing(3 * MINUTE)), starting.clone(), Webhook::Pending, None),
            (number(Some(5 * MINUTE), true, pairing(MINUTE)), starting.clone(), Webhook::Pending, None),
            (number(Some(5 * MINUTE), false, issued(5 * MINUTE)), starting.clone(), Webhook::Pending, None),
            // Starting, and the mirror has no room for it.
            (
                number(Some(2 * MINUTE + 1), false, None),
                starting.clone(),
                Webhook::Pending,
                Some("start_stuck"),
            ),
            (number(Some(2 * MINUTE), false, None), starting.clone(), Webhook::Pending, None),
            (number(Some(3 * MINUTE), true, None), starting, Webhook::Pending, None),
            // A QR that waits.
            (
                number(Some(10 * MINUTE + 1), false, None),
                scannable.clone(),
                Webhook::Pending,
                Some("qr_not_scanned"),
            ),
            (number(Some(10 * MINUTE), false, None), scannable.clone(), Webhook::Pending, None),
            (number(Some(11 * MINUTE), true, None), scannable.clone(), Webhook::Pending, None),
            (number(None, false, None), scannable, Webhook::Pending, None),
        ] {
            let due = Hint::due(&number, &view, webhook, NOW).map(|hint| hint.code);
            assert_eq!(due, expected, "{number:?} {:?} {webhook:?}", view.state);
        }
    }

    #[test]
    fn a_hint_says_all_and_else_the_message_is_said() {
        let language = Language::English;
        let said = json!(Advice::new(Some(SESSION_LOST), Some(say::QR_COMING), language));
        let way_on = say::RECONNECT.text(language);
        let all = format!("{} {way_on}", say::LINK_LOST.text(language));
        assert_eq!(said, json!({"code": "session_lost", "message": all, "hint": way_on}));
        let said = json!(Advice::new(None, Some(say::QR_COMING), language));
        assert_eq!(said, json!({"message": say::QR_COMING.text(language)}));
        assert_eq!(json!(Advice::new(None, None, language)), json!({}));
    }
}
