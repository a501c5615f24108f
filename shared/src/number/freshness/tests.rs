use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// A number with credentials and a snapshot of these ages in seconds, as `wpp_find_number` shows it.
fn number(credentials: i64, snapshot: Option<(&str, i64)>, linked: bool) -> Number {
    let ago = |seconds: i64| json!(NOW.0 - seconds * 1000);
    serde_json::from_value(json!({
        "integration_id": Uuid::nil(), "organization_id": Uuid::nil(), "settings": {}, "connected_is_news": false, "is_readable": true, "ignored": [],
        "credentials_saved_at_ms": ago(credentials), "first_connected_at_ms": linked.then(|| ago(0)),
        "snapshot": snapshot.map(|(status, age)| json!({"status": status, "at_ms": ago(age)})),
    }))
    .unwrap()
}

fn told(number: &Number, state: State, source: Source) -> Value {
    json!(Freshness::of(number, state, None, source, NOW))
}

#[test]
fn the_pause_grows_with_the_time_in_which_nothing_has_happened_from_2_to_15_seconds() {
    for (age, pause) in [
        (0, 2_000),
        (-60, 2_000),
        (89, 2_000),
        (90, 3_000),
        (119, 3_000),
        (300, 10_000),
        (449, 14_000),
        (450, 15_000),
        (1_000_000, 15_000),
    ] {
        let waiting = number(age, None, false);
        let starting = number(1_000_000, Some(("pairing", age)), true);
        let out_of_reach = number(0, Some(("connected", age)), true);
        for (number, state, source) in [
            (waiting, State::QrIssued, Source::Live),
            (starting, State::QrPending, Source::Live),
            (out_of_reach, State::Connected, Source::Stale),
        ] {
            assert_eq!(told(&number, state, source)["poll_after_ms"], pause, "{state:?} for {age} s");
        }
    }
}

#[test]
fn a_number_of_which_nobody_knows_since_when_it_waits_is_asked_about_soon() {
    let linked_before = number(1_000_000, Some(("qr_issued", 5)), true);
    assert_eq!(told(&linked_before, State::QrIssued, Source::Live)["poll_after_ms"], 2_000);
    let news = number(1_000_000, Some(("connected", 1_000_000)), true);
    assert_eq!(told(&news, State::QrPending, Source::Live)["poll_after_ms"], 2_000);
}

#[test]
fn of_a_state_that_nothing_follows_by_itself_there_is_no_more_to_ask_unless_it_is_stale() {
    let number = number(0, Some(("connected", 0)), true);
    for state in [State::Connected, State::Disconnected] {
        for source in [Source::Live, Source::Remembered] {
            assert_eq!(told(&number, state, source)["poll_after_ms"], Value::Null);
        }
        assert_eq!(told(&number, state, Source::Stale)["poll_after_ms"], 2_000);
    }
}

#[test]
fn what_is_live_was_seen_now_and_all_else_when_the_mirror_was_written() {
    let number = number(0, Some(("connected", 60)), true);
    let (now, then) = ("2027-01-15T08:00:00.000Z", "2027-01-15T07:59:00.000Z");
    for (source, seen_at, stale) in [
        (Source::Live, now, Value::Null),
        (Source::Remembered, then, Value::Null),
        (Source::Stale, then, json!(true)),
    ] {
        let told = told(&number, State::Connected, source);
        assert_eq!((&told["source"], &told["seen_at"]), (&json!(source), &json!(seen_at)));
        assert_eq!(told["stale"], stale);
    }
}

#[test]
fn a_qr_is_good_for_25_seconds_from_when_it_was_first_seen() {
    let told = json!(Freshness::of(&number(0, None, false), State::QrIssued, Some(NOW), Source::Live, NOW));
    assert_eq!(told["last_qr_at"], "2027-01-15T08:00:00.000Z");
    assert_eq!(told["qr_good_until"], "2027-01-15T08:00:25.000Z");
}
