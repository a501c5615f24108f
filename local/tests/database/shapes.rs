//! The migrations and the functions on databases of other owners. In one kind of shape everything works, from the first QR to the second
//! link. In the other kind no creation begins, and one sentence says what is wrong with the database.

use std::sync::Arc;

use local::other_functions::OtherFunctions;
use local::postgres::{Postgres, Privileges, Storage, migrations};
use local::schema_variants::{BASE, SchemaVariant, refused, working};
use local::stack::Organization;
use local::test_app::TestApp;
use serde_json::{Value, json};
use tokio_postgres::types::Json;

const DUMP: &str = include_str!("dump.sql");

/// A school, its requests and what it must get.
struct School<'a> {
    app: &'a TestApp,
    other_functions: OtherFunctions,
    /// A new one for each shape: the platform remembers the others.
    own: Organization,
}

impl School<'_> {
    /// Goes from a request that brings a QR to a linked phone, by every route. Returns the session.
    async fn connect(&self, request: Value) -> String {
        let made = self.app.post_as(&self.own, "wpp-create", request).await.expect(200, "qr_issued").json;
        let session = made["session"].as_str().unwrap().to_owned();
        let polled = self.app.post_as(&self.own, "wpp-qr", json!({"session": session})).await;
        assert_eq!((polled.status, &polled.json["qr"]), (200, &made["qrcode"]), "{polled:?}");
        self.app.stack.platform.scan(&session).unwrap();
        self.assert_connected(&session).await;
        session
    }

    /// Asserts that the platform says so, and the snapshot too.
    async fn assert_connected(&self, session: &str) {
        for force in [true, false] {
            let check = json!({"session_name": session, "force": force});
            self.app.post_as(&self.own, "wpp-status", check).await.expect(200, "connected");
        }
    }

    async fn disconnect(&self, session: &str) {
        let row = self.app.number_of(session).await.id;
        // If all numbers share a row of `whatsapp_sessions`, the other function cannot note this. Its answer does not matter here.
        let _ = self.other_functions.disconnect(self.own.id, row).await;
    }

    /// Asserts which number the other functions send with.
    async fn assert_primary(&self, session: &str) {
        let primary = self.app.number_of(session).await.id;
        assert_eq!(self.other_functions.primaries(self.own.id).await, [primary]);
        assert_eq!(self.other_functions.send(self.own.id).await, Ok(()));
    }
}

/// Goes through all that happens to an organization's numbers.
async fn whole_story(app: &TestApp) {
    let own = app.stack.organization("school").await.unwrap();
    let school = School { app, other_functions: OtherFunctions::of(&app.stack), own };
    let first = school.connect(json!({})).await;
    let second = school.connect(json!({"add_new": true})).await;
    assert_ne!(first, second);
    school.assert_primary(&first).await;

    let before = app.stack.platform.faults.count("token");
    let expire = r#"update messenger_integrations set settings = settings || '{"wppJwtExpiresAt": 1000}'"#;
    app.sql.execute(expire, &[]).await.unwrap();
    for session in [&first, &second] {
        school.assert_connected(session).await;
    }
    assert_eq!(app.stack.platform.faults.count("token") - before, 2);

    school.disconnect(&first).await;
    school.assert_connected(&second).await;
    school.disconnect(&second).await;
    app.post_as(&school.own, "wpp-status", json!({})).await.expect(200, "disconnected");
    let again = school.connect(json!({})).await;
    school.assert_primary(&again).await;
}

