use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

fn jwt(claims: &str) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(claims), part("signature"))
}

fn service_role() -> String {
    jwt(r#"{"iss":"supabase","role":"service_role"}"#)
}

/// A good environment with one variable changed, or taken away.
fn read(variable: &str, value: Option<&str>) -> Result<Config, ConfigError> {
    let good = |name: &str| match name {
        "WPP_BASE_URL" => Some("https://msg.example".to_owned()),
        "SUPABASE_URL" => Some("https://project.supabase.co/".to_owned()),
        "SUPABASE_SERVICE_ROLE_KEY" => Some(service_role()),
        "WPP_SECRET" => Some("s3cret".to_owned()),
        _ => None,
    };
    let source = |name: &str| if name == variable { value.map(str::to_owned) } else { good(name) };
    Config::read(source, Needs::WppSecretToo)
}

/// The keys of an environment that has all of them.
fn keys(config: &Config) -> &Keys {
    match &config.keys {
        KeySource::Given(keys) => keys,
        KeySource::Kept(_) => panic!("a secret is named"),
    }
}

fn problem(variable: &str, value: Option<&str>) -> String {
    read(variable, value).unwrap_err().to_string()
}

#[test]
fn a_plain_environment_has_the_documented_defaults() {
    let config = read("", None).unwrap();
    let times = [config.upstream_timeout, config.request_budget, config.qr_wait];
    assert_eq!(times, [8, 25, 3].map(Duration::from_secs));
    assert_eq!(config.origins.allow(Some("https://app.example")), None);
    assert_eq!(config.webhook_url(), "https://project.supabase.co/functions/v1/wpp-webhook");
    assert!(keys(&config).jwt_secret.is_none());
}

#[test]
fn a_missing_or_blank_variable_is_named() {
    for variable in ["WPP_BASE_URL", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "WPP_SECRET"] {
        for value in [None, Some(""), Some(" \n")] {
            assert_eq!(problem(variable, value), format!("{variable} is not set"));
        }
    }
    let source = |name: &str| (name != "WPP_SECRET").then(|| source_of_all(name)).flatten();
    let unneeded = Config::read(source, Needs::ServiceKey);
    assert!(keys(&unneeded.unwrap()).wpp_secret.is_none());
}

/// Everything but a file.
fn source_of_all(name: &str) -> Option<String> {
    let value = match name {
        "UPSTREAM_CA_FILE" => return None,
        "SUPABASE_SERVICE_ROLE_KEY" => "sb_secret_x".to_owned(),
        "CORS_ALLOWED_ORIGINS" => "*".to_owned(),
        name if name.ends_with("_MS") => "1".to_owned(),
        _ => "https://example.org".to_owned(),
    };
    Some(value)
}

#[test]
fn a_file_of_authorities_is_there_and_holds_one_at_least() {
    for (file, expected) in [
        ("/nowhere", "UPSTREAM_CA_FILE names a file that cannot be read"),
        ("/dev/null", "UPSTREAM_CA_FILE must name a file of certificates in PEM"),
    ] {
        assert_eq!(problem("UPSTREAM_CA_FILE", Some(file)), expected);
    }
}

#[test]
fn an_address_is_http_or_https_with_a_host() {
    for variable in ["WPP_BASE_URL", "SUPABASE_URL", "WEBHOOK_BASE_URL"] {
        for value in
            ["msg.example", "//msg.example", "ftp://msg.example", "file:///etc", "https://", "not a url"]
        {
            assert_eq!(problem(variable, Some(value)), format!("{variable} is not an http or https address"));
        }
    }
}

#[test]
fn an_address_ends_where_paths_are_put_behind_it() {
    for variable in ["WPP_BASE_URL", "SUPABASE_URL", "WEBHOOK_BASE_URL"] {
        for (value, expected) in [
            ("https://user:secret@msg.example", "must not hold a user name or a password"),
            ("https://user@msg.example", "must not hold a user name or a password"),
            ("https://msg.example?a=b", "must end before any ? or #"),
            ("https://msg.example/#a", "must end before any ? or #"),
        ] {
            assert_eq!(problem(variable, Some(value)), format!("{variable} {expected}"));
        }
    }
    for value in ["https://p.supabase.co/rest/v1", "https://p.supabase.co/auth/v1/"] {
        let expected = "SUPABASE_URL is the address of one service, not the project's";
        assert_eq!(problem("SUPABASE_URL", Some(value)), expected);
    }
}

#[test]
fn the_webhook_may_be_elsewhere_and_below_a_path() {
    for (base, url) in [
        ("https://hooks.example", "https://hooks.example/functions/v1/wpp-webhook"),
        ("http://hooks.example:8080/a/", "http://hooks.example:8080/a/functions/v1/wpp-webhook"),
    ] {
        assert_eq!(read("WEBHOOK_BASE_URL", Some(base)).unwrap().webhook_url(), url);
    }
}

#[test]
fn only_a_service_key_opens_the_database() {
    const KEY: &str = "SUPABASE_SERVICE_ROLE_KEY";
    let other_role = "is a key of another role than service_role";
    for (value, expected) in [
        (jwt(r#"{"role":"anon"}"#), other_role),
        (jwt(r#"{"role":"authenticated"}"#), other_role),
        (jwt("{}"), other_role),
        ("sb_publishable_x".to_owned(), "is a publishable key; the service role's is needed"),
        ("sb_something_x".to_owned(), "is neither a JWT nor an sb_secret_ key"),
        ("a.b.c".to_owned(), "is neither a JWT nor an sb_secret_ key"),
        ("two words".to_owned(), "contains a blank or a character that no key has"),
        ("sb_secret_\u{e9}".to_owned(), "contains a blank or a character that no key has"),
    ] {
        assert_eq!(problem(KEY, Some(&value)), format!("{KEY} {expected}"));
    }
}

#[test]
fn a_key_of_the_new_kind_is_no_bearer() {
    let config = read("SUPABASE_SERVICE_ROLE_KEY", Some(" sb_secret_x\n")).unwrap();
    let new = &keys(&config).service_key;
    assert_eq!((new.secret().expose(), new.bearer()), ("sb_secret_x", None));
    let config = read("", None).unwrap();
    let legacy = &keys(&config).service_key;
    assert_eq!(legacy.bearer(), Some(legacy.secret()));
}

#[test]
fn origins_are_a_star_or_a_list_of_origins() {
    const LIST: &str = "CORS_ALLOWED_ORIGINS";
    let config = read(LIST, Some("https://app.example/ ,http://localhost:5173,")).unwrap();
    for allowed in ["https://app.example", "http://localhost:5173"] {
        assert_eq!(config.origins.allow(Some(allowed)), Some(allowed));
    }
    for other in [
        "https://app.example:8443",
        "http://app.example",
        "https://APP.example",
        "https://app.example/",
        "null",
    ] {
        assert_eq!(config.origins.allow(Some(other)), None, "{other}");
    }
    assert_eq!(read(LIST, Some(" * ")).unwrap().origins.allow(None), Some("*"));
    for wrong in
        ["app.example", "*, https://app.example", "https://app.example/path", "https://*.example", "null"]
    {
        assert!(problem(LIST, Some(wrong)).starts_with("CORS_ALLOWED_ORIGINS must be"), "{wrong}");
    }
}

#[test]
fn issuers_are_a_list_or_not_compared() {
    const LIST: &str = "SUPABASE_JWT_ISSUER";
    for (value, issuers) in [
        (None, &[][..]),
        (Some(" "), &[]),
        (Some("supabase"), &["supabase"]),
        (
            Some(" https://a.example/auth/v1 ,https://b.example/,"),
            &["https://a.example/auth/v1", "https://b.example/"],
        ),
    ] {
        assert_eq!(read(LIST, value).unwrap().jwt_issuers, issuers, "{value:?}");
    }
    for wrong in [",", " , ", "https://a.example https://b.example", "a,b\tc"] {
        assert!(problem(LIST, Some(wrong)).starts_with("SUPABASE_JWT_ISSUER must be"), "{wrong}");
    }
}

#[test]
fn a_time_is_a_number_of_milliseconds() {
    for variable in ["UPSTREAM_TIMEOUT_MS", "REQUEST_BUDGET_MS", "QR_WAIT_MS"] {
        for value in ["1", "600000"] {
            assert!(read(variable, Some(value)).is_ok());
        }
        for value in ["0", "-1", "600001", "1.5", "8s", "99999999999999999999"] {
            let expected = format!("{variable} must be a number of milliseconds from 1 to 600000");
            assert_eq!(problem(variable, Some(value)), expected);
        }
    }
}

#[test]
fn a_printed_configuration_holds_no_secret() {
    let source = |name: &str| match name {
        "SUPABASE_JWT_SECRET" | "WPP_SECRET" => Some("canary".to_owned()),
        "SUPABASE_SERVICE_ROLE_KEY" => Some("sb_secret_canary".to_owned()),
        name => source_of_all(name),
    };
    let config = Config::read(source, Needs::ServiceKey).unwrap();
    assert!(keys(&config).jwt_secret.is_some() && keys(&config).wpp_secret.is_some());
    assert!(!format!("{config:?}").contains("canary"));
}

const PLATFORM_ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:wpp/platform-AbCdEf";
const SUPABASE_ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:wpp/supabase-AbCdEf";

/// A function that needs these keys, which are kept in secrets, with these variables too.
fn read_kept(needs: Needs, more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = [
        ("WPP_BASE_URL", "https://msg.example"),
        ("SUPABASE_URL", "https://project.supabase.co"),
        ("WPP_SECRET_ARN", PLATFORM_ARN),
        ("SUPABASE_SECRET_ARN", SUPABASE_ARN),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
    ];
    let source = |name: &str| {
        let found = more.iter().chain(&variables).find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::read(source, needs)
}

/// Variable, region and endpoint of each secret that is to be read.
fn secrets(config: &Config) -> Vec<(&str, &str, &str)> {
    match &config.keys {
        KeySource::Given(_) => Vec::new(),
        KeySource::Kept(kept) => {
            let secrets = kept.secrets.iter();
            secrets
                .map(|secret| (secret.variable, secret.region.as_str(), secret.endpoint.as_str()))
                .collect()
        }
    }
}

#[test]
fn a_secret_is_read_where_its_key_is_needed_and_not_given() {
    let [platform, supabase] = ["WPP_SECRET_ARN", "SUPABASE_SECRET_ARN"];
    let [wpp_secret, service_key, jwt_secret] =
        [("WPP_SECRET", "w"), ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_k"), ("SUPABASE_JWT_SECRET", "j")];
    let (create, other) = (Needs::WppSecretToo, Needs::ServiceKey);
    for (needs, given, expected) in [
        (create, &[][..], &[platform, supabase][..]),
        (other, &[], &[supabase]),
        (create, &[wpp_secret], &[supabase]),
        (create, &[service_key], &[platform, supabase]),
        (create, &[service_key, jwt_secret], &[platform]),
        (create, &[wpp_secret, service_key, jwt_secret], &[]),
        (other, &[service_key, jwt_secret], &[]),
        (other, &[service_key, (supabase, "")], &[]),
    ] {
        let config = read_kept(needs, given).unwrap();
        let names: Vec<_> = secrets(&config).into_iter().map(|(variable, ..)| variable).collect();
        assert_eq!(names, expected, "{needs:?} {given:?}");
        assert!(!format!("{config:?}").contains("canary"));
    }
}

#[test]
fn secrets_manager_is_asked_in_the_secrets_own_region() {
    const OTHER: &str = "arn:aws:secretsmanager::123456789012:secret:name";
    let own = "AWS_ENDPOINT_URL_SECRETS_MANAGER";
    for (arn, more, region, endpoint) in [
        (SUPABASE_ARN, None, "eu-west-1", "https://secretsmanager.eu-west-1.amazonaws.com/"),
        (OTHER, None, "eu-south-2", "https://secretsmanager.eu-south-2.amazonaws.com/"),
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
        // The one for the service wins.
        if let Some(more) = more {
            variables.push(("AWS_ENDPOINT_URL", "http://all.example"));
            variables.extend((more == own).then_some((own, "http://own.example")));
        }
        let config = read_kept(Needs::ServiceKey, &variables).unwrap();
        assert_eq!(secrets(&config), [("SUPABASE_SECRET_ARN", region, endpoint)], "{arn}");
    }
}

#[test]
fn what_no_secret_can_bring_is_missing_at_the_start() {
    let not_an_arn = "SUPABASE_SECRET_ARN is not the ARN of a secret in Secrets Manager";
    let supabase = |arn| [("SUPABASE_SECRET_ARN", arn)];
    for (change, problem) in [
        ([("WPP_SECRET_ARN", "")], "WPP_SECRET is not set"),
        (supabase(""), "SUPABASE_SERVICE_ROLE_KEY is not set"),
        (supabase("canary"), not_an_arn),
        (supabase("arn:aws:s3:eu-west-1:123456789012:secret:canary"), not_an_arn),
        (supabase("arn:aws:secretsmanager:eu-west-1:123456789012:secret:"), not_an_arn),
        (supabase("arn:aws:secretsmanager:eu-west-1:123456789012:canary:name"), not_an_arn),
        (supabase("arn:aws:secretsmanager:canary.example/:123456789012:secret:name"), not_an_arn),
        (supabase("arn:aws:secretsmanager::123456789012:secret:name"), "AWS_REGION is not set"),
        ([("AWS_ACCESS_KEY_ID", "")], "AWS_ACCESS_KEY_ID is not set"),
        ([("AWS_SECRET_ACCESS_KEY", " ")], "AWS_SECRET_ACCESS_KEY is not set"),
        (
            [("AWS_SESSION_TOKEN", "a canary")],
            "AWS_SESSION_TOKEN contains a blank or a character that no key has",
        ),
        ([("AWS_ENDPOINT_URL", "canary")], "AWS_ENDPOINT_URL is not an http or https address"),
        ([("WPP_SECRET", "a canary")], "WPP_SECRET contains a blank or a character that no key has"),
        (
            [("SUPABASE_SERVICE_ROLE_KEY", "canary")],
            "SUPABASE_SERVICE_ROLE_KEY is neither a JWT nor an sb_secret_ key",
        ),
    ] {
        assert_eq!(read_kept(Needs::WppSecretToo, &change).unwrap_err().to_string(), problem, "{change:?}");
    }
}
