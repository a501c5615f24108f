use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::error::AuthError;
use crate::request_log::{CallStatus, noted};
use crate::store::StoreError;
use crate::testing::{Server, reply};
use crate::upstream::CallError;
use crate::wpp::api::PlatformError;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const JWT_SECRET: &str = "a legacy secret of at least thirty-two bytes";

fn at(seconds: u64) -> UnixMs {
    NOW.plus(Duration::from_secs(seconds))
}

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

/// A function whose Supabase secrets are in Secrets Manager, and a fake Secrets Manager.
struct Stage {
    manager: Server,
    function: Function,
}

impl Stage {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Sets up a stage with these additional variables.
    async fn with(more: &[(&str, &str)]) -> Self {
        let manager = Server::start("").await;
        let function = Function::read(
            |name| {
                let value = match name {
                    "WPP_BASE_URL" | "SUPABASE_URL" => "http://127.0.0.1:1",
                    "SUPABASE_SECRET_ARN" => "arn:aws:secretsmanager:eu-west-1:123456789012:secret:name",
                    "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => "x",
                    "AWS_ENDPOINT_URL" => &manager.url,
                    name => more.iter().find(|(variable, _)| *variable == name)?.1,
                };
                Some(value.to_owned())
            },
            NeededSecrets::Supabase,
        );
        let stage = Self { manager, function: function.unwrap() };
        stage.keeps("old");
        stage
    }

    /// Sets up a stage with all secrets in the environment. Nothing is read, so a paused clock stands still.
    async fn given() -> Self {
        Self::with(&[
            ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_given"),
            ("SUPABASE_JWT_SECRET", JWT_SECRET),
            ("WPP_SECRET", "w"),
        ])
        .await
    }

    /// Puts this service key into the secret, and no other.
    fn keeps(&self, key: &str) {
        self.holds(&json!({"SUPABASE_SERVICE_ROLE_KEY": format!("sb_secret_{key}")}));
    }

    fn holds(&self, keys: &Value) {
        self.manager.says(reply(200, &json!({"SecretString": keys.to_string()}).to_string()));
    }

    fn is_down(&self) {
        self.manager.says(reply(403, ""));
    }

    /// Returns the app's service key for a request at `now`, and how often the secret has been read.
    async fn key(&self, now: UnixMs) -> (String, usize) {
        let app = self.function.app(now, deadline()).await.unwrap();
        (key(&app), self.manager.requests())
    }

    /// Serves a request at `now` that fails unless its key is `good`. Returns how often it was served, and whether it succeeded.
    async fn serve(&self, now: UnixMs, good: &str, error: fn() -> Error) -> (usize, bool) {
        let served = AtomicUsize::new(0);
        let request = |app: Arc<App>| {
            served.fetch_add(1, Ordering::Relaxed);
            std::future::ready(if key(&app) == good { Ok(()) } else { Err(error()) })
        };
        let outcome = self.function.serve(now, deadline(), request).await;
        (served.into_inner(), outcome.is_ok())
    }

    /// Serves a request at `now` whose call ends with this status. Returns whether it counts as evidence against the key.
    async fn is_evidence(
        &self,
        now: UnixMs,
        call: &'static str,
        status: u16,
        error: Option<fn() -> Error>,
    ) -> bool {
        let request = |_| {
            request_log::call(call, deadline()).status = CallStatus::Http(status);
            std::future::ready(error.map_or(Ok(()), |error| Err(error())))
        };
        let (_, record) = noted(self.function.serve(now, deadline(), request)).await;
        record.own_key_rejected
    }

    /// Does the same as [`Stage::is_evidence`], when the database refuses the service key.
    async fn refuse(&self, now: UnixMs) -> bool {
        self.is_evidence(now, "wpp_find_number", 401, Some(key_refused)).await
    }

    /// Does the same as [`Stage::is_evidence`], when the platform refuses `WPP_SECRET` after the database accepted the service key.
    async fn refuse_secret(&self, now: UnixMs) -> bool {
        self.is_evidence(now, "wpp_begin_creation", 200, Some(secret_refused)).await
    }
}

fn key(app: &App) -> String {
    app.secrets.service_key.secret().expose().trim_start_matches("sb_secret_").to_owned()
}

