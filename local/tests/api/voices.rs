//! Who is speaking: what stands between the functions and their upstreams, in either direction.

use local::test_app::TestApp;
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
