//! An upstream goes away under a steady load of polls and comes back: errors only while it is away, and no row damaged.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use futures_util::future::join3;
use local::gate::Fault;
use local::lambda::{Answer, Options};
use local::stage::{Line, Stage};
use serde_json::{Value, json};
use tokio_postgres::types::Json;

/// Polls of each of the three pages in each phase.
const POLLS: usize = 6;

/// Short, so that a phase in which nobody answers ends soon.
const TIMES: [(&str, &str); 3] =
    [("UPSTREAM_TIMEOUT_MS", "2000"), ("REQUEST_BUDGET_MS", "4000"), ("QR_WAIT_MS", "2000")];

/// A school with a number, whose QR, status and set-up three pages ask for all the time.
struct Load {
    stage: Stage,
    line: Line,
}

impl Load {
    async fn begin() -> Self {
        let stage = Stage::start_with(&TIMES, Options::default()).await;
        let line = stage.number().await;
        Self { stage, line }
    }

    /// What all three pages got in one phase, side by side.
    async fn polls(&self) -> Vec<Answer> {
        let page = async |name: &str, body: Value| {
            let mut answers = Vec::new();
            for _ in 0..POLLS {
                answers.push(self.stage.post(name, body.clone()).await);
            }
            answers
        };
        let session = json!({"session": self.line.session});
        let status = json!({"session": self.line.session, "force": true});
        let (qr, status, create) =
            join3(page("wpp-qr", session), page("wpp-status", status), page("wpp-create", json!({}))).await;
        [qr, status, create].concat()
    }

    async fn assert_well(&self, when: &str) {
        let failed: Vec<_> = self.polls().await.into_iter().filter(|answer| answer.status != 200).collect();
        assert!(failed.is_empty(), "{when}: {failed:#?}");
    }

    /// Every poll fails, as something that passes, with one of these codes.
    async fn assert_away(&self, codes: &[&str]) {
        for answer in self.polls().await {
            assert!(codes.iter().any(|code| answer.json["code"] == *code), "{answer:?}");
            assert_eq!(answer.json["retryable"], true, "{answer:?}");
        }
    }

    /// What must be as it was: all but the times at which a mirror was written.
    async fn rows(&self) -> Value {
        let sql = self.stage.world.sql().await.unwrap();
        let rows = "select jsonb_build_object(
            'numbers', (select jsonb_agg(to_jsonb(i) - 'updated_at' order by id) from messenger_integrations i),
            'creations', (select jsonb_agg(c order by id) from wpp_creations c),
            'sessions', (select jsonb_agg(jsonb_build_array(session_name, status) order by session_name)
                from whatsapp_sessions))";
        let Json(rows) = sql.query_one(rows, &[]).await.unwrap().get(0);
        rows
    }
}

const DATABASE_AWAY: [&str; 2] = ["database_unavailable", "database_timeout"];

#[tokio::test]
async fn a_stopped_database_costs_errors_only_while_it_is_stopped() {
    let load = Load::begin().await;
    let before = load.rows().await;
    load.assert_well("before").await;
    load.stage.world.postgres.stop().await.unwrap();
    load.assert_away(&DATABASE_AWAY).await;
    load.stage.world.postgres.restart().await.unwrap();
    load.assert_well("after").await;
    assert_eq!(load.rows().await, before);
}

#[tokio::test]
async fn a_restarted_postgrest_costs_errors_only_while_it_is_away() {
    let load = Load::begin().await;
    let before = load.rows().await;
    load.assert_well("before").await;
    load.stage.world.postgrest.stop().await.unwrap();
    load.assert_away(&DATABASE_AWAY).await;
    load.stage.world.postgrest.restart().await.unwrap();
    load.assert_well("after").await;
    assert_eq!(load.rows().await, before);
}

#[tokio::test]
async fn a_platform_that_is_down_costs_errors_only_while_it_is_down() {
    let load = Load::begin().await;
    let before = load.rows().await;
    let gate = &load.stage.world.platform.gate;
    load.assert_well("before").await;
    for fault in
        [Fault::Drop, Fault::Status { status: 503, body: String::new(), retry_after_s: None }, Fault::Html]
    {
        gate.inject("*", fault);
        load.assert_away(&["platform_unavailable", "platform_bad_answer"]).await;
        gate.clear();
        load.assert_well("after").await;
    }
    assert_eq!(load.rows().await, before);
}

#[tokio::test]
async fn a_platform_that_has_forgotten_every_token_costs_one_refresh() {
    let load = Load::begin().await;
    load.assert_well("before").await;
    load.stage.world.platform.forget_tokens();
    load.stage.forget_calls();
    load.assert_well("after").await;
    assert_eq!(load.stage.world.platform.gate.count("token"), 1);
}
