//! The tests of the functions run on this: a separate stack, with a sandbox of each function. Only for tests: a failure panics, so
//! that it names the test's line.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed test panics")]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::clock;
use crate::events::Event;
use crate::fault_injector::{Fault, FaultInjector, Hold, Point};
use crate::lambda::{Answer, Options, Sandbox, binary};
use crate::stack::{Organization, Stack};

/// A stack with the three functions and a school that has no number yet.
pub struct TestApp {
    /// The systems around the functions.
    pub stack: Stack,
    /// The database, as its superuser.
    pub sql: tokio_postgres::Client,
    /// An organization without a number.
    pub school: Organization,
    create: Sandbox,
    qr: Sandbox,
    status: Sandbox,
}

impl Deref for TestApp {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

/// A number that a test created, with its row's id.
#[derive(Clone, Debug)]
pub struct Number {
    /// `messenger_integrations.id`
    pub id: Uuid,
    /// The platform's session.
    pub session: String,
    /// Its API key.
    pub key: String,
}

impl TestApp {
    /// Starts an app with the functions configured as in a deployment.
    pub async fn start() -> Self {
        Self::start_with(&[], Options::default()).await
    }

    /// Starts an app and adds a number: see [`TestApp::number`].
    pub async fn start_with_number() -> (Self, Number) {
        let app = Self::start().await;
        let number = app.number().await;
        (app, number)
    }

    /// Starts an app with additional variables for the functions, and with these sandbox options.
    pub async fn start_with(more: &[(&str, &str)], options: Options) -> Self {
        Self::on(Stack::start().await.unwrap(), more, options).await
    }

    /// Does the same as [`TestApp::start_with`], on this stack.
    pub async fn on(stack: Stack, more: &[(&str, &str)], options: Options) -> Self {
        let env = environment(&stack, more);
        let sandbox = async |name| Sandbox::start_with(&binary(name).unwrap(), &env, options).await.unwrap();
        let (create, qr, status) =
            (sandbox("wpp-create").await, sandbox("wpp-qr").await, sandbox("wpp-status").await);
        let sql = stack.sql().await.unwrap();
        let school = stack.organization("school").await.unwrap();
        Self { stack, sql, school, create, qr, status }
    }

    /// Returns the function's process.
    pub fn sandbox(&self, name: &str) -> &Sandbox {
        match name {
            "wpp-create" => &self.create,
            "wpp-qr" => &self.qr,
            "wpp-status" => &self.status,
            _ => panic!("no function {name}"),
        }
    }

    /// Starts one more process of a function, as Lambda does under load.
    pub async fn process(&self, name: &str) -> Sandbox {
        self.process_with(name, &[]).await
    }

    /// Starts a process of a function with additional or different variables. Empty ones are left out.
    pub async fn process_with(&self, name: &str, more: &[(&str, &str)]) -> Sandbox {
        Sandbox::start(&binary(name).unwrap(), &environment(&self.stack, more)).await.unwrap()
    }

    /// Kills a process of `wpp-create` when its request has reached this point, or was answered. Returns whether it reached the
    /// point. Its leases expire, or are ended by [`TestApp::end_waits`].
    pub async fn killed_at(&self, endpoint: &str, point: Point, event: Event) -> bool {
        let (doomed, hold) = (self.process("wpp-create").await, self.hold(endpoint, point));
        let stands_there = tokio::select! {
            () = hold.reached(1) => true,
            _ = doomed.invoke(event.http_api()) => false,
        };
        doomed.kill().await.unwrap();
        stands_there
    }

    /// Invokes a function with an API Gateway event and returns its answer.
    pub async fn invoke(&self, name: &str, event: Value) -> Answer {
        self.sandbox(name).invoke(event).await.answered().unwrap()
    }

    /// Sends a POST by the school's user.
    pub async fn post(&self, name: &str, body: Value) -> Answer {
        self.post_as(&self.school, name, body).await
    }

    /// Sends a POST by another user.
    pub async fn post_as(&self, caller: &Organization, name: &str, body: Value) -> Answer {
        self.invoke(name, caller.post(name, &body).http_api()).await
    }

    /// Calls `wpp-create`.
    pub async fn create(&self, body: Value) -> Answer {
        self.post("wpp-create", body).await
    }

    /// Calls `wpp-status` with `force` for the organization's number.
    pub async fn check(&self) -> Answer {
        self.post("wpp-status", json!({"force": true})).await
    }

    /// Asks a function about one of the school's numbers, with `force` if it has that field.
    pub async fn ask(&self, name: &str, session: &str) -> Answer {
        self.post(name, question(name, session)).await
    }

    /// Polls for the QR, as the frontend does.
    pub async fn poll_qr(&self, session: &str) -> Answer {
        let event = Event::get("wpp-qr").bearer(&self.school.token).query("session", session).http_api();
        self.invoke("wpp-qr", event).await
    }

