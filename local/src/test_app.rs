//! Where the tests of the functions play: a stack of their own, with a sandbox of each function in it.
//!
//! For tests alone: what does not work here panics, and so names the line of the test.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails where it stands")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::clock;
use crate::events::Event;
use crate::lambda::{Answer, Options, Sandbox, binary};
use crate::stack::{Organisation, Stack};

/// A stack with the three functions and a school that has no number yet.
pub struct TestApp {
    /// The systems around the functions.
    pub stack: Stack,
    /// The database, as its superuser.
    pub sql: tokio_postgres::Client,
    /// An organisation without a number.
    pub school: Organisation,
    create: Sandbox,
    qr: Sandbox,
    status: Sandbox,
}

/// A number as a test makes it, with its row's id.
pub struct Number {
    /// `messenger_integrations.id`
    pub id: Uuid,
    /// The platform's session.
    pub session: String,
    /// Its API key.
    pub key: String,
}

impl TestApp {
    /// With functions as a deployment has them.
    pub async fn start() -> Self {
        Self::start_with(&[], Options::default()).await
    }

    /// With more variables for the functions, and another kind of sandbox.
    pub async fn start_with(more: &[(&str, &str)], options: Options) -> Self {
        Self::on(Stack::start().await.unwrap(), more, options).await
    }

    /// As [`TestApp::start_with`], on this stack.
    pub async fn on(stack: Stack, more: &[(&str, &str)], options: Options) -> Self {
        let env = environment(&stack, more);
        let sandbox = async |name| Sandbox::start_with(&binary(name).unwrap(), &env, options).await.unwrap();
        let (create, qr, status) =
            (sandbox("wpp-create").await, sandbox("wpp-qr").await, sandbox("wpp-status").await);
        let sql = stack.sql().await.unwrap();
        let school = stack.organisation("school").await.unwrap();
        Self { stack, sql, school, create, qr, status }
    }

    /// The function's process.
    pub fn sandbox(&self, name: &str) -> &Sandbox {
        match name {
            "wpp-create" => &self.create,
            "wpp-qr" => &self.qr,
            "wpp-status" => &self.status,
            _ => panic!("no function {name}"),
        }
    }

    /// One more process of a function, as Lambda starts them when there is more to do.
    pub async fn process(&self, name: &str) -> Sandbox {
        Sandbox::start(&binary(name).unwrap(), &environment(&self.stack, &[])).await.unwrap()
    }

    /// What a function answers to an event of API Gateway.
    pub async fn invoke(&self, name: &str, event: Value) -> Answer {
        self.sandbox(name).invoke(event).await.answered().unwrap()
    }

    /// A POST of the school's user.
    pub async fn post(&self, name: &str, body: Value) -> Answer {
        self.post_as(&self.school, name, body).await
    }

    /// A POST of another user.
    pub async fn post_as(&self, caller: &Organisation, name: &str, body: Value) -> Answer {
        self.invoke(name, Event::post(name).bearer(&caller.token).json(&body).v2()).await
    }

    /// A poll for the QR, as the frontend makes it.
    pub async fn poll_qr(&self, session: &str) -> Answer {
        let event = Event::get("wpp-qr").bearer(&self.school.token).query("session", session).v2();
        self.invoke("wpp-qr", event).await
    }

    /// Another number of the school with a good token: started on the platform and waiting to be scanned.
    pub async fn number(&self) -> Number {
        // Without a key, a number that nobody has scanned yet would be asked for again.
        let event = Event::post("wpp-create").bearer(&self.school.token).json(&json!({"add_new": true}));
        let event = event.header("Idempotency-Key", &Uuid::new_v4().to_string());
        let answer = self.invoke("wpp-create", event.v2()).await;
        assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
        let session = answer.json["session"].as_str().unwrap().to_owned();
        let row = self
            .sql
            .query_one(
                "select id, settings->>'wppApiKey' from messenger_integrations
                 where settings->>'wppAccountNumber' = $1",
                &[&session],
            )
            .await
            .unwrap();
        self.forget_calls();
        Number { id: row.get(0), session, key: row.get(1) }
    }

