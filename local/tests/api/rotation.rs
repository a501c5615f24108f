//! An operator replaces a secret in Secrets Manager while a function runs.

use local::child::Output;
use local::events::Event;
use local::fault_injector::Point;
use local::lambda::{Answer, Sandbox, binary};
use local::postgrest::Postgrest;
use local::secrets_manager::SecretsManager;
use local::stack::{Organization, Stack};
use local::test_app::environment;
use local::users::Keys;
use serde_json::{Value, json};

/// A stack whose secrets are in Secrets Manager.
struct RotationTest {
    stack: Stack,
    school: Organization,
    secrets: SecretsManager,
}

impl RotationTest {
    async fn start() -> Self {
        let stack = Stack::start().await.unwrap();
        let school = stack.organization("school").await.unwrap();
        let test = Self { stack, school, secrets: SecretsManager::start().await.unwrap() };
        test.store_keys(&test.stack.keys);
        test.secrets.put("platform", &json!({"WPP_SECRET": test.stack.platform.secret()}));
        test
    }

    /// Stores these Supabase keys in Secrets Manager.
    fn store_keys(&self, keys: &Keys) -> String {
        let keys = json!({
            "SUPABASE_SERVICE_ROLE_KEY": keys.secret_key(), "SUPABASE_JWT_SECRET": keys.jwt_secret(),
        });
        self.secrets.put("supabase", &keys)
    }

    /// Starts a function with the deployed configuration; `more` overrides single variables.
    async fn function(&self, name: &str, more: &[(&str, &str)]) -> Sandbox {
        let arn = |name: &str| format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}");
        let mut variables = self.secrets.env().to_vec();
        variables.push(("SUPABASE_SECRET_ARN", arn("supabase")));
        variables.push(("WPP_SECRET_ARN", arn("platform")));
        variables.extend(
            ["WPP_SECRET", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_JWT_SECRET"]
                .map(|key| (key, String::new())),
        );
        variables.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let env = environment(&self.stack, &[&variables[..], more].concat());
        Sandbox::start(&binary(name).unwrap(), &env).await.unwrap()
    }

    /// Replaces the project's keys. Supabase and PostgREST refuse the old ones from now on.
    async fn replace_keys(&self, keys: &Keys) -> Postgrest {
        let database = self.stack.postgres.url("authenticator");
        let postgrest = Postgrest::start(0, &database, keys, Output::Captured).await.unwrap();
        self.stack.supabase.replace_keys(keys, &postgrest);
        postgrest
    }

    /// Sends a POST as the school's user, with a token signed by `keys`.
    async fn post(&self, function: &Sandbox, name: &str, keys: &Keys, body: Value) -> Answer {
        let event = Event::post(name).bearer(&keys.user_token(self.school.user)).json(&body).http_api();
        function.invoke(event).await.answered().unwrap()
    }
}

#[tokio::test]
async fn a_first_request_waits_while_the_secrets_are_read() {
    let test = RotationTest::start().await;
    let hold = test.secrets.faults.hold("*", Point::Before);
    let function = test.function("wpp-create", &[]).await;
    function.ready().await.unwrap();
    // It reads both secrets at once, before the first request.
    hold.reached(2).await;
    let answer = test.post(&function, "wpp-create", &test.stack.keys, json!({}));
    let (answer, ()) = tokio::join!(answer, async { hold.release() });
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("qr_issued")), "{answer:?}");
    // The first request waited for the secrets, and the next one did not read them again.
    assert_eq!(test.post(&function, "wpp-create", &test.stack.keys, json!({})).await.status, 200);
    assert_eq!(json!(test.secrets.faults.counts()), json!({"platform": 1, "supabase": 1}));
}

/// One function notices the change by its refused service key, the other by a user's token.
#[tokio::test]
async fn a_project_with_new_keys_is_served_without_a_restart() {
    let test = RotationTest::start().await;
    let (old, new) = (&test.stack.keys, Keys::generate().unwrap());
    let by_service_key = test.function("wpp-status", &[("SUPABASE_JWT_SECRET", new.jwt_secret())]).await;
    let by_token = test.function("wpp-status", &[]).await;
    let post = |function, keys| test.post(function, "wpp-status", keys, json!({}));
    assert_eq!(post(&by_service_key, &new).await.status, 200);
    assert_eq!(post(&by_token, old).await.status, 200);
    let _postgrest = test.replace_keys(&new).await;
    test.store_keys(&new);
    for (function, calls) in [(&by_service_key, [2, 3]), (&by_token, [1, 2])] {
        test.stack.supabase.faults.reset_counts();
        for calls in calls {
            let answer = post(function, &new).await;
            assert_eq!((answer.status, &answer.json["status"]), (200, &json!("disconnected")), "{answer:?}");
            assert_eq!(test.stack.supabase.faults.count("rpc/wpp_find_number"), calls);
        }
    }
    assert_eq!(post(&by_token, old).await.status, 401);
    assert_eq!(test.secrets.faults.count("supabase"), 4);
}

#[tokio::test]
async fn a_new_secret_of_the_platform_is_used_without_a_restart() {
    let test = RotationTest::start().await;
    let function = test.function("wpp-create", &[]).await;
    let keys = &test.stack.keys;
    let first = test.post(&function, "wpp-create", keys, json!({})).await;
    assert_eq!(first.status, 200, "{first:?}");
    test.stack.platform.replace_secret("another-secret");
    test.secrets.put("platform", &json!({"WPP_SECRET": "another-secret"}));
    test.stack.platform.faults.reset_counts();
    let answer = test.post(&function, "wpp-create", keys, json!({"force_recreate": true})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(test.stack.platform.faults.count("create"), 2);
    let logs = function.logs().await;
    assert!(!logs.contains("another-secret") && !logs.contains(keys.jwt_secret()), "{logs}");
}

#[tokio::test]
async fn a_refused_key_that_the_secret_still_has_is_counted() {
    let test = RotationTest::start().await;
    let keys = &test.stack.keys;
    let wrong = json!({
        "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_of_another_project", "SUPABASE_JWT_SECRET": keys.jwt_secret(),
    });
    test.secrets.put("supabase", &wrong);
    let function = test.function("wpp-status", &[]).await;
    let answer = test.post(&function, "wpp-status", keys, json!({})).await;
    assert_eq!((answer.status, &answer.json["code"]), (500, &json!("database_key_rejected")), "{answer:?}");
    assert_eq!(test.stack.supabase.faults.count("rpc/wpp_find_number"), 2);
    let logs = function.logs().await;
    let line: Value = serde_json::from_str(logs.lines().last().unwrap()).unwrap();
    assert_eq!((&line["OwnKeyRejected"], &line["DatabaseFailed"]), (&json!(1), &Value::Null), "{line}");
}
