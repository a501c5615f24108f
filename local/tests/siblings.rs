//! The other functions together with ours, on the same rows: what a person sees of both. They act one at a time, between any two steps of
//! a request, and all at once.
//!
//! `SIBLINGS_SECONDS` says how long they all act at once: by default for some hundred acts.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use futures_util::future::join_all;
use local::clock::unix_ms;
use local::fault_injector::{Fault, Point};
use local::lambda::{Answer, Options};
use local::platform::RepeatedCreate;
use local::postgres::Privileges;
use local::shapes::{BASE, ONE_PRIMARY, TRIGGER_AND_ONE_SESSION_EACH};
use local::siblings::{Event, Outcome, Siblings};
use local::stack::Organization;
use local::test_app::{Number, TestApp};
use serde_json::{Value, json};
use uuid::Uuid;

/// How many do something at once.
const CROWD: usize = 12;

/// Organizations that they all work on: few, so that they meet.
const SCHOOLS: usize = 4;

/// How many acts each of the crowd does if no time is given.
const ACTS: usize = 40;

/// 503s that a busy moment may bring, and what is a person's to mend.
const MAY_WAIT: [&str; 3] = ["creation_in_progress", "database_unavailable", "api_key_not_active"];
const MAY_REFUSE: [&str; 3] = ["number_not_found", "api_key_rejected", "session_lost"];

/// Starts an app whose tables are older than our functions.
async fn app(tables: &str) -> (TestApp, Siblings) {
    let app = TestApp::start_with(&[], Options { concurrency: CROWD, ..Options::default() }).await;
    app.deploy(Privileges::default(), tables).await.unwrap();
    app.seed(app.school.id, app.school.user, "school").await.unwrap();
    let siblings = Siblings::of(&app.stack);
    (app, siblings)
}

/// Creates a number of the school that waits for its phone.
async fn number(app: &TestApp, school: &Organization, request: Value) -> Number {
    let made = if request["add_new"] == true {
        app.add_number(school).await
    } else {
        app.post_as(school, "wpp-create", request).await
    };
    app.number_of(made.expect(200, "qr_issued").text("session")).await
}