#[tokio::test]
async fn number_goes_through_the_same_states_in_each_variant() {
    let new = ("a new project", Privileges::Nothing, String::new());
    let before = ("as most, before", Privileges::Granted, working()[0].sql.clone());
    // Without an organization, the migration does not try whether rows fit.
    let used = |sql: String| format!("{sql}; insert into organizations (name) values ('school')");
    let projects = working().into_iter().map(|shape| (shape.name, Privileges::Nothing, used(shape.sql)));
    let app = Arc::new(TestApp::start().await);
    let mut failed = Vec::new();
    for (name, privileges, tables) in [new, before].into_iter().chain(projects) {
        // Its own task, so that one failure does not hide the next.
        let app = app.clone();
        let story = tokio::spawn(async move {
            app.stack.deploy(privileges, &tables).await.unwrap();
            whole_story(&app).await;
        });
        failed.extend(story.await.is_err().then_some(name));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Returns everything in the schema. A refusal must not change any of it.
async fn dump(postgres: &Postgres) -> Value {
    let sql = postgres.connect().await.unwrap();
    let Json(dump) = sql.query_one(DUMP, &[]).await.unwrap().get(0);
    dump
}

async fn refusal(postgres: &Postgres, shape: &SchemaVariant) -> Result<(), &'static str> {
    let tables = format!("{}; insert into organizations (name) values ('school')", shape.sql);
    postgres.replace(Privileges::Nothing, &tables).await.unwrap();
    let before = dump(postgres).await;
    let sentence = postgres.migrate(&migrations()).await.err().ok_or("it was migrated")?.to_string();
    let words = |text: &'static str| text.split(' ');
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = |word| sentence.split(|c| !is_word(c)).any(|part| part == word);
    match words(shape.name).all(names) {
        false => Err("the refusal does not name it"),
        true if sentence.contains("<NULL>") => Err("the refusal has a gap"),
        true if dump(postgres).await != before => Err("something was left behind"),
        true => Ok(()),
    }
}

#[tokio::test]
async fn unusable_table_is_refused_with_its_column() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    let mut failed = Vec::new();
    for shape in refused() {
        failed.extend(refusal(&postgres, &shape).await.err().map(|why| (why, shape)));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Applies the first migration to the usual tables, after these statements. It ends with the file's refusal, or with
/// whether the file has made an index. Everything is rolled back, also the changes of the server's roles.
async fn first_file_after(postgres: &Postgres, statements: &str) -> Result<bool, String> {
    let sql = postgres.connect().await.unwrap();
    sql.batch_execute(&format!("begin; {statements}")).await.unwrap();
    let file = std::fs::read_to_string(migrations().join("20261130120000_wpp_tables.sql")).unwrap();
    let applied = sql.batch_execute(&file).await;
    applied.map_err(|error| error.as_db_error().unwrap().message().to_owned())?;
    let index = "select to_regclass('wpp_numbers_of_organization') is not null";
    Ok(sql.query_one(index, &[]).await.unwrap().get(0))
}

#[tokio::test]
async fn role_that_cannot_use_the_tables_is_refused() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    postgres.replace(Privileges::Nothing, BASE).await.unwrap();
    for (statements, refusal) in [
        ("alter role service_role rename to another", Some("The role service_role is missing")),
        ("alter role service_role nobypassrls", None),
        ("alter table profiles enable row level security", None),
        (
            "alter role service_role nobypassrls; alter table profiles enable row level security",
            Some("profiles has row-level security"),
        ),
    ] {
        let applied = first_file_after(&postgres, statements).await;
        let is_expected = match (&applied, refusal) {
            (Ok(_), None) => true,
            (Err(sentence), Some(beginning)) => sentence.starts_with(beginning),
            _ => false,
        };
        assert!(is_expected, "{statements}: {applied:?}");
    }
}

/// Indexes on `messenger_integrations`, and whether a query by organization can use one of them.
#[tokio::test]
async fn only_the_owner_creates_the_missing_index() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    postgres.replace(Privileges::Nothing, BASE).await.unwrap();
    let drop = "drop index messenger_integrations_organization_id_idx; ";
    for (change, is_usable) in [
        (String::new(), true),
        (drop.to_owned(), false),
        (format!("{drop} create index on messenger_integrations (name, organization_id)"), false),
        (format!("{drop} create index on messenger_integrations (organization_id) where is_active"), false),
        (format!("{drop} create index on profiles (organization_id)"), false),
        (
            "update pg_index set indisvalid = false
             where indexrelid = 'messenger_integrations_organization_id_idx'::regclass"
                .to_owned(),
            false,
        ),
    ] {
        assert_eq!(first_file_after(&postgres, &change).await, Ok(!is_usable), "{change}");
        let by_another = first_file_after(&postgres, &format!("{change}; set local role service_role")).await;
        match by_another {
            Ok(is_made) => assert!(is_usable && !is_made, "{change}"),
            Err(sentence) => assert!(!is_usable && sentence.contains("has no index"), "{change}: {sentence}"),
        }
    }
}

/// The probe's rows are its own, unless the table has room for only one row of an organization.
#[tokio::test]
async fn check_of_the_tables_waits_for_no_locked_row() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    let rows = "insert into organizations values ('00000000-0000-0000-0000-000000000001'), ('00000000-0000-0000-0000-000000000002');
        insert into messenger_integrations (organization_id, messenger_type, provider, name)
          select id, 'whatsapp', 'wpp', 'theirs' from organizations;
        insert into whatsapp_sessions (organization_id, session_name)
          select id, 'wpp_' || id from organizations order by id desc;";
    let blocker = postgres.connect().await.unwrap();
    for constraint in ["", "alter table whatsapp_sessions add unique (organization_id)"] {
        postgres.replace(Privileges::Nothing, &format!("{BASE}; {rows} {constraint}")).await.unwrap();
        let lock = "begin; select from messenger_integrations for update;
            select from whatsapp_sessions where session_name like '%2' for update";
        blocker.batch_execute(lock).await.unwrap();
        assert_eq!(first_file_after(&postgres, "").await, Ok(false), "{constraint}");
        blocker.batch_execute("rollback").await.unwrap();
    }
}
