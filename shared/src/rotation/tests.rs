use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::config::Needs;
use crate::http::auth::AuthError;
use crate::record::Record;
use crate::store::StoreError;
use crate::upstream::CallError;
use crate::upstream::testing::{Server, reply};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn at(seconds: u64) -> UnixMs {
    NOW.plus(Duration::from_secs(seconds))
}

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

/// A function whose Supabase keys are kept in a secret, and the Secrets Manager that has it.
struct Stage {
    secrets: Server,
    rotation: Rotation,
}

impl Stage {
    async fn new() -> Self {
        let secrets = Server::start("").await;
        let source = |name: &str| {
            let value = match name {
                "WPP_BASE_URL" | "SUPABASE_URL" => "http://127.0.0.1:1",
                "SUPABASE_SECRET_ARN" => "arn:aws:secretsmanager:eu-west-1:123456789012:secret:name",
                "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => "x",
                "AWS_ENDPOINT_URL" => &secrets.url,
                _ => return None,
            };
            Some(value.to_owned())
        };
        let rotation = Rotation::new(Config::read(source, Needs::ServiceKey).unwrap()).unwrap();
        let stage = Self { secrets, rotation };
        stage.keeps("old");
        stage
    }

    fn keeps(&self, key: &str) {
        self.holds(&json!({"SUPABASE_SERVICE_ROLE_KEY": format!("sb_secret_{key}")}));
    }

    fn holds(&self, keys: &Value) {
        self.secrets.says(reply(200, &json!({"SecretString": keys.to_string()}).to_string()));
    }

    fn is_down(&self) {
        self.secrets.says(reply(403, ""));
    }

    /// The key of the app for a request that comes at `now`, and how often it was read until then.
    async fn key(&self, now: UnixMs) -> (String, usize) {
        let app = self.rotation.app(now, deadline()).await.unwrap();
        (key(&app), self.secrets.requests())
    }

    /// A request at `now`, refused with an error unless its key is `good`; how often it was served, and whether well.
    async fn serve(&self, now: UnixMs, good: &str, error: fn() -> Error) -> (usize, bool) {
        let served = AtomicUsize::new(0);
        let request = |app: Arc<App>| {
            served.fetch_add(1, Ordering::Relaxed);
            std::future::ready(if key(&app) == good { Ok(()) } else { Err(error()) })
        };
        let outcome = self.rotation.serve(now, deadline(), request).await;
        (served.into_inner(), outcome.is_ok())
    }
}

fn key(app: &App) -> String {
    app.keys.service_key.secret().expose().trim_start_matches("sb_secret_").to_owned()
}

fn read(key: &str, times: usize) -> (String, usize) {
    (key.to_owned(), times)
}

fn key_refused() -> Error {
    CallError { call: "wpp_find_number", why: StoreError::KeyRefused }.into()
}

#[tokio::test]
async fn keys_are_read_again_after_five_minutes_whichever_way_the_clock_went() {
    for (later_ms, times) in
        [(0, 1), (299_999, 1), (300_000, 2), (-299_999, 1), (-300_000, 2), (86_400_000, 2)]
    {
        let stage = Stage::new().await;
        assert_eq!(stage.key(NOW).await, read("old", 1));
        stage.keeps("new");
        let expected = read(if times == 2 { "new" } else { "old" }, times);
        assert_eq!(stage.key(UnixMs(NOW.0 + later_ms)).await, expected, "{later_ms}");
    }
}

#[tokio::test]
async fn the_same_keys_go_on_with_the_same_app() {
    let stage = Stage::new().await;
    let app = stage.rotation.app(NOW, deadline()).await.unwrap();
    let later = stage.rotation.app(at(300), deadline()).await.unwrap();
    assert!(Arc::ptr_eq(&app, &later) && stage.secrets.requests() == 2);
    // Counted from the second reading.
    assert_eq!(stage.key(at(599)).await, read("old", 2));
    assert_eq!(stage.key(at(600)).await, read("old", 3));
}

#[tokio::test]
async fn a_hundred_requests_at_once_share_a_reading_and_one_more_where_it_fails() {
    for (is_down, times) in [(false, 1), (true, 2)] {
        let stage = Stage::new().await;
        if is_down {
            stage.is_down();
        }
        let apps = join_all((0..100).map(|_| stage.rotation.app(NOW, deadline()))).await;
        assert!(apps.iter().all(|app| app.is_err() == is_down));
        assert_eq!(stage.secrets.requests(), times);
    }
}

#[tokio::test]
async fn without_any_keys_each_request_tries_anew() {
    let stage = Stage::new().await;
    stage.is_down();
    for times in 1..4 {
        let error = stage.rotation.app(NOW, deadline()).await.err().unwrap();
        assert!(error.to_string().contains("SUPABASE_SECRET_ARN"), "{error}");
        assert_eq!(stage.secrets.requests(), times);
    }
    stage.keeps("old");
    assert_eq!(stage.key(NOW).await, read("old", 4));
}

/// As with a reading that was begun at the start and frozen then.
#[tokio::test]
async fn who_has_waited_for_a_reading_begun_before_tries_itself_where_that_fails() {
    let stage = Stage::new().await;
    stage.secrets.says("HTTP/1.1 200 X\r\n");
    let begun = Deadline::within(Duration::from_millis(300));
    let (first, second) = tokio::join!(biased; stage.rotation.app(NOW, begun), async {
        while stage.secrets.heard().is_empty() {
            tokio::task::yield_now().await;
        }
        stage.keeps("old");
        stage.key(NOW).await
    });
    assert!(first.is_err());
    assert_eq!(second, read("old", 2));
}

