use serde_json::json;

use super::*;

/// Makes a snapshot as the functions of `migrations/` return it.
fn snapshot(status: &str, qr: Option<&str>, at: UnixMs) -> Snapshot {
    serde_json::from_value(json!({"status": status, "qr": qr, "qr_at_ms": at, "at_ms": at})).unwrap()
}

#[test]
fn an_unknown_word_in_a_snapshot_means_disconnected() {
    for (word, qr, state) in [
        ("connected", None, State::Connected),
        ("connected", Some("2@"), State::Connected),
        ("qr_issued", Some("2@"), State::QrIssued),
        ("qr_issued", None, State::QrPending),
        ("pairing", None, State::QrPending),
        ("disconnected", None, State::Disconnected),
        ("disconnected", Some("2@"), State::Disconnected),
        ("qr_pending", None, State::Disconnected),
        ("", None, State::Disconnected),
    ] {
        let view = KnownState::of_snapshot(&snapshot(word, qr, UnixMs(7)), UnixMs(8));
        assert_eq!(view.state, state, "{word}");
        assert_eq!(view.qr.as_deref(), qr.filter(|_| state == State::QrIssued), "{word}");
        assert_eq!(view.qr_at, view.qr.as_ref().map(|_| UnixMs(7)), "{word}");
    }
}

#[test]
fn stored_qr_is_used_while_it_can_be_scanned() {
    for (now, state) in [(25_006, State::QrIssued), (25_007, State::QrPending)] {
        let view = KnownState::of_snapshot(&snapshot("qr_issued", Some("2@"), UnixMs(7)), UnixMs(now));
        assert_eq!((view.state, view.qr.is_some()), (state, state == State::QrIssued));
    }
}

#[test]
fn each_platform_status_has_its_state() {
    for (word, qr, told, kept) in [
        ("connected", Some("2@"), "connected", "connected"),
        ("offline", Some("2@"), "disconnected", "disconnected"),
        ("starting", None, "qr_pending", "pairing"),
        ("starting", Some("2@"), "qr_issued", "qr_issued"),
        ("passkey_required", None, "qr_pending", "pairing"),
    ] {
        let state = match word {
            "connected" => SessionState::Connected,
            "offline" => SessionState::Offline,
            "starting" => SessionState::Starting,
            _ => SessionState::PasskeyRequired,
        };
        let view = KnownState::live(Status { state, word: word.to_owned() }, qr.map(str::to_owned));
        assert_eq!(json!(view.state), told, "{word}");
        let stored = snapshot(kept, view.qr.as_deref(), UnixMs(7));
        assert!(view.is_in(&stored), "{word}");
        assert_eq!(view.qr.as_deref(), qr.filter(|_| told == "qr_issued"), "{word}");
    }
}

#[test]
fn only_observed_states_are_saved() {
    assert!(KnownState::qr_issued("2@".to_owned()).is_reported() && KnownState::lost().is_reported());
    assert!(!KnownState::starting().is_reported());
    assert_eq!((KnownState::lost().state, KnownState::lost().platform_status()), (State::Disconnected, None));
}

#[test]
fn a_snapshot_with_another_state_or_qr_differs() {
    let view = KnownState::qr_issued("2@".to_owned());
    let is_in = |status, qr| view.is_in(&snapshot(status, qr, UnixMs(7)));
    assert!(is_in("qr_issued", Some("2@")));
    assert!(!is_in("pairing", Some("2@")) && !is_in("qr_issued", Some("1@")) && !is_in("qr_issued", None));
}

fn recent(status: &str, qr: Option<&str>, age_ms: i64) -> Option<State> {
    let (now, at) = (UnixMs(1_000_000), UnixMs(1_000_000 - age_ms));
    KnownState::recent(&snapshot(status, qr, at), now).map(|view| view.state)
}

#[test]
fn connected_is_fresh_for_10_s_and_a_qr_for_25_s() {
    assert_eq!(recent("connected", None, 9_999), Some(State::Connected));
    assert_eq!(recent("connected", None, 10_000), None);
    assert_eq!(recent("qr_issued", Some("2@"), 24_999), Some(State::QrIssued));
    assert_eq!(recent("qr_issued", Some("2@"), 25_000), None);
}

#[test]
fn other_states_and_future_times_are_never_fresh() {
    assert_eq!(recent("pairing", None, 0), None);
    assert_eq!(recent("disconnected", None, 0), None);
    assert_eq!(recent("qr_issued", None, 0), None);
    assert_eq!(recent("connected", None, -1), None);
}

#[test]
fn qr_of_a_snapshot_is_not_printed() {
    let printed = format!("{:?}", snapshot("qr_issued", Some("2@secret"), UnixMs(7)));
    assert_eq!(printed, "Snapshot { state: QrIssued, .. }");
}
