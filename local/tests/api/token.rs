//! A token from its first use to its last, with the real platform client. `now` is an argument, so the test need not wait for an hour.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use shared::clock::UnixMs;
use shared::deadline::Deadline;
use shared::error::Error;
use shared::number::session::NumberSession;
use shared::secrets::NeededSecrets;
use shared::store::{self, NumberSelector};
use shared::wpp::{Status, Token};
use shared::{App, Function};

use local::fault_injector::Fault;
use local::test_app::{Number, TestApp, environment};

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

fn token(number: &store::Number) -> Token {
    number.client_options(UnixMs(0)).unwrap().token().unwrap()
}

/// A number whose row is read again for every request, as in a function.
struct Fixture {
    app: TestApp,
    number: Number,
    sandbox: Arc<App>,
}

impl Fixture {
    async fn start() -> Self {
        let (app, number) = TestApp::start_with_number().await;
        // A key this old no longer counts as new.
        app.settle_keys().await;
        app.end_waits().await;
        let env: BTreeMap<_, _> = environment(&app.stack, &[]).into_iter().collect();
        let function = Function::read(|name| env.get(name).cloned(), NeededSecrets::Supabase).unwrap();
        let sandbox = function.app(UnixMs(0), deadline()).await.unwrap();
        Self { app, number, sandbox }
    }

    async fn row(&self) -> store::Number {
        let selector = NumberSelector { session: Some(self.number.session.clone()), integration_id: None };
        let found = self.sandbox.store.find(self.app.school.user, &selector, deadline()).await.unwrap();
        found.number.unwrap()
    }

    async fn stored(&self) -> Token {
        token(&self.row().await)
    }

    /// Sends a request when the stored token has `left` seconds left. Returns its result, with its calls to the platform and for
    /// the lease.
    async fn request(&self, left: u64) -> (Result<Status, Error>, Value) {
        self.app.settle_tokens().await;
        let number = self.row().await;
        let now = token(&number).expires_at.minus(Duration::from_secs(left));
        self.app.forget_calls();
        let mut session = NumberSession::open(&self.sandbox, number, now, deadline()).unwrap();
        (session.fetch_status().await, self.app.calls())
    }

    async fn serves(&self, left: u64, calls: Value) {
        let (answer, made) = self.request(left).await;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(made, calls);
    }

    async fn refuses(&self, left: u64, code: &str, calls: Value) {
        let (answer, made) = self.request(left).await;
        assert_eq!(answer.unwrap_err().response().code, code);
        assert_eq!(made, calls);
    }

    /// Makes the lease or the cooldown last longer than the test.
    async fn lengthen(&self, what: &str) {
        let longer =
            format!("update wpp_token_leases set {what} = now() + interval '59 s' where {what} is not null");
        assert_eq!(self.app.sql.execute(&longer, &[]).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn token_life_from_first_use_to_rejected_key() {
    let fixture = Fixture::start().await;
    let (platform, first) = (&fixture.app.platform, fixture.stored().await);

    // Fresh.
    fixture.serves(3600, json!({"status": 1})).await;
    fixture.serves(61, json!({"status": 1})).await;

    // It is due, and the refresh fails: the old token is used. Until the short lease has expired, no request tries again.
    platform.faults.inject("token", Fault::status(500));
    fixture.serves(60, json!({"status": 1, "token": 1, "rpc/wpp_claim_refresh": 1})).await;
    fixture.lengthen("held_until").await;
    fixture.serves(6, json!({"status": 1, "rpc/wpp_claim_refresh": 1})).await;
    assert_eq!(fixture.stored().await, first);

    // It has expired: the platform is not even called with it. A request right after a failure gets that failure.
    fixture.app.end_waits().await;
    let failed = json!({"token": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_release_refresh": 1});
    fixture.refuses(5, "platform_unavailable", failed).await;
    fixture.lengthen("retry_at").await;
    fixture.refuses(5, "platform_unavailable", json!({"rpc/wpp_claim_refresh": 1})).await;
    // A due token is used anyway.
    fixture.serves(6, json!({"status": 1, "rpc/wpp_claim_refresh": 1})).await;

    // Refreshed when it is due, and when it has expired.
    platform.faults.clear();
    let refreshed = json!({"token": 1, "status": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1});
    for left in [60, 5] {
        let before = fixture.stored().await;
        fixture.app.end_waits().await;
        fixture.serves(left, refreshed.clone()).await;
        assert_ne!(fixture.stored().await.jwt, before.jwt);
        fixture.serves(3600, json!({"status": 1})).await;
    }

    // Rejected while it is fresh or due, then replaced.
    for (left, calls) in [
        (3600, json!({"token": 1, "status": 2, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1})),
        (60, refreshed),
    ] {
        let before = fixture.stored().await;
        platform.forget_tokens();
        fixture.serves(left, calls).await;
        assert_ne!(fixture.stored().await.jwt, before.jwt);
        fixture.serves(3600, json!({"status": 1})).await;
    }

    // The key is dead: its last token is used while the platform accepts it.
    platform.revoke_key(&fixture.number.key);
    fixture.serves(3600, json!({"status": 1})).await;
    platform.forget_tokens();
    let dead = json!({"token": 1, "status": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_release_refresh": 1});
    fixture.refuses(3600, "api_key_rejected", dead).await;
    fixture.refuses(3600, "api_key_rejected", json!({"status": 1, "rpc/wpp_claim_refresh": 1})).await;
}

#[tokio::test]
async fn a_locked_row_is_a_503_if_a_token_is_needed() {
    let (app, number) = TestApp::start_with_number().await;
    app.end_waits().await;
    for (end_s, status, code) in [(3 * 24 * 3600, 200, Value::Null), (-1, 503, json!("database_unavailable"))]
    {
        app.set_token_end(&number, end_s).await;
        let mut idle = app.sql().await.unwrap();
        let lock = idle.transaction().await.unwrap();
        lock.execute("update messenger_integrations set name = name where id = $1", &[&number.id])
            .await
            .unwrap();
        let answer = app.poll_qr(&number.session).await;
        assert_eq!((answer.status, &answer.json["code"]), (status, &code), "{answer:?}");
        lock.commit().await.unwrap();
    }
}
