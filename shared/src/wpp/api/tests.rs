use PlatformError as P;

use super::*;
use crate::testing::{Server, reply};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

async fn platform(base: &str) -> (Server, WppApi) {
    let server = Server::start("").await;
    let base = Url::parse(&format!("{}{base}", server.url)).unwrap();
    (server, WppApi::new(base, Upstream::new(Duration::from_secs(20), &[]).unwrap()))
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

/// Returns the result of each call for the server's answer, by the call's name.
async fn outcomes(platform: &WppApi) -> [(&'static str, Option<CallError<PlatformError>>); 6] {
    let secret = secret();
    [
        ("create", platform.create_client(&secret, "id", deadline()).await.err()),
        ("auth/token", platform.get_initial_token(&secret, NOW, deadline()).await.err()),
        ("status", platform.status(auth("4"), deadline()).await.err()),
        ("qr", platform.qr(auth("4"), deadline()).await.err()),
        ("start", platform.start(auth("4"), deadline()).await.err()),
        ("webhook", platform.set_webhook(auth("4"), "u", deadline()).await.err()),
    ]
}

/// What a refusal means for `WPP_SECRET`, for an API key, and for a number's token. Other tests cover the exceptions of the QR, the
/// start and the webhook.
#[tokio::test]
async fn refusal_is_mapped_by_status_and_credential() {
    let own = r#"{"error":"no"}"#;
    let html = "<!DOCTYPE html>";
    let (server, platform) = platform("").await;
    for (status, body, [by_secret, by_key, by_token]) in [
        (401, own, [P::SecretRefused, P::KeyRefused, P::TokenRejected]),
        (401, "Unauthorized", [P::SecretRefused, P::KeyRefused, P::TokenRejected]),
        (401, "", [P::SecretRefused, P::KeyRefused, P::TokenRejected]),
        (401, html, [P::Unavailable; 3]),
        (403, own, [P::SecretRefused, P::KeyRefused, P::NumberRefused(403)]),
        (403, "", [P::SecretRefused, P::KeyRefused, P::NumberRefused(403)]),
        (403, "[]", [P::SecretRefused, P::KeyRefused, P::NumberRefused(403)]),
        (403, html, [P::Unavailable; 3]),
        (403, "error code: 1010", [P::Unavailable; 3]),
        (403, "RBAC: access denied", [P::Unavailable; 3]),
        (404, own, [P::Refused(404), P::Refused(404), P::UnknownSession]),
        (404, " \n", [P::Unavailable; 3]),
        (404, "404 page not found\n", [P::Unavailable; 3]),
        (404, "[]", [P::Unavailable; 3]),
        (404, html, [P::Unavailable; 3]),
        (400, own, [P::Refused(400), P::Refused(400), P::NumberRefused(400)]),
        (400, "Bad Request", [P::Refused(400), P::Refused(400), P::NumberRefused(400)]),
        (413, html, [P::Unavailable; 3]),
        (408, own, [P::TimedOut; 3]),
        (429, own, [P::Busy(Some(Duration::from_secs(7))); 3]),
        (499, own, [P::Refused(499), P::Refused(499), P::NumberRefused(499)]),
        (500, own, [P::Unavailable; 3]),
        (599, own, [P::Unavailable; 3]),
        (301, own, [P::BadAnswer; 3]),
    ] {
        server.says(reply(status, body));
        for (call, error) in outcomes(&platform).await {
            let why = match call {
                "create" => by_secret,
                "auth/token" => by_key,
                "qr" if status == 404 => continue,
                "webhook" if by_token == P::UnknownSession => P::NumberRefused(404),
                _ => by_token,
            };
            assert_eq!(error, Some(CallError { call, why }), "{status} {body}");
        }
    }
}

#[tokio::test]
async fn qr_404_means_no_qr() {
    let (server, platform) = platform("").await;
    for body in [r#"{"error":"no QR"}"#, "[]", "Not found", "", "<html>"] {
        server.says(reply(404, body));
        assert_eq!(platform.qr(auth("4"), deadline()).await, Ok(None), "{body}");
    }
}

#[tokio::test]
async fn success_with_bad_body_is_a_bad_answer() {
    let (server, platform) = platform("").await;
    for body in ["", "<html>", "7", "[]", r#"{"status":7,"qr":7,"apiKey":"","token":""}"#] {
        server.says(reply(200, body));
        for (call, error) in outcomes(&platform).await {
            let means_yes = matches!(call, "start" | "webhook") && body != "<html>";
            let expected = (!means_yes).then_some(CallError { call, why: P::BadAnswer });
            assert_eq!(error, expected, "{body}");
        }
    }
    for incomplete in [r#"{"apiKey":"k","session":""}"#, r#"{"apiKey":"","session":"4"}"#] {
        server.says(reply(200, incomplete));
        let given = platform.create_client(&secret(), "id", deadline()).await;
        assert_eq!(given.unwrap_err().why, P::BadAnswer, "{incomplete}");
    }
}

#[tokio::test]
async fn any_2xx_counts_as_success() {
    let (server, platform) = platform("").await;
    for (status, body) in
        [(204, ""), (202, ""), (200, ""), (200, "OK"), (201, "null"), (200, "[]"), (200, r#"{"qr":7}"#)]
    {
        server.says(reply(status, body));
        assert_eq!(platform.start(auth("4"), deadline()).await, Ok((None, None)), "{status} {body}");
        assert_eq!(platform.set_webhook(auth("4"), "u", deadline()).await, Ok(()), "{status} {body}");
    }
}

#[tokio::test]
async fn session_already_running_counts_as_started() {
    let (server, platform) = platform("").await;
    let started = Ok((None, None));
    let refused = |why| Err(CallError { call: "start", why });
    for (status, body, expected) in [
        (409, r#"{"error":"busy","qr":"2@"}"#, started.clone()),
        (409, "", started.clone()),
        (409, "<html>", refused(P::Unavailable)),
        (400, r#"{"message":"Session Already started"}"#, started.clone()),
        (403, "already running", started.clone()),
        (422, r#"{"status":"already"}"#, started.clone()),
        (500, r#"{"error":"already exists"}"#, started),
        (500, "<html>already</html>", refused(P::Unavailable)),
        (404, r#"{"error":"already gone"}"#, refused(P::UnknownSession)),
        (422, r#"{"error":"no"}"#, refused(P::NumberRefused(422))),
    ] {
        server.says(reply(status, body));
        assert_eq!(platform.start(auth("4"), deadline()).await, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn oversized_text_or_control_characters_are_refused() {
    let (server, platform) = platform("").await;
    let given = async |key: &str, session: &str| {
        server.says(reply(200, &json!({"apiKey": key, "session": session}).to_string()));
        platform.create_client(&secret(), "id", deadline()).await.map_err(|error| error.why)
    };
    let long = |length| "x".repeat(length);
    for (key, session) in [(&*long(512), "4"), (" k\n", "4"), ("k", &long(128)), ("k", "a.b_c-d+e@f:g")] {
        let (api_key, session) = (Secret::new(key.trim()), session.to_owned());
        assert_eq!(given(key, &session).await, Ok(Credentials { api_key, session: session.clone() }));
    }
    for (key, session) in [
        (&*long(513), "4"),
        ("a\u{0}b", "4"),
        ("a\nb", "4"),
        ("a\u{9b}b", "4"),
        ("\n", "4"),
        ("k", &long(129)),
        ("k", "."),
        ("k", ".."),
        ("k", "a/b"),
        ("k", "a b"),
        ("k", " 4"),
        ("k", "\u{e9}"),
    ] {
        assert_eq!(given(key, session).await, Err(P::BadAnswer), "{key:?} {session:?}");
    }
    for (text, is_token, is_qr) in [
        (long(8 * 1024), true, true),
        (long(8 * 1024 + 1), false, true),
        (long(64 * 1024), false, true),
        (long(64 * 1024 + 1), false, false),
        ("a\u{7f}b".to_owned(), false, false),
        ("a\r\nb".to_owned(), false, false),
        ("text\n".to_owned(), true, true),
    ] {
        let (kept, length) = (text.trim().to_owned(), text.len());
        server.says(reply(200, &json!({"token": text, "qr": text}).to_string()));
        let token = platform.get_initial_token(&secret(), NOW, deadline()).await.map(|token| token.jwt);
        let token = token.map_err(|error| error.why);
        assert_eq!(
            token,
            if is_token { Ok(Secret::new(kept.clone())) } else { Err(P::BadAnswer) },
            "{length}"
        );
        let qr = platform.qr(auth("4"), deadline()).await.map_err(|error| error.why);
        let expected = if is_qr { Ok(Some(kept.clone())) } else { Err(P::BadAnswer) };
        assert_eq!(qr, expected, "{length}");
        // The session was started anyway.
        let started = platform.start(auth("4"), deadline()).await;
        assert_eq!(started, Ok((None, is_qr.then_some(kept))), "{length}");
    }
}

#[tokio::test]
async fn a_dot_segment_never_shortens_a_path() {
    let (server, platform) = platform("/base").await;
    for (session, segment) in [(".", "%252E"), ("..", "%252E%252E"), ("...", "..."), ("%2e%2E", "%252e%252E")]
    {
        server.says(reply(200, "{}"));
        platform.set_webhook(auth(session), "u", deadline()).await.unwrap();
        let heard = server.heard().remove(0);
        let path = format!("POST /base/internal/session/{segment}/webhook HTTP/1.1\r\n");
        assert!(heard.starts_with(&path), "{heard}");
    }
}

#[tokio::test]
async fn timed_out_call_is_named() {
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
    let given = platform.create_client(&secret, "o__wpp__1", deadline()).await.unwrap();
    assert_eq!(given, Credentials { api_key: Secret::new("k"), session: "4".to_owned() });
    heard("POST /base/api/integrations/wpp/create", true, r#"{"organizationId":"o__wpp__1"}"#);
    assert_eq!(platform.get_initial_token(&secret, NOW, deadline()).await.unwrap().jwt, Secret::new("t"));
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
fn unknown_status_means_qr_required() {
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
fn qr_is_found_in_four_fields() {
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
async fn start_may_return_a_qr_and_a_state() {
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
