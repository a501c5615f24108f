//! For each upstream endpoint, a request that needs it, and its effect in the database.

use crate::openapi::assert_as_written;
use local::fault_injector::{Fault, Point};
use local::lambda::Answer;
use local::stack::Organization;
use local::test_app::TestApp;
use serde_json::{Value, json};
use tokio_postgres::types::Json;

/// The platform's endpoints, as its fault injector names them.
pub const PLATFORM: [&str; 6] = ["create", "token", "status", "qr", "start", "webhook"];

/// The database's endpoints: one that reads, and five that write.
pub const DATABASE: [&str; 6] = [
    "rpc/wpp_find_number",
    "rpc/wpp_claim_refresh",
    "rpc/wpp_save_token",
    "rpc/wpp_save_snapshot",
    "rpc/wpp_begin_creation",
    "rpc/wpp_save_credentials",
];

/// How any upstream can fail, or what is in front of it.
const FAULTS: [&str; 26] = [
    "400",
    "401",
    "403",
    "404",
    "409",
    "429, Retry-After",
    "500",
    "502",
    "HTML with 200",
    "empty 200",
    "wrong types",
    "truncated",
    "50 MB",
    "no headers",
    "stalled body",
    "reset",
    "refused",
    "redirect",
    "401 in text",
    "401 in HTML",
    "403 in text",
    "403 in HTML",
    "404 in text",
    "404 in HTML",
    "404, empty",
    "404 of Kong",
];

/// Additional failures of the database's gateway and PostgREST.
const POSTGRESTS: [&str; 6] =
    ["401 of the key", "401 PGRST301", "401 of the clock", "404 PGRST202", "400 P0001", "409 23505"];

/// Returns the faults of these endpoints.
pub fn faults_of(endpoints: &[&str]) -> Vec<&'static str> {
    let postgrests = if endpoints == DATABASE { &POSTGRESTS[..] } else { &[] };
    [&FAULTS, postgrests].concat()
}

/// Returns the fault of this name, with `text` in its answers. Returns `None` for a host that does not listen.
pub fn fault(name: &str, elsewhere: &str, text: &str) -> Option<Fault> {
    // Every wrong type that any answer could have.
    let wrong_types = json!({
        "apiKey": [text], "session": [text], "token": {"a": text}, "status": [text], "qr": [text],
        "now_ms": text, "outcome": [text],
    });
    let page = |title| format!("<!DOCTYPE html><html><head><title>{title}</title></head>{text}</html>");
    let answer = |status, body: Value| Fault::status_with(status, &body.to_string());
    Some(match name {
        "HTML with 200" => Fault::Html,
        "empty 200" => Fault::Body(String::new()),
        "wrong types" => Fault::Body(wrong_types.to_string()),
        "truncated" => Fault::Truncated,
        "50 MB" => Fault::Huge { bytes: 50 << 20 },
        "no headers" => Fault::NoHeaders,
        "stalled body" => Fault::StalledBody,
        "reset" => Fault::Drop,
        "redirect" => Fault::Redirect(elsewhere.to_owned()),
        "refused" => return None,
        "401 in text" => Fault::status_with(401, &format!("Unauthorized {text}")),
        "401 in HTML" => Fault::status_with(401, &page("401 Authorization Required")),
        "403 in text" => Fault::status_with(403, "error code: 1010"),
        "403 in HTML" => Fault::status_with(403, &page("Just a moment...")),
        "404 in text" => Fault::status_with(404, &format!("404 page not found {text}\n")),
        "404 in HTML" => Fault::status_with(404, &page("404 Not Found")),
        "404, empty" => Fault::status(404),
        "404 of Kong" => {
            answer(404, json!({"message": "no Route matched with those values", "request_id": text}))
        }
        "401 of the key" => answer(401, json!({"message": "Invalid API key", "hint": text})),
        "401 of the clock" => answer(401, json!({"code": "PGRST303", "message": "JWT issued at future"})),
        coded
            if POSTGRESTS.contains(&coded)
                && let Some((status, code)) = coded.split_once(' ') =>
        {
            answer(status.parse().unwrap(), json!({"code": code, "message": text, "details": text}))
        }
        status => Fault::Status {
            status: status[..3].parse().unwrap(),
            body: json!({"error": text, "message": text, "details": text}).to_string(),
            retry_after_s: status.contains("Retry-After").then_some(1),
        },
    })
}

/// A separate school, in a state in which its request needs the endpoint.
pub struct FaultCase<'a> {
    app: &'a TestApp,
    endpoint: &'static str,
    /// The school that sends the request.
    pub school: Organization,
    session: Value,
}

