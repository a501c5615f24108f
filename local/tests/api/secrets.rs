//! No secret leaks. Searches every answer and log line of the fault matrix, and of malformed requests.

use std::collections::BTreeMap;

use local::FUNCTIONS;
use local::events::Event;
use local::fault_injector::Fault;
use local::lambda::Answer;
use local::stack::Organization;
use local::test_app::TestApp;
use local::users::Signing;
use serde_json::{Value, json};
use tokio_postgres::types::Json;

/// Logs at the lowest level: a secret that does not appear here does not appear at a higher level.
pub const EVERYTHING: [(&str, &str); 2] = [("RUST_LOG", "trace"), ("AWS_LAMBDA_LOG_LEVEL", "TRACE")];

/// A marker in the body of every refusal by an upstream.
pub const UPSTREAM: &str = "canary-of-an-upstream";

/// A marker in the `settings` fields of the other functions.
const OTHER_FUNCTION: &str = "canary-of-another-function";

/// A marker in everything that a caller sends.
const CALLER: &str = "canary-of-a-caller";

/// The secrets that must not leak, and the answers to search.
pub struct Search {
    /// Maps each secret to its description.
    secrets: BTreeMap<String, &'static str>,
    answers: Vec<(String, Answer)>,
    qrs: Vec<String>,
}

impl Search {
    pub fn begin(app: &TestApp) -> Self {
        let mut search = Self { secrets: BTreeMap::new(), answers: Vec::new(), qrs: Vec::new() };
        for (what, text) in [
            ("WPP_SECRET", app.platform.secret().as_str()),
            ("sb_secret key", app.keys.secret_key()),
            ("SUPABASE_JWT_SECRET", app.keys.jwt_secret()),
            ("an upstream's text", UPSTREAM),
            ("another's setting", OTHER_FUNCTION),
            ("a caller's input", CALLER),
        ] {
            search.secrets.insert(text.to_owned(), what);
        }
        search.add_jwt("service role key", &app.keys.service_role_key());
        search.add_jwt("user token", &app.school.token);
        search
    }

    /// Adds the token's claims and signature; the header is no secret.
    fn add_jwt(&mut self, what: &'static str, jwt: &str) {
        self.secrets.extend(jwt.split('.').skip(1).map(|part| (part.to_owned(), what)));
    }

    /// Adds fields to `settings` that the functions do not use.
    pub async fn plant(&mut self, app: &TestApp, school: &Organization) {
        self.add_jwt("user token", &school.token);
        let plant = "update messenger_integrations set settings = settings || $1";
        let other_fields =
            Json(json!({"greeting": OTHER_FUNCTION, "webhookSecret": {"deep": OTHER_FUNCTION}}));
        app.sql.execute(plant, &[&other_fields]).await.unwrap();
    }

    pub fn add_answer(&mut self, to: String, answer: Answer) {
        self.answers.push((to, answer));
    }

    /// Adds the QR that the platform shows for the school. It may appear only in two fields of an answer.
    pub fn add_qr(&mut self, app: &TestApp, school: &Organization) {
        let session = app.platform.session_of(&school.id.to_string());
        self.qrs.extend(session.and_then(|session| app.platform.qr_of(&session)));
    }

    /// Sends requests while the project's signing keys cannot be fetched.
    async fn send_requests_without_keys(&mut self, app: &TestApp) {
        let token = app.keys.token(&json!({"sub": app.school.user}), Signing::Es256);
        self.add_jwt("user token", &token);
        let faults = [Fault::status_with(500, UPSTREAM), Fault::Body(UPSTREAM.to_owned()), Fault::Drop];
        for (name, fault) in FUNCTIONS.into_iter().zip(faults) {
            app.inject("jwks", fault);
            let event = Event::post(name).bearer(&token).json(&json!({"session": "1"}));
            let answer = app.invoke(name, event.http_api()).await.expect(503, "auth_unavailable");
            assert_eq!(answer.json["retryable"], true, "the token may be valid");
            self.add_answer(format!("{name} without keys"), answer);
        }
        app.clear_faults();
    }

