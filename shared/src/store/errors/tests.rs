use http::StatusCode;
use serde_json::json;

use super::*;

fn reply(status: u16, body: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap();
    Reply { status, body: body.into(), retry_after: Some(Duration::from_secs(3)) }
}

/// Returns the meaning of a refusal with this status and body, for a key that is a JWT.
fn meaning(status: u16, body: &str) -> StoreError {
    refusal(&reply(status, body), true)
}

const LATER: Option<StoreError> = Some(StoreError::Unavailable { retry_after: Some(Duration::from_secs(3)) });
const MIGRATIONS: Option<StoreError> = Some(StoreError::NotMigrated);
const KEY: Option<StoreError> = Some(StoreError::KeyRefused);
/// [`StoreError::Refused`], with the status and the code.
const OTHER: Option<StoreError> = None;

/// Each code with every status that a version from 12 to 16 gives it.
#[test]
fn a_code_means_the_same_with_whatever_status() {
    for (code, statuses, expected) in [
        ("PGRST000", &[503][..], LATER),
        ("PGRST001", &[503], LATER),
        ("PGRST002", &[503], LATER),
        ("PGRST003", &[503, 504], LATER),
        ("0A000", &[400], LATER),
        ("08006", &[503], LATER),
        ("25006", &[400, 405, 500], LATER),
        ("25P04", &[500], LATER),
        ("40001", &[500], LATER),
        ("40P01", &[500], LATER),
        ("53300", &[503], LATER),
        ("53400", &[500], LATER),
        ("55P03", &[500], LATER),
        ("57014", &[500], LATER),
        ("57P01", &[500, 503], LATER),
        ("58030", &[500], LATER),
        ("XX000", &[500], LATER),
        ("PGRST202", &[404], MIGRATIONS),
        ("PGRST203", &[300], MIGRATIONS),
        ("PGRST205", &[404], MIGRATIONS),
        ("42883", &[404], MIGRATIONS),
        ("42725", &[400], MIGRATIONS),
        ("42P01", &[404], MIGRATIONS),
        ("42703", &[400], MIGRATIONS),
        ("PGRST300", &[500], KEY),
        ("PGRST301", &[401], KEY),
        ("PGRST302", &[401], KEY),
        ("PGRST303", &[401], KEY),
        ("PGRSTX00", &[500], LATER),
        ("22023", &[400, 401], KEY),
        ("42501", &[401, 403], KEY),
        ("0L000", &[403], KEY),
        ("0P000", &[403], KEY),
        ("28000", &[403], KEY),
        ("21000", &[400, 500], OTHER),
        ("22P02", &[400], OTHER),
        ("23503", &[409], OTHER),
        ("23505", &[409], OTHER),
        ("2D000", &[500], OTHER),
        ("38000", &[500], OTHER),
        ("39000", &[500], OTHER),
        ("3B000", &[500], OTHER),
        ("42601", &[400], OTHER),
        ("42P17", &[500], OTHER),
        ("54001", &[500], OTHER),
        ("P0001", &[400], OTHER),
        ("P0002", &[500], OTHER),
        ("PT402", &[402], OTHER),
        ("PGRST102", &[400], OTHER),
        ("PGRST106", &[406], OTHER),
        ("PGRST125", &[404], OTHER),
    ] {
        for &status in statuses {
            let expected = expected.clone().unwrap_or(StoreError::Refused { status, code: code.to_owned() });
            let body = format!(r#"{{"code":"{code}","details":null,"hint":null,"message":"m"}}"#);
            assert_eq!(meaning(status, &body), expected, "{status} {code}");
        }
    }
}

/// Traefik, Kong, Cloudflare, Envoy, a proxy that asks for a password, an edge with codes of its own.
#[test]
fn gateway_refusal_is_an_outage() {
    for status in
        [300, 307, 400, 401, 402, 403, 404, 405, 408, 409, 429, 499, 500, 502, 503, 504, 520, 530, 540, 544]
    {
        for body in [
            "",
            " \n",
            "404 page not found\n",
            "<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>",
            r#"{"message":"no Route matched with those values"}"#,
            r#"{"message":"An invalid response was received from the upstream server"}"#,
            r#"{"code":1020,"message":"Access denied"}"#,
            r#"{"code":"UNAUTHORIZED_NO_AUTH_HEADER","message":"Missing authorization header"}"#,
            r#"{"code":"pgrst301"}"#,
            r#"{"code":"PGRST"}"#,
            r#"{"code":"PGRST12345678"}"#,
            r#"{"code":null}"#,
            r#"{"message":"The key: Invalid API key"}"#,
            "[]",
            "{}",
        ] {
            assert_eq!(Some(meaning(status, body)), LATER, "{status} {body}");
        }
    }
}

#[test]
fn the_gateway_refuses_the_key_in_five_ways() {
    for message in [
        "No API key found in request",
        "Invalid API key",
        "Unregistered API key",
        "Invalid authentication credentials",
        "Legacy API keys are disabled",
    ] {
        let body = json!({"message": message, "hint": "Double check your API key."}).to_string();
        for status in [401, 403] {
            assert_eq!(Some(meaning(status, &body)), KEY, "{status} {message}");
        }
        assert_eq!(Some(meaning(404, &body)), LATER, "{message}");
    }
}

#[test]
fn a_clock_that_differs_is_no_refusal_of_the_key() {
    for (code, message, passes) in [
        ("PGRST303", "JWT issued at future", true),
        ("PGRST303", "JWT expired", false),
        ("PGRST301", "JWT issued at future", false),
    ] {
        let reply = reply(401, &json!({"code": code, "message": message}).to_string());
        assert_eq!(is_over_in_a_moment(&reply), passes, "{code} {message}");
        let expected = if passes { LATER } else { KEY };
        assert_eq!(Some(refusal(&reply, true)), expected, "{code} {message}");
    }
    assert!(!is_over_in_a_moment(&reply(401, "JWT issued at future")));
}

#[test]
fn token_refusal_concerns_only_a_legacy_key() {
    for code in ["PGRST300", "PGRST301", "PGRST302", "PGRST303"] {
        let reply = reply(401, &json!({"code": code, "message": "JWT expired"}).to_string());
        assert_eq!((Some(refusal(&reply, false)), Some(refusal(&reply, true))), (LATER, KEY), "{code}");
    }
    // A role without rights is the key's, of either kind.
    let reply = reply(403, r#"{"code":"42501","message":"permission denied"}"#);
    assert_eq!(Some(refusal(&reply, false)), KEY);
}
