//! No secret leaves: every endpoint is called with success and with every fault, and all output is searched.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use local::events::Event;
use local::fault_injector::Fault;
use local::lambda::{Answer, Options};
use local::test_app::TestApp;
use local::users::Signing;
use serde_json::{Value, json};
use tokio_postgres::types::Json;

use crate::faults::cases::{DATABASE, FAULTS, FaultCase, PLATFORM};

/// In every body that an upstream refuses with.
const UPSTREAM: &str = "canary-of-an-upstream";

/// In the keys of `settings` that belong to others.
const NEIGHBOUR: &str = "canary-of-a-neighbour";

/// In what a caller sends.
const CALLER: &str = "canary-of-a-caller";

/// What must not come out, by what it is.
#[derive(Default)]
struct Secrets(BTreeMap<String, String>);

impl Secrets {
    fn new(app: &TestApp) -> Self {
        let mut secrets = Self::default();
        secrets.add("WPP_SECRET", app.platform.secret());
        secrets.add_jwt("service role key", &app.keys.service_role_key());
        secrets.add("sb_secret key", app.keys.secret_key());
        secrets.add("SUPABASE_JWT_SECRET", app.keys.jwt_secret());
        secrets.add("an upstream's text", UPSTREAM);
        secrets.add("another's setting", NEIGHBOUR);
        secrets.add("a caller's input", CALLER);
        secrets
    }

    fn add(&mut self, what: &str, text: &str) {
        self.0.insert(text.to_owned(), what.to_owned());
    }

    /// The claims, and the signature that makes a token of them.
    fn add_jwt(&mut self, what: &str, jwt: &str) {
        jwt.split('.').skip(1).for_each(|part| self.add(what, part));
    }

    /// All that the app's schools and the platform's clients hold by now; of a key, what masking must hide.
    async fn learn(&mut self, app: &TestApp) {
        for row in app.sql.query("select settings from messenger_integrations", &[]).await.unwrap() {
            let Json(settings): Json<Value> = row.get(0);
            let text = |key: &str| settings[key].as_str().unwrap_or_default().to_owned();
            let (key, session) = (text("wppApiKey"), text("wppAccountNumber"));
            if !key.is_empty() {
                self.add("API key", &key[6..key.len() - 4]);
            }
            for token in app.platform.tokens_of(&session).into_iter().chain([text("wppJwtToken")]) {
                self.add_jwt("platform token", &token);
            }
        }
    }

    /// The start of a secret would be too much already.
    fn assert_none_in(&self, place: &str, text: &str) {
        for (secret, what) in &self.0 {
            let secret = &secret[..secret.len().min(16)];
            assert!(!text.contains(secret), "{place} holds {what} ({secret}):\n{text}");
        }
    }
}

/// An app with all its output.
struct Search {
    app: TestApp,
    secrets: Secrets,
    answers: Vec<(String, Answer)>,
    qrs: Vec<String>,
}

impl Search {
    async fn begin(variables: &[(&str, &str)]) -> Self {
        let times = [("UPSTREAM_TIMEOUT_MS", "1500"), ("REQUEST_BUDGET_MS", "9000")];
        let app = TestApp::start_with(&[&times[..], variables].concat(), Options::default()).await;
        let secrets = Secrets::new(&app);
        Self { app, secrets, answers: Vec::new(), qrs: Vec::new() }
    }

    /// One endpoint, with each fault and without.
    async fn drive(&mut self, endpoint: &'static str) {
        for fault in FAULTS {
            let case = FaultCase::prepare(&self.app, endpoint).await;
            self.secrets.add_jwt("user token", &case.school.token);
            self.app
                .sql
                .execute(
                    "update messenger_integrations set settings = settings || $1",
                    &[&Json(json!({"greeting": NEIGHBOUR, "webhookSecret": {"deep": NEIGHBOUR}}))],
                )
                .await
                .unwrap();
            let failed = case.send_with(fault, UPSTREAM).await;
            self.answers.push((format!("{endpoint} with {fault}"), failed));
            case.wait_out_leases().await;
            let well = case.send().await;
            assert_eq!(well.status, 200, "{endpoint} after {fault}: {well:?}");
            self.answers.push((format!("{endpoint} well"), well));
            self.qrs.extend(
                self.app
                    .platform
                    .session_of(&case.school.id.to_string())
                    .and_then(|session| self.app.platform.qr_of(&session)),
            );
        }
    }

