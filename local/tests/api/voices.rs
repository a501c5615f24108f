//! What sits between the functions and their upstreams, in either direction.

use std::sync::Arc;

use local::fault_injector::Fault;
use local::http_gateway;
use local::lambda::Options;
use local::stack::Stack;
use local::test_app::TestApp;
use local::users::{Issuer, Signing, user_claims};
use serde_json::json;

/// In every test, both upstreams are behind a firewall that requires a `User-Agent`. Here, PostgREST also exposes another schema of
/// the project first.
#[tokio::test]
async fn calls_use_the_public_schema() {
    let app = TestApp::start().await;
    let schema = "create schema api; grant usage on schema api to anon, authenticated, service_role";
    app.sql.batch_execute(schema).await.unwrap();
    app.postgrest.expose("api,public").await.unwrap();
    let created = app.create(json!({})).await.expect(200, "qr_issued");
    let session = created.text("session");
    app.poll_qr(session).await.expect(200, "qr_issued");
    app.platform.scan(session).unwrap();
    app.check().await.expect(200, "connected");
    let unsaved = app.sandbox("wpp-create").logs().await.contains("could not be saved");
    assert!(!unsaved, "every call has arrived");
}

/// Every user token contains the user's metadata.
#[tokio::test]
async fn a_token_with_much_metadata_is_taken() {
    let app = Arc::new(TestApp::start().await);
    let server = http_gateway::serve(app.clone()).await.unwrap();
    let client = local::http::client().unwrap();
    for (metadata, signing, status, code) in [
        (11_000, Signing::Hs256, 200, json!(null)),
        (11_000, Signing::Es256, 200, json!(null)),
        (13_000, Signing::Hs256, 431, json!("token_too_long")),
    ] {
        let mut claims = user_claims(app.school.user, Issuer::Absent);
        claims["user_metadata"] = json!({"picture": "x".repeat(metadata)});
        let token = app.keys.token(&claims, signing);
        let request = client.post(format!("{}/functions/v1/wpp-status", server.url())).bearer_auth(&token);
        let response = request.send().await.unwrap();
        let answer = (response.status().as_u16(), response.bytes().await.unwrap());
        let json: serde_json::Value = serde_json::from_slice(&answer.1).unwrap();
        assert_eq!((answer.0, &json["code"]), (status, &code), "{} bytes: {json}", token.len());
    }
}

/// PostgREST reports this once, for either kind of service key; a second later, it no longer does.
#[tokio::test]
async fn clock_that_is_behind_loses_no_save() {
    for is_new in [true, false] {
        let stack = Stack::start().await.unwrap();
        let key = if is_new { stack.keys.secret_key().to_owned() } else { stack.keys.service_role_key() };
        let app = TestApp::on(stack, &[("SUPABASE_SERVICE_ROLE_KEY", &key)], Options::default()).await;
        // A token that does not state its TTL is due a minute before it expires.
        app.platform.behave(|behavior| behavior.opaque_tokens = true);
        let behind = || Fault::status_with(401, r#"{"code":"PGRST303","message":"JWT issued at future"}"#);
        for function in ["rpc/wpp_begin_creation", "rpc/wpp_save_credentials", "rpc/wpp_save_token"] {
            app.inject_times(function, 1, behind());
        }
        let session = app.create(json!({})).await.expect(200, "qr_issued").text("session").to_owned();
        assert_eq!((app.platform.create_calls(), app.count("token")), (1, 1));
        let number = app.number_of(&session).await;
        // A due token leaves little time for its save.
        for left_s in [-1, 30] {
            app.set_token_end(&number, left_s).await;
            app.forget_calls();
            app.inject_times("rpc/wpp_find_number", 1, behind());
            app.inject_times("rpc/wpp_save_token", 1, behind());
            app.poll_qr(&session).await.expect(200, "qr_issued");
            assert_eq!((app.count("token"), app.count("rpc/wpp_save_token")), (1, 2), "{left_s}");
            app.assert_stored_token_is_good(&number).await;
        }
        app.inject("rpc/wpp_find_number", behind());
        app.poll_qr(&session).await.expect(503, "database_unavailable");
    }
}