    /// Sends malformed requests. Errors must not quote them: a value may be a password pasted into the wrong field.
    async fn send_malformed_requests(&mut self, app: &TestApp) {
        let token = &app.school.token;
        let bodies = [
            format!(r#"{{"session": ["{CALLER}"], "force": "{CALLER}", "add_new": "{CALLER}"}}"#),
            format!(r#"{{"session": "{CALLER} ", "integration_id": "{CALLER}", "{CALLER}": 1}}"#),
            format!(r#"{{"force_recreate": "{CALLER}"}}"#),
            format!(r#"{{"force": {{"{CALLER}": 1}}}}"#),
            format!(r#"["{CALLER}"]"#),
            format!(r#"{{"session": "x", {CALLER}"#),
        ];
        for name in FUNCTIONS {
            for body in &bodies {
                let event = Event::post(name).bearer(token).header("Content-Type", "application/json");
                let answer = app.invoke(name, event.body(body).http_api()).await;
                self.add_answer(format!("{name} with {body}"), answer);
            }
            for bearer in [CALLER.to_owned(), format!("{token}{CALLER}"), format!("a.{CALLER}.b")] {
                let event = Event::post(name).bearer(&bearer).header("X-Other", CALLER).query(CALLER, CALLER);
                let answer = app.invoke(name, event.json(&json!({CALLER: CALLER})).http_api()).await;
                assert_eq!(answer.status, 401);
                self.add_answer(format!("{name} with a wrong bearer"), answer);
            }
        }
    }

    /// Collects the API keys and tokens of all numbers. For an API key, collects only the part that masking hides.
    async fn learn(&mut self, app: &TestApp) {
        for row in app.sql.query("select settings from messenger_integrations", &[]).await.unwrap() {
            let Json(settings): Json<Value> = row.get(0);
            let text = |key: &str| settings[key].as_str().unwrap_or_default().to_owned();
            let (key, session) = (text("wppApiKey"), text("wppAccountNumber"));
            if !key.is_empty() {
                self.secrets.insert(key[6..key.len() - 4].to_owned(), "API key");
            }
            for token in app.platform.tokens_of(&session).into_iter().chain([text("wppJwtToken")]) {
                self.add_jwt("platform token", &token);
            }
        }
    }

    /// Sends the last requests, then searches all answers and logs.
    pub async fn end(mut self, app: &TestApp) {
        self.send_requests_without_keys(app).await;
        self.send_malformed_requests(app).await;
        // After all faults, each function must have answered successfully at least once.
        let number = app.number().await;
        assert_eq!(app.poll_qr(&number.session).await.status, 200);
        assert_eq!(app.post("wpp-status", json!({"session": number.session})).await.status, 200);
        self.learn(app).await;
        for (place, answer) in &self.answers {
            self.assert_none_in(place, &answer.raw.to_string());
            let mut rest = answer.json.clone();
            for qr in ["qr", "qrcode"] {
                rest.as_object_mut().map(|rest| rest.remove(qr));
            }
            let (rest, headers) = (rest.to_string(), format!("{:?}", answer.headers));
            for qr in &self.qrs {
                assert!(!rest.contains(qr.as_str()) && !headers.contains(qr.as_str()), "{place}: {rest}");
            }
        }
        for name in FUNCTIONS {
            let logs = app.sandbox(name).logs().await;
            assert!(logs.contains("answered") && logs.contains("refused"), "{name} logs nothing:\n{logs}");
            self.assert_none_in(&format!("the log of {name}"), &logs);
            assert!(!self.qrs.iter().any(|qr| logs.contains(qr.as_str())), "{name} logs a QR");
        }
    }

    /// Asserts that the text does not contain even the first 16 characters of a secret.
    fn assert_none_in(&self, place: &str, text: &str) {
        for (secret, what) in &self.secrets {
            let secret = &secret[..secret.len().min(16)];
            assert!(!text.contains(secret), "{place} holds {what} ({secret}):\n{text}");
        }
    }
}
