//! The deployment: `template.yaml`, the order of SQL and binaries, and pinned tools.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use local::FUNCTIONS;
use local::events::Event;
use local::fault_injector::Fault;
use local::postgres::{Privileges, migrations};
use local::test_app::TestApp;
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("../../template.yaml");
const RUNBOOK: &str = include_str!("../../docs/operating.md");
const DEPLOYED: &str = include_str!("database/deployed.sql");
const WORKFLOW: &str = include_str!("../../.github/workflows/ci.yml");
const TOOLS: &str = include_str!("../tools.sh");

/// Returns the words of a list of the template, `name: [one, two]`.
fn list(name: &str) -> Vec<String> {
    let (_, rest) = TEMPLATE.split_once(&format!(" {name}: [")).unwrap();
    sorted(rest.split_once(']').unwrap().0)
}

fn sorted(list: &str) -> Vec<String> {
    let mut words: Vec<_> = list.split(',').map(|word| word.trim().to_owned()).collect();
    words.sort();
    words
}

/// Returns a resource of the template.
fn resource(name: &str) -> &str {
    let (_, rest) = TEMPLATE.split_once(&format!("\n  {name}:\n")).unwrap();
    rest.split_once("\n\n").unwrap().0
}

/// Returns the names of the template's alarms.
fn alarms() -> impl Iterator<Item = &'static str> {
    let names = TEMPLATE.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
    names.filter(|name| !name.starts_with(' ') && name.ends_with("Alarm"))
}

/// The headers of supabase-js, and the ones that Sentry and tracing add. The functions allow every header; only the API has a list.
const SENT_BY_PAGES: &str = "authorization, x-client-info, apikey, content-type, x-retry-count, x-region, \
    traceparent, tracestate, baggage, sentry-trace";

/// An HTTP API replaces the functions' CORS headers with its own.
#[tokio::test]
async fn api_and_functions_have_the_same_cors_rules() {
    let app = TestApp::start().await;
    assert_eq!(list("AllowHeaders"), sorted(SENT_BY_PAGES));
    let mut methods = vec!["OPTIONS".to_owned()];
    for function in FUNCTIONS {
        let preflight = Event::options(function).header("origin", "https://crm.example").http_api();
        let answer = app.invoke(function, preflight).await;
        let header = |name: &str| answer.headers[name].as_str();
        methods.extend(sorted(header("access-control-allow-methods")));
        let max_age = format!(" MaxAge: {}\n", header("access-control-max-age"));
        assert!(TEMPLATE.contains(&max_age), "{function}");
        let answer = app
            .invoke(function, Event::post(function).header("origin", "https://crm.example").http_api())
            .await;
        let exposed = sorted(&answer.headers["access-control-expose-headers"]);
        assert_eq!(list("ExposeHeaders"), exposed, "{function}");
    }
    methods.sort();
    methods.dedup();
    assert_eq!(list("AllowMethods"), methods);
}

/// `make test-slow` also tests this with the deployed stack.
#[test]
fn only_wpp_create_gets_the_platforms_secret() {
    assert!(resource("WppCreate").contains("WPP_SECRET_ARN"));
    for other in ["WppQr", "WppStatus"] {
        assert!(resource(other).contains("SupabaseSecretArn"), "{other}");
        assert!(!resource(other).contains("WppSecretArn"), "{other}");
    }
    let (globals, _) = TEMPLATE.split_once("\nResources:\n").unwrap().0.split_once("\nConditions:").unwrap();
    assert!(globals.contains("WppSecretArn"), "only as a parameter");
    assert!(!TEMPLATE.contains("resolve:"));
}

