use http::header;

use super::*;
use crate::config::{Config, KeySource, Needs};
use crate::secret::Secret;
use crate::upstream::testing::{Server, reply};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:wpp/platform-AbCdEf";

/// What is kept for a `wpp-create` with these variables beside the least that it needs.
fn kept(more: &[(&str, &str)]) -> KeptKeys {
    let least = [
        ("WPP_BASE_URL", "https://msg.example"),
        ("SUPABASE_URL", "https://project.example"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        ("AWS_SESSION_TOKEN", "FQoGZXIvYXdzEXAMPLE"),
    ];
    let source = |name: &str| {
        let found = least.iter().chain(more).find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    match Config::read(source, Needs::WppSecretToo).unwrap().keys {
        KeySource::Kept(kept) => kept,
        KeySource::Given(_) => panic!("no secret is named"),
    }
}

/// By a recipe in another language: the credentials are those of AWS's own examples.
#[test]
fn a_call_is_signed_as_aws_wants_it() {
    let kept = kept(&[("WPP_SECRET_ARN", ARN), ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_x")]);
    let request = request(&kept, &kept.secrets[0], NOW).unwrap();
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
    assert!(!format!("{request:?}{kept:?}").contains("FQoGZXIvYXdzEXAMPLE"));
}

/// What `wpp-create` makes of a secret that both variables name.
async fn outcome(server: &Server, given: &[(&str, &str)]) -> Result<Keys, SecretError> {
    let named = [("WPP_SECRET_ARN", ARN), ("SUPABASE_SECRET_ARN", ARN), ("AWS_ENDPOINT_URL", &server.url)];
    let upstream = Upstream::new(Duration::from_secs(20), &[]).unwrap();
    let kept = kept(&[&named[..], given].concat());
    read(&kept, &upstream, NOW, Deadline::within(Duration::from_millis(500))).await
}

fn secret(text: &str) -> String {
    reply(200, &json!({"ARN": ARN, "SecretString": text}).to_string())
}

#[tokio::test]
async fn a_secret_is_a_json_object_of_keys_and_a_plain_variable_wins() {
    let server = Server::start("").await;
    let some = |text: &str| Some(Secret::new(text));
    let all = json!({"WPP_SECRET": " w\n", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_k",
        "SUPABASE_JWT_SECRET": "a secret", "other": {"of": ["anybody"]}});
    server.says(secret(&all.to_string()));
    let [w, k, j] = ["WPP_SECRET", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_JWT_SECRET"];
    for (given, [wpp_secret, service_key, jwt_secret]) in [
        (&[][..], ["w", "sb_secret_k", "a secret"]),
        (&[(w, "plain")], ["plain", "sb_secret_k", "a secret"]),
        (&[(k, "sb_secret_plain")], ["w", "sb_secret_plain", "a secret"]),
        (&[(j, "plain")], ["w", "sb_secret_k", "plain"]),
        (&[(k, "sb_secret_plain"), (j, "plain")], ["w", "sb_secret_plain", "plain"]),
    ] {
        let keys = outcome(&server, given).await.unwrap();
        assert_eq!((keys.wpp_secret, keys.jwt_secret), (some(wpp_secret), some(jwt_secret)), "{given:?}");
        assert_eq!(keys.service_key.secret().expose(), service_key, "{given:?}");
    }
    server.says(secret(
        r#"{"WPP_SECRET":"w","SUPABASE_SERVICE_ROLE_KEY":"sb_secret_k","SUPABASE_JWT_SECRET":" "}"#,
    ));
    assert_eq!(outcome(&server, &[]).await.unwrap().jwt_secret, None);
}

#[tokio::test]
async fn only_what_is_not_given_is_asked_for() {
    let server = Server::start("").await;
    server.says(secret(r#"{"WPP_SECRET":"w","SUPABASE_SERVICE_ROLE_KEY":"sb_secret_k"}"#));
    let [w, k, j] =
        [("WPP_SECRET", "w"), ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_k"), ("SUPABASE_JWT_SECRET", "j")];
    for (given, requests) in [(&[][..], 2), (&[w], 1), (&[k, j], 1), (&[k], 2), (&[j], 2), (&[w, k], 1)] {
        outcome(&server, given).await.unwrap();
        assert_eq!(server.heard().len(), requests, "{given:?}");
    }
}

#[tokio::test]
async fn a_secret_that_will_not_do_names_its_variable_and_key_and_no_value() {
    let server = Server::start("").await;
    let (wpp, supabase) = (("WPP_SECRET", "w"), ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_k"));
    for (given, text, variable, problem) in [
        (supabase, "canary", "WPP_SECRET_ARN", "SecretString is not a JSON object"),
        (supabase, r#"["canary"]"#, "WPP_SECRET_ARN", "SecretString is not a JSON object"),
        (supabase, r#"{"other":"canary"}"#, "WPP_SECRET_ARN", "WPP_SECRET is not set"),
        (supabase, r#"{"WPP_SECRET":7}"#, "WPP_SECRET_ARN", "WPP_SECRET is not set"),
        (supabase, r#"{"WPP_SECRET":" "}"#, "WPP_SECRET_ARN", "WPP_SECRET is not set"),
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
        (
            wpp,
            r#"{"SUPABASE_SERVICE_ROLE_KEY":"sb_secret_\u00e9canary"}"#,
            "SUPABASE_SECRET_ARN",
            "SUPABASE_SERVICE_ROLE_KEY contains a blank or a character that no key has",
        ),
    ] {
        server.says(secret(text));
        let error = outcome(&server, &[given]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the secret that {variable} names cannot be used: {problem}"),
            "{text}"
        );
        assert!(
            matches!(error, SecretError::Unusable { .. }) && !format!("{error:?}").contains("canary"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_says_why_without_the_words_of_the_other_side() {
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
        let error = outcome(&server, &[("WPP_SECRET", "w")]).await.unwrap_err();
        let expected = format!("the secret that SUPABASE_SECRET_ARN names cannot be read: {why}");
        assert_eq!(error.to_string(), expected);
        assert!(
            matches!(error, SecretError::Unavailable { .. }) && !format!("{error:?}").contains("canary"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_repeated_once() {
    for (status, word, requests) in [
        (500, "InternalServiceError", 2),
        (400, "ThrottlingException", 2),
        (400, "AccessDeniedException", 1),
        (400, "ResourceNotFoundException", 1),
    ] {
        let server = Server::start(reply(status, &json!({"__type": word}).to_string())).await;
        assert!(outcome(&server, &[("WPP_SECRET", "w")]).await.is_err());
        assert_eq!(server.requests(), requests, "{word}");
    }
}
