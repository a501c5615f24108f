//! The other functions together with ours, on the same rows: what a person sees of both. They act one at a time, between any two steps of
//! a request. `database/torture.rs` has them act all at once.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use local::fault_injector::Point;
use local::lambda::Answer;
use local::other_functions::{Event, OtherFunctions};
use local::platform::RepeatedCreate;
use local::postgres::Privileges;
use local::schema_variants::BASE;
use local::stack::Organization;
use local::test_app::{Number, TestApp};
use serde_json::{Value, json};
use uuid::Uuid;

/// 503s that a busy moment may bring, and what is a person's to mend.
const MAY_WAIT: [&str; 3] = ["creation_in_progress", "database_unavailable", "api_key_not_active"];
const MAY_REFUSE: [&str; 3] = ["number_not_found", "api_key_rejected", "session_lost"];

/// Starts an app whose tables are older than our functions.
async fn app() -> (TestApp, OtherFunctions) {
    let app = TestApp::start().await;
    app.deploy(Privileges::default(), BASE).await.unwrap();
    app.seed(app.school.id, app.school.user, "school").await.unwrap();
    let other_functions = OtherFunctions::of(&app.stack);
    (app, other_functions)
}

/// Creates a linked number, as a page knows it.
async fn linked(app: &TestApp, school: &Organization, request: Value) -> Number {
    let made = app.post_as(school, "wpp-create", request).await.expect(200, "qr_issued");
    let number = app.number_of(made.text("session")).await;
    app.platform.scan(&number.session).unwrap();
    assert_eq!(live_status(app, school, &number.session).await, "connected");
    number
}

