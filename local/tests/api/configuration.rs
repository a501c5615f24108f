//! What a function does with an environment that makes no sense.

use local::lambda::{Sandbox, binary};
use local::users::Keys;

/// An environment in which every function starts.
fn environment() -> Vec<(String, String)> {
    let service_key = Keys::generate().unwrap().service_role_key();
    [
        ("WPP_BASE_URL", "http://127.0.0.1:9"),
        ("WPP_SECRET", "canary-secret"),
        ("SUPABASE_URL", "http://127.0.0.1:9"),
        ("SUPABASE_SERVICE_ROLE_KEY", service_key.as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The function with one variable set to `value`, or taken away where that is empty.
async fn start(function: &str, variable: &str, value: &str) -> Sandbox {
    let mut env = environment();
    env.retain(|(name, _)| name != variable);
    if !value.is_empty() {
        env.push((variable.to_owned(), value.to_owned()));
    }
    Sandbox::start(&binary(function).unwrap(), &env).await.unwrap()
}

#[tokio::test]
async fn a_variable_that_is_missing_or_malformed_ends_the_function_with_one_line_that_names_it() {
    for (function, variable, value) in [
        ("wpp-create", "WPP_SECRET", ""),
        ("wpp-create", "WPP_SECRET", "canary secret"),
        ("wpp-qr", "WPP_BASE_URL", ""),
        ("wpp-qr", "WPP_BASE_URL", "canary.example"),
        ("wpp-status", "SUPABASE_URL", ""),
        ("wpp-status", "SUPABASE_URL", "ftp://canary.example"),
        ("wpp-status", "SUPABASE_SERVICE_ROLE_KEY", ""),
        ("wpp-status", "SUPABASE_SERVICE_ROLE_KEY", "sb_publishable_canary"),
        ("wpp-status", "SUPABASE_JWT_ISSUER", "https://canary.example https://canary.example"),
        ("wpp-create", "WEBHOOK_BASE_URL", "canary"),
        ("wpp-qr", "CORS_ALLOWED_ORIGINS", "canary.example/path"),
        ("wpp-qr", "UPSTREAM_TIMEOUT_MS", "canary"),
        ("wpp-qr", "REQUEST_BUDGET_MS", "0"),
        ("wpp-create", "QR_WAIT_MS", "-8000"),
    ] {
        let exit = start(function, variable, value).await.exit().await;
        assert!(exit.code.is_some_and(|code| code != 0), "{variable}={value}: {exit:?}");
        assert_eq!(exit.logs.trim().lines().count(), 1, "{variable}={value}: {}", exit.logs);
        assert!(exit.logs.contains(variable), "{variable}={value}: {}", exit.logs);
        assert!(!exit.logs.contains("canary"), "{variable}={value}: {}", exit.logs);
    }
}

#[tokio::test]
async fn only_wpp_create_needs_the_platforms_secret() {
    for function in ["wpp-qr", "wpp-status"] {
        start(function, "WPP_SECRET", "").await.ready().await.unwrap();
    }
}
