//! The migrations: on a database with another owner, applied twice, and the rights that each role gets from them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use local::fault_injector::Fault;
use local::postgres::{Postgres, Privileges, Storage, migrations};
use local::test_app::TestApp;

const DEPLOYED: &str = include_str!("deployed.sql");
const DUMP: &str = include_str!("dump.sql");

/// Returns a migration that an operator applies separately.
fn optional(name: &str) -> String {
    std::fs::read_to_string(migrations().join("optional").join(name)).unwrap()
}

/// Starts a database that is older than our functions.
async fn deployed() -> (Postgres, Client) {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    postgres.replace(Privileges::Granted, DEPLOYED).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    (postgres, sql)
}

/// Starts an app whose functions work on such a database.
async fn deployed_app() -> TestApp {
    let app = TestApp::start().await;
    app.stack.deploy(Privileges::Granted, DEPLOYED).await.unwrap();
    app.stack.seed(app.school.id, app.school.user, "school").await.unwrap();
    app
}

/// Returns the names of the files, release by release, as `SHA256SUMS` lists them: a comment begins a release.
fn releases() -> Vec<Vec<String>> {
    let sums = std::fs::read_to_string(migrations().join("SHA256SUMS")).unwrap();
    let mut releases = Vec::new();
    for line in sums.lines() {
        match line.split_once("  ") {
            None => releases.push(Vec::new()),
            Some((_, file)) => releases.last_mut().unwrap().push(file.to_owned()),
        }
    }
    releases
}

async fn apply(sql: &Client, file: &str) {
    let text = std::fs::read_to_string(migrations().join(file)).unwrap();
    sql.batch_execute(&text).await.unwrap_or_else(|error| panic!("{file}: {error:?}"));
}

async fn value(sql: &Client, query: &str) -> Value {
    sql.query_one(query, &[]).await.unwrap().get::<_, Json<Value>>(0).0
}

