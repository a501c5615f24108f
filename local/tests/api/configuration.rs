//! How a function handles an invalid environment, or variables meant for other programs.

use std::time::Duration;

use local::lambda::binary;
use local::test_app::TestApp;
use serde_json::json;
use tokio::process::Command;

#[tokio::test]
async fn bad_variable_is_named_when_the_function_exits() {
    let app = TestApp::start().await;
    for (function, variable, value) in [
        ("wpp-create", "WPP_SECRET", ""),
        ("wpp-create", "WPP_SECRET", "canary secret"),
        ("wpp-qr", "WPP_BASE_URL", ""),
        ("wpp-qr", "WPP_BASE_URL", "canary.example"),
        ("wpp-status", "SUPABASE_URL", ""),
        ("wpp-status", "SUPABASE_URL", "ftp://canary.example"),
        ("wpp-status", "SUPABASE_SERVICE_ROLE_KEY", ""),
        ("wpp-status", "SUPABASE_SERVICE_ROLE_KEY", "sb_publishable_canary"),
        ("wpp-status", "SUPABASE_JWT_SECRET", "canary"),
        ("wpp-status", "SUPABASE_JWT_ISSUER", "https://canary.example https://canary.example"),
        ("wpp-create", "WEBHOOK_BASE_URL", "canary"),
        ("wpp-qr", "CORS_ALLOWED_ORIGINS", "canary.example/path"),
        ("wpp-qr", "UPSTREAM_TIMEOUT_MS", "canary"),
        ("wpp-qr", "REQUEST_BUDGET_MS", "0"),
        ("wpp-create", "QR_WAIT_MS", "-8000"),
        ("wpp-qr", "UPSTREAM_CA_FILE", "canary.pem"),
    ] {
        let exit = app.process_with(function, &[(variable, value)]).await.exit().await;
        assert!(exit.code.is_some_and(|code| code != 0), "{variable}={value}: {exit:?}");
        assert_eq!(exit.logs.trim().lines().count(), 1, "{variable}={value}: {}", exit.logs);
        assert!(exit.logs.contains(variable), "{variable}={value}: {}", exit.logs);
        assert!(!exit.logs.contains("canary"), "{variable}={value}: {}", exit.logs);
    }
}

#[tokio::test]
async fn only_wpp_create_needs_the_platforms_secret() {
    let app = TestApp::start().await;
    for function in ["wpp-qr", "wpp-status"] {
        app.process_with(function, &[("WPP_SECRET", "")]).await.ready().await.unwrap();
    }
}

#[tokio::test]
async fn a_demo_key_of_a_public_project_ends_the_function() {
    let app = TestApp::start().await;
    let demo = "your-super-secret-jwt-token-with-at-least-32-characters-long";
    let variables = [("SUPABASE_URL", "https://project.supabase.co"), ("SUPABASE_JWT_SECRET", demo)];
    let exit = app.process_with("wpp-status", &variables).await.exit().await;
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(exit.logs.contains("SUPABASE_JWT_SECRET is a demo value"), "{}", exit.logs);
    assert!(exit.logs.contains("Dashboard") && !exit.logs.contains(demo), "{}", exit.logs);
    // It is harmless on this machine.
    app.process_with("wpp-status", &[("SUPABASE_JWT_SECRET", demo)]).await.ready().await.unwrap();
}

#[tokio::test]
async fn proxy_variables_are_ignored() {
    let app = TestApp::start().await;
    let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let proxies = proxies.map(|name| (name, "http://127.0.0.1:1"));
    let function = app.process_with("wpp-create", &proxies).await;
    let answer =
        function.invoke(app.school.post("wpp-create", &json!({})).http_api()).await.answered().unwrap();
    answer.expect(200, "qr_issued");
}

#[tokio::test]
async fn a_function_started_by_hand_says_how_to_run_it() {
    for function in local::FUNCTIONS {
        let started = Command::new(binary(function).unwrap()).env_clear().kill_on_drop(true).output();
        let ended = tokio::time::timeout(Duration::from_secs(10), started).await.unwrap().unwrap();
        let output =
            format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(1), "{output}");
        assert_eq!(output.lines().count(), 1, "{output}");
        for words in ["AWS Lambda function", "make dev", "cargo lambda watch"] {
            assert!(output.contains(words), "{output}");
        }
    }
}
