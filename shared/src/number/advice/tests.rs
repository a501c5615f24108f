use serde_json::json;

use super::*;
use crate::wpp::Status;

const NOW: UnixMs = UnixMs(10_000_000);
const MINUTE: i64 = 60_000;

/// Returns a number with credentials of this age, and this snapshot.
fn number(saved: Option<i64>, connected: bool, snapshot: Option<(&str, i64)>) -> Number {
    let ago = |age| NOW.0 - age;
    let snapshot = snapshot
        .map(|(status, age)| json!({"status": status, "qr": null, "qr_at_ms": null, "at_ms": ago(age)}));
    serde_json::from_value(json!({
        "integration_id": uuid::Uuid::nil(), "organization_id": uuid::Uuid::nil(), "settings": {},
        "credentials_saved_at_ms": saved.map(ago), "first_connected_at_ms": connected.then_some(1),
        "webhook_url": null, "newly_connected": false, "is_readable": true, "ignored": [], "snapshot": snapshot,
    }))
    .unwrap()
}

fn seen(state: SessionState, qr: Option<&str>) -> KnownState {
    KnownState::live(Status { state, word: String::new() }, qr.map(str::to_owned))
}

#[test]
fn stuck_number_gets_advice() {
    use SessionState::{Connected, Lost, Offline, PasskeyRequired, QrRequired, Starting};
    let (pairing, issued) = (|age| Some(("pairing", age)), |age| Some(("qr_issued", age)));
    let (starting, waiting) = (seen(Starting, None), seen(QrRequired, Some("2@")));
    for (number, known, webhook, expected) in [
        (number(None, true, None), seen(Connected, None), Webhook::Pending, Some("webhook_pending")),
        (number(None, true, None), seen(Connected, None), Webhook::Registered, None),
        (number(None, true, None), seen(Lost, None), Webhook::Pending, Some("session_lost")),
        (number(None, true, None), seen(Offline, None), Webhook::Pending, None),
        (number(None, true, None), seen(PasskeyRequired, None), Webhook::Pending, Some("passkey_required")),
        // Starting, according to the snapshot.
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
        // Starting, without a snapshot.
        (number(Some(2 * MINUTE + 1), false, None), starting.clone(), Webhook::Pending, Some("start_stuck")),
        (number(Some(2 * MINUTE), false, None), starting.clone(), Webhook::Pending, None),
        (number(Some(3 * MINUTE), true, None), starting, Webhook::Pending, None),
        // A QR that is not scanned.
        (
            number(Some(10 * MINUTE + 1), false, None),
            waiting.clone(),
            Webhook::Pending,
            Some("qr_not_scanned"),
        ),
        (number(Some(10 * MINUTE), false, None), waiting.clone(), Webhook::Pending, None),
        (number(Some(11 * MINUTE), true, None), waiting.clone(), Webhook::Pending, None),
        (number(None, false, None), waiting, Webhook::Pending, None),
    ] {
        let due = Advice::for_number(&number, &known, webhook, NOW).map(|advice| advice.code);
        assert_eq!(due, expected, "{number:?} {:?} {webhook:?}", known.state);
    }
}

#[test]
fn advice_says_what_is_wrong_and_then_what_to_do() {
    let number = number(None, true, None);
    let due = Advice::for_number(&number, &seen(SessionState::Lost, None), Webhook::Pending, NOW).unwrap();
    let (what, action) = (say::SESSION_LOST.text(Language::Russian), say::RECONNECT.text(Language::Russian));
    assert_eq!(due.text(Language::Russian), format!("{what} {action}"));
}

/// Returns the interval for a number with credentials and a snapshot of these ages, in seconds.
fn interval(
    credentials: i64,
    snapshot: Option<(&str, i64)>,
    linked: bool,
    state: State,
    freshness: Freshness,
) -> Option<u64> {
    let snapshot = snapshot.map(|(status, age)| (status, age * 1000));
    let number = number(Some(credentials * 1000), linked, snapshot);
    let seen_at = number.snapshot.as_ref().map(|snapshot| snapshot.at);
    poll_interval(&number, state, freshness, seen_at, NOW).map(|interval| interval.as_secs())
}

#[test]
fn the_poll_interval_grows_from_2_to_15_seconds() {
    use Freshness::{Live, Stale};
    for (age, seconds) in
        [(0, 2), (-60, 2), (89, 2), (90, 3), (119, 3), (300, 10), (449, 14), (450, 15), (100_000, 15)]
    {
        assert_eq!(interval(age, None, false, State::QrIssued, Live), Some(seconds), "{age}");
        assert_eq!(
            interval(100_000, Some(("pairing", age)), true, State::QrPending, Live),
            Some(seconds),
            "{age}"
        );
        assert_eq!(
            interval(0, Some(("connected", age)), true, State::Connected, Stale),
            Some(seconds),
            "{age}"
        );
    }
}

#[test]
fn number_waiting_since_an_unknown_time_is_polled_soon() {
    let linked_before = interval(100_000, Some(("qr_issued", 5)), true, State::QrIssued, Freshness::Live);
    assert_eq!(linked_before, Some(2));
    let starting = interval(100_000, Some(("connected", 100_000)), true, State::QrPending, Freshness::Live);
    assert_eq!(starting, Some(2));
}

#[test]
fn stable_state_needs_no_poll() {
    for state in [State::Connected, State::Disconnected] {
        for freshness in [Freshness::Live, Freshness::Recent] {
            assert_eq!(interval(0, Some(("connected", 0)), true, state, freshness), None);
        }
    }
}
