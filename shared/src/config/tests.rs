use super::*;

/// Reads a valid environment with one variable changed or removed.
fn read(variable: &str, value: Option<&str>) -> Result<Config, ConfigError> {
    let good = |name: &str| match name {
        "WPP_BASE_URL" => Some("https://msg.example".to_owned()),
        "SUPABASE_URL" => Some("https://project.supabase.co/".to_owned()),
        _ => None,
    };
    let source = |name: &str| if name == variable { value.map(str::to_owned) } else { good(name) };
    Config::read(source)
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
}

#[test]
fn a_missing_or_blank_variable_is_named() {
    for variable in ["WPP_BASE_URL", "SUPABASE_URL"] {
        for value in [None, Some(""), Some(" \n")] {
            assert_eq!(problem(variable, value), format!("{variable} is not set"));
        }
    }
}

#[test]
fn ca_file_has_at_least_one_certificate() {
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
fn base_url_must_be_a_plain_address() {
    for variable in ["WPP_BASE_URL", "SUPABASE_URL", "WEBHOOK_BASE_URL"] {
        for (value, expected) in [
            ("https://user:secret@msg.example", "must not contain a user name or a password"),
            ("https://user@msg.example", "must not contain a user name or a password"),
            ("https://msg.example?a=b", "must end before any ? or #"),
            ("https://msg.example/#a", "must end before any ? or #"),
        ] {
            assert_eq!(problem(variable, Some(value)), format!("{variable} {expected}"));
        }
    }
    for value in ["https://p.supabase.co/rest/v1", "https://p.supabase.co/auth/v1/"] {
        let expected = "SUPABASE_URL is the address of one service, not of the project";
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
