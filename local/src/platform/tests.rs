use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::*;
use crate::fault_injector::Fault;
use crate::http::client;

/// The organization of most tests.
const ORG: &str = "5f0c8a52-0000-4000-8000-000000000001";

struct Caller {
    platform: Platform,
    client: Client,
}

impl Caller {
    async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    async fn start_with(settings: Settings) -> Self {
        let platform = Platform::start(settings).await.unwrap();
        let client = client().unwrap();
        Self { platform, client }
    }

    async fn call(&self, method: Method, path: &str, bearer: &str, body: &str) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.platform.url()));
        let request = request.bearer_auth(bearer).body(body.to_owned());
        let response = request.header("content-type", "application/json").send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    async fn post(&self, path: &str, bearer: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, bearer, &body.to_string()).await
    }

    async fn create(&self, organization_id: &str) -> (String, String) {
        let body = json!({"organizationId": organization_id});
        let (status, answer) = self.post("/api/integrations/wpp/create", &self.platform.secret(), body).await;
        assert_eq!(status, 200, "{answer}");
        (text(&answer["apiKey"]), text(&answer["session"]))
    }

    async fn token(&self, api_key: &str) -> (u16, Value) {
        self.post("/auth/token", "", json!({"apiKey": api_key})).await
    }

    /// Makes a key, its session and a token for it.
    async fn account(&self) -> (String, String, String) {
        let (key, session) = self.create(ORG).await;
        let token = text(&self.token(&key).await.1["token"]);
        (key, session, token)
    }

    async fn status(&self, session: &str, token: &str) -> (u16, Value) {
        self.call(Method::GET, &format!("/api/accounts/{session}/status"), token, "").await
    }

    async fn qr(&self, session: &str, token: &str) -> (u16, Value) {
        self.call(Method::GET, &format!("/api/accounts/{session}/qr"), token, "").await
    }

    async fn begin(&self, session: &str, token: &str) -> (u16, Value) {
        self.post("/api/accounts/start", token, json!({"number": session})).await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn invalid_key() -> (u16, Value) {
    (403, json!({"error": "Invalid API key"}))
}

fn invalid_token() -> (u16, Value) {
    (401, json!({"error": "Invalid token"}))
}

fn said(status: &str) -> (u16, Value) {
    (200, json!({"status": status}))
}

#[tokio::test]
async fn a_number_is_linked_from_create_to_scan() {
    let caller = Caller::start().await;
    caller.platform.behave(|behavior| behavior.polls_until_qr = 2);
    let (key, session, token) = caller.account().await;
    assert_eq!(caller.status(&session, &token).await, said("offline"));
    assert_eq!(caller.begin(&session, &token).await, said("starting"));
    assert!(caller.platform.scan(&session).is_err());
    assert_eq!(caller.qr(&session, &token).await, (200, json!({"qr": null})));
    assert_eq!(caller.status(&session, &token).await, said("starting"));
    assert_eq!(caller.status(&session, &token).await, said("qr_required"));
    let first = text(&caller.qr(&session, &token).await.1["qr"]);
    assert!(first.starts_with("2@") && first.split(',').count() == 4, "{first}");
    assert_eq!(caller.platform.qr_of(&session), Some(first.clone()));
    caller.platform.advance(Duration::from_secs(20));
    assert_ne!(text(&caller.qr(&session, &token).await.1["qr"]), first);
    caller.platform.scan(&session).unwrap();
    assert_eq!(caller.status(&session, &token).await, said("connected"));
    assert_eq!(caller.qr(&session, &token).await.1["qr"], Value::Null);
    assert_eq!(caller.begin(&session, &token).await, said("connected"));
    assert_eq!(caller.platform.tokens_issued(&key), 1);
    assert_eq!(caller.platform.tokens_of(&session), [token]);
}

#[tokio::test]
async fn a_qr_is_shown_once_its_time_has_passed() {
    let caller = Caller::start().await;
    caller.platform.behave(|behavior| behavior.ms_until_qr = 600_000);
    let (_, session, token) = caller.account().await;
    caller.begin(&session, &token).await;
    assert_eq!(caller.status(&session, &token).await, said("starting"));
    assert_eq!(caller.qr(&session, &token).await, (200, json!({"qr": null})));
    caller.platform.advance(Duration::from_secs(600));
    assert_ne!(caller.qr(&session, &token).await.1["qr"], Value::Null);
}

#[tokio::test]
async fn one_organization_id_has_one_session_and_one_key() {
    let caller = Caller::start().await;
    let (key, session, token) = caller.account().await;
    assert_eq!(caller.create(ORG).await, (key.clone(), session.clone()));
    let second = caller.create(&format!("{ORG}__wpp__0a1b2c3d")).await;
    assert!(second.0 != key && second.1 != session);
    assert_eq!((caller.platform.clients(), caller.platform.create_calls()), (2, 3));
    assert_eq!(caller.platform.key_of(ORG).as_ref(), Some(&key));
    assert_eq!(caller.platform.session_of(ORG).as_ref(), Some(&session));
    assert!(session.len() == 13 && session.starts_with("00"), "{session}");

    caller.platform.revoke_key(&key);
    assert_eq!(caller.token(&key).await, invalid_key());
    assert_eq!(caller.status(&session, &token).await.0, 200);
    let mut last = key;
    for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
        caller.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        let (new, same_session) = caller.create(ORG).await;
        assert!(new != last && same_session == session);
        assert_eq!(caller.token(&last).await, invalid_key());
        assert_eq!(caller.token(&new).await.0, 200);
        last = new;
    }
}