fn read(key: &str, times: usize) -> (String, usize) {
    (key.to_owned(), times)
}

fn key_refused() -> Error {
    CallError { call: "wpp_find_number", why: StoreError::KeyRefused }.into()
}

fn secret_refused() -> Error {
    CallError { call: "create", why: PlatformError::SecretRefused }.into()
}

fn token_refused() -> Error {
    AuthError::BadSignature.into()
}

#[tokio::test]
async fn secrets_are_read_again_after_five_minutes() {
    for (later_ms, times) in [(0, 1), (299_999, 1), (300_000, 2), (86_400_000, 2)] {
        let stage = Stage::new().await;
        assert_eq!(stage.key(NOW).await, read("old", 1));
        stage.keeps("new");
        let expected = read(if times == 2 { "new" } else { "old" }, times);
        assert_eq!(stage.key(UnixMs(NOW.0 + later_ms)).await, expected, "{later_ms}");
    }
}

#[tokio::test]
async fn clock_set_back_by_5_minutes_rereads_the_secret() {
    for (earlier_ms, times) in [(299_999, 1), (300_000, 2)] {
        let stage = Stage::new().await;
        assert_eq!(stage.key(NOW).await, read("old", 1));
        assert_eq!(stage.key(UnixMs(NOW.0 - earlier_ms)).await, read("old", times), "{earlier_ms}");
    }
}

#[tokio::test]
async fn unchanged_secrets_keep_their_app() {
    let stage = Stage::new().await;
    let app = stage.function.app(NOW, deadline()).await.unwrap();
    let later = stage.function.app(at(300), deadline()).await.unwrap();
    assert!(Arc::ptr_eq(&app, &later) && stage.manager.requests() == 2);
    // Counted from the second reading.
    assert_eq!(stage.key(at(599)).await, read("old", 2));
    assert_eq!(stage.key(at(600)).await, read("old", 3));
}

#[tokio::test]
async fn hundred_first_requests_share_one_read() {
    for is_down in [false, true] {
        let stage = Stage::new().await;
        if is_down {
            stage.is_down();
        }
        let apps = join_all((0..100).map(|_| stage.function.app(NOW, deadline()))).await;
        assert!(apps.iter().all(|app| app.is_err() == is_down));
        assert_eq!(stage.manager.requests(), 1, "{is_down}");
    }
}

#[tokio::test]
async fn request_after_a_failed_first_read_reads_again() {
    let stage = Stage::new().await;
    stage.is_down();
    for times in 1..4 {
        let error = stage.function.app(NOW, deadline()).await.err().unwrap();
        assert!(error.to_string().contains("SUPABASE_SECRET_ARN"), "{error}");
        assert_eq!(stage.manager.requests(), times);
    }
    stage.keeps("old");
    assert_eq!(stage.key(NOW).await, read("old", 4));
}

/// The sandbox was frozen while it read.
#[tokio::test]
async fn requests_do_not_share_a_failed_early_read() {
    let stage = Stage::new().await;
    stage.is_down();
    let (early, apps) = tokio::join!(biased; stage.function.secrets.read_early(NOW), async {
        let requests = join_all((0..3).map(|_| stage.key(NOW)));
        while stage.manager.heard().is_empty() {
            tokio::task::yield_now().await;
        }
        stage.keeps("old");
        requests.await
    });
    assert!(early.is_err());
    assert_eq!(apps, [read("old", 2), read("old", 2), read("old", 2)]);
}

#[tokio::test]
async fn first_request_waits_for_an_early_read() {
    let stage = Stage::new().await;
    let (early, app) = tokio::join!(biased; stage.function.secrets.read_early(NOW), stage.key(NOW));
    assert_eq!((early, app), (Ok(()), read("old", 1)));
}

#[tokio::test]
async fn requests_during_a_read_do_not_wait() {
    let stage = Stage::new().await;
    assert_eq!(stage.key(NOW).await, read("old", 1));
    // Secrets Manager does not answer.
    stage.manager.says("");
    let others = async {
        while stage.manager.requests() < 2 {
            tokio::task::yield_now().await;
        }
        join_all((0..100).map(|_| stage.key(at(300)))).await
    };
    tokio::select! {
        biased;
        _ = stage.key(at(300)) => panic!("the reading has ended"),
        served = others => assert!(served.iter().all(|served| *served == read("old", 2)), "{served:?}"),
    }
}

