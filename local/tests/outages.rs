//! An upstream fails under a steady load of polls and comes back. Until it works again, every answer is a success or a retryable
//! error. From then on, every answer is a success. No row is damaged.
//!
//! `OUTAGE_SECONDS` says how long it is down: 5 by default, 40 in `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use local::clock::unix_ms;
use local::fault_injector::Fault;
use local::lambda::{Answer, Options};
use local::platform::FieldValue;
use local::postgres::Storage;
use local::stack::{Settings, Stack};
use local::test_app::{Number, TestApp, until_within};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::types::Json;

/// How many answers of each page to wait for, before and after the outage.
const POLLS: usize = 8;

/// Short, so that a call without an answer ends soon.
const SHORT_TIMEOUTS: [(&str, &str); 2] = [("UPSTREAM_TIMEOUT_MS", "1500"), ("QR_WAIT_MS", "2000")];

/// A failed refresh is not retried for a second: requests that need the token in that time get the same failure.
const COOLDOWN_MS: i64 = 1_000;

/// Longer than any request during the outage, and than PostgREST's longest pause before it reconnects: 32 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// The documented, retryable errors of an outage.
const DATABASE_DOWN: [(u16, &str); 3] =
    [(503, "database_unavailable"), (504, "database_timeout"), (504, "deadline_exceeded")];
const PLATFORM_DOWN: [(u16, &str); 2] = [(502, "platform_unavailable"), (504, "platform_timeout")];
const PLATFORM_GARBAGE: [(u16, &str); 2] = [(502, "platform_unavailable"), (502, "platform_bad_answer")];

/// A school with a number whose token expires every few seconds, and three pages that poll it all the time.
struct Load {
    app: Arc<TestApp>,
    number: Number,
    pages: JoinSet<()>,
    answers: Arc<Mutex<[Vec<Poll>; 3]>>,
}

/// When it was sent and answered, in milliseconds since 1970, and the answer.
type Poll = (i64, i64, Answer);

impl Load {
    async fn begin() -> Self {
        let settings = Settings { storage: Storage::OwnServer, ..Settings::default() };
        let stack = Stack::start_with(settings).await.unwrap();
        let app = TestApp::on(stack, &SHORT_TIMEOUTS, Options::default()).await;
        // The margin is a fifth of such a TTL, so the token is used for 4 s.
        app.platform.behave(|behavior| behavior.expires_in = FieldValue::This(json!(5)));
        let number = app.settled_number().await;
        let (app, answers) = (Arc::new(app), Arc::new(Mutex::default()));
        let mut load = Self { app, number, pages: JoinSet::new(), answers };
        let session = load.number.session.clone();
        load.open(0, "wpp-qr", json!({"session": session}));
        load.open(1, "wpp-status", json!({"session": session, "force": true}));
        load.open(2, "wpp-create", json!({}));
        load
    }

    fn open(&mut self, page: usize, name: &'static str, body: Value) {
        let (app, answers) = (self.app.clone(), self.answers.clone());
        self.pages.spawn(async move {
            loop {
                let sent_at = unix_ms();
                let answer = app.post(name, body.clone()).await;
                let answered = (sent_at, unix_ms(), answer);
                answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[page].push(answered);
            }
        });
    }

    /// Waits until every page has this many answers to requests sent since then.
    async fn answers_since(&self, since_ms: i64) {
        let enough = || {
            let answers = self.answers.lock().unwrap();
            answers.iter().all(|page| page.iter().filter(|(sent, ..)| *sent >= since_ms).count() >= POLLS)
        };
        until_within(PATIENCE, async || enough()).await;
    }

