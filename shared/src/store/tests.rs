use super::*;
use crate::secret::Secret;
use crate::testing::{Server, TestNumber};

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

async fn store(key: ServiceKey) -> (Server, Store) {
    let server = Server::start("").await;
    let store =
        Store::new(&format!("{}/", server.url), &key, Upstream::new(Duration::from_secs(20), &[]).unwrap());
    (server, store)
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.rsplit("\r\n").next().unwrap()).unwrap()
}

#[tokio::test]
async fn a_function_is_called_without_null_parameters() {
    let secret = Secret::new("k");
    for (key, bearer) in [(ServiceKey::New(secret.clone()), false), (ServiceKey::Legacy(secret), true)] {
        let (server, store) = store(key).await;
        server.says_to("/rest/v1/rpc/wpp_find_number ", 200, r#"{"now_ms":7}"#);
        let selector = NumberSelector { session: Some("4".to_owned()), integration_id: None };
        let found = store.find(Uuid::nil(), &selector, deadline()).await.unwrap();
        assert_eq!((found.now, found.organization_id, found.number.is_none()), (UnixMs(7), None, true));
        let heard = server.heard().remove(0);
        assert!(heard.starts_with("POST /rest/v1/rpc/wpp_find_number ") && heard.contains("apikey: k\r\n"));
        assert!(heard.contains("content-profile: public\r\n"), "{heard}");
        assert_eq!(heard.contains("authorization: Bearer k\r\n"), bearer, "{heard}");
        assert_eq!(body(&heard), json!({"p_user_id": Uuid::nil(), "p_session": "4"}));
    }
}

#[tokio::test]
async fn number_with_unreadable_settings_is_an_error() {
    let (server, store) = store(ServiceKey::New(Secret::new("k"))).await;
    for (is_readable, expected) in [(true, None), (false, Some(StoreError::SettingsUnreadable))] {
        let number = TestNumber::new().with("is_readable", is_readable).row;
        server.says_to("", 200, &json!({"now_ms": 7, "number": number}).to_string());
        let found = store.find(Uuid::nil(), &NumberSelector::default(), deadline()).await;
        assert_eq!(found.err().map(|error| error.why), expected);
    }
}

#[tokio::test]
async fn a_failure_names_the_function() {
    let (server, store) = store(ServiceKey::New(Secret::new("k"))).await;
    let lease = CreationLease { organization_id: Uuid::nil(), creation: Uuid::nil(), holder: Uuid::nil() };
    for (status, body, why) in [
        (404, r#"{"code":"PGRST202"}"#, StoreError::NotMigrated),
        (400, r#"{"code":"P0001"}"#, StoreError::Refused { status: 400, code: "P0001".to_owned() }),
        (404, "", StoreError::Unavailable { retry_after: Some(Duration::from_secs(7)) }),
        (200, "<html>", StoreError::BadAnswer),
        (200, r#"{"outcome":"unreadable"}"#, StoreError::SettingsUnreadable),
        (200, r#"{"outcome":"of a later release"}"#, StoreError::BadAnswer),
    ] {
        server.says_to("", status, body);
        let call = "wpp_assign_platform_id";
        let assigned = store.assign_platform_id(&lease, deadline()).await;
        assert_eq!(assigned.unwrap_err(), CallError { call, why: why.clone() });
        // If a function returns nothing, nothing is read.
        let released = store.release_creation(&lease, deadline()).await;
        let why = (status != 200).then_some(CallError { call: "wpp_release_creation", why });
        assert_eq!(released.err(), why);
        assert_eq!(server.heard().len(), 2, "each is asked once");
    }
}

const ISSUED_AT_FUTURE: &str = r#"{"code":"PGRST303","message":"JWT issued at future"}"#;

#[tokio::test]
async fn clock_difference_is_retried_once() {
    for (limit_ms, at_least_ms) in [(20_000, 500), (400, 50)] {
        let (server, store) = store(ServiceKey::New(Secret::new("k"))).await;
        server.says_to("", 401, ISSUED_AT_FUTURE);
        let deadline = Deadline::within(Duration::from_millis(limit_ms));
        let saved = store.save_snapshot(Uuid::nil(), "4", State::Connected, None, true, UnixMs(7), deadline);
        let mend = async {
            while server.heard().is_empty() {
                tokio::task::yield_now().await;
            }
            server.says_to("", 200, "null");
        };
        let (saved, ()) = tokio::join!(saved, mend);
        assert_eq!((saved.unwrap().is_none(), server.requests()), (true, 2), "{limit_ms}");
        let used = Duration::from_millis(limit_ms) - deadline.remaining();
        assert!(used >= Duration::from_millis(at_least_ms), "{limit_ms}: {used:?}");
    }
}

#[tokio::test]
async fn lasting_clock_difference_is_an_outage() {
    let (server, store) = store(ServiceKey::Legacy(Secret::new("k"))).await;
    server.says_to("", 401, ISSUED_AT_FUTURE);
    let found = store.find(Uuid::nil(), &NumberSelector::default(), deadline()).await;
    assert!(matches!(found.unwrap_err().why, StoreError::Unavailable { .. }));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn state_is_saved_in_the_snapshots_words() {
    let (server, store) = store(ServiceKey::New(Secret::new("k"))).await;
    server.says_to("", 200, "null");
    for (state, word) in [
        (State::Connected, "connected"),
        (State::QrIssued, "qr_issued"),
        (State::QrPending, "pairing"),
        (State::Disconnected, "disconnected"),
    ] {
        let saved = store.save_snapshot(Uuid::nil(), "4", state, None, true, UnixMs(7), deadline()).await;
        assert!(saved.unwrap().is_none());
        let expected = json!({"p_organization_id": Uuid::nil(), "p_session": "4", "p_status": word, "p_may_insert": true, "p_at_ms": 7});
        assert_eq!(body(&server.heard().remove(0)), expected);
    }
}

#[test]
fn a_key_is_new_for_a_minute() {
    for (saved, now, is_new) in [(Some(0), 59_999, true), (Some(0), 60_000, false), (None, 0, false)] {
        let row = TestNumber::new().with("credentials_saved_at_ms", saved).row;
        let number: Number = serde_json::from_value(row).unwrap();
        assert_eq!(number.key_is_new(UnixMs(now)), is_new, "{saved:?} {now}");
    }
}