#[tokio::test]
async fn old_secrets_serve_while_secrets_manager_is_down() {
    let stage = Stage::new().await;
    assert_eq!(stage.key(NOW).await, read("old", 1));
    stage.is_down();
    for (seconds, times, tells) in
        [(300, 2, true), (300, 2, false), (329, 2, false), (330, 3, true), (360, 4, true)]
    {
        let (served, record) = noted(stage.key(at(seconds))).await;
        assert_eq!(served, read("old", times), "{seconds}");
        let told = record.secret_failure.unwrap_or_default();
        assert_eq!(told.contains("SUPABASE_SECRET_ARN"), tells, "{seconds}: {told}");
    }
    stage.keeps("new");
    assert_eq!(stage.key(at(389)).await, read("old", 4));
    assert_eq!(stage.key(at(390)).await, read("new", 5));
}

/// The secret's new value, and the JWT secret and the report with which the function continues.
#[tokio::test]
async fn each_key_of_a_secret_is_taken_separately() {
    const OTHER: &str = "another secret of at least thirty-two bytes";
    let service = |key: &str| json!({"SUPABASE_SERVICE_ROLE_KEY": key});
    let both = |key: &str, jwt: Value| json!({"SUPABASE_SERVICE_ROLE_KEY": key, "SUPABASE_JWT_SECRET": jwt});
    let missing = "SUPABASE_JWT_SECRET is missing, and its old value stays in use";
    for (holds, service_key, jwt_secret, problem) in [
        (both("sb_secret_new", json!(OTHER)), "new", Some(OTHER), ""),
        (both("sb_secret_new", json!("")), "new", None, ""),
        (both("sb_secret_new", json!(" \n")), "new", None, ""),
        (service("sb_secret_new"), "new", Some(JWT_SECRET), missing),
        (both("sb_secret_new", json!(null)), "new", Some(JWT_SECRET), "SUPABASE_JWT_SECRET is not a text"),
        (
            both("sb_secret_new", json!("short")),
            "new",
            Some(JWT_SECRET),
            "SUPABASE_JWT_SECRET has fewer than 32",
        ),
        (both("canary", json!(OTHER)), "old", Some(OTHER), "SUPABASE_SERVICE_ROLE_KEY is neither"),
        (both("", json!(OTHER)), "old", Some(OTHER), "SUPABASE_SERVICE_ROLE_KEY is empty"),
        (json!({"SUPABASE_JWT_SECRET": OTHER}), "old", Some(OTHER), "SUPABASE_SERVICE_ROLE_KEY is missing"),
        (json!({}), "old", Some(JWT_SECRET), "SUPABASE_SERVICE_ROLE_KEY is missing"),
        (json!({}), "old", Some(JWT_SECRET), missing),
        (json!(["canary"]), "old", Some(JWT_SECRET), "SecretString is not a JSON object"),
    ] {
        let stage = Stage::new().await;
        stage.holds(&both("sb_secret_old", json!(JWT_SECRET)));
        stage.key(NOW).await;
        stage.holds(&holds);
        let (app, record) = noted(stage.function.app(at(300), deadline())).await;
        let app = app.unwrap();
        assert_eq!(key(&app), service_key, "{holds}");
        assert_eq!(app.secrets.jwt_secret.as_ref().map(|secret| secret.expose()), jwt_secret, "{holds}");
        let told = record.secret_failure.unwrap_or_default();
        assert!(told.contains(problem) && told.is_empty() == problem.is_empty(), "{holds}: {told}");
        assert!(!told.contains("canary"), "{told}");
    }
}