#[tokio::test]
async fn new_key_is_refused_as_often_as_configured() {
    let caller = Caller::start().await;
    caller.platform.behave(|behavior| behavior.activate_after = 2);
    let (key, _) = caller.create(ORG).await;
    for refused in [true, true, false] {
        assert_eq!(caller.token(&key).await == invalid_key(), refused);
    }
    assert_eq!(caller.platform.tokens_issued(&key), 1);
}

#[tokio::test]
async fn tokens_expire_and_belong_to_one_session() {
    let caller = Caller::start().await;
    let (key, session, token) = caller.account().await;
    let (_, other) = caller.create("other").await;
    assert_eq!(caller.status(&other, &token).await.0, 403);
    assert_eq!(caller.status("0000000000004", &token).await, (404, json!({"error": "Session not found"})));
    assert_eq!(caller.status(&session, "strange").await, invalid_token());
    caller.platform.forget_tokens();
    assert_eq!(caller.status(&session, &token).await, invalid_token());
    let token = text(&caller.token(&key).await.1["token"]);
    caller.platform.advance(Duration::from_secs(3599));
    assert_eq!(caller.status(&session, &token).await.0, 200);
    caller.platform.advance(Duration::from_secs(1));
    assert_eq!(caller.status(&session, &token).await, invalid_token());
    assert!(caller.platform.tokens_of(&session).is_empty());
}

#[tokio::test]
async fn newest_token_only_refuses_older_tokens() {
    let caller = Caller::start().await;
    let (key, session, first) = caller.account().await;
    caller.token(&key).await;
    assert_eq!(caller.status(&session, &first).await.0, 200);
    caller.platform.behave(|behavior| behavior.accepted_tokens = AcceptedTokens::Newest);
    let newest = text(&caller.token(&key).await.1["token"]);
    assert_eq!(caller.status(&session, &first).await, invalid_token());
    assert_eq!(caller.platform.tokens_of(&session), [newest]);
}

#[tokio::test]
async fn token_answer_has_the_configured_expiry() {
    let caller = Caller::start().await;
    let (key, session) = caller.create(ORG).await;
    let cases = [
        (FieldValue::Truth, Some(json!(3600))),
        (FieldValue::Nothing, None),
        (FieldValue::This(json!("-5 s")), Some(json!("-5 s"))),
    ];
    for (expires_in, said) in cases {
        caller.platform.behave(|behavior| behavior.expires_in = expires_in);
        assert_eq!(caller.token(&key).await.1.get("expiresIn"), said.as_ref());
    }
    caller.platform.behave(|behavior| behavior.opaque_tokens = true);
    let opaque = text(&caller.token(&key).await.1["token"]);
    assert!(!opaque.contains('.'));
    assert_eq!(caller.status(&session, &opaque).await.0, 200);
}

