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
        "webhook_url": null, "connected_is_news": false, "is_readable": true, "ignored": [], "snapshot": mirror,
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
        (number(None, true, None), seen(PasskeyRequired, None), Webhook::Pending, Some("passkey_required")),
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
        (number(Some(2 * MINUTE + 1), false, None), starting.clone(), Webhook::Pending, Some("start_stuck")),
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
        let due = Advice::due(&number, &view, webhook, NOW, Language::English).and_then(|advice| advice.code);
        assert_eq!(due, expected, "{number:?} {:?} {webhook:?}", view.state);
    }
}

#[test]
fn a_hint_says_all_and_a_message_only_itself() {
    let language = Language::English;
    let due = Advice::due(
        &number(None, true, None),
        &seen(SessionState::Lost, None),
        Webhook::Pending,
        NOW,
        language,
    );
    let way_on = say::RECONNECT.text(language);
    let all = format!("{} {way_on}", say::SESSION_LOST.text(language));
    assert_eq!(json!(due), json!({"code": "session_lost", "message": all, "hint": way_on}));
    let said = json!(Advice::message(say::QR_COMING, language));
    assert_eq!(said, json!({"message": say::QR_COMING.text(language)}));
    assert_eq!(json!(Advice::default()), json!({}));
}