    /// Adds another number to the school, with a valid token: started on the platform and waiting to be scanned.
    pub async fn number(&self) -> Number {
        let made = self.add_number(&self.school).await;
        let number = self.number_of(made.expect(200, "qr_issued").text("session")).await;
        self.settle_tokens().await;
        self.forget_calls();
        number
    }

    /// Adds a number. Makes unlinked numbers count as linked during the call, because otherwise one of them would be reused.
    async fn add_number(&self, caller: &Organization) -> Answer {
        let link_all = "update wpp_numbers set first_connected_at = 'epoch'
            where organization_id = $1 and first_connected_at is null";
        self.sql.execute(link_all, &[&caller.id]).await.unwrap();
        let made = self.post_as(caller, "wpp-create", json!({"add_new": true})).await;
        let unlink = "update wpp_numbers set first_connected_at = null
            where organization_id = $1 and first_connected_at = 'epoch'";
        self.sql.execute(unlink, &[&caller.id]).await.unwrap();
        made
    }

    /// Adds a number that is old enough that a refusal means that its API key is dead.
    pub async fn settled_number(&self) -> Number {
        let number = self.number().await;
        self.settle_keys().await;
        number
    }

    /// Returns the number whose row has this session.
    pub async fn number_of(&self, session: &str) -> Number {
        let row = "select id, settings->>'wppApiKey' from messenger_integrations
            where settings->>'wppAccountNumber' = $1";
        let row = self.sql.query_one(row, &[&session]).await.unwrap();
        let key: Option<String> = row.get(1);
        Number { id: row.get(0), session: session.to_owned(), key: key.unwrap_or_default() }
    }

    /// Scans the number's QR with a phone, and then asks for the number's status.
    pub async fn link(&self, number: &Number) {
        self.platform.scan(&number.session).unwrap();
        let check = json!({"session": number.session, "force": true});
        self.post("wpp-status", check).await.expect(200, "connected");
    }

    /// Returns the QR that the platform shows for a session now.
    pub fn shown_qr(&self, session: &str) -> Value {
        json!(self.platform.qr_of(session).unwrap())
    }

    /// Asserts that each of these answers has the number's QR.
    pub fn assert_served(&self, number: &Number, answers: &[Answer]) {
        let qr = self.shown_qr(&number.session);
        for answer in answers {
            let field = if answer.json["status"].is_null() { "qr" } else { "qrcode" };
            assert_eq!((answer.status, &answer.json[field]), (200, &qr), "{answer:?}");
        }
    }

    /// Asserts that the token in the number's row is the last one that the platform issued.
    pub async fn assert_stored_token_is_good(&self, number: &Number) {
        let stored = self.settings(number).await["wppJwtToken"].clone();
        assert_eq!(self.platform.tokens_of(&number.session).last().map(|token| json!(token)), Some(stored));
    }

    /// Returns the fault injector in front of an upstream's endpoint.
    fn faults(&self, endpoint: &str) -> &FaultInjector {
        let is_supabase = endpoint == "jwks" || endpoint.starts_with('r');
        if is_supabase { &self.supabase.faults } else { &self.platform.faults }
    }

    /// Calls [`FaultInjector::inject`] at the endpoint's upstream.
    pub fn inject(&self, endpoint: &str, fault: Fault) {
        self.faults(endpoint).inject(endpoint, fault);
    }

    /// Calls [`FaultInjector::inject_times`] at the endpoint's upstream.
    pub fn inject_times(&self, endpoint: &str, times: u32, fault: Fault) {
        self.faults(endpoint).inject_times(endpoint, times, fault);
    }

    /// Calls [`FaultInjector::hold`] at the endpoint's upstream.
    pub fn hold(&self, endpoint: &str, point: Point) -> Hold {
        self.faults(endpoint).hold(endpoint, point)
    }

    /// Calls [`FaultInjector::hold_one`] at the endpoint's upstream.
    pub fn hold_one(&self, endpoint: &str, point: Point) -> Hold {
        self.faults(endpoint).hold_one(endpoint, point)
    }

    /// Calls [`FaultInjector::count`] at the endpoint's upstream.
    pub fn count(&self, endpoint: &str) -> u64 {
        self.faults(endpoint).count(endpoint)
    }

    /// Removes the faults of both upstreams.
    pub fn clear_faults(&self) {
        self.platform.faults.clear();
        self.supabase.faults.clear();
    }

    /// Resets the counts.
    pub fn forget_calls(&self) {
        self.platform.faults.reset_counts();
        self.supabase.faults.reset_counts();
    }

    /// Returns all upstream calls since the last reset, as `{"endpoint": times}`.
    pub fn calls(&self) -> Value {
        let (platform, supabase) = (self.platform.faults.counts(), self.supabase.faults.counts());
        let calls: BTreeMap<_, _> =
            platform.into_iter().chain(supabase).filter(|(_, times)| *times > 0).collect();
        json!(calls)
    }