impl<'a> FaultCase<'a> {
    pub async fn prepare(app: &'a TestApp, endpoint: &'static str) -> Self {
        let school = app.organization(endpoint).await.unwrap();
        let mut case = Self { app, endpoint, school, session: Value::Null };
        if !matches!(endpoint, "create" | "rpc/wpp_begin_creation" | "rpc/wpp_save_credentials") {
            let made = app.post_as(&case.school, "wpp-create", json!({})).await.expect(200, "qr_issued");
            case.session = made.json["session"].clone();
            // A key this old no longer counts as new.
            case.sql("update wpp_numbers set credentials_saved_at = now() - interval '1 hour'").await;
        }
        match endpoint {
            "token" | "rpc/wpp_claim_refresh" | "rpc/wpp_save_token" => case.end_token().await,
            "rpc/wpp_save_snapshot" => {
                case.sql("update whatsapp_sessions set status = 'pairing', last_qr_b64 = null").await;
            }
            _ => {}
        }
        case
    }

    /// Returns the function that needs the endpoint, and the body of its request.
    fn request(&self) -> (&'static str, Value) {
        match self.endpoint {
            "qr" | "rpc/wpp_find_number" => ("wpp-qr", json!({"session": self.session})),
            "token" | "status" | "rpc/wpp_claim_refresh" | "rpc/wpp_save_token" | "rpc/wpp_save_snapshot" => {
                ("wpp-status", json!({"force": true}))
            }
            _ => ("wpp-create", json!({})),
        }
    }

    /// Sends the request, and checks its answer against `openapi.yaml`.
    pub async fn send(&self) -> Answer {
        let (function, body) = self.request();
        let answer = self.app.post_as(&self.school, function, body).await;
        assert_as_written(function, "post", &answer);
        answer
    }

    /// Sends the request, with this fault at its endpoint.
    pub async fn send_with(&self, fault_name: &str, text: &str) -> Answer {
        let elsewhere = format!("{}/elsewhere", self.app.platform.url());
        let Some(fault) = fault(fault_name, &elsewhere, text) else { return self.send_to_nobody().await };
        self.app.inject(self.endpoint, fault);
        let answer = self.send().await;
        self.app.clear_faults();
        answer
    }

    /// Sends the request. From the call to the endpoint onward, its host does not listen.
    async fn send_to_nobody(&self) -> Answer {
        let answer = match self.call_before() {
            None => {
                self.set_listening(false).await;
                self.send().await
            }
            Some(before) => {
                let hold = self.app.hold_one(before, Point::After);
                let leave = async {
                    hold.reached(1).await;
                    self.set_listening(false).await;
                    hold.release();
                };
                tokio::join!(self.send(), leave).0
            }
        };
        self.set_listening(true).await;
        answer
    }

    async fn set_listening(&self, listening: bool) {
        let is_of_the_database = self.endpoint.starts_with("rpc/");
        let server = if is_of_the_database { &self.app.supabase.server } else { &self.app.platform.server };
        if listening { server.accept().await } else { server.refuse().await }.unwrap();
    }

    /// Returns the last call to the same host before the endpoint's call.
    fn call_before(&self) -> Option<&'static str> {
        match self.endpoint {
            "webhook" => Some("status"),
            "start" => Some("webhook"),
            "rpc/wpp_claim_refresh" | "rpc/wpp_save_snapshot" => Some("rpc/wpp_find_number"),
            "rpc/wpp_save_token" => Some("rpc/wpp_claim_refresh"),
            "rpc/wpp_save_credentials" => Some("rpc/wpp_begin_creation"),
            _ => None,
        }
    }

    /// Describes the school's number in the database, in a few words.
    pub async fn state(&self) -> String {
        let rows = "select i.settings, s.status from messenger_integrations i
            left join whatsapp_sessions s on s.session_name = 'wpp_' || (i.settings ->> 'wppAccountNumber')
            where i.organization_id = $1";
        let rows = self.app.sql.query(rows, &[&self.school.id]).await.unwrap();
        let [row] = rows.as_slice() else { return format!("{} numbers", rows.len()) };
        let Json(settings): Json<Value> = row.get(0);
        let token = match settings["wppJwtExpiresAt"].as_i64() {
            None => "no token",
            Some(end) if end < local::clock::unix_ms() => "ended token",
            Some(_) => "good token",
        };
        format!("{token}, {}", row.get::<_, Option<&str>>(1).unwrap_or("unseen"))
    }

    /// Asserts that the school has one number and that it is the one the platform knows.
    pub async fn assert_whole(&self) {
        let rows = "select settings ->> 'wppApiKey', settings ->> 'wppAccountNumber'
            from messenger_integrations where organization_id = $1";
        let rows = self.app.sql.query(rows, &[&self.school.id]).await.unwrap();
        let found: Vec<(Option<String>, Option<String>)> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let (platform, id) = (&self.app.platform, self.school.id.to_string());
        assert_eq!(found, [(platform.key_of(&id), platform.session_of(&id))], "{}", self.endpoint);
    }

    async fn end_token(&self) {
        self.sql(r#"update messenger_integrations set settings = settings || '{"wppJwtExpiresAt": 1000}'"#)
            .await;
    }

    /// Changes this school's rows.
    async fn sql(&self, update: &str) {
        let mine = format!("{update} where organization_id = $1");
        self.app.sql.execute(&mine, &[&self.school.id]).await.unwrap();
    }
}
