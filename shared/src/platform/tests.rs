use PlatformError as P;

use super::*;
use crate::upstream::testing::{Server, reply};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

async fn platform(base: &str) -> (Server, Platform) {
    let server = Server::start("").await;
    let base = Url::parse(&format!("{}{base}", server.url)).unwrap();
    (server, Platform::new(base, Upstream::new(Duration::from_secs(20), &[]).unwrap()))
}

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

fn secret() -> Secret {
    Secret::new("s")
}

fn auth(session: &str) -> SessionAuth {
    SessionAuth { session: session.to_owned(), jwt: secret() }
}

/// What each call makes of whatever the server says, by the call's name.
async fn outcomes(platform: &Platform) -> [(&'static str, Option<CallError<PlatformError>>); 6] {
    let secret = secret();
    [
        ("create", platform.create(&secret, "id", deadline()).await.err()),
        ("auth/token", platform.token(&secret, NOW, deadline()).await.err()),
        ("status", platform.status(auth("4"), deadline()).await.err()),
        ("qr", platform.qr(auth("4"), deadline()).await.err()),
        ("start", platform.start(auth("4"), deadline()).await.err()),
        ("webhook", platform.set_webhook(auth("4"), "u", deadline()).await.err()),
    ]
}

/// What it means for our secret, for an API key, and for a number's token.
#[tokio::test]
async fn a_refusal_means_what_its_words_say_for_the_credential() {
    let own = r#"{"error":"no"}"#;
    let html = "<!DOCTYPE html>";
    let (server, platform) = platform("").await;
    for (status, body, [by_secret, by_key, by_token]) in [
        (401, own, [P::SecretRefused, P::KeyRefused, P::TokenRejected]),
        (401, "Unauthorized", [P::SecretRefused, P::KeyRefused, P::TokenRejected]),
        (401, "", [P::SecretRefused, P::KeyRefused, P::TokenRejected]),
        (401, html, [P::Unavailable; 3]),
        (403, own, [P::SecretRefused, P::KeyRefused, P::Refused(403)]),
        (403, "", [P::SecretRefused, P::KeyRefused, P::Refused(403)]),
        (403, "[]", [P::SecretRefused, P::KeyRefused, P::Refused(403)]),
        (403, html, [P::Unavailable; 3]),
        (404, own, [P::Refused(404), P::Refused(404), P::UnknownSession]),
        (404, " \n", [P::Unavailable; 3]),
        (404, "404 page not found\n", [P::Unavailable; 3]),
        (404, "[]", [P::Unavailable; 3]),
        (404, html, [P::Unavailable; 3]),
        (400, own, [P::Refused(400); 3]),
        (400, "Bad Request", [P::Refused(400); 3]),
        (413, html, [P::Unavailable; 3]),
        (408, own, [P::TimedOut; 3]),
        (429, own, [P::Busy(Some(Duration::from_secs(7))); 3]),
        (499, own, [P::Refused(499); 3]),
        (500, own, [P::Unavailable; 3]),
        (599, own, [P::Unavailable; 3]),
        (301, own, [P::BadAnswer; 3]),
    ] {
        server.says(reply(status, body));
        for (call, error) in outcomes(&platform).await {
            let why = match call {
                "create" => by_secret,
                "auth/token" => by_key,
                _ => by_token,
            };
            assert_eq!(error, Some(CallError { call, why }), "{status} {body}");
        }
    }
}

#[tokio::test]
async fn a_good_status_with_a_bad_body_is_a_bad_answer_except_where_nobody_reads_it() {
    let (server, platform) = platform("").await;
    for body in ["", "<html>", "7", "[]", r#"{"status":7,"qr":7,"apiKey":"","token":""}"#] {
        server.says(reply(200, body));
        for (call, error) in outcomes(&platform).await {
            let expected = (call != "webhook").then_some(CallError { call, why: P::BadAnswer });
            assert_eq!(error, expected, "{body}");
        }
    }
    for incomplete in [r#"{"apiKey":"k","session":""}"#, r#"{"apiKey":"","session":"4"}"#] {
        server.says(reply(200, incomplete));
        let given = platform.create(&secret(), "id", deadline()).await;
        assert_eq!(given.unwrap_err().why, P::BadAnswer, "{incomplete}");
    }
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_says_which() {
    let (server, platform) = platform("").await;
    server.says("HTTP/1.1 200 X\r\n");
    let late = platform.status(auth("4"), Deadline::within(Duration::from_millis(300))).await;
    assert_eq!(late.unwrap_err().to_string(), "status: timed out");
}

#[tokio::test]
async fn each_call_is_sent_to_its_path_with_its_credential_and_body() {
    let (server, platform) = platform("/base/").await;
    let session = "a b/../\u{e9}?#%";
    let encoded = "a%20b%2F..%2F%C3%A9%3F%23%25";
    let accounts = format!("/base/api/accounts/{encoded}");
    let webhook = format!("POST /base/internal/session/{encoded}/webhook");
    let secret = secret();
    let heard = |call: &str, bearer: bool, body: &str| {
        let heard = server.heard().remove(0);
        assert!(heard.starts_with(&format!("{call} HTTP/1.1\r\n")), "{heard}");
        assert_eq!(heard.contains("authorization: Bearer s\r\n"), bearer, "{heard}");
        assert_eq!(heard.contains("content-type: application/json\r\n"), !body.is_empty(), "{heard}");
        assert!(heard.ends_with(&format!("\r\n\r\n{body}")), "{heard}");
    };
    server.says(reply(200, r#"{"apiKey":"k","session":"4","token":"t","status":"ready"}"#));
    let given = platform.create(&secret, "o__wpp__1", deadline()).await.unwrap();
    assert_eq!(given, Credentials { api_key: Secret::new("k"), session: "4".to_owned() });
    heard("POST /base/api/integrations/wpp/create", true, r#"{"organizationId":"o__wpp__1"}"#);
    assert_eq!(platform.token(&secret, NOW, deadline()).await.unwrap().jwt, Secret::new("t"));
    heard("POST /base/auth/token", false, r#"{"apiKey":"s"}"#);
    platform.status(auth(session), deadline()).await.unwrap();
    heard(&format!("GET {accounts}/status"), true, "");
    platform.qr(auth(session), deadline()).await.unwrap();
    heard(&format!("GET {accounts}/qr"), true, "");
    platform.start(auth("4"), deadline()).await.unwrap();
    heard("POST /base/api/accounts/start", true, r#"{"number":"4"}"#);
    platform.set_webhook(auth(session), "https://hook", deadline()).await.unwrap();
    heard(&webhook, true, r#"{"url":"https://hook"}"#);
}

#[tokio::test]
async fn a_token_that_cannot_be_a_header_is_rejected_without_a_call() {
    let (server, platform) = platform("").await;
    let refused =
        platform.status(SessionAuth { jwt: Secret::new("line\nbreak"), ..auth("4") }, deadline()).await;
    assert_eq!(refused, Err(CallError { call: "status", why: P::TokenRejected }));
    assert_eq!(server.requests(), 0);
}

#[test]
fn the_words_of_a_state_are_known_in_any_case_and_another_one_means_that_a_qr_is_needed() {
    use SessionState::{Connected, Offline, PasskeyRequired, QrRequired, Starting};
    for (word, state) in [
        ("connected", Connected),
        (" Ready ", Connected),
        ("STARTING", Starting),
        ("pending", Starting),
        ("offline", Offline),
        ("Disconnected", Offline),
        ("passkey_required", PasskeyRequired),
        ("passkey_confirmation_required", PasskeyRequired),
        ("qr_required", QrRequired),
        ("something new", QrRequired),
        ("", QrRequired),
    ] {
        assert_eq!(Status::of(word), Status { state, word: word.trim().to_owned() });
    }
    assert_eq!(Status::of(&"x".repeat(65)).word, "x".repeat(64));
}

#[test]
fn a_qr_is_found_in_four_places_and_an_empty_one_is_none() {
    let qr = |answer| qr_in(&answer);
    let some = || Ok(Some("2@".to_owned()));
    for place in ["qr", "qrCode", "qrcode"] {
        assert_eq!(qr(json!({place: "2@"})), some(), "{place}");
        assert_eq!(qr(json!({place: 7})), Err(P::BadAnswer), "{place}");
    }
    assert_eq!(qr(json!({"data": {"qr": "2@"}})), some());
    assert_eq!(qr(json!({"qr": null, "qrcode": "2@", "data": {"qr": "other"}})), some());
    assert_eq!(qr(json!({"qr": "", "qrcode": "2@"})), some());
    for none in
        [json!({}), json!({"qr": ""}), json!({"qr": null}), json!({"data": {}}), json!({"data": "2@"})]
    {
        assert_eq!(qr(none.clone()), Ok(None), "{none}");
    }
    assert_eq!(qr(json!(["2@"])), Err(P::BadAnswer));
}

#[tokio::test]
async fn a_start_may_bring_a_qr_and_a_state_under_either_name() {
    let (server, platform) = platform("").await;
    for (body, qr, word) in [
        ("{}", None, None),
        (r#"{"qr":"2@"}"#, Some("2@"), None),
        (r#"{"status":"ready","state":"pending"}"#, None, Some("ready")),
        (r#"{"state":"pending","qrCode":"2@"}"#, Some("2@"), Some("pending")),
        (r#"{"status":null,"state":"pending"}"#, None, Some("pending")),
        (r#"{"status":7}"#, None, None),
    ] {
        server.says(reply(201, body));
        let started = platform.start(auth("4"), deadline()).await.unwrap();
        let expected = (word.map(Status::of), qr.map(str::to_owned));
        assert_eq!(started, expected, "{body}");
    }
}