    /// Counts the calls to all of these.
    pub fn all_calls(&self) -> u64 {
        self.platform.faults.count("*") + self.supabase.faults.count("*")
    }

    /// Returns the settings in a number's row.
    pub async fn settings(&self, number: &Number) -> Value {
        let settings = "select settings from messenger_integrations where id = $1";
        let Json(settings) = self.sql.query_one(settings, &[&number.id]).await.unwrap().get(0);
        settings
    }

    /// Merges fields into a number's settings, as another function may.
    pub async fn merge(&self, number: &Number, keys: Value) {
        let merge = "update messenger_integrations set settings = settings || $2 where id = $1";
        assert_eq!(self.sql.execute(merge, &[&number.id, &Json(keys)]).await.unwrap(), 1);
    }

    /// Makes every API key an hour old, so that a refusal does not mean that the key is new.
    pub async fn settle_keys(&self) {
        let age = "update wpp_numbers set credentials_saved_at = credentials_saved_at - interval '1 hour';
            update wpp_creations set finished_at = finished_at - interval '1 hour'";
        self.sql.batch_execute(age).await.unwrap();
    }

    /// Makes every token of the school an hour old, because a rejected new token is not replaced at once.
    pub async fn settle_tokens(&self) {
        let age =
            "update wpp_token_leases set saved_at = saved_at - interval '1 hour' where organization_id = $1";
        self.sql.execute(age, &[&self.school.id]).await.unwrap();
    }

    /// Returns all rows of the school's numbers, the oldest first.
    pub async fn numbers(&self) -> Vec<Value> {
        let rows = "select to_jsonb(i) from messenger_integrations i where organization_id = $1
            order by created_at, id";
        let rows = self.sql.query(rows, &[&self.school.id]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Json<Value>>(0).0).collect()
    }

    /// Returns a session's row of `whatsapp_sessions`, or null if it has none.
    pub async fn snapshot_row(&self, session: &str) -> Value {
        let row = "select to_jsonb(s) from whatsapp_sessions s where session_name = 'wpp_' || $1";
        let row = self.sql.query_opt(row, &[&session]).await.unwrap();
        row.map_or(Value::Null, |row| row.get::<_, Json<Value>>(0).0)
    }

    /// Moves all times in `whatsapp_sessions` this many seconds into the past.
    pub async fn age_snapshot(&self, seconds: i32) {
        let age = "update whatsapp_sessions set
            updated_at = updated_at - $1 * interval '1 second', last_qr_at = last_qr_at - $1 * interval '1 second'";
        self.sql.execute(age, &[&f64::from(seconds)]).await.unwrap();
    }

    /// Ends everything that a request would wait for: leases and cooldowns.
    pub async fn end_waits(&self) {
        let end = "update wpp_creations set held_until = null;
            update wpp_token_leases set held_until = now(), retry_at = now()";
        self.sql.batch_execute(end).await.unwrap();
    }

    /// Sets the stored token's expiry to this many seconds from now.
    pub async fn set_token_end(&self, number: &Number, seconds: i64) {
        let end = clock::unix_ms() + seconds * 1000;
        self.merge(number, json!({"wppJwtExpiresAt": end})).await;
    }
}

/// Returns the body of a request about a number, with `force` for `wpp-status`.
pub fn question(name: &str, session: &str) -> Value {
    if name == "wpp-status" {
        json!({"session": session, "force": true})
    } else {
        json!({"session": session})
    }
}

impl Answer {
    /// Returns the HTTP status and the most important word: an error's `code`, otherwise the `status` or the `state`.
    pub fn told(&self) -> (u16, &str) {
        let word = if self.status == 200 { &self.json["status"] } else { &self.json["code"] };
        (self.status, word.as_str().or(self.json["state"].as_str()).unwrap_or_default())
    }

    /// Asserts the HTTP status and that word.
    #[track_caller]
    pub fn expect(self, status: u16, word: &str) -> Self {
        assert_eq!(self.told(), (status, word), "{self:?}");
        self
    }

    /// Returns a text in the body.
    #[track_caller]
    pub fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_else(|| panic!("no {field}: {self:?}"))
    }
}

/// Waits until `condition` holds, for at most ten seconds.
pub async fn until(condition: impl AsyncFn() -> bool) {
    until_within(Duration::from_secs(10), condition).await;
}

/// Waits until `condition` holds, for at most `timeout`.
pub async fn until_within(timeout: Duration, condition: impl AsyncFn() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(timeout, holds).await.unwrap();
}

/// Returns the functions' environment in a stack, with additional or different variables. Empty ones are left out.
pub fn environment(stack: &Stack, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut env = stack.env();
    env.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    env.extend(
        more.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
    );
    env
}
