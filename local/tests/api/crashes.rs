//! Kills `wpp-create` at fifteen points where its work could be lost: the next call finishes it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use uuid::Uuid;

use local::events::Event;
use local::fault_injector::Point::{self, After, Before};
use local::platform::RepeatedCreate;
use local::stack::Organization;
use local::test_app::TestApp;

/// The points that a call passes, in order: the endpoint that is held, and whether before or after its work.
const POINTS: [(&str, &str, Point); 15] = [
    ("before the creation", "rpc/wpp_begin_creation", Before),
    ("after the creation", "rpc/wpp_begin_creation", After),
    ("before the platform call", "create", Before),
    ("after the platform call", "create", After),
    ("before the key is saved", "rpc/wpp_save_credentials", Before),
    ("after the key is saved", "rpc/wpp_save_credentials", After),
    ("before the token", "token", Before),
    ("after the token", "token", After),
    ("before the token is saved", "rpc/wpp_save_token", Before),
    ("after the token is saved", "rpc/wpp_save_token", After),
    ("before the webhook", "webhook", Before),
    ("before the start", "start", Before),
    ("after the start", "start", After),
    ("before the QR", "qr", Before),
    ("before the answer", "rpc/wpp_save_snapshot", After),
];

/// The request that is killed, and the one that finishes its work: the same, if the name has only one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scenario {
    Ensure,
    AddNew,
    ForceRecreate,
    ForceRecreateThenEnsure,
}

const SCENARIOS: [Scenario; 4] =
    [Scenario::Ensure, Scenario::AddNew, Scenario::ForceRecreate, Scenario::ForceRecreateThenEnsure];

impl Scenario {
    fn body(self) -> Value {
        match self {
            Self::Ensure => json!({}),
            Self::AddNew => json!({"add_new": true}),
            Self::ForceRecreate | Self::ForceRecreateThenEnsure => json!({"force_recreate": true}),
        }
    }

    fn event(self, caller: &Organization) -> Event {
        caller.post("wpp-create", &self.body())
    }

    fn next_event(self, caller: &Organization) -> Event {
        let is_ensure = self == Self::ForceRecreateThenEnsure;
        if is_ensure { caller.post("wpp-create", &json!({})) } else { self.event(caller) }
    }

    /// Returns how many numbers the organization has before and after the call.
    fn numbers(self) -> (i64, i64) {
        match self {
            Self::Ensure => (0, 1),
            Self::AddNew => (1, 2),
            Self::ForceRecreate | Self::ForceRecreateThenEnsure => (1, 1),
        }
    }

    /// Returns whether the call passes this point. A `force_recreate` that gets the same API key keeps its token and saves none.
    fn passes(self, endpoint: &str, repeated_create: RepeatedCreate) -> bool {
        let is_replaced = matches!(self, Self::ForceRecreate | Self::ForceRecreateThenEnsure);
        let keeps_its_token = is_replaced && repeated_create == RepeatedCreate::SameKey;
        !(keeps_its_token && endpoint == "rpc/wpp_save_token")
    }
}

#[tokio::test]
async fn killed_call_is_finished_by_the_next() {
    let app = TestApp::start().await;
    let mut table = String::from("\nkilled                     create   ");
    SCENARIOS.iter().for_each(|scenario| write!(table, "{:>25}", format!("{scenario:?}")).unwrap());
    let mut all_well = true;
    for (name, endpoint, point) in POINTS {
        for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
            app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
            write!(table, "\n{name:<26} {:<9}", format!("{repeated_create:?}")).unwrap();
            for scenario in SCENARIOS {
                let passes = scenario.passes(endpoint, repeated_create);
                let outcome = kill_and_repeat(&app, scenario, endpoint, point, passes).await;
                all_well &= outcome.is_ok();
                write!(table, "{:>25}", outcome.unwrap_or_else(|what| what)).unwrap();
            }
        }
    }
    assert!(all_well, "{table}");
    // 15 points, four scenarios, two behaviors. An API key that is returned again keeps its token, so four calls save none.
    let finished = table.matches(" finished").count();
    assert_eq!((finished, table.matches(" not passed").count()), (116, 4), "{table}");
    println!("{table}");
}