#[tokio::test]
async fn a_secret_with_a_problem_is_read_again_after_thirty_seconds() {
    let stage = Stage::new().await;
    stage.holds(&json!({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_old", "SUPABASE_JWT_SECRET": JWT_SECRET}));
    assert_eq!(stage.key(NOW).await, read("old", 1));
    stage.keeps("new");
    assert_eq!(stage.key(at(300)).await, read("new", 2));
    assert_eq!(stage.key(at(329)).await, read("new", 2));
    assert_eq!(stage.key(at(330)).await, read("new", 3));
}

#[tokio::test]
async fn a_removed_jwt_secret_may_then_be_missing() {
    let stage = Stage::new().await;
    let with =
        |secret: &str| json!({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_old", "SUPABASE_JWT_SECRET": secret});
    stage.holds(&with(JWT_SECRET));
    stage.key(NOW).await;
    stage.holds(&with(""));
    stage.key(at(300)).await;
    stage.keeps("old");
    let (app, record) = noted(stage.function.app(at(600), deadline())).await;
    assert_eq!((app.unwrap().secrets.jwt_secret.clone(), record.secret_failure), (None, None));
}

/// The read was caused by a stranger's token, but its failure is reported to the operator.
#[tokio::test]
async fn refused_token_reports_a_failed_read() {
    let stage = Stage::new().await;
    stage.holds(&json!({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_old", "SUPABASE_JWT_SECRET": JWT_SECRET}));
    stage.key(NOW).await;
    stage.keeps("old");
    let (_, record) = noted(stage.serve(at(1), "none", token_refused)).await;
    assert!(record.secret_failure.unwrap().contains("SUPABASE_JWT_SECRET is missing"));
}

#[tokio::test]
async fn a_refused_secret_is_read_again_for_the_same_request() {
    for error in [key_refused, token_refused] {
        let stage = Stage::new().await;
        assert_eq!(stage.serve(NOW, "old", error).await, (1, true));
        stage.keeps("new");
        assert_eq!(stage.serve(at(1), "new", error).await, (2, true));
        assert_eq!(stage.serve(at(1), "new", error).await, (1, true));
        assert_eq!(stage.manager.requests(), 2);
    }
}

#[tokio::test]
async fn refusals_cause_one_read_in_thirty_seconds() {
    let stage = Stage::new().await;
    for (later_ms, times) in [(0, 2), (0, 2), (29_999, 2), (30_000, 3), (59_999, 3), (60_000, 4)] {
        let now = UnixMs(NOW.0 + later_ms);
        assert_eq!(stage.serve(now, "new", token_refused).await, (1, false), "{later_ms}");
        assert_eq!(stage.manager.requests(), times, "{later_ms}");
    }
    // A change during the pause is found when the pause is over.
    stage.keeps("new");
    assert_eq!(stage.serve(at(89), "new", token_refused).await, (1, false));
    assert_eq!(stage.serve(at(90), "new", token_refused).await, (2, true));
}

#[tokio::test]
async fn regular_read_does_not_delay_a_read_after_a_refusal() {
    let stage = Stage::new().await;
    assert_eq!(stage.key(NOW).await, read("old", 1));
    assert_eq!(stage.key(at(300)).await, read("old", 2));
    stage.keeps("new");
    assert_eq!(stage.serve(at(301), "new", key_refused).await, (2, true));
}

#[tokio::test]
async fn read_after_a_refusal_does_not_delay_a_regular_read() {
    for is_down in [false, true] {
        let stage = Stage::new().await;
        assert_eq!(stage.key(NOW).await, read("old", 1));
        if is_down {
            stage.is_down();
        }
        assert_eq!(stage.serve(at(299), "new", token_refused).await, (1, false));
        assert_eq!(stage.manager.requests(), 2);
        stage.keeps("new");
        assert_eq!(stage.key(at(300)).await, read("new", 3), "{is_down}");
    }
}

#[tokio::test]
async fn other_errors_cause_no_read() {
    let stage = Stage::new().await;
    assert_eq!(stage.serve(NOW, "new", || Error::NumberNotFound).await, (1, false));
    assert_eq!(stage.manager.requests(), 1);
}

#[tokio::test]
async fn requests_refused_at_once_share_a_read() {
    let stage = Stage::new().await;
    assert_eq!(stage.key(NOW).await, read("old", 1));
    stage.keeps("new");
    let outcomes = join_all((0..100).map(|_| stage.serve(NOW, "new", key_refused))).await;
    assert!(outcomes.iter().all(|(_, is_well)| *is_well), "{outcomes:?}");
    assert_eq!(stage.manager.requests(), 2);
}

#[tokio::test]
async fn secrets_of_the_environment_are_never_read_again() {
    let stage = Stage::given().await;
    assert_eq!(stage.serve(NOW, "new", key_refused).await, (1, false));
    assert_eq!(stage.key(at(86_400)).await, read("given", 0));
}

#[tokio::test]
async fn refused_environment_key_rereads_no_other_secret() {
    let stage = Stage::with(&[("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_given")]).await;
    assert_eq!(stage.serve(NOW, "new", key_refused).await, (1, false));
    assert_eq!(stage.key(NOW).await, read("given", 1));
}

#[tokio::test]
async fn refusal_after_a_new_read_is_evidence() {
    let stage = Stage::new().await;
    assert!(stage.refuse(NOW).await);
    // It was read again after its first refusal, even if no read is due.
    assert!(stage.refuse(at(1)).await);
    assert_eq!(stage.manager.requests(), 2);
}

#[tokio::test]
async fn a_refused_new_key_is_evidence() {
    let stage = Stage::new().await;
    stage.key(NOW).await;
    stage.keeps("new");
    assert!(stage.refuse(at(1)).await);
}

#[tokio::test]
async fn a_refusal_is_no_evidence_while_the_secret_is_unreadable() {
    let stage = Stage::new().await;
    stage.key(NOW).await;
    stage.is_down();
    assert!(!stage.refuse(at(1)).await);
    assert!(!stage.refuse(at(60)).await);
    stage.keeps("old");
    assert!(stage.refuse(at(120)).await);
}

#[tokio::test]
async fn refusal_followed_by_success_is_no_evidence() {
    let stage = Stage::new().await;
    let served = AtomicUsize::new(0);
    let request = |_| {
        let is_first = served.fetch_add(1, Ordering::Relaxed) == 0;
        std::future::ready(if is_first { Err(key_refused()) } else { Ok(()) })
    };
    let (outcome, record) = noted(stage.function.serve(NOW, deadline(), request)).await;
    assert!(outcome.is_ok() && !record.own_key_rejected);
}

#[tokio::test]
async fn a_refused_token_is_no_evidence() {
    let stage = Stage::new().await;
    for seconds in [0, 10, 60] {
        assert!(!stage.is_evidence(at(seconds), "jwks", 401, Some(token_refused)).await);
    }
}

/// With the clock of tokio paused, a request takes no time.
#[tokio::test(start_paused = true)]
async fn plain_key_refused_again_after_5_s_is_evidence() {
    let stage = Stage::given().await;
    for (later_ms, is_evidence) in [(0, false), (4_999, false), (5_000, true), (5_000, true), (60_000, true)]
    {
        let now = UnixMs(NOW.0 + later_ms);
        assert_eq!(stage.refuse(now).await, is_evidence, "{later_ms}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_refusal_counts_from_its_end() {
    let stage = Stage::given().await;
    let slow = |_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Err::<(), _>(key_refused())
    };
    assert!(stage.function.serve(NOW, deadline(), slow).await.is_err());
    assert!(!stage.refuse(UnixMs(NOW.0 + 7_999)).await);
    assert!(stage.refuse(at(8)).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_accepted_needs_new_evidence() {
    let stage = Stage::given().await;
    assert!(!stage.refuse(NOW).await);
    // The platform's secret is counted separately.
    assert!(!stage.is_evidence(at(1), "create", 200, None).await);
    assert!(stage.refuse(at(5)).await);
    assert!(!stage.is_evidence(at(6), "wpp_find_number", 200, None).await);
    assert!(!stage.refuse(at(10)).await);
    assert!(stage.refuse(at(15)).await);
}

#[tokio::test(start_paused = true)]
async fn platform_secret_has_separate_evidence() {
    let stage = Stage::given().await;
    assert!(!stage.refuse_secret(NOW).await);
    assert!(!stage.refuse(at(5)).await);
    assert!(stage.refuse_secret(at(5)).await);
    assert!(!stage.is_evidence(at(6), "create", 201, None).await);
    assert!(!stage.refuse_secret(at(11)).await);
}
