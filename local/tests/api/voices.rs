//! Who is speaking: what stands between the functions and their upstreams, in either direction.

use std::sync::Arc;

use local::front;
use local::test_app::TestApp;
use local::users::{Issuer, Signing, user_claims};
use serde_json::json;

/// Both upstreams stand behind a firewall that wants a `User-Agent`, in every test; and this PostgREST shows a schema of the
/// project's own first.
#[tokio::test]
async fn a_call_finds_the_schema_that_it_means() {
    let app = TestApp::start().await;
    let schema = "create schema api; grant usage on schema api to anon, authenticated, service_role";
    app.sql.batch_execute(schema).await.unwrap();
    app.postgrest.expose("api,public").await.unwrap();
    let created = app.create(json!({})).await.expect(200, "qr_issued");
    let session = created.text("session");
    app.poll_qr(session).await.expect(200, "ready");
    app.platform.scan(session).unwrap();
    app.check().await.expect(200, "connected");
    let unsaved = app.sandbox("wpp-create").logs().await.contains("could not be saved");
    assert!(!unsaved, "every call has arrived");
}

/// The metadata of a user are in every token of theirs.
#[tokio::test]
async fn a_token_with_much_metadata_is_taken() {
    let app = Arc::new(TestApp::start().await);
    let server = front::serve(app.clone()).await.unwrap();
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