#[tokio::test]
async fn a_qr_comes_in_every_form() {
    let caller = Caller::start().await;
    let (_, session, token) = caller.account().await;
    assert_eq!(caller.qr(&session, &token).await, (200, json!({"qr": null})));
    caller.begin(&session, &token).await;
    for (form, opening) in [
        (QrForm::Text, "2@"),
        (QrForm::DataUrl, "data:image/png;base64,iVBORw0KGgo"),
        (QrForm::Base64, "iVBORw0KGgo"),
    ] {
        caller.platform.behave(|behavior| behavior.qr_form = form);
        let qr = text(&caller.qr(&session, &token).await.1["qr"]);
        assert!(qr.starts_with(opening), "{qr}");
    }
}

#[tokio::test]
async fn status_has_the_configured_word_and_case() {
    let caller = Caller::start().await;
    let (_, session, token) = caller.account().await;
    caller.platform.set_status(&session, "Connected").unwrap();
    assert_eq!(caller.status(&session, &token).await, said("Connected"));
    assert!(caller.platform.qr_of(&session).is_none());
    caller.platform.set_status(&session, "unpaired").unwrap();
    assert_eq!(caller.status(&session, &token).await, said("unpaired"));
}

#[tokio::test]
async fn a_forgotten_session_is_not_found_until_it_is_created_again() {
    let caller = Caller::start().await;
    let (_, session, token) = caller.account().await;
    caller.platform.forget_session(&session);
    assert_eq!(caller.status(&session, &token).await.0, 404);
    assert_eq!(caller.begin(&session, &token).await.0, 404);
    caller.create(ORG).await;
    assert_eq!(caller.status(&session, &token).await, said("offline"));
}

#[tokio::test]
async fn a_stopped_session_is_offline_until_scanned_again() {
    let caller = Caller::start().await;
    let (_, session, token) = caller.account().await;
    caller.begin(&session, &token).await;
    caller.platform.scan(&session).unwrap();
    let stop = format!("/internal/session/{session}/stop");
    assert_eq!(caller.post(&stop, "", Value::Null).await, invalid_token());
    assert_eq!(caller.status(&session, &token).await, said("connected"));
    assert_eq!(caller.post(&stop, &token, Value::Null).await.0, 204);
    assert_eq!(caller.status(&session, &token).await, said("offline"));
    assert_eq!(caller.platform.faults.count("stop"), 2);
    caller.begin(&session, &token).await;
    assert_eq!(caller.status(&session, &token).await, said("qr_required"));
}

