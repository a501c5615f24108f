//! The legacy and new keys of a Supabase project: the service key, and the signing keys.

use local::events::Event;
use local::fault_injector::Fault;
use local::lambda::Sandbox;
use local::test_app::TestApp;
use local::users::{Issuer, Signing, anonymous_claims, user_claims};
use serde_json::{Value, json};
use uuid::Uuid;

const ISSUER: &str = "SUPABASE_JWT_ISSUER";
const SERVICE_KEY: &str = "SUPABASE_SERVICE_ROLE_KEY";

/// Starts `wpp-status` with additional or different variables.
async fn function(app: &TestApp, more: &[(&str, &str)]) -> Sandbox {
    app.process_with("wpp-status", more).await
}

/// Returns the status of an answer to this token, and its code.
async fn outcome(function: &Sandbox, token: &str) -> (u16, Value) {
    let event = Event::post("wpp-status").bearer(token).json(&json!({})).http_api();
    let answer = function.invoke(event).await.answered().unwrap();
    (answer.status, answer.json["code"].clone())
}

#[tokio::test]
async fn every_issuer_is_accepted_if_none_is_named() {
    let app = TestApp::start().await;
    let (hosted, configured) = (Issuer::Hosted.claim().unwrap(), Issuer::Configured.claim().unwrap());
    let both = format!("{hosted}, {configured}");
    for (named, admitted) in [
        ("", &Issuer::ALL[..]),
        (hosted, &[Issuer::Hosted]),
        (both.as_str(), &[Issuer::Hosted, Issuer::Configured]),
    ] {
        let function = function(&app, &[(ISSUER, named)]).await;
        for signing in [Signing::Hs256, Signing::Es256] {
            for issuer in Issuer::ALL {
                let token = app.keys.token(&user_claims(app.school.user, issuer), signing);
                let expected = if admitted.contains(&issuer) { 200 } else { 401 };
                assert_eq!(outcome(&function, &token).await.0, expected, "{issuer:?} {signing:?}, {named:?}");
            }
        }
    }
    let function = function(&app, &[]).await;
    for signing in [Signing::Hs256, Signing::Es256] {
        let visitor = app.keys.token(&anonymous_claims(Uuid::new_v4()), signing);
        let without_profile = (404, json!("organization_not_found"));
        assert_eq!(outcome(&function, &visitor).await, without_profile, "{signing:?}");
    }
}

/// The caller gets one sentence. The operator learns which of the checks failed.
#[tokio::test]
async fn log_names_the_failed_sign_in_check() {
    let app = TestApp::start().await;
    let issuer = Issuer::Hosted;
    let function = function(&app, &[(ISSUER, issuer.claim().unwrap())]).await;
    let token = |changes: Value| {
        let mut claims = user_claims(app.school.user, issuer);
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        app.keys.token(&claims, Signing::Hs256)
    };
    let now = local::clock::unix_ms() / 1000;
    let good = token(json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = local::users::Keys::generate().unwrap();
    for (token, code, check) in [
        ("a.b.c", "unauthorized", "cannot be read"),
        (&format!("{signed}.c2lnbmF0dXJl"), "unauthorized", "signature"),
        (&other.token(&user_claims(app.school.user, issuer), Signing::Es256), "unauthorized", "unknown key"),
        (&other.token(&user_claims(app.school.user, issuer), Signing::Hs256), "unauthorized", "signature"),
        (&app.keys.anon_key(), "unauthorized", "audience"),
        (&token(json!({"aud": "somebody"})), "unauthorized", "audience"),
        (&token(json!({"iss": "somebody"})), "unauthorized", "issuer"),
        (&token(json!({"role": "anon"})), "unauthorized", "role"),
        (&token(json!({"exp": now - 60})), "sign_in_expired", "expired"),
        (&token(json!({"nbf": now + 60})), "unauthorized", "not valid yet"),
        (&token(json!({"sub": "somebody"})), "unauthorized", "subject"),
    ] {
        assert_eq!(outcome(&function, token).await, (401, json!(code)), "{check}");
        let logs = function.logs().await;
        let line = logs.lines().last().unwrap_or_default();
        assert!(line.contains("refused") && line.contains(check), "{check}: {logs}");
        assert!(!logs.contains(token), "{check}: {logs}");
    }
}

#[tokio::test]
async fn legacy_and_new_service_keys_work() {
    let app = TestApp::start().await;
    let by_key_set = app.keys.token(&user_claims(app.school.user, Issuer::Absent), Signing::Es256);
    for key in [app.keys.service_role_key(), app.keys.secret_key().to_owned()] {
        let function = function(&app, &[(SERVICE_KEY, &key)]).await;
        for token in [&app.school.token, &by_key_set] {
            let event = Event::post("wpp-status").bearer(token).json(&json!({})).http_api();
            let answer = function.invoke(event).await.answered().unwrap();
            assert_eq!(answer.told(), (200, "disconnected"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_service_key_is_a_500() {
    let app = TestApp::start().await;
    let function = function(&app, &[(SERVICE_KEY, "sb_secret_of_another_project")]).await;
    assert_eq!(outcome(&function, &app.school.token).await, (500, json!("database_key_rejected")));
    let by_key_set = app.keys.token(&user_claims(app.school.user, Issuer::Absent), Signing::Es256);
    assert_eq!(outcome(&function, &by_key_set).await, (503, json!("auth_unavailable")));
    let logs = function.logs().await;
    assert!(
        logs.contains("the project's keys could not be fetched") && logs.contains("status 401"),
        "{logs}"
    );
}

#[tokio::test]
async fn users_of_a_project_with_signing_keys_need_no_shared_secret() {
    let app = TestApp::start().await;
    let claims = |expires_s: i64| {
        let mut claims = user_claims(app.school.user, Issuer::Absent);
        claims["exp"] = json!(local::clock::unix_ms() / 1000 + expires_s);
        claims
    };
    let function = function(&app, &[("SUPABASE_JWT_SECRET", "")]).await;
    let good = app.keys.token(&claims(3600), Signing::Es256);
    assert_eq!(outcome(&function, &good).await.0, 200);
    for (refused, code) in [
        (app.keys.token(&claims(-60), Signing::Es256), "sign_in_expired"),
        (app.keys.token(&claims(3600), Signing::None), "unauthorized"),
        (app.school.token.clone(), "unauthorized"),
        (app.keys.service_role_key(), "unauthorized"),
        (app.keys.anon_key(), "unauthorized"),
        (app.keys.secret_key().to_owned(), "unauthorized"),
    ] {
        assert_eq!(outcome(&function, &refused).await, (401, json!(code)), "{refused}");
    }
    // The key set is cached: there is no call for a known key, and none for a repeated unknown one.
    assert_eq!(app.count("jwks"), 1);
    app.inject("jwks", Fault::Drop);
    assert_eq!(outcome(&function, &good).await.0, 200);
}