/// Kills one call and makes the next one. Returns `finished` or `not passed`; otherwise, the checks that failed.
async fn kill_and_repeat(
    app: &TestApp,
    scenario: Scenario,
    endpoint: &str,
    point: Point,
    passes: bool,
) -> Result<String, String> {
    let platform = &app.platform;
    let caller = app.organization("crash").await.unwrap();
    let (before, after) = scenario.numbers();
    if before == 1 {
        let first = app.post_as(&caller, "wpp-create", json!({})).await.expect(200, "qr_issued");
        // A number that was never linked would be reused.
        if after == 2 {
            platform.scan(first.text("session")).unwrap();
            app.post_as(&caller, "wpp-status", json!({"force": true})).await.expect(200, "connected");
        }
        // Makes the API key an hour old, because a refusal of a new key is not final. Marks the number as disconnected and
        // removes its stored QR.
        for age in [
            "update wpp_numbers set credentials_saved_at = credentials_saved_at - interval '1 hour' where organization_id = $1",
            "update whatsapp_sessions set status = 'disconnected', last_qr_b64 = null where organization_id = $1",
        ] {
            assert_eq!(app.sql.execute(age, &[&caller.id]).await.unwrap(), 1);
        }
    }
    let (clients, first) = (platform.clients(), platform_id(app, caller.id).await);

    let killed = app.killed_at(endpoint, point, scenario.event(&caller)).await;
    // Ends the dead attempt's leases now. `caller_continues_after_the_holder_died` waits for them to expire.
    app.end_waits().await;
    if killed != passes {
        return Err(format!("killed: {killed}"));
    }
    let begun = platform_id(app, caller.id).await.filter(|id| after == before || first.as_ref() != Some(id));
    let session = begun.as_ref().and_then(|id| platform.session_of(id));

    let next =
        app.process("wpp-create").await.invoke(scenario.next_event(&caller).http_api()).await.answered();
    let next = next.map_err(|error| error.to_string())?;
    let id = platform_id(app, caller.id).await.ok_or("no creation")?;
    let rows = rows(app, caller.id).await;
    let row = rows.iter().find(|row| row["session"] == next.json["session"]).cloned().unwrap_or_default();
    let qr = app.post_as(&caller, "wpp-qr", json!({"session": next.json["session"]})).await;
    let checks = [
        ("answered", next.status == 200 && next.json["status"] == "qr_issued"),
        ("the id stays", begun.is_none_or(|begun| begun == id)),
        ("the session stays", session.is_none_or(|session| next.json["session"] == session)),
        ("the platform's session", next.json["session"] == json!(platform.session_of(&id))),
        ("one client", i64::try_from(platform.clients() - clients).unwrap() == after - before),
        ("one row", i64::try_from(rows.len()).unwrap() == after),
        ("the key is saved", row["key"] == json!(platform.key_of(&id)) && !row["key"].is_null()),
        ("the number is active", row["active"] == true),
        ("one primary", rows.iter().filter(|row| row["primary"] == true).count() == 1),
        ("the QR is returned", !qr.json["qr"].is_null()),
    ];
    let failed: Vec<_> = checks.iter().filter(|(_, holds)| !holds).map(|(what, _)| *what).collect();
    match failed.is_empty() {
        true if killed => Ok("finished".to_owned()),
        true => Ok("not passed".to_owned()),
        false => Err(format!("NOT {}: {next:?} {rows:?}", failed.join(", "))),
    }
}

/// Returns the platform id of the organization's latest creation.
async fn platform_id(app: &TestApp, organization: Uuid) -> Option<String> {
    let latest =
        "select platform_id from wpp_creations where organization_id = $1 order by created_at desc limit 1";
    app.sql.query_opt(latest, &[&organization]).await.unwrap().map(|row| row.get(0))
}

async fn rows(app: &TestApp, organization: Uuid) -> Vec<Value> {
    let rows = "select settings->>'wppAccountNumber', settings->>'wppApiKey', is_active, is_primary
        from messenger_integrations where organization_id = $1";
    let read = |row: tokio_postgres::Row| {
        let (session, key): (Option<String>, Option<String>) = (row.get(0), row.get(1));
        json!({"session": session, "key": key, "active": row.get::<_, bool>(2), "primary": row.get::<_, bool>(3)})
    };
    app.sql.query(rows, &[&organization]).await.unwrap().into_iter().map(read).collect()
}