#[tokio::test]
async fn a_webhook_is_remembered() {
    let caller = Caller::start().await;
    let (_, session, token) = caller.account().await;
    let path = format!("/internal/session/{}/webhook", session.replacen('0', "%30", 1));
    let register = async || caller.post(&path, &token, json!({"url": "http://localhost/hook"})).await.0;
    assert_eq!(register().await, 204);
    assert_eq!(caller.platform.webhook_of(&session).as_deref(), Some("http://localhost/hook"));
    let seen = caller.platform.requests().pop().unwrap();
    assert_eq!((seen.endpoint, &seen.path, &seen.bearer), ("webhook", &path, &token));
    assert_eq!(seen.body, r#"{"url":"http://localhost/hook"}"#);
}

#[tokio::test]
async fn malformed_or_unauthorized_request_is_refused() {
    let caller = Caller::start().await;
    let secret = caller.platform.secret();
    let secret = secret.as_str();
    let (_, session, token) = caller.account().await;
    let create = "/api/integrations/wpp/create";
    for (path, bearer, body, status) in [
        (create, "wrong", r#"{"organizationId":"a"}"#, 401),
        (create, secret, r#"{"organizationId":""}"#, 400),
        (create, secret, r#"{"organizationId":7}"#, 400),
        (create, secret, "{", 400),
        ("/auth/token", "", "{}", 400),
        ("/api/accounts/start", &token, r#"{"number":4}"#, 400),
        (&format!("/internal/session/{session}/webhook"), &token, "", 400),
        ("/api/accounts/start", "", r#"{"number":"4"}"#, 401),
        ("/elsewhere", "", "", 404),
    ] {
        assert_eq!(caller.call(Method::POST, path, bearer, body).await.0, status, "{path} {body}");
    }
    assert_eq!(caller.platform.clients(), 1);
    assert_eq!(caller.platform.faults.count("unknown"), 1);
}

#[tokio::test]
async fn platform_with_a_file_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("platform.json");
    let settings = Settings { file: Some(file.clone()), ..Settings::default() };
    let start = async || Caller::start_with(settings.clone()).await;
    let before = start().await;
    let (key, session, token) = before.account().await;
    assert_eq!(session, session_for(ORG));
    before.begin(&session, &token).await;
    assert_eq!(before.post("/_sim/scan", "", json!({"session": session})).await.0, 204);
    let after = start().await;
    assert_eq!(after.status(&session, &token).await, said("connected"));
    assert_eq!(after.create(ORG).await, (key.clone(), session.clone()));
    assert_eq!(after.post("/_sim/forget-tokens", "", Value::Null).await.0, 204);
    let after = start().await;
    assert_eq!(after.status(&session, &token).await, invalid_token());
    let token = text(&after.token(&key).await.1["token"]);
    assert_eq!(after.status(&session, &token).await, said("connected"));
    let stranger = Caller::start().await;
    assert_eq!(stranger.token(&key).await, invalid_key());
    assert_eq!(stranger.status(&session, &token).await, invalid_token());
    fs::write(&file, "{").unwrap();
    let error = Platform::start(settings).await.err().unwrap().to_string();
    assert!(error.contains("platform.json"), "{error}");
}

#[tokio::test]
async fn simulator_is_controlled_by_http() {
    let caller = Caller::start().await;
    let (key, session, token) = caller.account().await;
    caller.begin(&session, &token).await;
    let shown = caller.call(Method::GET, &format!("/_sim/qr?session={session}"), "", "").await;
    assert_eq!(shown, (200, json!({"qr": caller.platform.qr_of(&session)})));
    assert_eq!(caller.post("/_sim/scan", "", json!({"session": "0"})).await.0, 404);
    assert_eq!(caller.post("/_sim/scan", "", json!({"session": session})).await.0, 204);
    assert_eq!(caller.post("/_sim/scan", "", json!({"session": session})).await.0, 204);
    caller.platform.set_status(&session, "starting").unwrap();
    assert_eq!(caller.post("/_sim/scan", "", json!({"session": session})).await.0, 409);
    assert_eq!(caller.post("/_sim/scan", "", json!({"number": session})).await.0, 422);
    let status = json!({"session": session, "status": "OFFLINE"});
    assert_eq!(caller.post("/_sim/status", "", status).await.0, 204);
    assert_eq!(caller.status(&session, &token).await, said("OFFLINE"));
    let counts = caller.call(Method::GET, "/_sim/counts", "", "").await;
    assert_eq!(counts, (200, json!({"create": 1, "token": 1, "start": 1, "status": 1})));
    let fault = json!({"endpoint": "*", "fault": {"status": {"status": 503}}, "times": 1});
    assert_eq!(caller.post("/_sim/faults", "", fault).await.0, 204);
    assert_eq!(caller.status(&session, &token).await.0, 503);
    caller.platform.faults.inject("status", Fault::Html);
    assert_eq!(caller.call(Method::DELETE, "/_sim/faults", "", "").await.0, 204);
    assert_eq!(caller.status(&session, &token).await, said("OFFLINE"));
    assert_eq!(caller.post("/_sim/advance", "", json!({"seconds": 3601})).await.0, 204);
    assert_eq!(caller.status(&session, &token).await, invalid_token());
    assert_eq!(caller.post("/_sim/forget-tokens", "", Value::Null).await.0, 204);
    let named = json!({"session": session});
    assert_eq!(caller.post("/_sim/revoke-key", "", named).await.0, 204);
    assert_eq!(caller.platform.tokens_of(&session), [""; 0]);
    assert_eq!(caller.token(&key).await, invalid_key());
    let help = caller.client.get(caller.platform.url()).send().await.unwrap();
    assert!(help.text().await.unwrap().contains("/_sim/scan"));
}