    /// Stops an upstream while the pages poll, for `OUTAGE_SECONDS`, and starts it again. A poll may fail with one of these errors
    /// until the project's REST API works again, and for `grace_ms` more. Before and after that, no poll fails.
    async fn survives(
        mut self,
        stop: impl AsyncFnOnce(&TestApp),
        restart: impl AsyncFnOnce(&TestApp),
        errors: &[(u16, &str)],
        grace_ms: i64,
    ) {
        let before = rows(&self.app).await;
        self.answers_since(0).await;
        let left_at = unix_ms();
        stop(&self.app).await;
        tokio::time::sleep(outage()).await;
        restart(&self.app).await;
        until_within(PATIENCE, async || database_answers(&self.app).await).await;
        let back_at = unix_ms() + grace_ms;
        self.answers_since(back_at).await;

        self.pages.shutdown().await;
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        let mut failed = 0;
        for (sent, answered, answer) in answers.iter().flatten().filter(|(.., answer)| answer.status != 200) {
            let is_during_outage = *sent <= back_at && *answered >= left_at;
            assert!(is_during_outage, "failed {} ms after the end of the outage: {answer:?}", sent - back_at);
            assert_retryable(answer, errors);
            failed += 1;
        }
        let all: usize = answers.iter().map(Vec::len).sum();
        println!("{failed} of {all} polls failed, all of them in the {} ms of the outage", back_at - left_at);
        assert!(failed > 0, "no poll noticed the outage");

        assert_eq!(rows(&self.app).await, before);
        // With all leases and cooldowns ended and the token expired, the next request refreshes it as usual.
        let end = "update wpp_token_leases set held_until = now(), retry_at = now();
            update messenger_integrations set settings = settings || '{\"wppJwtExpiresAt\": 1000}'";
        self.app.sql().await.unwrap().batch_execute(end).await.unwrap();
        let answer = self.app.poll_qr(&self.number.session).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Asserts that the answer is one of these errors, in the common envelope.
fn assert_retryable(answer: &Answer, errors: &[(u16, &str)]) {
    let code = answer.json["code"].as_str().unwrap_or_default();
    assert!(errors.contains(&(answer.status, code)), "{answer:?}");
    assert_eq!(answer.json["success"], false, "{answer:?}");
    assert_eq!(answer.json["retryable"], true, "{answer:?}");
    assert!(answer.json["error"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{answer:?}");
    assert_eq!(answer.json["request_id"], json!(answer.headers["x-request-id"]), "{answer:?}");
}

/// Whether the project's REST API can read a row, like the functions: it may take longer to come back than the database.
async fn database_answers(app: &TestApp) -> bool {
    let stack = &app.stack;
    let url = format!("{}/rest/v1/messenger_integrations?select=id&limit=1", stack.supabase.url());
    let request = local::http::client().unwrap().get(url).header("apikey", stack.keys.secret_key());
    request.send().await.is_ok_and(|response| response.status().is_success())
}

fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// Returns what must be unchanged: the numbers without their tokens, the creations, each session's state, and which numbers have a lease.
async fn rows(app: &TestApp) -> Value {
    let sql = app.sql().await.unwrap();
    let rows = "select jsonb_build_object(
        'numbers', (select jsonb_agg((to_jsonb(i) #- '{settings,wppJwtToken}' #- '{settings,wppJwtExpiresAt}') - 'updated_at'
            order by id) from messenger_integrations i),
        'creations', (select jsonb_agg(c order by id) from wpp_creations c),
        'sessions', (select jsonb_agg(jsonb_build_array(session_name, status) order by session_name)
            from whatsapp_sessions),
        'leases', (select jsonb_agg(integration_id) from wpp_token_leases))";
    let Json(rows) = sql.query_one(rows, &[]).await.unwrap().get(0);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_database_fails_requests_until_it_is_back() {
    let load = Load::begin().await;
    load.survives(
        async |app| app.postgres.stop().await.unwrap(),
        async |app| app.postgres.restart().await.unwrap(),
        &DATABASE_DOWN,
        0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgrest_restart_fails_requests_only_while_it_lasts() {
    let load = Load::begin().await;
    load.survives(
        async |app| app.postgrest.stop().await.unwrap(),
        async |app| app.postgrest.restart().await.unwrap(),
        &DATABASE_DOWN,
        0,
    )
    .await;
}

/// PostgREST without its schema cache, although the database is up.
#[tokio::test(flavor = "multi_thread")]
async fn missing_schema_cache_fails_requests_until_it_is_loaded() {
    let body = json!({"code": "PGRST002", "details": null, "hint": null,
        "message": "Could not query the database for the schema cache. Retrying."});
    let not_yet = Fault::Status { status: 503, body: body.to_string(), retry_after_s: Some(0) };
    let load = Load::begin().await;
    load.survives(
        async |app| app.supabase.faults.inject("*", not_yet),
        async |app| app.clear_faults(),
        &DATABASE_DOWN,
        0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn platform_outage_fails_requests_only_while_it_lasts() {
    let load = Load::begin().await;
    load.survives(
        async |app| app.platform.server.refuse().await.unwrap(),
        async |app| app.platform.server.accept().await.unwrap(),
        &PLATFORM_DOWN,
        COOLDOWN_MS,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_platform_answers_fail_only_while_they_last() {
    let nonsense = [Fault::Html, Fault::status(503), Fault::Drop, Fault::Truncated];
    let load = Load::begin().await;
    load.survives(
        async |app| {
            for (endpoint, fault) in ["token", "status", "qr", "start"].into_iter().zip(nonsense) {
                app.inject(endpoint, fault);
            }
        },
        async |app| app.clear_faults(),
        &PLATFORM_GARBAGE,
        COOLDOWN_MS,
    )
    .await;
}

#[tokio::test]
async fn platform_that_forgets_its_tokens_costs_one_refresh() {
    let (app, number) = TestApp::start_with_number().await;
    app.platform.forget_tokens();
    for _ in 0..3 {
        assert_eq!(app.poll_qr(&number.session).await.status, 200);
        assert_eq!(app.check().await.status, 200);
    }
    assert_eq!(app.count("token"), 1);
}
