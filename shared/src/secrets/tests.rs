use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, header};
use serde_json::json;

use super::values::{DEMO_JWT_SECRETS, DEMO_SERVICE_KEY};
use super::*;
use crate::secret::Secret;
use crate::testing::{Server, reply};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:wpp/platform-AbCdEf";
const SUPABASE_ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:wpp/supabase-AbCdEf";
const PROJECT: &str = "https://project.supabase.co";

/// 32 bytes, the minimum for a JWT secret.
const LEGACY: &str = "a legacy secret of 32 bytes, yes";

/// Returns what a function with these variables reads. The credentials are AWS's own examples.
fn source(
    project: &str,
    needs: NeededSecrets,
    variables: &[(&str, &str)],
) -> Result<SecretSource, ConfigError> {
    let credentials = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        ("AWS_SESSION_TOKEN", "FQoGZXIvYXdzEXAMPLE"),
    ];
    let get = |name: &str| {
        let found = variables.iter().chain(&credentials).find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    SecretSource::read(get, needs, &Url::parse(project).unwrap())
}

/// Returns how this variable is accepted or refused in an environment that has all secrets.
fn read(project: &str, name: &str, value: &str) -> Result<SecretSource, ConfigError> {
    let all = [(WPP_SECRET, "w"), (SERVICE_KEY, "sb_secret_x"), (JWT_SECRET, LEGACY)];
    source(project, NeededSecrets::SupabaseAndWpp, &[&[(name, value)][..], &all].concat())
}

fn problem(name: &str, value: &str) -> String {
    read(PROJECT, name, value).unwrap_err().to_string()
}

