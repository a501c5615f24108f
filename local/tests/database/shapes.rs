//! The migrations and the functions on databases of other owners. In one kind of shape everything works, from the first QR to the second
//! link. In the other kind no creation begins, and one sentence says what is wrong with the database.

use std::sync::Arc;

use local::lambda::Answer;
use local::postgres::{Postgres, Privileges, Storage, migrations};
use local::shapes::{REFUSED, Refused, WORKING};
use local::siblings::Siblings;
use local::stack::Organization;
use local::test_app::TestApp;
use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

const DUMP: &str = include_str!("dump.sql");

/// A school, its requests and what it must get.
struct School<'a> {
    app: &'a TestApp,
    siblings: Siblings,
    /// A new one for each shape: the platform remembers the others.
    own: Organization,
}

impl School<'_> {
    /// Goes from a request that brings a QR to a linked phone, by every route. Returns the session.
    async fn connect(&self, request: Value) -> String {
        let made = self.post("wpp-create", request).await;
        assert_eq!((made.status, &made.json["status"]), (200, &json!("qr_issued")), "{made:?}");
        let session = made.json["session"].as_str().unwrap().to_owned();
        let polled = self.post("wpp-qr", json!({"session": session})).await;
        assert_eq!((polled.status, &polled.json["qr"]), (200, &made.json["qrcode"]), "{polled:?}");
        self.app.stack.platform.scan(&session).unwrap();
        self.assert_connected(&session).await;
        session
    }

    /// Asserts that the platform says so, and the snapshot too.
    async fn assert_connected(&self, session: &str) {
        for force in [true, false] {
            let answer = self.status(session, force).await;
            assert_eq!(answer.json["status"], "connected", "force {force}: {answer:?}");
        }
    }

    async fn status(&self, session: &str, force: bool) -> Answer {
        self.post("wpp-status", json!({"session_name": session, "force": force})).await
    }

    async fn post(&self, name: &str, body: Value) -> Answer {
        self.app.post_as(&self.own, name, body).await
    }

    async fn disconnect(&self, session: &str) {
        let row = self.row(session).await.unwrap();
        // If all numbers share a row of `whatsapp_sessions`, the other function cannot note this. Its answer does not matter here.
        let _ = self.siblings.disconnect(self.own.id, row).await;
        assert_eq!(self.row(session).await, None);
    }

    async fn row(&self, session: &str) -> Option<Uuid> {
        let row = "select id from messenger_integrations where settings ->> 'wppAccountNumber' = $1";
        self.app.sql.query_opt(row, &[&session]).await.unwrap().map(|row| row.get(0))
    }

    async fn primaries(&self) -> Vec<String> {
        let rows = self.siblings.listed(self.own.id).await.unwrap();
        let primary = rows.iter().filter(|row| row["is_primary"] == true);
        primary.map(|row| row["settings"]["wppAccountNumber"].as_str().unwrap().to_owned()).collect()
    }
}

/// Goes through all that happens to an organization's numbers.
async fn whole_story(app: &TestApp) {
    let own = app.stack.organization("school").await.unwrap();
    let school = School { app, siblings: Siblings::of(&app.stack), own };
    let first = school.connect(json!({})).await;
    let second = school.connect(json!({"add_new": true})).await;
    assert_ne!(first, second);
    assert_eq!(school.primaries().await, std::slice::from_ref(&first));
    assert_eq!(school.siblings.send(school.own.id).await, Ok(()));

    let before = app.stack.platform.faults.count("token");
    let expire = r#"update messenger_integrations set settings = settings || '{"wppJwtExpiresAt": 1000}'"#;
    app.sql.execute(expire, &[]).await.unwrap();
    for session in [&first, &second] {
        school.assert_connected(session).await;
        let answer = school.status(session, true).await;
        assert_eq!(answer.json["status"], "connected", "{answer:?}");
    }
    assert_eq!(app.stack.platform.faults.count("token") - before, 2);

    school.disconnect(&first).await;
    let left = school.status(&second, true).await;
    assert_eq!(left.json["status"], "connected", "{left:?}");
    school.disconnect(&second).await;
    let none = school.post("wpp-status", json!({})).await;
    assert_eq!((none.status, &none.json["status"]), (200, &json!("disconnected")), "{none:?}");
    let again = school.connect(json!({})).await;
    assert_eq!(school.primaries().await, [again]);
    assert_eq!(school.siblings.send(school.own.id).await, Ok(()));
}

#[tokio::test]
async fn the_story_of_a_number_is_the_same_in_every_shape() {
    let new = Privileges::Nothing;
    let mut projects = vec![
        ("a new project", new, String::new()),
        ("a new project of before", Privileges::Granted, String::new()),
        ("as most, before", Privileges::Granted, WORKING[0].sql()),
    ];
    projects.extend(WORKING.iter().map(|shape| (shape.name, new, shape.sql())));
    let app = Arc::new(TestApp::start().await);
    let mut failed = Vec::new();
    for (name, privileges, tables) in projects {
        // Its own task, so that one failure does not hide the next.
        let app = app.clone();
        let story = tokio::spawn(async move {
            app.stack.deploy(privileges, &tables).await.unwrap();
            whole_story(&app).await;
        });
        if story.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Returns everything in the schema. A refusal must not change any of it.
async fn dump(postgres: &Postgres) -> Value {
    let sql = postgres.connect().await.unwrap();
    let Json(dump) = sql.query_one(DUMP, &[]).await.unwrap().get(0);
    dump
}

async fn refusal(postgres: &Postgres, refused: &Refused) -> Result<(), String> {
    let (name, tables) = (refused.shape.name, refused.shape.sql());
    let tables = format!("{tables}; insert into organizations (name) values ('school')");
    postgres.replace(Privileges::Nothing, &tables).await.unwrap();
    let before = dump(postgres).await;
    let Err(error) = postgres.migrate(&migrations()).await else { return Err(format!("{name}: migrated")) };
    let sentence = error.to_string();
    let names = |word: &str| {
        sentence.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| part == word)
    };
    if !names(refused.table) || !refused.column.is_none_or(names) {
        return Err(format!("{name}: {sentence}"));
    }
    if dump(postgres).await != before {
        return Err(format!("{name}: something was left behind"));
    }
    Ok(())
}

#[tokio::test]
async fn a_table_that_cannot_work_is_refused_by_column() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    let mut failed = Vec::new();
    for refused in &REFUSED {
        failed.extend(refusal(&postgres, refused).await.err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
