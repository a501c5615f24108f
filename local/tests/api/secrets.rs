//! No secret leaves: all that comes out of the fault matrix is searched, and what comes of wrong requests.

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

/// Has everything logged that can be: what is not there then is not there at a higher level either.
pub const EVERYTHING: [(&str, &str); 2] = [("RUST_LOG", "trace"), ("AWS_LAMBDA_LOG_LEVEL", "TRACE")];

/// In every body that an upstream refuses with.
pub const UPSTREAM: &str = "canary-of-an-upstream";

/// In the keys of `settings` that belong to others.
const NEIGHBOUR: &str = "canary-of-a-neighbour";

/// In what a caller sends.
const CALLER: &str = "canary-of-a-caller";

/// What must not come out of an app, and what has.
pub struct Search {
    /// By its text, what it is.
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
            ("another's setting", NEIGHBOUR),
            ("a caller's input", CALLER),
        ] {
            search.secrets.insert(text.to_owned(), what);
        }
        search.add_jwt("service role key", &app.keys.service_role_key());
        search.add_jwt("user token", &app.school.token);
        search
    }

    /// Adds the claims, and the signature that makes a token of them.
    fn add_jwt(&mut self, what: &'static str, jwt: &str) {
        self.secrets.extend(jwt.split('.').skip(1).map(|part| (part.to_owned(), what)));
    }

    /// Puts a key into the settings that our functions do not use.
    pub async fn plant(&mut self, app: &TestApp, school: &Organization) {
        self.add_jwt("user token", &school.token);
        let plant = "update messenger_integrations set settings = settings || $1";
        let theirs = Json(json!({"greeting": NEIGHBOUR, "webhookSecret": {"deep": NEIGHBOUR}}));
        app.sql.execute(plant, &[&theirs]).await.unwrap();
    }

    pub fn answered(&mut self, to: String, answer: Answer) {
        self.answers.push((to, answer));
    }

    /// Adds the QR that the platform shows for the school. It belongs into two fields of answers and into no other place.
    pub fn shown(&mut self, app: &TestApp, school: &Organization) {
        let session = app.platform.session_of(&school.id.to_string());
        self.qrs.extend(session.and_then(|session| app.platform.qr_of(&session)));
    }

    /// Asks in a project whose keys cannot be fetched: the one endpoint that needs no number.
    async fn ask_without_keys(&mut self, app: &TestApp) {
        let token = app.keys.token(&json!({"sub": app.school.user}), Signing::Es256);
        self.add_jwt("user token", &token);
        let faults = [Fault::status_with(500, UPSTREAM), Fault::Body(UPSTREAM.to_owned()), Fault::Drop];
        for (name, fault) in FUNCTIONS.into_iter().zip(faults) {
            app.inject("jwks", fault);
            let event = Event::post(name).bearer(&token).json(&json!({"session": "1"}));
            let answer = app.invoke(name, event.v2()).await.expect(503, "auth_unavailable");
            assert_eq!(answer.json["retryable"], true, "it is no fault of the token");
            self.answered(format!("{name} without keys"), answer);
        }
        app.clear_faults();
    }

    /// Sends wrong requests. They must not be quoted either: a value may be a password pasted into the wrong field.
    async fn ask_wrongly(&mut self, app: &TestApp) {
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
                let answer = app.invoke(name, event.body(body).v2()).await;
                self.answered(format!("{name} of {body}"), answer);
            }
            for bearer in [CALLER.to_owned(), format!("{token}{CALLER}"), format!("a.{CALLER}.b")] {
                let event = Event::post(name).bearer(&bearer).header("X-Other", CALLER).query(CALLER, CALLER);
                let answer = app.invoke(name, event.json(&json!({CALLER: CALLER})).v2()).await;
                assert_eq!(answer.status, 401);
                self.answered(format!("{name} with a wrong bearer"), answer);
            }
        }
    }

    /// Collects all that the app's schools and the platform's clients hold by now. Of a key, collects what masking must hide.
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

    /// Searches all output.
    pub async fn end(mut self, app: &TestApp) {
        self.ask_without_keys(app).await;
        self.ask_wrongly(app).await;
        // Whatever was in trouble, each function has answered well once.
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

    /// Asserts that the text holds no secret, and not even the start of one.
    fn assert_none_in(&self, place: &str, text: &str) {
        for (secret, what) in &self.secrets {
            let secret = &secret[..secret.len().min(16)];
            assert!(!text.contains(secret), "{place} holds {what} ({secret}):\n{text}");
        }
    }
}