#[tokio::test]
async fn while_secrets_manager_is_down_the_old_keys_serve_and_the_request_that_tried_says_so() {
    let stage = Stage::new().await;
    assert_eq!(stage.key(NOW).await, read("old", 1));
    stage.is_down();
    for (seconds, times, tells) in
        [(300, 2, true), (300, 2, false), (329, 2, false), (330, 3, true), (360, 4, true)]
    {
        let (served, record) = Record::default().keep(stage.key(at(seconds))).await;
        assert_eq!(served, read("old", times), "{seconds}");
        let told = record.secret_failure.unwrap_or_default();
        assert_eq!(told.contains("SUPABASE_SECRET_ARN"), tells, "{seconds}: {told}");
    }
    stage.keeps("new");
    assert_eq!(stage.key(at(389)).await, read("old", 4));
    assert_eq!(stage.key(at(390)).await, read("new", 5));
}

#[tokio::test]
async fn keys_that_will_not_do_replace_none_that_do() {
    let stage = Stage::new().await;
    stage.holds(&json!({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_old", "SUPABASE_JWT_SECRET": "legacy"}));
    assert_eq!(stage.key(NOW).await, read("old", 1));
    let left_out = "the secret that SUPABASE_SECRET_ARN names cannot be used: \
        SUPABASE_JWT_SECRET was there before and is missing";
    for (nth, keys, why) in [
        (1_usize, json!({"SUPABASE_SERVICE_ROLE_KEY": "none"}), ""),
        (2, json!({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_new"}), left_out),
    ] {
        stage.holds(&keys);
        let (served, record) = Record::default().keep(stage.key(at(300 * u64::try_from(nth).unwrap()))).await;
        assert_eq!(served, read("old", nth + 1));
        assert!(record.secret_failure.unwrap().contains(why));
    }
    stage.holds(&json!({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_new", "SUPABASE_JWT_SECRET": "other"}));
    assert_eq!(stage.key(at(900)).await, read("new", 4));
}

#[tokio::test]
async fn a_refused_key_is_read_again_and_the_request_served_once_more_if_it_has_changed() {
    let errors: [fn() -> Error; 2] = [key_refused, || AuthError::BadSignature.into()];
    for error in errors {
        let stage = Stage::new().await;
        assert_eq!(stage.serve(NOW, "old", error).await, (1, true));
        stage.keeps("new");
        assert_eq!(stage.serve(at(1), "new", error).await, (2, true));
        assert_eq!(stage.serve(at(1), "new", error).await, (1, true));
        assert_eq!(stage.secrets.requests(), 2);
    }
}

#[tokio::test]
async fn a_key_that_has_not_changed_is_asked_for_once_in_thirty_seconds() {
    let stage = Stage::new().await;
    for (later_ms, times) in [(0, 2), (0, 2), (29_999, 2), (30_000, 3), (59_999, 3), (60_000, 4)] {
        let now = UnixMs(NOW.0 + later_ms);
        assert_eq!(stage.serve(now, "new", key_refused).await, (1, false), "{later_ms}");
        assert_eq!(stage.secrets.requests(), times, "{later_ms}");
    }
    // The pause does not hide a change: it is found when the pause is over.
    stage.keeps("new");
    assert_eq!(stage.serve(at(89), "new", key_refused).await, (1, false));
    assert_eq!(stage.serve(at(90), "new", key_refused).await, (2, true));
}

#[tokio::test]
async fn a_reading_that_was_due_puts_off_none_that_a_refusal_asks_for() {
    let stage = Stage::new().await;
    assert_eq!(stage.key(NOW).await, read("old", 1));
    assert_eq!(stage.key(at(300)).await, read("old", 2));
    stage.keeps("new");
    assert_eq!(stage.serve(at(301), "new", key_refused).await, (2, true));
}

#[tokio::test]
async fn an_error_that_says_nothing_of_a_key_is_the_answer() {
    let stage = Stage::new().await;
    assert_eq!(stage.serve(NOW, "new", || Error::NumberNotFound).await, (1, false));
    assert_eq!(stage.secrets.requests(), 1);
}

#[tokio::test]
async fn requests_that_are_refused_at_once_share_the_new_key() {
    let stage = Stage::new().await;
    assert_eq!(stage.key(NOW).await, read("old", 1));
    stage.keeps("new");
    let outcomes = join_all((0..100).map(|_| stage.serve(NOW, "new", key_refused))).await;
    assert!(outcomes.iter().all(|(_, is_well)| *is_well), "{outcomes:?}");
    assert_eq!(stage.secrets.requests(), 2);
}

#[tokio::test]
async fn given_keys_are_never_read() {
    let stage = Stage::new().await;
    let source = |name: &str| match name {
        "SUPABASE_SERVICE_ROLE_KEY" => Some("sb_secret_given".to_owned()),
        "WPP_BASE_URL" | "SUPABASE_URL" => Some(stage.secrets.url.clone()),
        _ => None,
    };
    let given =
        Stage { rotation: Rotation::new(Config::read(source, Needs::ServiceKey).unwrap()).unwrap(), ..stage };
    assert_eq!(given.serve(NOW, "new", key_refused).await, (1, false));
    assert_eq!(given.key(at(86_400)).await, read("given", 0));
}