async fn tables(sql: &Client) -> Vec<String> {
    let tables = "select tablename::text from pg_tables where schemaname = 'public' order by 1";
    sql.query(tables, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Returns all rows of these tables.
async fn rows(sql: &Client, tables: &[String]) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for table in tables {
        let all = format!(
            "select coalesce(jsonb_agg(to_jsonb(t) order by to_jsonb(t)::text), '[]') from {table} t"
        );
        rows.insert(table.clone(), value(sql, &all).await);
    }
    rows
}

/// Returns the entries of one part of a dump that are not in the same part of another.
fn added(part: &str, before: &Value, after: &Value) -> Vec<Value> {
    let (before, after) = (before[part].as_array(), after[part].as_array());
    let known = |entry: &&Value| !before.is_some_and(|before| before.contains(entry));
    after.into_iter().flatten().filter(known).cloned().collect()
}

#[tokio::test]
async fn deployed_database_keeps_all_its_rows() {
    let (postgres, sql) = deployed().await;
    let theirs = tables(&sql).await;
    let (rows_before, before) = (rows(&sql, &theirs).await, value(&sql, DUMP).await);
    postgres.migrate(&migrations()).await.unwrap();
    let (rows_after, after) = (rows(&sql, &theirs).await, value(&sql, DUMP).await);

    let sorted = |rows: &BTreeMap<String, Value>| {
        let text = |rows: &Value| {
            let mut text: Vec<_> = rows.as_array().unwrap().iter().map(Value::to_string).collect();
            text.sort();
            text
        };
        rows.iter().map(|(table, rows)| (table.clone(), text(rows))).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(sorted(&rows_after), sorted(&rows_before));

    for part in ["columns", "tables", "indexes", "constraints", "policies", "functions"] {
        assert_eq!(added(part, &after, &before), [] as [Value; 0], "gone or changed: {part}");
        for entry in added(part, &before, &after) {
            assert!(entry.to_string().contains("wpp_"), "{part}: {entry}");
        }
    }
    let ours: Vec<_> = tables(&sql).await.into_iter().filter(|table| !theirs.contains(table)).collect();
    assert_eq!(ours, ["wpp_creations", "wpp_numbers", "wpp_platform_ids", "wpp_token_leases"]);
}

#[tokio::test]
async fn second_run_of_the_migrations_changes_nothing() {
    let app = TestApp::start().await;
    app.number().await;
    let sql = &app.sql;
    let all = tables(sql).await;
    let before = (rows(sql, &all).await, value(sql, DUMP).await);
    app.stack.postgres.migrate(&migrations()).await.unwrap();
    assert!((rows(sql, &all).await, value(sql, DUMP).await) == before);
}

#[tokio::test]
async fn number_is_connected_on_a_deployed_database() {
    let app = deployed_app().await;
    let number = app.number().await;
    assert_eq!(
        app.poll_qr(&number.session).await.json["qr"],
        app.snapshot_row(&number.session).await["last_qr_b64"]
    );
    app.stack.platform.scan(&number.session).unwrap();
    let answer = app.post("wpp-status", json!({"force": true})).await;
    assert_eq!(answer.json["status"], "connected", "{answer:?}");
    assert_eq!(app.snapshot_row(&number.session).await["status"], "connected");
}

#[tokio::test]
async fn null_flags_count_as_false() {
    let app = deployed_app().await;
    let [first, second, third] = [app.number().await, app.number().await, app.number().await];
    app.sql
        .batch_execute("update whatsapp_sessions set status = null, last_qr_at = null, updated_at = null")
        .await
        .unwrap();
    for (column, number) in [("is_primary", &second), ("is_active", &third)] {
        let unmarked = format!("update messenger_integrations set {column} = null where id = $1");
        app.sql.execute(&unmarked, &[&number.id]).await.unwrap();
    }
    for name in ["wpp-status", "wpp-create"] {
        let answer = app.post(name, json!({})).await;
        assert_eq!(answer.json["status"], "qr_issued", "{name}: {answer:?}");
        let session = answer.json.get("account_number").or(answer.json.get("session"));
        assert_eq!(session, Some(&json!(first.session)), "{name}");
    }
}

/// SQL null and JSON null are no settings yet; text that holds an object is read as the object.
#[tokio::test]
async fn null_settings_or_an_object_in_text_are_read() {
    let app = deployed_app().await;
    let number = app.number().await;
    app.link(&number).await;
    let stringify =
        "update messenger_integrations set settings = to_jsonb((settings || '{\"theirs\": 1}')::text)";
    app.sql.execute(stringify, &[]).await.unwrap();
    app.post("wpp-status", json!({"force": true})).await.expect(200, "connected");
    let created = app.post("wpp-create", json!({})).await.expect(200, "connected");
    assert_eq!(created.json["session"], json!(number.session));
    app.post("wpp-create", json!({"force_recreate": true})).await.expect(200, "connected");
    let settings = app.settings(&number).await;
    assert_eq!((&settings["wppAccountNumber"], &settings["theirs"]), (&json!(number.session), &json!(1)));
    for empty in ["null", "'null'"] {
        let change = format!("update messenger_integrations set settings = {empty}");
        app.sql.execute(&change, &[]).await.unwrap();
        app.post("wpp-status", json!({})).await.expect(200, "disconnected");
        let created = app.post("wpp-create", json!({})).await.expect(200, "connected");
        assert_eq!(app.settings(&number).await["wppAccountNumber"], created.json["session"], "{empty}");
    }
}

/// Other functions may still know what they mean, and the number may be linked.
#[tokio::test]
async fn unreadable_settings_are_unchanged() {
    let app = TestApp::start().await;
    let (number, other) = (app.number().await, app.number().await);
    for settings in ["[1]", "\"x\"", "7", "[{\"wppApiKey\": \"k\"}]"] {
        let spoil = "update messenger_integrations set settings = $2::text::jsonb where id = $1";
        app.sql.execute(spoil, &[&number.id, &settings]).await.unwrap();
        for (name, body) in [
            ("wpp-create", json!({"integration_id": number.id})),
            ("wpp-create", json!({"integration_id": number.id, "force_recreate": true})),
            ("wpp-status", json!({"integration_id": number.id, "force": true})),
        ] {
            let refused = app.post(name, body).await.expect(409, "settings_unreadable");
            assert_eq!(refused.json["retryable"], false);
        }
        // Another row that works is still served.
        let status = app.post("wpp-status", json!({})).await.expect(200, "qr_issued");
        assert_eq!(status.json["account_number"], json!(other.session));
        let stored: Value = serde_json::from_str(settings).unwrap();
        assert_eq!(app.settings(&number).await, stored, "{settings}");
    }
}

#[tokio::test]
async fn two_numbers_share_an_organizations_only_snapshot() {
    let app = deployed_app().await;
    let numbers = [app.number().await, app.number().await];
    for _ in 0..2 {
        for number in &numbers {
            let answer = app.post("wpp-status", json!({"session": number.session})).await;
            assert_eq!(answer.json["qrcode"], json!(app.stack.platform.qr_of(&number.session)), "{answer:?}");
        }
    }
    assert!(app.snapshot_row(&numbers[0].session).await.is_object());
    assert!(app.snapshot_row(&numbers[1].session).await.is_null());
}

#[tokio::test]
async fn a_new_session_takes_over_the_only_snapshot() {
    let app = deployed_app().await;
    let number = app.number().await;
    let row = app.snapshot_row(&number.session).await;
    app.settle_keys().await;
    // A platform that gives the dead key again makes the number move to another id, and so to another session.
    app.stack.platform.revoke_key(&number.key);
    let same = json!({"apiKey": number.key, "session": number.session}).to_string();
    app.stack.platform.faults.inject_times("create", 1, Fault::Body(same));
    let answer = app.post("wpp-create", json!({"force_recreate": true})).await;
    let session = answer.json["session"].as_str().unwrap();
    assert_ne!(session, number.session, "{answer:?}");
    let moved = app.snapshot_row(session).await;
    assert_eq!(moved["id"], row["id"]);
    assert_eq!(moved["last_qr_b64"], answer.json["qrcode"]);
    assert!(app.snapshot_row(&number.session).await.is_null());
}

/// Sends a request to PostgREST with this key and token. Returns its status.
async fn rest_status(app: &TestApp, path: &str, body: Option<&Value>, key: &str, bearer: &str) -> u16 {
    let url = format!("{}/rest/v1/{path}", app.stack.supabase.url());
    let client = local::http::client().unwrap();
    let request = match body {
        Some(body) => client.post(url).header("content-type", "application/json").body(body.to_string()),
        None => client.get(url),
    };
    request.header("apikey", key).bearer_auth(bearer).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn only_the_service_role_may_use_our_tables_and_functions() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let find = json!({"p_user_id": app.school.user.to_string(), "p_session": number.session});
    let (anon, service) = (app.stack.keys.anon_key(), app.stack.keys.service_role_key());
    for (path, body) in
        [("rpc/wpp_find_number", Some(&find)), ("wpp_token_leases", None), ("wpp_creations", None)]
    {
        assert_eq!(rest_status(&app, path, body, &service, &service).await, 200, "{path}");
        for bearer in [&anon, &app.school.token] {
            let status = rest_status(&app, path, body, &anon, bearer).await;
            assert!([401, 403].contains(&status), "{path}: {status}");
        }
    }
}

/// If a function or a table is missing among the grants, projects from before October 2026 open it to all roles. Later projects close it
/// to our functions. A migration may also be the last one that was applied.
#[tokio::test]
async fn each_file_grants_to_the_service_role_only() {
    let may = "select object, role, may from (
          select p.oid::regprocedure::text, r.role, has_function_privilege(r.role, p.oid, 'execute')
          from pg_proc p, unnest(array['anon', 'authenticated', 'service_role']) r (role)
          where p.pronamespace::regnamespace::text in ('public', 'wpp_internal')
        union all
          select n.nspname::text, r.role, has_schema_privilege(r.role, n.oid, 'usage')
          from pg_namespace n, unnest(array['anon', 'authenticated', 'service_role']) r (role)
          where n.nspname = 'wpp_internal'
        union all
          select c.oid::regclass::text || ' ' || t.may, r.role, has_table_privilege(r.role, c.oid, t.may)
          from pg_class c, unnest(array['anon', 'authenticated', 'service_role']) r (role),
            unnest(array['select', 'insert', 'update', 'delete']) t (may)
          where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
      ) privileges (object, role, may)";
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    for privileges in [Privileges::Granted, Privileges::Nothing] {
        postgres.replace(privileges, "").await.unwrap();
        let mut count = 0;
        for file in releases().concat() {
            apply(&sql, &file).await;
            let rows = sql.query(may, &[]).await.unwrap();
            assert!(rows.len() >= count, "{file} takes something away");
            count = rows.len();
            for row in &rows {
                let (object, role, may): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
                assert_eq!(may, role == "service_role", "{privileges:?}, {file}: {role} and {object}");
            }
        }
        assert!(count > 0);
    }
}

/// Whatever release a database has, with what was written since: the present files bring it to the state of a new one.
#[tokio::test]
async fn each_release_upgrades_to_the_schema_of_a_new_database() {
    let (postgres, sql) = deployed().await;
    postgres.migrate(&migrations()).await.unwrap();
    let fresh = value(&sql, DUMP).await;
    let releases = releases();
    for earlier in 0..=releases.len() {
        postgres.replace(Privileges::Granted, DEPLOYED).await.unwrap();
        for file in releases[..earlier].concat() {
            apply(&sql, &file).await;
        }
        if earlier > 0 {
            let used = format!("{}/tests/database/releases/{earlier}.sql", env!("CARGO_MANIFEST_DIR"));
            sql.batch_execute(&std::fs::read_to_string(used).unwrap()).await.unwrap();
        }
        let all = tables(&sql).await;
        let before = rows(&sql, &all).await;
        postgres.migrate(&migrations()).await.unwrap();
        assert_eq!(rows(&sql, &all).await, before, "after {earlier} releases");
        assert!(value(&sql, DUMP).await == fresh, "after {earlier} releases");
    }
    let overloads =
        "select count(*) from (select from pg_proc p where p.pronamespace = 'public'::regnamespace
        group by p.proname having count(*) > 1) twice";
    assert_eq!(sql.query_one(overloads, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn uninstalling_removes_only_what_the_migrations_made() {
    let (postgres, sql) = deployed().await;
    let theirs = tables(&sql).await;
    let before = (rows(&sql, &theirs).await, value(&sql, DUMP).await);
    postgres.migrate(&migrations()).await.unwrap();
    for _ in 0..2 {
        sql.batch_execute(&optional("remove.sql")).await.unwrap();
        let (rows_after, mut after) = (rows(&sql, &theirs).await, value(&sql, DUMP).await);
        // The one thing that stays also serves the other functions.
        let indexes = after["indexes"].as_array_mut().unwrap();
        indexes.retain(|index| !index.as_str().unwrap().contains("wpp_numbers_of_organization"));
        assert!((rows_after, after) == before);
    }
}

/// A migration that waits keeps every other writer waiting behind it.
#[tokio::test]
async fn migration_waits_at_most_five_seconds_for_a_lock() {
    let (postgres, sql) = deployed().await;
    let blocker = postgres.connect().await.unwrap();
    blocker.batch_execute("begin; lock table messenger_integrations in access exclusive mode").await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(20), postgres.migrate(&migrations())).await;
    assert!(refused.unwrap().unwrap_err().to_string().contains("lock timeout"));
    assert!(
        sql.query_one("select to_regclass('wpp_numbers')::text", &[])
            .await
            .unwrap()
            .get::<_, Option<&str>>(0)
            .is_none()
    );
    for file in releases().concat() {
        let text = std::fs::read_to_string(migrations().join(&file)).unwrap();
        let begins = text.find("set lock_timeout = '5s';").unwrap_or(usize::MAX);
        let works = ["\ncreate ", "\ndo ", "\nalter ", "\ngrant ", "\ndrop "];
        assert!(works.iter().filter_map(|work| text.find(work)).all(|work| begins < work), "{file}");
    }
}

#[tokio::test]
async fn new_tables_have_row_level_security() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    let open = "select tablename::text from pg_tables where schemaname = 'public' and not rowsecurity";
    assert!(sql.query(open, &[]).await.unwrap().is_empty());
    assert_eq!(tables(&sql).await.len(), 8);
}

/// The other functions name only some of the columns.
#[tokio::test]
async fn new_tables_have_default_values() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    let least = "insert into organizations default values;
        insert into messenger_integrations (organization_id, messenger_type, provider) select id, 'whatsapp', 'wpp' from organizations;
        insert into whatsapp_sessions (organization_id, session_name, status) select id, 'wpp_1', 'pairing' from organizations";
    sql.batch_execute(least).await.unwrap();
    for (table, defaults, filled) in [
        ("organizations", json!({}), "id created_at"),
        (
            "messenger_integrations",
            json!({"is_active": true, "is_enabled": true, "is_primary": false, "priority": 0, "settings": {}}),
            "id webhook_key created_at updated_at",
        ),
        ("whatsapp_sessions", json!({}), "id created_at updated_at"),
    ] {
        let row = value(&sql, &format!("select to_jsonb(t) from {table} t")).await;
        for (column, default) in defaults.as_object().unwrap() {
            assert_eq!(row[column], *default, "{table}.{column}");
        }
        for column in filled.split(' ') {
            assert!(!row[column].is_null(), "{table}.{column}");
        }
    }
}