    /// A project whose keys cannot be had: the one endpoint that needs no number.
    async fn drive_keys(&mut self) {
        let token = self.app.keys.token(&json!({"sub": self.app.school.user}), Signing::Es256);
        self.secrets.add_jwt("user token", &token);
        let refused = Fault::status_with(500, UPSTREAM);
        let faults = [refused, Fault::Body(UPSTREAM.to_owned()), Fault::Drop];
        for (name, fault) in ["wpp-create", "wpp-qr", "wpp-status"].into_iter().zip(faults) {
            self.app.inject("jwks", fault);
            let event = Event::post(name).bearer(&token).json(&json!({"session": "1"}));
            let answer = self.app.invoke(name, event.v2()).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            self.answers.push((format!("{name} without keys"), answer));
        }
        self.app.clear_faults();
    }

    /// What a caller sends wrongly must not be quoted either: it may be a password pasted into the wrong field.
    async fn send_wrongly(&mut self) {
        let token = self.app.school.token.clone();
        let bodies = [
            format!(r#"{{"session": ["{CALLER}"], "force": "{CALLER}", "add_new": "{CALLER}"}}"#),
            format!(r#"{{"session": "{CALLER} ", "integration_id": "{CALLER}", "{CALLER}": 1}}"#),
            format!(r#"{{"force_recreate": "{CALLER}"}}"#),
            format!(r#"{{"force": {{"{CALLER}": 1}}}}"#),
            format!(r#"["{CALLER}"]"#),
            format!(r#"{{"session": "x", {CALLER}"#),
        ];
        for name in ["wpp-create", "wpp-qr", "wpp-status"] {
            for body in &bodies {
                let event = Event::post(name).bearer(&token).header("Content-Type", "application/json");
                let answer = self.app.invoke(name, event.body(body).v2()).await;
                self.answers.push((format!("{name} of {body}"), answer));
            }
            for bearer in [CALLER.to_owned(), format!("{token}{CALLER}"), format!("a.{CALLER}.b")] {
                let event = Event::post(name).bearer(&bearer).header("X-Other", CALLER).query(CALLER, CALLER);
                let answer = self.app.invoke(name, event.json(&json!({CALLER: CALLER})).v1()).await;
                assert_eq!(answer.status, 401);
                self.answers.push((format!("{name} with a wrong bearer"), answer));
            }
        }
    }

    /// Searches all output.
    async fn end(mut self) {
        // Whatever was in trouble, each function has answered well once.
        let number = self.app.number().await;
        assert_eq!(self.app.poll_qr(&number.session).await.status, 200);
        assert_eq!(self.app.post("wpp-status", json!({"session": number.session})).await.status, 200);
        self.secrets.add_jwt("user token", &self.app.school.token);
        self.secrets.learn(&self.app).await;
        for (place, answer) in &self.answers {
            self.secrets.assert_none_in(place, &answer.raw.to_string());
            let mut rest = answer.json.clone();
            for qr in ["qr", "qrcode"] {
                rest.as_object_mut().map(|rest| rest.remove(qr));
            }
            let (rest, headers) = (rest.to_string(), format!("{:?}", answer.headers));
            for qr in &self.qrs {
                assert!(!rest.contains(qr.as_str()) && !headers.contains(qr.as_str()), "{place}: {rest}");
            }
        }
        for name in ["wpp-create", "wpp-qr", "wpp-status"] {
            let logs = self.app.sandbox(name).logs().await;
            assert!(logs.contains("answered") && logs.contains("refused"), "{name} logs nothing:\n{logs}");
            self.secrets.assert_none_in(&format!("the log of {name}"), &logs);
            assert!(!self.qrs.iter().any(|qr| logs.contains(qr.as_str())), "{name} logs a QR");
        }
    }
}

/// With everything logged that can be: what is not there then is not there at a higher level either.
async fn search(endpoints: &[&'static str], format: &str) {
    let everything =
        [("RUST_LOG", "trace"), ("AWS_LAMBDA_LOG_LEVEL", "TRACE"), ("AWS_LAMBDA_LOG_FORMAT", format)];
    // Two at once: most of the time is spent waiting for what is slow.
    join_all(endpoints.chunks(3).map(async |endpoints| {
        let mut search = Search::begin(&everything).await;
        for endpoint in endpoints {
            search.drive(endpoint).await;
        }
        search.drive_keys().await;
        search.send_wrongly().await;
        search.end().await;
    }))
    .await;
}

#[tokio::test]
async fn no_secret_leaves_whatever_the_platform_does() {
    search(&PLATFORM, "Text").await;
}

#[tokio::test]
async fn no_secret_leaves_whatever_the_database_does() {
    search(&DATABASE, "JSON").await;
}