/// A log group that refers to its function is deleted first. The function's last lines recreate it, and it blocks the next deployment.
#[test]
fn a_function_is_removed_before_its_log_group() {
    for function in ["WppCreate", "WppQr", "WppStatus"] {
        let group = format!("{function}Logs");
        assert!(resource(function).contains(&format!("LogGroup: !Ref {group}}}")), "{function}");
        assert!(resource(function).contains("own-logs\n"), "{function}");
        let properties = resource(&group).lines().nth(1).unwrap();
        assert!(properties.contains("RetentionInDays"), "{function}");
        assert!(!properties.contains(&format!("{{{function}}}")), "{properties}");
    }
    assert!(resource("WppCreate").contains("{Effect: Deny, Action: logs:CreateLogGroup, Resource: \"*\"}"));
}

/// SAM reports what it refuses during the deployment. What the functions refuse is only in their log.
#[test]
fn a_bad_parameter_is_refused_at_the_deployment() {
    let secret = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:wpp-platform";
    let whole = format!("{secret}-AbCdEf");
    let cases: [(&str, &[&str], &[&str]); 5] = [
        (
            "WppBaseUrl",
            &["https://msg.example.com", "https://msg.example.com/api/"],
            &["", "http://a", "https://me:key@a", "https://a?key=1", "https://a#b"],
        ),
        (
            "SupabaseUrl",
            &["https://abcdefgh.supabase.co", "https://api.example.com:8443/"],
            &["", "http://a", "https://abcdefgh.supabase.co/rest/v1"],
        ),
        ("WppSecretArn", &[&whole], &["", secret]),
        ("SupabaseSecretArn", &[&whole], &["", secret]),
        (
            "CorsAllowedOrigins",
            &["", "*", "https://crm.example.com", "http://localhost:3000,https://a:4430,http://a:8080"],
            &[
                "https://CRM.example.com",
                "https://a:443",
                "http://a:80",
                "https://a:443,https://b",
                "https://a/",
                "https://a,",
                "https://a,*",
                "https://a, https://b",
                "https://*.example.com",
                "crm.example.com",
            ],
        ),
    ];
    for (parameter, taken, refused) in cases {
        let (_, pattern) = resource(parameter).split_once("AllowedPattern: ").unwrap();
        let pattern = json!({"pattern": format!("^({})$", pattern.lines().next().unwrap())});
        for value in taken {
            assert!(jsonschema::is_valid(&pattern, &json!(value)), "{parameter}: {value}");
        }
        for value in refused {
            assert!(!jsonschema::is_valid(&pattern, &json!(value)), "{parameter}: {value}");
        }
    }
}

#[test]
fn the_dashboard_is_json_and_shows_every_alarm() {
    let (_, body) = TEMPLATE.split_once("DashboardBody: !Sub |\n").unwrap();
    let body: Value = serde_json::from_str(body.split_once("\n\n").unwrap().0).unwrap();
    let shown: Vec<_> = body["widgets"][0]["properties"]["alarms"].as_array().unwrap().iter().collect();
    let alarms: Vec<_> = alarms().map(|alarm| json!(format!("${{{alarm}.Arn}}"))).collect();
    assert_eq!(alarms.len(), 10);
    assert_eq!(shown, alarms.iter().collect::<Vec<_>>());
}

#[test]
fn each_alarm_names_its_section_of_the_runbook() {
    for alarm in alarms() {
        let link = format!("(docs/operating.md#{})\"\n", alarm.to_lowercase());
        assert!(resource(alarm).contains(&link), "{alarm}");
        assert!(RUNBOOK.contains(&format!("\n### `{alarm}`\n")), "{alarm}");
    }
}

#[test]
fn alarm_needs_two_confirmed_refusals_an_hour() {
    let alarm = resource("OwnKeyRejectedAlarm");
    assert_eq!(alarm.matches("Period: 3600\n").count(), 3, "{alarm}");
    assert!(alarm.contains("Threshold: 2\n") && alarm.contains("EvaluationPeriods: 1\n"), "{alarm}");
    assert!(
        RUNBOOK.contains("| [`OwnKeyRejectedAlarm`](#ownkeyrejectedalarm) | 2 requests within an hour |")
    );
}