#[tokio::test]
async fn optional_migration_hides_only_the_settings() {
    let app = deployed_app().await;
    let number = app.number().await;
    let anon = app.stack.keys.anon_key();
    let read = async |columns: &str| {
        let path = format!("messenger_integrations?select={columns}&limit=1");
        rest_status(&app, &path, None, &anon, &app.school.token).await
    };
    assert_eq!(read("id,settings").await, 200);
    let hide = optional("hide_settings_from_browsers.sql");
    app.sql.batch_execute(&hide).await.unwrap();
    let once = value(&app.sql, DUMP).await;
    app.sql.batch_execute(&hide).await.unwrap();
    assert!(value(&app.sql, DUMP).await == once);

    assert_eq!(read("id,name,is_active,is_primary,colour,created_at").await, 200);
    for columns in ["settings", "id,settings", "*"] {
        let status = read(columns).await;
        assert!([401, 403].contains(&status), "{columns}: {status}");
    }
    let rights = "select column_name::text, role, rights.name,
            has_column_privilege(role, 'messenger_integrations', column_name, rights.name)
        from information_schema.columns, unnest(array['anon', 'authenticated']) r (role),
            unnest(array['select', 'insert', 'update']) rights (name)
        where table_name = 'messenger_integrations'";
    for row in app.sql.query(rights, &[]).await.unwrap() {
        let (column, role, right, may): (String, String, String, bool) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(may, column != "settings", "{role}: {right} {column}");
    }
    let answer = app.post("wpp-status", json!({"force": true})).await;
    assert_eq!(answer.json["account_number"], json!(number.session), "{answer:?}");
}