/// Creates a linked number, as a page knows it.
async fn linked(app: &TestApp, school: &Organization, request: Value) -> Number {
    let number = number(app, school, request).await;
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

/// Returns the status in its snapshot.
async fn stored_status(app: &TestApp, session: &str) -> Value {
    app.post("wpp-status", json!({"session_name": session, "force": false})).await.json["status"].clone()
}

#[tokio::test]
async fn a_second_number_becomes_primary_after_the_first() {
    let (app, siblings) = app(BASE).await;
    for next in ["wpp-status", "wpp-create"] {
        let school = app.organization(next).await.unwrap();
        let first = linked(&app, &school, json!({})).await;
        let second = linked(&app, &school, json!({"add_new": true})).await;
        assert_eq!(siblings.primaries(school.id).await, [first.id]);
        siblings.disconnect(school.id, first.id).await.unwrap();
        assert_eq!(siblings.send(school.id).await.unwrap_err().status, 400);
        let live = json!({"session_name": second.session, "force": true});
        let body = if next == "wpp-status" { live } else { json!({}) };
        app.post_as(&school, next, body).await.expect(200, "connected");
        assert_eq!(siblings.primaries(school.id).await, [second.id], "{next}");
        assert_eq!(siblings.send(school.id).await, Ok(()), "{next}");
    }
}

#[tokio::test]
async fn add_new_continues_with_an_unlinked_number() {
    let (app, siblings) = app(BASE).await;
    let first = app.create(json!({})).await.json;
    let another = app.create(json!({"add_new": true})).await.json;
    assert_eq!((&another["session"], &another["qrcode"]), (&first["session"], &first["qrcode"]));
    let session = first["session"].as_str().unwrap();
    app.platform.scan(session).unwrap();
    assert_eq!(live_status(&app, &app.school, session).await, "connected");
    assert_eq!(siblings.listed(app.school.id).await.unwrap().len(), 1);
    assert_eq!(siblings.send(app.school.id).await, Ok(()));
}

/// The list makes the oldest remaining row primary: here a row that was never linked.
#[tokio::test]
async fn a_linked_number_becomes_primary() {
    let (app, siblings) = app(BASE).await;
    let school = &app.school;
    let first = linked(&app, school, json!({})).await;
    let second = number(&app, school, json!({"add_new": true})).await;
    let third = linked(&app, school, json!({"add_new": true})).await;
    siblings.delete(school.id, first.id).await.unwrap();
    assert_eq!(siblings.primaries(school.id).await, [second.id]);
    assert_eq!(live_status(&app, school, &third.session).await, "connected");
    assert_eq!(siblings.primaries(school.id).await, [third.id]);
    assert_eq!(siblings.send(school.id).await, Ok(()));
}

#[tokio::test]
async fn another_providers_number_in_use_stays_primary() {
    let (app, siblings) = app(BASE).await;
    let school = &app.school;
    let other = siblings.add(school.id, "green_api", json!({})).await.unwrap();
    let number = linked(&app, school, json!({})).await;
    assert_eq!(siblings.primaries(school.id).await, [other]);
    siblings.switch(other, false).await.unwrap();
    assert_eq!(live_status(&app, school, &number.session).await, "connected");
    assert_eq!(siblings.primaries(school.id).await, [number.id]);
    assert_eq!(siblings.send(school.id).await, Ok(()));
}

#[tokio::test]
async fn a_failed_creation_leaves_no_row() {
    const ATTEMPTS: usize = 100;
    let (app, siblings) = app(BASE).await;
    app.inject("create", Fault::status(503));
    for _ in 0..ATTEMPTS / CROWD + 1 {
        let requests = (0..CROWD).map(|_| app.create(json!({"add_new": true})));
        for answer in join_all(requests).await {
            assert!(answer.status >= 500 && answer.json["retryable"] == true, "{}", answer.body);
        }
        assert_eq!(siblings.listed(app.school.id).await.unwrap(), [] as [Value; 0]);
    }
    let begun = app.sql.query_one("select count(*) from wpp_creations", &[]).await.unwrap();
    assert_eq!(begun.get::<_, i64>(0), 1);
    let other = siblings.add(app.school.id, "green_api", json!({})).await.unwrap();
    assert_eq!(siblings.primaries(app.school.id).await, [other]);
    app.clear_faults();
    linked(&app, &app.school, json!({"add_new": true})).await;
    assert_eq!(siblings.listed(app.school.id).await.unwrap().len(), 2);
    assert_eq!(app.platform.clients(), 1);
}

#[tokio::test]
async fn a_snapshot_that_changes_its_session_changes_whole() {
    let (app, siblings) = app(&TRIGGER_AND_ONE_SESSION_EACH.sql()).await;
    let school = &app.school;
    let first = linked(&app, school, json!({})).await;
    // A platform that gives the dead key again makes the number move to another id, and so to another session.
    app.settle_keys().await;
    app.platform.revoke_key(&first.key);
    let same = json!({"apiKey": first.key, "session": first.session}).to_string();
    app.inject_times("create", 1, Fault::Body(same));
    let moved = app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
    let moved = moved.text("session");
    assert_ne!(moved, first.session);
    assert_eq!(stored_status(&app, moved).await, "qr_issued");
    assert_eq!(app.mirror(moved).await["status"], "qr_issued");

    app.platform.scan(moved).unwrap();
    assert_eq!(live_status(&app, school, moved).await, "connected");
    let other = linked(&app, school, json!({"add_new": true})).await.session;
    siblings.disconnect(school.id, first.id).await.unwrap();
    assert_eq!(live_status(&app, school, &other).await, "connected");
    assert_eq!(stored_status(&app, &other).await, "connected");
    assert_eq!(app.mirror(&other).await["status"], "connected");
}

#[tokio::test]
async fn an_old_api_key_that_was_written_back_is_replaced() {
    let (app, siblings) = app(BASE).await;
    let (platform, school) = (&app.platform, &app.school);
    platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let number = linked(&app, school, json!({})).await;
    app.merge(&number, json!({"wppJwtExpiresAt": 1000})).await;
    let sending = siblings.begin_sending(school.id).await.unwrap();
    let recreated = app.create(json!({"force_recreate": true})).await;
    assert_eq!(recreated.status, 200, "{}", recreated.body);
    siblings.finish_sending(sending).await.unwrap();
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

/// Asserts that none of our functions takes part in a deadlock. Two of the other functions can deadlock without ours, if both clear
/// `is_primary` in all rows of a school at once.
async fn assert_no_deadlock(app: &TestApp) {
    let logs = app.postgres.logs().await;
    for deadlock in logs.split("deadlock detected").skip(1) {
        let (who, _) = deadlock.split_once("HINT").unwrap();
        assert!(!who.contains("wpp_"), "{who}");
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

async fn middle(app: &TestApp, siblings: &Siblings) -> Middle {
    let school = app.organization("middle").await.unwrap();
    let number = linked(app, &school, json!({})).await;
    let other = siblings.add(school.id, "green_api", json!({})).await.unwrap();
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
        siblings: &Siblings,
        request: (&str, &str),
        endpoint: &str,
        act: &str,
    ) -> Answer {
        let sending = siblings.begin_sending(self.school.id).await.unwrap();
        let hold = app.hold_one(endpoint, Point::Before);
        let (school, number) = (self.school.id, self.number.id);
        let meanwhile = async {
            hold.reached(1).await;
            match act {
                "delete" => siblings.delete(school, number).await.unwrap(),
                "disconnect" => siblings.disconnect(school, number).await.unwrap(),
                "set primary" => siblings.set_primary(school, self.other).await.unwrap(),
                // The message itself may not go out any more.
                "write back" => drop(siblings.finish_sending(sending).await),
                _ => siblings.report(&self.number.session, Event::Disconnected).await.unwrap(),
            }
            hold.release();
        };
        tokio::join!(self.request(app, request), meanwhile).0
    }
}

#[tokio::test]
async fn an_act_between_any_two_steps_leaves_a_clear_answer() {
    let (app, siblings) = app(BASE).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let mut cells = 0;
    for request in REQUESTS {
        let undisturbed = middle(&app, &siblings).await;
        assert_clear(request.0, &undisturbed.request(&app, request).await, "undisturbed");
        let calls = app.supabase.faults.counts();
        for endpoint in calls.keys().filter(|endpoint| endpoint.starts_with("rpc/")) {
            for act in ACTS_BETWEEN {
                let what = format!("{act} before {endpoint} of {request:?}");
                let middle = middle(&app, &siblings).await;
                let answer = middle.request_amid(&app, &siblings, request, endpoint, act).await;
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
    assert_no_deadlock(&app).await;
}

/// All of them at once.
struct Crowd {
    app: TestApp,
    siblings: Siblings,
    schools: Vec<Organization>,
    deleted: Mutex<Vec<Uuid>>,
    answers: Mutex<BTreeSet<String>>,
    /// Whether the tables' owner has a unique index, by which the other functions refuse each other.
    is_strict: bool,
}

impl Crowd {
    async fn act(&self, rng: &mut Rng) {
        let school = &self.schools[rng.usize(..SCHOOLS)];
        let rows = self.siblings.listed(school.id).await.unwrap();
        let row = rng.choice(&rows).cloned().unwrap_or_default();
        let session = row["settings"]["wppAccountNumber"].as_str().unwrap_or("0");
        let number = row["id"].as_str().map(|id| id.parse::<Uuid>().unwrap());
        let request = async |name: &str, body: Value| {
            let what = format!("{name} {body}").replace(session, "?");
            let answer = self.app.post_as(school, name, body).await;
            assert_clear(name, &answer, &what);
            self.answers.lock().unwrap().insert(format!("{what} {}", answer.status));
        };
        match (rng.u32(..16), number) {
            (0 | 1, _) => request("wpp-create", json!({})).await,
            (2, _) => request("wpp-create", json!({"add_new": true})).await,
            (3, _) => request("wpp-create", json!({"force_recreate": true})).await,
            (4 | 5, _) => request("wpp-status", json!({"force": rng.bool()})).await,
            (6, _) => request("wpp-status", json!({"session_name": session, "force": true})).await,
            (7, _) => request("wpp-qr", json!({"session": session})).await,
            (8, _) => self.check(self.siblings.send(school.id).await),
            (9, None) => self.check(self.siblings.add(school.id, "green_api", json!({})).await),
            (_, None) => {}
            (9, Some(number)) => {
                let ended = json!({"wppJwtExpiresAt": 1000});
                self.check(self.siblings.save_settings(school.id, number, ended).await);
            }
            (10, Some(number)) => {
                self.check(self.siblings.delete(school.id, number).await);
                self.deleted.lock().unwrap().push(number);
            }
            (11, Some(number)) => {
                self.check(self.siblings.disconnect(school.id, number).await);
                self.deleted.lock().unwrap().push(number);
            }
            (12, Some(number)) => self.check(self.siblings.set_primary(school.id, number).await),
            (13, _) => self.check(self.siblings.report(session, Event::Qr("2@told")).await),
            (14, _) => self.check(self.siblings.report(session, Event::Connected).await),
            // There may be no QR to scan.
            _ => drop(self.app.platform.scan(session)),
        }
    }

    /// Asserts that another function is refused only for its own reasons, by the platform, or by another of them. Two of them may be in a
    /// deadlock (40P01). It must not be refused by our locks or our rows.
    fn check<T: std::fmt::Debug>(&self, outcome: Outcome<T>) {
        let Err(refusal) = outcome else { return };
        let code = refusal.body["code"].as_str();
        assert!(
            matches!(code, None | Some("40P01")) || self.is_strict && code == Some("23505"),
            "{refusal:?}"
        );
    }

    /// Acts as one of the crowd. Returns the number of its acts.
    async fn person(self: Arc<Self>, mut rng: Rng, until_ms: Option<i64>) -> usize {
        let mut acts = 0;
        while until_ms.map_or(acts < ACTS, |until| unix_ms() < until) {
            self.act(&mut rng).await;
            acts += 1;
        }
        acts
    }
}

async fn survive(tables: &str, is_strict: bool) {
    let (app, siblings) = app(tables).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let mut schools = Vec::new();
    for _ in 0..SCHOOLS {
        schools.push(app.organization("crowd").await.unwrap());
    }
    let (deleted, answers) = (Mutex::default(), Mutex::default());
    let crowd = Arc::new(Crowd { app, siblings, schools, deleted, answers, is_strict });
    let seconds = std::env::var("SIBLINGS_SECONDS").ok().and_then(|seconds| seconds.parse::<i64>().ok());
    let until_ms = seconds.map(|seconds| unix_ms() + seconds * 1000);
    let people =
        (0..CROWD as u64).map(|nth| tokio::spawn(crowd.clone().person(Rng::with_seed(nth), until_ms)));
    let acts: usize = join_all(people).await.into_iter().map(Result::unwrap).sum();
    assert_no_deadlock(&crowd.app).await;
    let deleted = crowd.deleted.lock().unwrap().clone();
    assert!(!deleted.is_empty());
    assert!(!exist(&crowd.app, &deleted).await, "a deleted row is back");
    for school in &crowd.schools {
        let made = crowd.app.post_as(school, "wpp-create", json!({"force_recreate": true})).await;
        assert_eq!(made.status, 200, "{}", made.body);
        assert_clear("wpp-create", &made, "afterwards");
    }
    let answers = crowd.answers.lock().unwrap().clone();
    println!("{acts} acts, {} rows deleted, these answers: {answers:?}", deleted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_at_once_get_clear_answers_in_the_usual_shape() {
    survive(BASE, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_requests_that_share_a_snapshot_get_answers() {
    survive(&TRIGGER_AND_ONE_SESSION_EACH.sql(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_requests_with_one_primary_get_answers() {
    survive(&ONE_PRIMARY.sql(), true).await;
}