/// The SQL must be applied first. This is what users see if it was forgotten.
#[tokio::test]
async fn missing_migrations_are_reported() {
    let app = TestApp::start().await;
    app.stack.postgres.replace(Privileges::Granted, DEPLOYED).await.unwrap();
    app.stack.postgrest.restart().await.unwrap();
    app.stack.seed(app.school.id, app.school.user, "school").await.unwrap();
    for function in FUNCTIONS {
        let answer = app.post(function, json!({"session": "any"})).await;
        assert_eq!(answer.status, 500, "{function}: {answer:?}");
        assert_eq!(answer.json["code"], "database_not_migrated", "{function}");
        assert_eq!(answer.json["retryable"], false, "{function}");
    }
    app.stack.postgres.migrate(&migrations()).await.unwrap();
    app.stack.postgrest.restart().await.unwrap();
    let answer = app.post("wpp-create", json!({})).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
}

/// If a file changes a function's signature and keeps the old function, PostgREST cannot choose.
#[tokio::test]
async fn a_second_overload_counts_as_not_migrated() {
    let app = TestApp::start().await;
    let body = r#"{"code":"PGRST203","message":"Could not choose the best candidate function"}"#.to_owned();
    let ambiguous = Fault::Status { status: 300, body, retry_after_s: None };
    app.stack.supabase.faults.inject("rpc/wpp_find_number", ambiguous);
    let answer = app.post("wpp-status", json!({})).await;
    assert_eq!(answer.json["code"], "database_not_migrated", "{answer:?}");
    assert_eq!(answer.json["retryable"], false);
}

/// A tag or a branch of an action may be moved to other code.
#[test]
fn each_action_is_pinned_by_commit() {
    let uses: Vec<_> = WORKFLOW.lines().filter_map(|line| line.trim().strip_prefix("- uses: ")).collect();
    assert!(uses.len() > 5);
    for action in &uses {
        let (commit, tag) = action.split_once('@').unwrap().1.split_once(" # v").unwrap();
        assert!(commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit()), "{action}");
        assert_eq!(tag.split('.').count(), 3, "{action}");
    }
    let checkouts = uses.iter().filter(|action| action.starts_with("actions/checkout@")).count();
    assert_eq!(WORKFLOW.matches("persist-credentials: false").count(), checkouts);
}

#[test]
fn the_job_that_builds_reaches_no_secret() {
    let (before, deploy) = WORKFLOW.split_once("\n  deploy:\n").unwrap();
    let build = before.split_once("\n  build:\n").unwrap().1;
    assert!(build.contains("run: make build\n") && !deploy.contains("make build"));
    for word in ["secrets.", "environment:", "id-token", "permissions:", "actions/cache@"] {
        assert!(!build.contains(word), "{word}");
    }
    // Without BUILT, it would also build.
    assert!(deploy.contains("run: make deploy BUILT=1\n"));
}

#[test]
fn each_python_package_is_pinned_by_hash() {
    let install = TOOLS.split_once("/bin/pip\" install").unwrap().1.split_once("\n  cp").unwrap().0;
    for option in ["--require-hashes", "--no-deps", "--only-binary=:all:"] {
        assert!(install.contains(option), "{option}");
    }
    assert_eq!(TOOLS.matches("pip\" install").count(), 1);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/requirements");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|file| file.extension().is_some_and(|it| it == "txt")).collect();
    assert!(files.len() > 5);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().skip_while(|line| line.starts_with('#')).peekable();
        while let Some(line) = lines.next() {
            let is_hash = line.starts_with("    --hash=sha256:");
            assert!(is_hash || line.contains("==") && line.ends_with(" \\"), "{}: {line}", file.display());
            let is_hashed = lines.peek().is_some_and(|next| next.starts_with("    --hash=sha256:"));
            assert!(is_hash || is_hashed, "{}: {line}", file.display());
        }
    }
}
