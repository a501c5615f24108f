//! Kills `wpp-create` at every point where its work could be lost: the next call finishes it.

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

/// The requests whose calls are killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Request {
    Ensure,
    AddNew,
    ForceRecreate,
    /// Finished by a request that does not ask for new credentials.
    FinishedByEnsure,
}

const REQUESTS: [Request; 4] =
    [Request::Ensure, Request::AddNew, Request::ForceRecreate, Request::FinishedByEnsure];

impl Request {
    fn body(self) -> Value {
        match self {
            Self::Ensure => json!({}),
            Self::AddNew => json!({"add_new": true}),
            Self::ForceRecreate | Self::FinishedByEnsure => json!({"force_recreate": true}),
        }
    }

    fn event(self, caller: &Organization) -> Event {
        caller.post("wpp-create", &self.body())
    }

    fn next_event(self, caller: &Organization) -> Event {
        let is_ensure = self == Self::FinishedByEnsure;
        if is_ensure { caller.post("wpp-create", &json!({})) } else { self.event(caller) }
    }

    /// Numbers of the organization before the call, and after it.
    fn numbers(self) -> (i64, i64) {
        match self {
            Self::Ensure => (0, 1),
            Self::AddNew => (1, 2),
            Self::ForceRecreate | Self::FinishedByEnsure => (1, 1),
        }
    }

    /// Returns whether the call passes this point. If the platform returns the same API key, the token is kept and nothing is saved.
    fn passes(self, endpoint: &str, repeated_create: RepeatedCreate) -> bool {
        let is_replaced = matches!(self, Self::ForceRecreate | Self::FinishedByEnsure);
        let keeps_its_token = is_replaced && repeated_create == RepeatedCreate::SameKey;
        !(keeps_its_token && endpoint == "rpc/wpp_save_token")
    }
}

#[tokio::test]
async fn call_killed_at_any_point_is_finished_by_the_next() {
    let app = TestApp::start().await;
    let mut table = String::from("\nkilled                     create   ");
    REQUESTS.iter().for_each(|request| write!(table, "{:>18}", format!("{request:?}")).unwrap());
    let mut all_well = true;
    for (name, endpoint, point) in POINTS {
        for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
            app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
            write!(table, "\n{name:<26} {:<9}", format!("{repeated_create:?}")).unwrap();
            for request in REQUESTS {
                let outcome =
                    cell(&app, request, endpoint, point, request.passes(endpoint, repeated_create)).await;
                all_well &= outcome.is_ok();
                write!(table, "{:>18}", outcome.unwrap_or_else(|what| what)).unwrap();
            }
        }
    }
    assert!(all_well, "{table}");
    // 15 points, four requests, two behaviors. An API key that is returned again keeps its token, so four calls save none.
    let finished = table.matches(" finished").count();
    assert_eq!((finished, table.matches(" not passed").count()), (116, 4), "{table}");
    println!("{table}");
}

/// Kills one call and makes the next one. Returns the outcome in one word, or all details if it failed.
async fn cell(
    app: &TestApp,
    request: Request,
    endpoint: &str,
    point: Point,
    passes: bool,
) -> Result<String, String> {
    let platform = &app.platform;
    let caller = app.organization("crash").await.unwrap();
    let (before, after) = request.numbers();
    if before == 1 {
        let first = app.post_as(&caller, "wpp-create", json!({})).await.expect(200, "qr_issued");
        // A number that was never linked would be reused.
        if after == 2 {
            platform.scan(first.text("session")).unwrap();
            app.post_as(&caller, "wpp-status", json!({"force": true})).await.expect(200, "connected");
        }
        // The number is made older, so that a refusal of its API key counts. It is no longer used.
        for age in [
            "update wpp_numbers set credentials_saved_at = credentials_saved_at - interval '1 hour' where organization_id = $1",
            "update whatsapp_sessions set status = 'disconnected', last_qr_b64 = null where organization_id = $1",
        ] {
            assert_eq!(app.sql.execute(age, &[&caller.id]).await.unwrap(), 1);
        }
    }
    let (clients, first) = (platform.clients(), platform_id(app, caller.id).await);

    let killed = app.killed_at(endpoint, point, request.event(&caller)).await;
    // The dead attempt's leases expire after seconds. Another test waits for that; this one does not.
    app.end_waits().await;
    if killed != passes {
        return Err(format!("killed: {killed}"));
    }
    let begun = platform_id(app, caller.id).await.filter(|id| after == before || first.as_ref() != Some(id));
    let session = begun.as_ref().and_then(|id| platform.session_of(id));

    let next = app.process("wpp-create").await.invoke(request.next_event(&caller).v2()).await.answered();
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
        ("the key", row["key"] == json!(platform.key_of(&id)) && !row["key"].is_null()),
        ("active", row["active"] == true),
        ("one primary", rows.iter().filter(|row| row["primary"] == true).count() == 1),
        ("works", !qr.json["qr"].is_null()),
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
