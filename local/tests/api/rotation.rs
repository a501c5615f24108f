//! Keys that are kept in Secrets Manager, and replaced there while a function runs.

use local::child::Output;
use local::events::Event;
use local::fault_injector::{Fault, Point};
use local::lambda::{Answer, Sandbox, binary};
use local::postgrest::Postgrest;
use local::secrets_manager::SecretsManager;
use local::stack::{Organisation, Stack};
use local::test_app::environment;
use local::users::Keys;
use serde_json::{Value, json};

/// A stack whose keys are kept.
struct Vault {
    stack: Stack,
    school: Organisation,
    secrets: SecretsManager,
}

impl Vault {
    async fn start() -> Self {
        let stack = Stack::start().await.unwrap();
        let school = stack.organisation("school").await.unwrap();
        let vault = Self { stack, school, secrets: SecretsManager::start().await.unwrap() };
        vault.keep(&vault.stack.keys);
        vault.secrets.put("platform", &json!({"WPP_SECRET": vault.stack.platform.secret()}));
        vault
    }

    /// Puts a project's keys into the secret that has them.
    fn keep(&self, keys: &Keys) -> String {
        let keys = json!({
            "SUPABASE_SERVICE_ROLE_KEY": keys.secret_key(), "SUPABASE_JWT_SECRET": keys.jwt_secret(),
        });
        self.secrets.put("supabase", &keys)
    }

    /// A function as it is deployed, with these variables in the place of others.
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

    /// The project and its PostgREST have other keys from now on, and know the old ones no more.
    async fn replace_keys(&self, keys: &Keys) -> Postgrest {
        let database = self.stack.postgres.url("authenticator");
        let postgrest = Postgrest::start(0, &database, keys, Output::Captured).await.unwrap();
        self.stack.supabase.replace_keys(keys, &postgrest);
        postgrest
    }

    /// A POST of the school's user, with a token that these keys signed.
    async fn post(&self, function: &Sandbox, name: &str, keys: &Keys, body: Value) -> Answer {
        let event = Event::post(name).bearer(&keys.user_token(self.school.user)).json(&body).v2();
        function.invoke(event).await.answered().unwrap()
    }
}

fn told(answer: &Answer) -> (u16, &Value, &Value) {
    (answer.status, &answer.json["code"], &answer.json["retryable"])
}

#[tokio::test]
async fn a_function_waits_for_its_first_request_while_its_secrets_are_read() {
    let vault = Vault::start().await;
    let hold = vault.secrets.faults.hold("*", Point::Before);
    let function = vault.function("wpp-create", &[]).await;
    function.ready().await.unwrap();
    // Both at once, before there is any request.
    hold.reached(2).await;
    let answer = vault.post(&function, "wpp-create", &vault.stack.keys, json!({}));
    let (answer, ()) = tokio::join!(answer, async { hold.release() });
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("qr_issued")), "{answer:?}");
    // That request waited for what was under way, and the next one needs nothing more.
    assert_eq!(vault.post(&function, "wpp-create", &vault.stack.keys, json!({})).await.status, 200);
    assert_eq!(json!(vault.secrets.faults.counts()), json!({"platform": 1, "supabase": 1}));
}

#[tokio::test]
async fn each_function_reads_its_own_secrets_alone_and_none_that_is_given() {
    let vault = Vault::start().await;
    let keys = &vault.stack.keys;
    let given =
        [("SUPABASE_SERVICE_ROLE_KEY", keys.secret_key()), ("SUPABASE_JWT_SECRET", keys.jwt_secret())];
    for (name, given, read) in [
        ("wpp-create", &[][..], json!({"platform": 1, "supabase": 1})),
        ("wpp-qr", &[], json!({"supabase": 1})),
        ("wpp-status", &[], json!({"supabase": 1})),
        ("wpp-create", &given, json!({"platform": 1})),
        ("wpp-status", &given, json!({})),
    ] {
        vault.secrets.faults.reset_counts();
        let function = vault.function(name, given).await;
        vault.post(&function, name, keys, json!({"session": "1"})).await;
        assert_eq!(json!(vault.secrets.faults.counts()), read, "{name} {given:?}");
    }
}