/// Returns the platform's state of a session, as a page gets it.
async fn live_status(app: &TestApp, school: &Organization, session: &str) -> Value {
    let answer = app.post_as(school, "wpp-status", json!({"session_name": session, "force": true})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json["status"].clone()
}

#[tokio::test]
async fn a_second_number_becomes_primary_after_the_first() {
    let (app, other_functions) = app().await;
    for next in ["wpp-status", "wpp-create"] {
        let school = app.organization(next).await.unwrap();
        let first = linked(&app, &school, json!({})).await;
        let second = linked(&app, &school, json!({"add_new": true})).await;
        assert_eq!(other_functions.primaries(school.id).await, [first.id]);
        other_functions.disconnect(school.id, first.id).await.unwrap();
        assert_eq!(other_functions.send(school.id).await.unwrap_err().status, 400);
        let live = json!({"session_name": second.session, "force": true});
        let body = if next == "wpp-status" { live } else { json!({}) };
        app.post_as(&school, next, body).await.expect(200, "connected");
        assert_eq!(other_functions.primaries(school.id).await, [second.id], "{next}");
        assert_eq!(other_functions.send(school.id).await, Ok(()), "{next}");
    }
}

#[tokio::test]
async fn an_old_api_key_that_was_written_back_is_replaced() {
    let (app, other_functions) = app().await;
    let (platform, school) = (&app.platform, &app.school);
    platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let number = linked(&app, school, json!({})).await;
    app.merge(&number, json!({"wppJwtExpiresAt": 1000})).await;
    let sending = other_functions.begin_sending(school.id).await.unwrap();
    let recreated = app.create(json!({"force_recreate": true})).await;
    assert_eq!(recreated.status, 200, "{}", recreated.body);
    other_functions.finish_sending(sending).await.unwrap();
    platform.forget_tokens();
    app.settle_keys().await;
    app.settle_tokens().await;

    let check = json!({"session_name": number.session, "force": true});
    app.post("wpp-status", check).await.expect(409, "api_key_rejected");
    app.poll_qr(&number.session).await.expect(409, "api_key_rejected");
    let creates = platform.create_calls();
    let again = app.create(json!({"force_recreate": true})).await;
    assert_eq!((again.status, platform.create_calls()), (200, creates + 1), "{}", again.body);
    assert_eq!(live_status(&app, school, again.text("session")).await, again.json["status"]);
}

/// Asserts what holds for every answer of our functions, whatever the other functions do in between.
fn assert_clear(name: &str, answer: &Answer, what: &str) {
    let code = answer.json["code"].as_str().unwrap_or_default();
    let fields: &[&str] = match (answer.status, name) {
        (200, "wpp-create") => &["session", "apiKey"],
        (200, "wpp-qr") => &["state"],
        // There may be no number any more.
        (200, _) if answer.json["status"] == "disconnected" => &[],
        (200, _) => &["account_number"],
        (404 | 409, _) if MAY_REFUSE.contains(&code) => &[],
        (503, _) if MAY_WAIT.contains(&code) => &[],
        _ => panic!("{what}: {}", answer.body),
    };
    for field in fields {
        assert!(answer.json[field].is_string(), "{what}: {field} in {}", answer.body);
    }
}

async fn exist(app: &TestApp, rows: &[Uuid]) -> bool {
    let found = "select exists (select from messenger_integrations where id = any ($1))";
    app.sql.query_one(found, &[&rows]).await.unwrap().get(0)
}

/// Requests, each for a school with a linked number whose token has ended, and with a row of another provider.
const REQUESTS: [(&str, &str); 5] = [
    ("wpp-create", r#"{}"#),
    ("wpp-create", r#"{"add_new": true}"#),
    ("wpp-create", r#"{"force_recreate": true}"#),
    ("wpp-status", r#"{"force": true}"#),
    ("wpp-qr", r#"{"session": "?"}"#),
];

const ACTS_BETWEEN: [&str; 5] = ["delete", "disconnect", "set primary", "write back", "webhook"];

/// A school with a number in use.
struct Middle {
    school: Organization,
    number: Number,
    other: Uuid,
}

async fn middle(app: &TestApp, other_functions: &OtherFunctions) -> Middle {
    let school = app.organization("middle").await.unwrap();
    let number = linked(app, &school, json!({})).await;
    let other = other_functions.add(school.id, "green_api", json!({})).await.unwrap();
    app.settle_keys().await;
    app.merge(&number, json!({"wppJwtExpiresAt": 1000})).await;
    app.forget_calls();
    Middle { school, number, other }
}

impl Middle {
    async fn request(&self, app: &TestApp, (name, body): (&str, &str)) -> Answer {
        let body: Value = serde_json::from_str(&body.replace('?', &self.number.session)).unwrap();
        app.post_as(&self.school, name, body).await
    }

    /// Sends the request, with an act of another function just before it calls this endpoint.
    async fn request_amid(
        &self,
        app: &TestApp,
        other_functions: &OtherFunctions,
        request: (&str, &str),
        endpoint: &str,
        act: &str,
    ) -> Answer {
        let sending = other_functions.begin_sending(self.school.id).await.unwrap();
        let hold = app.hold_one(endpoint, Point::Before);
        let (school, number) = (self.school.id, self.number.id);
        let meanwhile = async {
            hold.reached(1).await;
            match act {
                "delete" => other_functions.delete(school, number).await.unwrap(),
                "disconnect" => other_functions.disconnect(school, number).await.unwrap(),
                "set primary" => other_functions.set_primary(school, self.other).await.unwrap(),
                // The message itself may not go out any more.
                "write back" => drop(other_functions.finish_sending(sending).await),
                _ => other_functions.report(&self.number.session, Event::Disconnected).await.unwrap(),
            }
            hold.release();
        };
        tokio::join!(self.request(app, request), meanwhile).0
    }
}

#[tokio::test]
async fn other_function_between_any_steps_leaves_a_clear_answer() {
    let (app, other_functions) = app().await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let mut cells = 0;
    for request in REQUESTS {
        let undisturbed = middle(&app, &other_functions).await;
        assert_clear(request.0, &undisturbed.request(&app, request).await, "undisturbed");
        let calls = app.supabase.faults.counts();
        for endpoint in calls.keys().filter(|endpoint| endpoint.starts_with("rpc/")) {
            for act in ACTS_BETWEEN {
                let what = format!("{act} before {endpoint} of {request:?}");
                let middle = middle(&app, &other_functions).await;
                let answer = middle.request_amid(&app, &other_functions, request, endpoint, act).await;
                assert_clear(request.0, &answer, &what);
                if act.starts_with('d') {
                    assert!(!exist(&app, &[middle.number.id]).await, "{what}: the row is back");
                }
                let next = middle.request(&app, ("wpp-create", r#"{"force_recreate": true}"#)).await;
                assert_eq!(next.status, 200, "{what}, then: {}", next.body);
                assert_clear("wpp-create", &next, &what);
                cells += 1;
            }
        }
    }
    println!("{cells} acts between two steps");
    assert!(cells >= REQUESTS.len() * 2 * ACTS_BETWEEN.len());
}