    /// Starts counting anew.
    pub fn forget_calls(&self) {
        self.stack.platform.faults.reset_counts();
        self.stack.supabase.faults.reset_counts();
    }

    /// All upstream calls since, as `{"endpoint": times}`.
    pub fn calls(&self) -> Value {
        let (platform, supabase) = (self.stack.platform.faults.counts(), self.stack.supabase.faults.counts());
        let calls: BTreeMap<_, _> =
            platform.into_iter().chain(supabase).filter(|(_, times)| *times > 0).collect();
        json!(calls)
    }

    /// A number's settings as they stand in its row.
    pub async fn settings(&self, number: &Number) -> Value {
        let settings = "select settings from messenger_integrations where id = $1";
        let Json(settings) = self.sql.query_one(settings, &[&number.id]).await.unwrap().get(0);
        settings
    }

    /// Merges keys into a number's settings, as a sibling function may.
    pub async fn merge(&self, number: &Number, keys: Value) {
        let merge = "update messenger_integrations set settings = settings || $2 where id = $1";
        assert_eq!(self.sql.execute(merge, &[&number.id, &Json(keys)]).await.unwrap(), 1);
    }

    /// Makes every key an hour old: one so old is not refused for being new.
    pub async fn settle_keys(&self) {
        let age = "update wpp_numbers set credentials_saved_at = credentials_saved_at - interval '1 hour';
            update wpp_creations set finished_at = finished_at - interval '1 hour'";
        self.sql.batch_execute(age).await.unwrap();
    }

    /// All rows of the school's numbers, the oldest first.
    pub async fn numbers(&self) -> Vec<Value> {
        let rows = "select to_jsonb(i) from messenger_integrations i where organization_id = $1
            order by created_at, id";
        let rows = self.sql.query(rows, &[&self.school.id]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Json<Value>>(0).0).collect()
    }

    /// What `whatsapp_sessions` holds of a session; null where it holds nothing.
    pub async fn mirror(&self, session: &str) -> Value {
        let row = "select to_jsonb(s) from whatsapp_sessions s where session_name = 'wpp_' || $1";
        let row = self.sql.query_opt(row, &[&session]).await.unwrap();
        row.map_or(Value::Null, |row| row.get::<_, Json<Value>>(0).0)
    }

    /// Moves everything in `whatsapp_sessions` so many seconds into the past.
    pub async fn age_mirror(&self, seconds: i32) {
        let age = "update whatsapp_sessions set
            updated_at = updated_at - $1 * interval '1 second', last_qr_at = last_qr_at - $1 * interval '1 second'";
        self.sql.execute(age, &[&f64::from(seconds)]).await.unwrap();
    }

    /// Ends at once what a number's next refresh would wait for: a lease, or the pause after a failure.
    pub async fn end_waits(&self, number: &Number) {
        let end =
            "update wpp_token_leases set held_until = now(), retry_at = now() where integration_id = $1";
        self.sql.execute(end, &[&number.id]).await.unwrap();
    }

    /// Moves the stored token's end to so many seconds from now.
    pub async fn set_token_end(&self, number: &Number, seconds: i64) {
        let end = clock::unix_ms() + seconds * 1000;
        self.merge(number, json!({"wppJwtExpiresAt": end})).await;
    }
}

/// Waits until `condition` holds; ten seconds are enough for anything that is still to come.
pub async fn until(condition: impl AsyncFn() -> bool) {
    until_within(Duration::from_secs(10), condition).await;
}

/// Waits until `condition` holds, for so long at most.
pub async fn until_within(patience: Duration, condition: impl AsyncFn() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(patience, holds).await.unwrap();
}

/// The functions' environment in a stack, with more or other variables; an empty one is left out.
pub fn environment(stack: &Stack, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut env = stack.env();
    env.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    env.extend(
        more.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
    );
    env
}