/// Makes a JWT with these claims and this signature.
fn jwt(claims: &str, signature: &[u8]) -> String {
    let parts = [br#"{"alg":"HS256","typ":"JWT"}"#.as_slice(), claims.as_bytes(), signature];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

#[test]
fn missing_secret_is_named_at_start() {
    for (needs, missing, problem) in [
        (NeededSecrets::SupabaseAndWpp, WPP_SECRET, Some("WPP_SECRET is not set")),
        (NeededSecrets::Supabase, WPP_SECRET, None),
        (NeededSecrets::Supabase, SERVICE_KEY, Some("SUPABASE_SERVICE_ROLE_KEY is not set")),
        (NeededSecrets::Supabase, JWT_SECRET, None),
    ] {
        for value in [None, Some(""), Some(" \n")] {
            let mut all = vec![(WPP_SECRET, "w"), (SERVICE_KEY, "sb_secret_x"), (JWT_SECRET, LEGACY)];
            all.retain(|(name, _)| *name != missing);
            all.extend(value.map(|value| (missing, value)));
            let outcome = source(PROJECT, needs, &all).map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(outcome.err().as_deref(), problem, "{needs:?} {missing} {value:?}");
        }
    }
}

#[test]
fn only_a_service_key_is_accepted() {
    let other_role = "is a key for a role other than service_role";
    for (value, expected) in [
        (jwt(r#"{"role":"anon"}"#, b"signature"), other_role),
        (jwt(r#"{"role":"authenticated"}"#, b"signature"), other_role),
        (jwt("{}", b"signature"), other_role),
        ("sb_publishable_x".to_owned(), "is a publishable key; the service role's is needed"),
        ("sb_something_x".to_owned(), "is neither a JWT nor an sb_secret_ key"),
        ("a.b.c".to_owned(), "is neither a JWT nor an sb_secret_ key"),
        ("two words".to_owned(), "contains a blank or a character that no key has"),
        ("sb_secret_\u{e9}".to_owned(), "contains a blank or a character that no key has"),
    ] {
        assert_eq!(problem(SERVICE_KEY, &value), format!("{SERVICE_KEY} {expected}"));
    }
}

#[test]
fn new_service_key_is_not_sent_as_bearer() {
    let legacy = jwt(r#"{"iss":"supabase","role":"service_role"}"#, b"signature");
    for (value, is_bearer) in [(" sb_secret_x\n", false), (legacy.as_str(), true)] {
        let key = SecretValues::of(&read(PROJECT, SERVICE_KEY, value).unwrap().given).service_key;
        assert_eq!(key.secret().expose(), value.trim());
        assert_eq!(key.bearer(), is_bearer.then_some(key.secret()));
    }
}

#[test]
fn a_short_jwt_secret_is_refused_everywhere() {
    for project in [PROJECT, "http://localhost:54321"] {
        let error = read(project, JWT_SECRET, &LEGACY[1..]).unwrap_err().to_string();
        assert!(error.starts_with("SUPABASE_JWT_SECRET has fewer than 32 bytes"), "{error}");
        assert!(error.contains("Dashboard (Project Settings, JWT Keys)"), "{error}");
        assert!(read(project, JWT_SECRET, LEGACY).is_ok());
    }
}

/// Supabase publishes these signatures.
#[test]
fn refused_demo_secret_says_where_the_real_one_is() {
    let padded = "{  \n    \"role\": \"service_role\",\n    \"iss\": \"supabase-demo\",\n    \"iat\": 1641769200,\n    \
        \"exp\": 1799535600\n}";
    let started = r#"{"iss":"supabase-demo","role":"service_role","exp":1983812996}"#;
    let published = |claims: &str, signature: &str| jwt(claims, &URL_SAFE_NO_PAD.decode(signature).unwrap());
    let self_hosted = published(padded, "DaYlNEoUrrEn2Ig7tqibS-PHK5vgusbcbo7X36XVt4Q");
    let local = published(started, "EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU");
    for (name, value) in [
        (SERVICE_KEY, self_hosted.as_str()),
        (SERVICE_KEY, &local),
        (SERVICE_KEY, "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"),
        (JWT_SECRET, "your-super-secret-jwt-token-with-at-least-32-characters-long"),
        (JWT_SECRET, "super-secret-jwt-token-with-at-least-32-characters-long"),
    ] {
        let error = problem(name, value);
        assert!(error.starts_with(&format!("{name} is a demo value that Supabase publishes: ")), "{error}");
        assert!(error.contains("Dashboard") && error.contains("generate-keys.sh"), "{error}");
        assert!(!error.contains(value), "{error}");
    }
    // Another secret's signature over the same claims.
    assert!(read(PROJECT, SERVICE_KEY, &jwt(started, b"signature")).is_ok());
}

#[test]
fn demo_secret_is_accepted_for_a_local_project() {
    for (project, is_private) in [
        ("http://127.0.0.1:54321", true),
        ("http://127.9.9.9", true),
        ("http://[::1]:54321", true),
        ("http://[fd12:3456::1]", true),
        ("http://10.0.0.7", true),
        ("http://172.16.0.1", true),
        ("http://192.168.1.20:8000", true),
        ("http://localhost", true),
        ("http://LocalHost.:8000", true),
        ("http://kong:8000", true),
        ("http://host.docker.internal:54321", true),
        ("http://supabase.local", true),
        ("http://a.localhost", true),
        (PROJECT, false),
        ("http://172.32.0.1", false),
        ("http://8.8.8.8", false),
        ("http://[2606:4700::1]", false),
        ("http://supabase.local.example", false),
        ("http://notlocal", true),
        ("http://example.notlocal", false),
        ("http://127.0.0.1.example", false),
    ] {
        for (name, value) in [(JWT_SECRET, DEMO_JWT_SECRETS[0]), (SERVICE_KEY, DEMO_SERVICE_KEY)] {
            assert_eq!(read(project, name, value).is_ok(), is_private, "{project}");
        }
    }
}

#[test]
fn printed_secrets_show_nothing() {
    let secret = format!("canary{LEGACY}");
    for (name, value) in [(WPP_SECRET, "canary"), (SERVICE_KEY, "sb_secret_canary"), (JWT_SECRET, &secret)] {
        let source = read(PROJECT, name, value).unwrap();
        assert!(source.given[name].expose().contains("canary"));
        assert!(!format!("{source:?} {:?}", SecretValues::of(&source.given)).contains("canary"));
    }
}

#[test]
fn secret_is_read_only_if_a_key_of_it_is_needed() {
    let [platform, supabase] = [("WPP_SECRET_ARN", ARN), ("SUPABASE_SECRET_ARN", SUPABASE_ARN)];
    let [w, k, j] = [(WPP_SECRET, "w"), (SERVICE_KEY, "sb_secret_k"), (JWT_SECRET, LEGACY)];
    let (create, other) = (NeededSecrets::SupabaseAndWpp, NeededSecrets::Supabase);
    for (needs, given, expected) in [
        (create, &[][..], &[supabase.0, platform.0][..]),
        (other, &[], &[supabase.0]),
        (create, &[w], &[supabase.0]),
        (create, &[k], &[supabase.0, platform.0]),
        (create, &[k, j], &[platform.0]),
        (create, &[w, k, j], &[]),
        (other, &[k, j], &[]),
        (other, &[k, ("SUPABASE_SECRET_ARN", "")], &[]),
    ] {
        let source = source(PROJECT, needs, &[given, &[platform, supabase]].concat()).unwrap();
        let read: Vec<_> = source.refs.iter().map(|secret| secret.variable).collect();
        assert_eq!(read, expected, "{needs:?} {given:?}");
        assert!(!format!("{source:?}").contains("wJalrXUtnFEMI"), "{source:?}");
    }
}

#[test]
fn secrets_manager_region_comes_from_the_arn() {
    let own = "AWS_ENDPOINT_URL_SECRETS_MANAGER";
    for (arn, more, region, endpoint) in [
        (SUPABASE_ARN, None, "eu-west-1", "https://secretsmanager.eu-west-1.amazonaws.com/"),
        (
            "arn:aws:secretsmanager::123456789012:secret:name",
            None,
            "eu-south-2",
            "https://secretsmanager.eu-south-2.amazonaws.com/",
        ),
        (
            "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:name:with:colons",
            None,
            "cn-north-1",
            "https://secretsmanager.cn-north-1.amazonaws.com.cn/",
        ),
        (
            "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:name",
            None,
            "us-gov-west-1",
            "https://secretsmanager.us-gov-west-1.amazonaws.com/",
        ),
        (
            "arn:aws-eusc:secretsmanager:eusc-de-east-1:123456789012:secret:name",
            None,
            "eusc-de-east-1",
            "https://secretsmanager.eusc-de-east-1.amazonaws.eu/",
        ),
        (SUPABASE_ARN, Some(own), "eu-west-1", "http://own.example/"),
        (SUPABASE_ARN, Some("AWS_ENDPOINT_URL"), "eu-west-1", "http://all.example/"),
    ] {
        let mut variables = vec![("SUPABASE_SECRET_ARN", arn), ("AWS_REGION", "eu-south-2")];
        // The variable for this service wins.
        if let Some(more) = more {
            variables.push(("AWS_ENDPOINT_URL", "http://all.example"));
            variables.extend((more == own).then_some((own, "http://own.example")));
        }
        let source = source(PROJECT, NeededSecrets::Supabase, &variables).unwrap();
        let [secret] = &source.refs[..] else { panic!("{source:?}") };
        assert_eq!((secret.region.as_str(), secret.endpoint.as_str()), (region, endpoint), "{arn}");
    }
}

#[test]
fn unreachable_secret_is_refused_at_start() {
    let not_an_arn = "SUPABASE_SECRET_ARN is not the ARN of a secret in Secrets Manager";
    let supabase = |arn| ("SUPABASE_SECRET_ARN", arn);
    for (change, problem) in [
        (("WPP_SECRET_ARN", ""), "WPP_SECRET is not set"),
        (supabase(""), "SUPABASE_SERVICE_ROLE_KEY is not set"),
        (supabase("canary"), not_an_arn),
        (supabase("arn:aws:s3:eu-west-1:123456789012:secret:canary"), not_an_arn),
        (supabase("arn:aws:secretsmanager:eu-west-1:123456789012:secret:"), not_an_arn),
        (supabase("arn:aws:secretsmanager:eu-west-1:123456789012:canary:name"), not_an_arn),
        (supabase("arn:aws:secretsmanager:canary.example/:123456789012:secret:name"), not_an_arn),
        (supabase("arn:aws:secretsmanager::123456789012:secret:name"), "AWS_REGION is not set"),
        (("AWS_ACCESS_KEY_ID", ""), "AWS_ACCESS_KEY_ID is not set"),
        (("AWS_SECRET_ACCESS_KEY", " "), "AWS_SECRET_ACCESS_KEY is not set"),
        (
            ("AWS_SESSION_TOKEN", "a canary"),
            "AWS_SESSION_TOKEN contains a blank or a character that no key has",
        ),
        (("AWS_ENDPOINT_URL", "canary"), "AWS_ENDPOINT_URL is not an http or https address"),
        ((WPP_SECRET, "a canary"), "WPP_SECRET contains a blank or a character that no key has"),
        ((SERVICE_KEY, "canary"), "SUPABASE_SERVICE_ROLE_KEY is neither a JWT nor an sb_secret_ key"),
    ] {
        let variables = [change, ("WPP_SECRET_ARN", ARN), ("SUPABASE_SECRET_ARN", SUPABASE_ARN)];
        let error = source(PROJECT, NeededSecrets::SupabaseAndWpp, &variables).unwrap_err().to_string();
        assert_eq!(error, problem, "{change:?}");
    }
}

/// The expected signature was computed in another language. The credentials are those of AWS's examples.
#[test]
fn call_has_a_valid_aws_signature() {
    let variables = [("SUPABASE_SECRET_ARN", ARN)];
    let source = source(PROJECT, NeededSecrets::Supabase, &variables).unwrap();
    let request = source.refs[0].request(NOW).unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.url().as_str(), "https://secretsmanager.eu-central-1.amazonaws.com/");
    let sent = request.body().and_then(|body| body.as_bytes());
    assert_eq!(sent, Some(json!({"SecretId": ARN}).to_string().as_bytes()));
    let headers: Vec<_> =
        request.headers().iter().map(|(name, value)| (name, value.to_str().unwrap())).collect();
    for (name, value) in [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "secretsmanager.GetSecretValue"),
        ("x-amz-date", "20270115T080000Z"),
        ("x-amz-security-token", "FQoGZXIvYXdzEXAMPLE"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20270115/eu-central-1/secretsmanager/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, \
             Signature=8c342b65af56fbcb5ed0f3431f7200c34471fce6ea24bef33827087f9d1d8249",
        ),
    ] {
        assert!(headers.contains(&(&header::HeaderName::from_static(name), value)), "{name}: {headers:?}");
    }
    assert!(!format!("{request:?}{source:?}").contains("FQoGZXIvYXdzEXAMPLE"));
}

/// Returns what `wpp-create` reads first of a secret that both variables name.
async fn outcome(server: &Server, given: &[(&str, &str)]) -> Result<Arc<SecretValues>, SecretError> {
    let named = [("WPP_SECRET_ARN", ARN), ("SUPABASE_SECRET_ARN", ARN), ("AWS_ENDPOINT_URL", &server.url)];
    let source = source(PROJECT, NeededSecrets::SupabaseAndWpp, &[&named[..], given].concat()).unwrap();
    let upstream = Upstream::new(Duration::from_secs(20), &[]).unwrap();
    let cell = SecretCell::new(source, upstream, |values| values);
    let loaded = cell.current(NOW, Deadline::within(Duration::from_millis(500))).await?;
    Ok(loaded.built.clone())
}

fn secret(text: &str) -> String {
    reply(200, &json!({"ARN": ARN, "SecretString": text}).to_string())
}

#[tokio::test]
async fn a_variable_wins_over_its_key_in_a_secret() {
    let server = Server::start("").await;
    let all = json!({"WPP_SECRET": " w\n", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_k",
        "SUPABASE_JWT_SECRET": LEGACY, "other": {"of": ["others"]}});
    server.says(secret(&all.to_string()));
    let plain = "a plain secret of thirty-two bytes or more";
    for (given, [wpp_secret, service_key, jwt_secret]) in [
        (&[][..], ["w", "sb_secret_k", LEGACY]),
        (&[(WPP_SECRET, "plain")], ["plain", "sb_secret_k", LEGACY]),
        (&[(SERVICE_KEY, "sb_secret_plain")], ["w", "sb_secret_plain", LEGACY]),
        (&[(JWT_SECRET, plain)], ["w", "sb_secret_k", plain]),
        (&[(SERVICE_KEY, "sb_secret_plain"), (JWT_SECRET, plain)], ["w", "sb_secret_plain", plain]),
    ] {
        let values = outcome(&server, given).await.unwrap();
        let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        assert_eq!(text(&values.wpp_secret).as_deref(), Some(wpp_secret), "{given:?}");
        assert_eq!(text(&values.jwt_secret).as_deref(), Some(jwt_secret), "{given:?}");
        assert_eq!(values.service_key.secret().expose(), service_key, "{given:?}");
    }
}

#[tokio::test]
async fn a_secret_needs_no_jwt_secret() {
    let server = Server::start("").await;
    for jwt_secret in [json!({}), json!({"SUPABASE_JWT_SECRET": ""}), json!({"SUPABASE_JWT_SECRET": " "})] {
        let mut keys = json!({"WPP_SECRET": "w", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_k"});
        keys.as_object_mut().unwrap().extend(jwt_secret.as_object().unwrap().clone());
        server.says(secret(&keys.to_string()));
        assert_eq!(outcome(&server, &[]).await.unwrap().jwt_secret, None, "{keys}");
    }
}

#[tokio::test]
async fn an_unusable_secret_names_its_variable_without_a_value() {
    let server = Server::start("").await;
    let (wpp, supabase) = ((WPP_SECRET, "w"), (SERVICE_KEY, "sb_secret_k"));
    let demo = json!({"SUPABASE_SERVICE_ROLE_KEY": DEMO_SERVICE_KEY}).to_string();
    let short = r#"{"SUPABASE_JWT_SECRET":"canary"}"#;
    for (given, text, variable, problem) in [
        (supabase, "canary", "WPP_SECRET_ARN", "SecretString is not a JSON object"),
        (supabase, r#"["canary"]"#, "WPP_SECRET_ARN", "SecretString is not a JSON object"),
        (supabase, r#"{"other":"canary"}"#, "WPP_SECRET_ARN", "WPP_SECRET is not set"),
        (supabase, r#"{"WPP_SECRET":7}"#, "WPP_SECRET_ARN", "WPP_SECRET is not a text"),
        (supabase, r#"{"WPP_SECRET":" "}"#, "WPP_SECRET_ARN", "WPP_SECRET is empty"),
        (
            supabase,
            r#"{"WPP_SECRET":"a canary"}"#,
            "WPP_SECRET_ARN",
            "WPP_SECRET contains a blank or a character that no key has",
        ),
        (wpp, "{}", "SUPABASE_SECRET_ARN", "SUPABASE_SERVICE_ROLE_KEY is not set"),
        (
            wpp,
            r#"{"SUPABASE_SERVICE_ROLE_KEY":"sb_publishable_canary"}"#,
            "SUPABASE_SECRET_ARN",
            "SUPABASE_SERVICE_ROLE_KEY is a publishable key; the service role's is needed",
        ),
        (wpp, demo.as_str(), "SUPABASE_SECRET_ARN", "SUPABASE_SERVICE_ROLE_KEY is a demo value"),
    ] {
        // This variable has a separate secret.
        let other = if given == wpp { ("WPP_SECRET_ARN", "") } else { (JWT_SECRET, LEGACY) };
        server.says(secret(text));
        let error = outcome(&server, &[given, other]).await.unwrap_err();
        let expected = format!("the secret that {variable} names cannot be used: {problem}");
        assert!(error.to_string().starts_with(&expected), "{text}: {error}");
        assert!(
            matches!(error, SecretError::Unusable { .. }) && !format!("{error:?}").contains("canary"),
            "{error:?}"
        );
    }
    server.says(secret(short));
    let error = outcome(&server, &[wpp, supabase]).await.unwrap_err().to_string();
    assert!(
        error.contains("SUPABASE_JWT_SECRET has fewer than 32 bytes") && !error.contains("canary"),
        "{error}"
    );
}

#[tokio::test]
async fn unreadable_secret_error_quotes_no_answer() {
    let server = Server::start("").await;
    let refused = |status, word: &str| {
        reply(status, &json!({"__type": word, "Message": "User canary is not authorized"}).to_string())
    };
    for (says, why) in [
        (refused(400, "AccessDeniedException"), "refused with status 400, AccessDeniedException"),
        (refused(400, "a.b#ResourceNotFoundException"), "refused with status 400, ResourceNotFoundException"),
        (refused(500, "Internal\nService: Error"), "refused with status 500, InternalServiceError"),
        (reply(403, "<html>canary"), "refused with status 403, "),
        (reply(200, "canary"), "unreadable answer"),
        (reply(200, r#"{"SecretBinary":"canary"}"#), "unreadable answer"),
        ("HTTP/1.1 200 X\r\n".to_owned(), "timed out"),
        (String::new(), "timed out"),
    ] {
        server.says(says);
        let error = outcome(&server, &[(WPP_SECRET, "w")]).await.unwrap_err();
        let expected = format!("the secret that SUPABASE_SECRET_ARN names cannot be read: {why}");
        assert_eq!(error.to_string(), expected);
        assert!(
            matches!(error, SecretError::Unavailable { .. }) && !format!("{error:?}").contains("canary"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn transient_refusal_is_retried_once() {
    for (status, word, requests) in [
        (500, "InternalServiceError", 2),
        (400, "ThrottlingException", 2),
        (400, "AccessDeniedException", 1),
        (400, "ResourceNotFoundException", 1),
    ] {
        let server = Server::start(reply(status, &json!({"__type": word}).to_string())).await;
        assert!(outcome(&server, &[(WPP_SECRET, "w")]).await.is_err());
        assert_eq!(server.requests(), requests, "{word}");
    }
}

/// The new value of one secret is used even if the other cannot be read.
#[tokio::test]
async fn each_of_two_secrets_is_taken_separately() {
    let (platform, supabase) = (Server::start("").await, Server::start("").await);
    let named = [("WPP_SECRET_ARN", ARN), ("SUPABASE_SECRET_ARN", ARN), ("AWS_ENDPOINT_URL", &supabase.url)];
    let mut source = source(PROJECT, NeededSecrets::SupabaseAndWpp, &named).unwrap();
    source.refs[1].endpoint = Url::parse(&platform.url).unwrap();
    let cell = SecretCell::new(source, Upstream::new(Duration::from_secs(20), &[]).unwrap(), |values| values);
    let read = async |now| {
        let loaded = cell.current(now, Deadline::within(Duration::from_secs(5))).await.unwrap();
        let wpp_secret = loaded.built.wpp_secret.as_ref().map(|secret| secret.expose().to_owned());
        (wpp_secret.unwrap(), loaded.built.service_key.secret().expose().to_owned())
    };
    platform.says(secret(r#"{"WPP_SECRET":"old"}"#));
    supabase.says(secret(r#"{"SUPABASE_SERVICE_ROLE_KEY":"sb_secret_old"}"#));
    assert_eq!(read(NOW).await, ("old".to_owned(), "sb_secret_old".to_owned()));
    platform.says(reply(403, ""));
    supabase.says(secret(r#"{"SUPABASE_SERVICE_ROLE_KEY":"sb_secret_new"}"#));
    assert_eq!(read(NOW.plus(READ_INTERVAL)).await, ("old".to_owned(), "sb_secret_new".to_owned()));
    platform.says(secret(r#"{"WPP_SECRET":"new"}"#));
    supabase.says(reply(403, ""));
    let later = NOW.plus(READ_INTERVAL + RETRY_INTERVAL);
    assert_eq!(read(later).await, ("new".to_owned(), "sb_secret_new".to_owned()));
}