#[tokio::test]
async fn a_replaced_service_key_is_used_without_a_restart() {
    let vault = Vault::start().await;
    let new = Keys::generate().unwrap();
    // The caller's token is good before and after.
    let given = [("SUPABASE_JWT_SECRET", new.jwt_secret())];
    let function = vault.function("wpp-status", &given).await;
    let post = || vault.post(&function, "wpp-status", &new, json!({}));
    assert_eq!(post().await.status, 200);
    let _postgrest = vault.replace_keys(&new).await;
    vault.keep(&new);
    vault.stack.supabase.faults.reset_counts();
    let answer = post().await;
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("disconnected")), "{answer:?}");
    assert_eq!(vault.stack.supabase.faults.count("rpc/wpp_find_number"), 2);
    assert_eq!(vault.secrets.faults.count("supabase"), 2);
    assert_eq!(post().await.status, 200);
    assert_eq!(vault.stack.supabase.faults.count("rpc/wpp_find_number"), 3);
}

#[tokio::test]
async fn a_replaced_legacy_secret_lets_its_users_in_without_a_restart() {
    let vault = Vault::start().await;
    let function = vault.function("wpp-status", &[]).await;
    assert_eq!(vault.post(&function, "wpp-status", &vault.stack.keys, json!({})).await.status, 200);
    let new = Keys::generate().unwrap();
    let _postgrest = vault.replace_keys(&new).await;
    vault.keep(&new);
    assert_eq!(vault.post(&function, "wpp-status", &new, json!({})).await.status, 200);
    let old = vault.post(&function, "wpp-status", &vault.stack.keys, json!({})).await;
    assert_eq!(told(&old), (401, &json!("unauthorized"), &json!(false)));
}

#[tokio::test]
async fn a_replaced_secret_of_the_platform_is_used_without_a_restart() {
    let vault = Vault::start().await;
    let function = vault.function("wpp-create", &[]).await;
    let keys = &vault.stack.keys;
    function.ready().await.unwrap();
    // A number that is there needs no secret.
    let first = vault.post(&function, "wpp-create", keys, json!({})).await;
    assert_eq!(first.status, 200, "{first:?}");
    vault.stack.platform.replace_secret("another-secret");
    vault.secrets.put("platform", &json!({"WPP_SECRET": "another-secret"}));
    vault.stack.platform.faults.reset_counts();
    let answer = vault.post(&function, "wpp-create", keys, json!({"force_recreate": true})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(vault.stack.platform.faults.count("create"), 2);
    let logs = function.logs().await;
    assert!(!logs.contains("another-secret") && !logs.contains(keys.jwt_secret()), "{logs}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_an_outage_and_one_that_will_not_do_is_our_mistake() {
    let vault = Vault::start().await;
    let keys = &vault.stack.keys;
    let unavailable = (503, &json!("secret_unavailable"), &json!(true));
    let unusable = (500, &json!("secret_unusable"), &json!(false));
    let supabase = |key: &str| vault.secrets.put("supabase", &json!({"SUPABASE_SERVICE_ROLE_KEY": key}));
    vault.secrets.faults.inject("supabase", Fault::status(500));
    let function = vault.function("wpp-status", &[]).await;
    let post = || vault.post(&function, "wpp-status", keys, json!({}));
    assert_eq!(told(&post().await), unavailable);
    vault.secrets.faults.clear();
    supabase("a canary");
    assert_eq!(told(&post().await), unusable);
    vault.secrets.put("supabase", &json!({"other": "canary"}));
    assert_eq!(told(&post().await), unusable);
    let logs = function.logs().await;
    for problem in [
        "the secret that SUPABASE_SECRET_ARN names cannot be read: refused with status 500",
        "cannot be used: SUPABASE_SERVICE_ROLE_KEY contains a blank",
        "cannot be used: SUPABASE_SERVICE_ROLE_KEY is not set",
    ] {
        assert!(logs.contains(problem), "{problem}: {logs}");
    }
    assert!(!logs.contains("canary"), "{logs}");
    vault.keep(keys);
    assert_eq!(post().await.status, 200);
    // A signature of other credentials, and a secret that is not there.
    for (variable, value, word) in [
        ("AWS_SECRET_ACCESS_KEY", "another", "InvalidSignatureException"),
        (
            "SUPABASE_SECRET_ARN",
            "arn:aws:secretsmanager:eu-central-1:1:secret:none",
            "ResourceNotFoundException",
        ),
    ] {
        let function = vault.function("wpp-qr", &[(variable, value)]).await;
        let answer = vault.post(&function, "wpp-qr", keys, json!({"session": "1"})).await;
        assert_eq!(told(&answer), unavailable);
        assert!(function.logs().await.contains(word), "{word}");
    }
}
