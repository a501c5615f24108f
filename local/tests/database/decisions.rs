//! What the SQL decides between rows, in tables: which number is meant, who is primary, what is news, what is forgotten.

use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::harness::{Begin, Database, ME, OTHER, id};

/// The place of a row among these.
fn place(rows: &[Uuid], row: &Value) -> Option<usize> {
    row.as_str().map(|row| rows.iter().position(|known| known.to_string() == row).unwrap())
}

#[tokio::test]
async fn the_number_that_is_meant_works_then_is_primary_then_is_the_oldest() {
    let mut database = Database::start().await;
    for (rows, any, active) in [
        (&["", "primary"][..], Some(1), Some(1)),
        (&["", ""], Some(0), Some(0)),
        (&["primary", "primary"], Some(0), Some(0)),
        (&["unmarked", "primary"], Some(1), Some(1)),
        (&["primary empty", ""], Some(1), Some(1)),
        (&["primary off", ""], Some(1), Some(1)),
        (&["off", "empty"], Some(0), Some(1)),
        (&["off"], Some(0), None),
        (&["telegram primary", "green_api primary"], None, None),
        (&["telegram", "green_api", "off empty"], Some(2), None),
    ] {
        let ids = database.rows(rows).await;
        database.neighbour().await;
        let choose = "wpp_internal.choose_number($1, null, null, false)";
        let chosen = database.value(choose, &[&database.organisation]).await;
        let found =
            database.value("wpp_find_number($1) -> 'number' -> 'integration_id'", &[&database.user]).await;
        assert_eq!((place(&ids, &chosen), place(&ids, &found)), (any, active), "{rows:?}");
    }
}

#[tokio::test]
async fn adding_a_number_goes_on_with_one_that_works_was_never_linked_and_is_the_first_or_a_day_old() {
    let mut database = Database::start().await;
    for (rows, expected) in [
        (&["fresh"][..], Some(0)),
        (&["fresh sub"], Some(0)),
        (&["fresh aged"], Some(0)),
        (&["fresh sub aged"], None),
        (&["fresh aged", "fresh sub"], Some(1)),
        (&["fresh sub", "fresh aged"], Some(0)),
        (&[""], None),
        (&["fresh seen"], None),
        (&["fresh off"], None),
        (&["fresh empty"], None),
        (&["fresh telegram"], None),
        (&["fresh green_api"], None),
    ] {
        let ids = database.rows(rows).await;
        database.neighbour().await;
        let add = Begin { mode: "add_new", ..Begin::default() };
        let begun = database.begin(add).await;
        assert_eq!(place(&ids, &begun["number"]["integration_id"]), expected, "{rows:?}: {begun}");
        let outcome = if expected.is_some() { "existing" } else { "begun" };
        assert_eq!(begun["outcome"], outcome, "{rows:?}");
    }
}

/// The rows, the session that was just seen connected, and who is primary then.
#[tokio::test]
async fn the_mark_goes_to_the_best_number_where_no_primary_works() {
    let mut database = Database::start().await;
    for (rows, session, expected) in [
        (&[""][..], None, &[0][..]),
        (&["", ""], None, &[0]),
        (&["", ""], Some("2"), &[1]),
        (&["seen", ""], Some("2"), &[1]),
        (&["", "seen"], None, &[1]),
        (&["fresh", ""], None, &[1]),
        (&["fresh", "fresh"], None, &[0]),
        (&["fresh", "fresh primary"], None, &[1]),
        (&["fresh primary", ""], None, &[1]),
        (&["", "primary"], Some("1"), &[1]),
        (&["off primary", "empty", ""], None, &[2]),
        (&["empty", "off"], None, &[]),
        (&["", "green_api primary"], None, &[1]),
        (&["", "green_api primary off"], None, &[0]),
        (&["", "green_api primary disabled"], None, &[0]),
        (&["primary disabled", ""], None, &[0]),
        (&["telegram primary", ""], None, &[0, 1]),
        (&["telegram", "green_api"], None, &[]),
        (&["green_api", ""], None, &[1]),
    ] {
        let ids = database.rows(rows).await;
        let neighbour = database.neighbour().await;
        let theirs = database.all_of(neighbour).await;
        let settle = "select wpp_internal.settle_primary($1, $2)";
        database.sql.query(settle, &[&database.organisation, &session]).await.unwrap();
        let mut primaries: Vec<_> = database
            .primaries()
            .await
            .iter()
            .map(|id| ids.iter().position(|known| known == id).unwrap())
            .collect();
        primaries.sort_unstable();
        assert_eq!(primaries, expected, "{rows:?} {session:?}");
        assert_eq!(database.all_of(neighbour).await, theirs, "{rows:?} {session:?}");
    }
}

/// A row of another table's making may have no such column.
#[tokio::test]
async fn another_providers_row_that_cannot_be_disabled_is_enabled() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", "green_api primary"]).await;
    let theirs = "reset role; alter table messenger_integrations drop is_enabled; set role service_role";
    database.sql.batch_execute(theirs).await.unwrap();
    database.sql.query("select wpp_internal.settle_primary($1)", &[&database.organisation]).await.unwrap();
    assert_eq!(database.primaries().await, [ids[1]]);
}

/// Rows that the owner's own constraint keeps from being primary, or that somebody holds, keep nobody waiting.
#[tokio::test]
async fn a_mark_that_cannot_be_given_is_given_another_time() {
    let mut database = Database::start().await;
    let [number] = database.rows(&[""]).await[..] else { panic!("not one row") };
    let mut blocker = database.postgres.connect().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("select from messenger_integrations for update").await.unwrap();
    database.sql.batch_execute("set statement_timeout = '20s'").await.unwrap();
    database.link("1").await;
    assert!(database.primaries().await.is_empty());
    lock.commit().await.unwrap();
    database.link("1").await;
    assert_eq!(database.primaries().await, [number]);
}

/// What a look-up says of a number that we have saved, after these changes.
#[tokio::test]
async fn what_is_known_of_a_number_is_of_its_present_credentials() {
    let mut database = Database::start().await;
    let noted = "update wpp_numbers set first_connected_at = now()";
    let theirs = "update messenger_integrations set settings = settings || '{\"wppApiKey\": \"theirs\"}'";
    let offline = "update whatsapp_sessions set status = 'disconnected'";
    for (rows, changes, is_saved, is_noted, is_registered, is_news) in [
        (&["fresh"][..], &[][..], true, false, true, true),
        (&["fresh seen primary"], &[], true, false, true, true),
        (&["fresh seen primary"], &[noted], true, true, true, false),
        (&["fresh seen primary"], &[noted, offline], true, true, true, true),
        (&["fresh seen primary"], &[noted, theirs], false, false, false, false),
        (&["fresh seen primary"], &[theirs], false, false, false, false),
        (&["fresh seen"], &[noted], true, true, true, true),
        (&["fresh seen", "primary"], &[noted], true, true, true, false),
        (&["seen", "fresh primary"], &[], false, false, false, true),
    ] {
        database.rows(rows).await;
        let register =
            "update wpp_numbers set webhook_url = 'https://hooks.example', webhook_digest = saved_digest";
        for change in [register].iter().chain(changes) {
            database.run(change, &[]).await;
        }
        let number = database.value("wpp_find_number($1, '1') -> 'number'", &[&database.user]).await;
        let known = ["credentials_saved_at_ms", "first_connected_at_ms", "webhook_url"]
            .map(|key| !number[key].is_null());
        let expected = ([is_saved, is_noted, is_registered], json!(is_news));
        assert_eq!((known, number["news_if_connected"].clone()), expected, "{rows:?} {changes:?}");
    }
}

#[tokio::test]
async fn a_number_was_linked_unless_we_saved_its_credentials_and_nobody_saw_it_connected() {
    let mut database = Database::start().await;
    let theirs = "update messenger_integrations set settings = settings || '{\"wppApiKey\": \"theirs\"}'";
    let scan = "update whatsapp_sessions set status = 'qr_issued'";
    for (words, change, expected) in [
        ("fresh", None, false),
        ("fresh seen", None, true),
        ("fresh seen", Some(scan), false),
        ("fresh", Some("update wpp_numbers set first_connected_at = now()"), true),
        ("fresh", Some(theirs), true),
        ("", None, true),
    ] {
        let [number] = database.rows(&[words]).await[..] else { panic!("not one row") };
        if let Some(change) = change {
            database.run(change, &[]).await;
        }
        let was_linked = database.value("wpp_internal.was_linked($1)", &[&number]).await;
        assert_eq!(was_linked, expected, "{words} {change:?}");
    }
}

#[tokio::test]
async fn only_the_session_of_a_number_is_mirrored_and_only_its_organisations() {
    let mut database = Database::start().await;
    database.rows(&["", "telegram", "green_api"]).await;
    let neighbour = database.neighbour().await;
    database.row(neighbour, "7", "").await;
    for session in ["2", "3", "7", "9"] {
        let now = database.now().await;
        let mirror =
            database.save_snapshot(database.organisation, session, "qr_issued", now, Some("2@")).await;
        assert_eq!(mirror, Value::Null, "{session}");
    }
    assert_eq!(database.value("(select count(*) from whatsapp_sessions)", &[]).await, 0);
}

/// The name of a session is unique in the mirror, whoever has written its row.
#[tokio::test]
async fn a_row_of_the_mirror_that_is_a_neighbours_says_nothing_and_stays() {
    let mut database = Database::start().await;
    let [number] = database.rows(&["fresh"]).await[..] else { panic!("not one row") };
    let neighbour = database.neighbour().await;
    let mirror = "insert into whatsapp_sessions (organization_id, session_name, status, updated_at)
        values ($1, 'wpp_1', 'connected', '2026-01-01')";
    database.run(mirror, &[&neighbour]).await;
    let theirs = database.all_of(neighbour).await;
    assert_eq!(database.value("wpp_internal.was_linked($1)", &[&number]).await, false);
    let snapshot = "wpp_find_number($1, '1') -> 'number' -> 'snapshot'";
    assert_eq!(database.value(snapshot, &[&database.user]).await, Value::Null);
    let now = database.now().await;
    assert_eq!(
        database.save_snapshot(database.organisation, "1", "qr_issued", now, Some("2@")).await,
        Value::Null
    );
    assert_eq!(database.all_of(neighbour).await, theirs);
}

/// What was seen is noted for that number alone, for its present credentials, once, and only a phone that is there now brings
/// the mark.
#[tokio::test]
async fn a_link_is_noted_once_for_the_number_that_was_seen() {
    let mut database = Database::start().await;
    let ids = database.rows(&["fresh", "fresh", ""]).await;
    let neighbour = database.neighbour().await;
    let theirs = database.all_of(neighbour).await;
    database
        .run(
            "insert into wpp_numbers (integration_id, organization_id, saved_digest) values ($1, $2, 'x')",
            &[&ids[2], &database.organisation],
        )
        .await;
    let noted = async || {
        let noted = "(select jsonb_agg(integration_id) from wpp_numbers where first_connected_at is not null and organization_id = $1)";
        let noted = database.value(noted, &[&database.organisation]).await;
        noted.as_array().map(|rows| rows.iter().map(|row| place(&ids, row).unwrap()).collect::<Vec<_>>())
    };
    database.save_snapshot(database.organisation, "1", "disconnected", database.now().await, None).await;
    assert_eq!((noted().await, database.primaries().await), (None, vec![]));
    for session in ["3", "1"] {
        database.link(session).await;
    }
    assert_eq!(noted().await, Some(vec![0]));
    database
        .run("update wpp_numbers set first_connected_at = '2026-01-01' where integration_id = $1", &[&ids[0]])
        .await;
    database
        .run(
            "update messenger_integrations set is_primary = false where organization_id = $1",
            &[&database.organisation],
        )
        .await;
    let later = database.now().await + 1;
    database.save_snapshot(database.organisation, "1", "disconnected", later, None).await;
    let old = "(select count(*) from wpp_numbers where first_connected_at = '2026-01-01')";
    assert_eq!((database.value(old, &[]).await, database.primaries().await), (json!(1), vec![]));
    assert_eq!(database.all_of(neighbour).await, theirs);
}

/// What is about a number that is there, gone, or given to another organisation: its age in hours, and whether it stays.
#[tokio::test]
async fn what_is_forgotten_is_a_day_old_or_about_a_number_that_is_gone() {
    let mut database = Database::start().await;
    let [here] = database.rows(&[""]).await[..] else { panic!("not one row") };
    let organisation = database.organisation;
    let neighbour = database.neighbour().await;
    let given = database.row(neighbour, "7", "").await;
    let theirs = database.all_of(neighbour).await;
    let gone = Uuid::from_u128(8);
    let ago = |hours: f64| format!("now() - {hours} * interval '1 hour'");
    let mut expected = Vec::new();
    let keys = [("young", 23.9, true), ("old", 24.1, false)];
    for (key, age, stays) in keys {
        let insert = format!(
            "insert into wpp_idempotency_keys (organization_id, key, request, created_at) values ($1, $2, '{{}}', {})",
            ago(age)
        );
        database.run(&insert, &[&organisation, &key]).await;
        expected.extend(stays.then(|| key.to_owned()));
    }
    for (name, number, created, finished, held, key, stays) in [
        ("begun today", None, 23.9, None, None, false, true),
        ("begun yesterday", None, 24.1, None, None, false, false),
        ("finished today", None, 24.1, Some(23.9), None, false, true),
        ("finished yesterday", None, 25.0, Some(24.1), None, false, false),
        ("held today", None, 24.1, None, Some(23.9), false, true),
        ("with a key", None, 24.1, None, None, true, true),
        ("of a number", Some(here), 1.0, None, None, false, true),
        ("of a number that is gone", Some(gone), 1.0, None, None, false, false),
        ("of a number that was given away", Some(given), 1.0, None, None, true, false),
    ] {
        let time = |age: Option<f64>| age.map_or_else(|| "null".to_owned(), ago);
        let insert = format!(
            "insert into wpp_creations (organization_id, kind, integration_id, platform_id, created_at, finished_at, held_until)
             values ($1, 'first', $2, $3, {}, {}, {}) returning id",
            ago(created),
            time(finished),
            time(held)
        );
        let creation: Uuid =
            database.sql.query_one(&insert, &[&organisation, &number, &name]).await.unwrap().get(0);
        if key {
            let insert = "insert into wpp_idempotency_keys (organization_id, key, request, creation_id)
                values ($1, $2, '{}', $3)";
            database.run(insert, &[&organisation, &format!("key {name}"), &creation]).await;
            expected.push(format!("key {name}"));
        }
        expected.extend(stays.then(|| name.to_owned()));
    }
    for (number, stays) in [(here, true), (gone, false), (given, false)] {
        let insert = "insert into wpp_numbers (integration_id, organization_id) values ($1, $2)";
        database.run(insert, &[&number, &organisation]).await;
        expected.extend(stays.then(|| number.to_string()));
    }
    for (lease, number, failure, retried, stays) in [
        ("lease", Some(here), None, None, true),
        ("lease that is gone", None, None, None, false),
        ("lease that failed", None, Some("platform"), Some(1.0), false),
        ("rejected today", None, Some("api_key_rejected"), Some(23.9), true),
        ("rejected yesterday", None, Some("api_key_rejected"), Some(24.1), false),
        ("given away", Some(given), None, None, false),
    ] {
        let insert = format!(
            "insert into wpp_token_leases (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
             values ($1, $2, $1, now(), $3, {}, $4)",
            retried.map_or_else(|| "null".to_owned(), ago)
        );
        let number = number.unwrap_or_else(Uuid::new_v4);
        database.run(&insert, &[&number, &organisation, &failure, &lease]).await;
        expected.extend(stays.then(|| lease.to_owned()));
    }
    database.sql.query("select wpp_internal.forget_old($1)", &[&organisation]).await.unwrap();
    let left = "(select jsonb_agg(name) from (
        select key from wpp_idempotency_keys where organization_id = $1
        union all select platform_id from wpp_creations where organization_id = $1
        union all select integration_id::text from wpp_numbers where organization_id = $1
        union all select key_digest from wpp_token_leases where organization_id = $1) l (name))";
    let Value::Array(left) = database.value(left, &[&organisation]).await else { panic!("nothing is left") };
    let mut left: Vec<_> = left.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(database.all_of(neighbour).await, theirs);
}

#[tokio::test]
async fn an_id_at_the_platform_is_the_rows_own_or_the_organisations_or_new_where_another_number_has_that() {
    let mut database = Database::start().await;
    for (rows, of, expected) in [
        (&[""][..], 0, "own"),
        (&["sub"], 0, "sub"),
        (&["empty"], 0, "own"),
        (&["", "empty"], 1, "new"),
        (&["off", "empty"], 1, "new"),
        (&["sub", "empty"], 1, "own"),
        (&["empty", "empty"], 1, "own"),
        (&["", ""], 1, "own"),
        (&["telegram", "empty"], 1, "own"),
        (&["green_api", "empty"], 1, "own"),
    ] {
        let ids = database.rows(rows).await;
        database.neighbour().await;
        let (organisation, of) = (database.organisation, ids[of]);
        let platform_id = database.value("wpp_internal.platform_id($1, $2)", &[&organisation, &of]).await;
        let platform_id = platform_id.as_str().unwrap();
        let word = match platform_id.strip_prefix(&organisation.to_string()) {
            None => platform_id,
            Some("") => "own",
            Some(new) => new.starts_with("__wpp__").then_some("new").unwrap(),
        };
        assert_eq!(word, expected, "{rows:?}");
    }
}

#[tokio::test]
async fn a_recreation_is_joined_for_its_number_and_repeated_within_a_minute_of_its_end() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", "sub"]).await;
    let recreate = |number, holder| Begin {
        mode: "force_recreate",
        integration: Some(number),
        holder: Some(holder),
        ..Begin::default()
    };
    let begun = database.begin(recreate(ids[0], ME)).await;
    let other = database.begin(recreate(ids[1], OTHER)).await;
    assert_eq!((&begun["outcome"], &other["outcome"]), (&json!("begun"), &json!("begun")));
    assert_eq!(database.begin(recreate(ids[0], OTHER)).await["creation"], begun["creation"]);
    database.save(&begun["creation"], ME, "key 2", "1").await;
    for (seconds, outcome) in [(58.0, "existing"), (61.0, "begun")] {
        let age = "update wpp_creations set finished_at = now() - $1 * interval '1 second' where id = $2";
        database.run(age, &[&seconds, &id(&begun["creation"])]).await;
        assert_eq!(database.begin(recreate(ids[0], OTHER)).await["outcome"], outcome, "{seconds} s");
    }
    // Credentials that a sibling has written over it are no reason to be content with them.
    let [write_back, again] = ["key", "key 2"].map(|key| {
        format!("update messenger_integrations set settings = settings || '{{\"wppApiKey\": \"{key}\"}}' where id = $1")
    });
    database.run(&write_back, &[&ids[0]]).await;
    database.run("delete from wpp_creations where id <> $1", &[&id(&begun["creation"])]).await;
    database.run("update wpp_creations set finished_at = now()", &[]).await;
    assert_eq!(database.begin(recreate(ids[0], OTHER)).await["outcome"], "begun");
    database.run(&again, &[&ids[0]]).await;
    // One that is under way comes before one that has just ended.
    database
        .run("update wpp_creations set finished_at = now() where id = $1", &[&id(&begun["creation"])])
        .await;
    assert_eq!(database.begin(recreate(ids[0], ME)).await["outcome"], "busy");
}

/// What was begun for a number that has no row yet, who comes, and whether that is gone on with.
#[tokio::test]
async fn a_new_number_that_was_begun_is_joined_by_adding_one_and_a_first_one_by_everybody() {
    let mut database = Database::start().await;
    for (begun, asked, joins) in [
        ("ensure", "ensure", true),
        ("ensure", "force_recreate", true),
        ("ensure", "add_new", true),
        ("add_new", "add_new", true),
        ("add_new", "ensure", false),
        ("add_new", "force_recreate", false),
    ] {
        database.renew().await;
        let first = database.begin(Begin { mode: begun, ..Begin::default() }).await;
        let second = database.begin(Begin { mode: asked, ..Begin::default() }).await;
        assert_eq!(first["creation"] == second["creation"], joins, "{begun}, then {asked}");
    }
}

#[tokio::test]
async fn a_number_heals_where_its_own_key_was_rejected_and_it_works_but_for_that() {
    let mut database = Database::start().await;
    for (words, rejected, outcome) in [
        ("fresh", "key", "begun"),
        ("fresh", "another", "existing"),
        ("fresh off", "key", "existing"),
        ("fresh seen", "key", "existing"),
        ("", "key", "existing"),
    ] {
        database.rows(&[words]).await;
        let heal = Begin { mode: "heal", rejected: Some(rejected), ..Begin::default() };
        assert_eq!(database.begin(heal).await["outcome"], outcome, "{words}, {rejected}");
    }
}

#[tokio::test]
async fn a_key_stands_for_what_its_request_has_begun_in_its_organisation() {
    let mut database = Database::start().await;
    database.renew().await;
    let neighbour = database.neighbour().await;
    let add = |key| Begin { mode: "add_new", key: Some(key), ..Begin::default() };
    // The neighbour has used the same key.
    let begun = database.begin(add("click")).await;
    assert_eq!(begun["outcome"], "begun", "{begun}");
    assert_eq!(database.begin(Begin { mode: "ensure", ..add("click") }).await["outcome"], "mismatch");
    assert_ne!(database.begin(add("other")).await["creation"], begun["creation"]);
    let saved = database.save(&begun["creation"], ME, "key", "1").await;
    let again = database.begin(add("click")).await;
    assert_eq!((&again["outcome"], &again["number"]), (&json!("existing"), &saved["number"]));
    // When its number is deleted, it begins once more, and stands for that.
    database
        .run("delete from messenger_integrations where organization_id = $1", &[&database.organisation])
        .await;
    let anew = database.begin(add("click")).await;
    assert_ne!(anew["creation"], begun["creation"]);
    assert_eq!(database.begin(add("click")).await["creation"], anew["creation"]);

    // A creation of another organisation is none.
    let theirs = "(select id from wpp_creations where organization_id = $1 and kind = 'replacement')";
    let waited_for = Some(id(&database.value(theirs, &[&neighbour]).await));
    let waited = database.begin(Begin { mode: "ensure", waited_for, ..Begin::default() }).await;
    assert_eq!(waited["outcome"], "begun", "{waited}");
}

#[tokio::test]
async fn a_request_that_needs_nothing_does_not_take_up_what_others_have_begun() {
    let mut database = Database::start().await;
    database.rows(&["primary"]).await;
    database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.run("update wpp_creations set held_until = null", &[]).await;
    for _ in 0..2 {
        let ensure = Begin { mode: "ensure", key: Some("click"), holder: Some(OTHER), ..Begin::default() };
        assert_eq!(database.begin(ensure).await["outcome"], "existing");
    }
    for named in [
        Begin { session: Some("9"), ..Begin::default() },
        Begin { integration: Some(ME), ..Begin::default() },
    ] {
        let unknown = database.begin(Begin { mode: "ensure", ..named }).await;
        assert_eq!(unknown["outcome"], "unknown", "{unknown}");
    }
}

/// Whoever deletes a number waits for what is being decided, but nobody waits for a deletion: of several rows, that could be
/// a deadlock.
#[tokio::test]
async fn a_number_that_is_deleted_meanwhile_is_none() {
    let mut database = Database::start().await;
    database.rows(&["primary"]).await;
    let mut sibling = database.postgres.connect().await.unwrap();
    let deletion = sibling.transaction().await.unwrap();
    // Keeps the decision from its end until the row is gone.
    let hold = "insert into wpp_idempotency_keys (organization_id, key, request) values ($1, 'click', '{}')";
    deletion.execute(hold, &[&database.organisation]).await.unwrap();
    deletion.batch_execute("delete from messenger_integrations").await.unwrap();
    let ensure = Begin { mode: "ensure", key: Some("click"), ..Begin::default() };
    let delete = async {
        let waits = "select 1 from pg_locks where not granted and locktype = 'transactionid'";
        while deletion.query(waits, &[]).await.unwrap().is_empty() {}
        deletion.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(database.begin(ensure), delete);
    assert_eq!((&answer["outcome"], &answer["number"]), (&json!("unknown"), &Value::Null));

    // The other way round: what was decided about stays until the decision is known.
    database.rows(&["primary"]).await;
    let mut deciding = database.postgres.connect().await.unwrap();
    let decision = deciding.transaction().await.unwrap();
    let request = Json(json!({"mode": "ensure"}));
    decision
        .query("select wpp_begin_creation($1, $2, $3, 1000)", &[&database.user, &request, &ME])
        .await
        .unwrap();
    let refused =
        database.sql.batch_execute("set lock_timeout = '100ms'; delete from messenger_integrations").await;
    assert_eq!(refused.unwrap_err().code(), Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE));
}

#[tokio::test]
async fn credentials_that_were_saved_are_not_saved_again_over_what_came_since() {
    let database = Database::start().await;
    let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    database.save(&begun["creation"], ME, "key", "1").await;
    let ended = "(select held_until is null and finished_at is not null from wpp_creations)";
    assert_eq!(database.value(ended, &[]).await, true);
    database
        .run("update messenger_integrations set settings = settings || '{\"wppApiKey\": \"theirs\"}'", &[])
        .await;
    let again = database.save(&begun["creation"], ME, "key", "1").await;
    assert_eq!(
        (&again["outcome"], &again["number"]["settings"]["wppApiKey"]),
        (&json!("saved"), &json!("theirs"))
    );
    // Nor has it another id at the platform from then on.
    let assign = "wpp_assign_platform_id($1, $2, $3)";
    let creation = id(&begun["creation"]);
    assert_eq!(database.value(assign, &[&database.organisation, &creation, &ME]).await, Value::Null);
    database.run("delete from messenger_integrations", &[]).await;
    assert_eq!(database.save(&begun["creation"], ME, "key", "1").await["outcome"], "gone");
}

/// New credentials for a row, under an id at the platform, and what is kept of before.
#[tokio::test]
async fn new_credentials_put_their_row_in_order() {
    let mut database = Database::start().await;
    for (words, platform_id, key, is_noted) in [
        ("off sub fresh", "own", "key", true),
        ("off sub fresh", "new", "key", true),
        ("off fresh", "new", "key 2", false),
        ("off fresh", "own", "key 2", false),
    ] {
        let [number] = database.rows(&[words]).await[..] else { panic!("not one row") };
        let organisation = database.organisation;
        let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
        let platform_id =
            if platform_id == "own" { organisation.to_string() } else { platform_id.to_owned() };
        database.run("update wpp_creations set platform_id = $1", &[&platform_id]).await;
        database
            .run(
                "update wpp_numbers set first_connected_at = now(), webhook_digest = saved_digest,
            webhook_url = 'https://hooks.example', webhook_tried_at = now()",
                &[],
            )
            .await;
        let lease = "insert into wpp_token_leases
            (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
            values ($1, $2, $1, now(), 'api_key_rejected', now() + interval '30 seconds', md5($3))";
        database.run(lease, &[&number, &organisation, &key]).await;
        let saved = database.save(&begun["creation"], ME, key, "1").await;
        assert_eq!(saved["outcome"], "saved", "{saved}");
        let row = "(select jsonb_build_array(i.is_active, i.is_primary, coalesce(i.settings ->> 'wppSubOrgId', i.organization_id::text),
              n.first_connected_at is not null, n.webhook_url, n.webhook_tried_at, l.failure, l.retry_at)
            from messenger_integrations i join wpp_numbers n on n.integration_id = i.id
            join wpp_token_leases l on l.integration_id = i.id)";
        let expected = json!([true, true, platform_id, is_noted, null, null, null, null]);
        assert_eq!(database.value(row, &[]).await, expected, "{words} {platform_id} {key}");
    }
}

/// Leases of numbers that are not ours any more, and whether a key is refused for what they say.
#[tokio::test]
async fn a_key_is_refused_for_a_new_number_where_the_platform_rejected_it_for_a_deleted_one() {
    let mut database = Database::start().await;
    for (failure, key, is_theirs, with_row, outcome) in [
        ("api_key_rejected", "key", false, false, "rejected"),
        ("api_key_rejected", "key", false, true, "saved"),
        ("platform", "key", false, false, "saved"),
        ("api_key_rejected", "key 2", false, false, "saved"),
        ("api_key_rejected", "key", true, false, "saved"),
    ] {
        database.renew().await;
        let neighbour = database.neighbour().await;
        let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
        if with_row {
            database.row(database.organisation, "1", "off").await;
        }
        let lease = "insert into wpp_token_leases
            (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
            values ($1, $2, $1, now(), $3, now(), md5($4))";
        let whose = if is_theirs { neighbour } else { database.organisation };
        database.run(lease, &[&Uuid::from_u128(7), &whose, &failure, &key]).await;
        let saved = database.save(&begun["creation"], ME, "key", "1").await;
        assert_eq!(saved["outcome"], outcome, "{failure} {key} theirs {is_theirs}");
        let rows = "(select count(*) from messenger_integrations where organization_id = $1)";
        let expected = i32::from(outcome == "saved");
        assert_eq!(
            database.value(rows, &[&database.organisation]).await,
            expected,
            "{failure} {key} {with_row}"
        );
    }
}

/// An operator may give a row to another organisation; what we know of it goes along with the next thing that is known.
#[tokio::test]
async fn what_is_known_of_a_number_belongs_to_the_organisation_that_has_it_now() {
    let mut database = Database::start().await;
    let organisation = Uuid::from_u128(6);
    for call in ["claim_webhook", "save_webhook", "claim_refresh", "save_credentials"] {
        let [number] = database.rows(&["primary"]).await[..] else { panic!("not one row") };
        let before = "insert into wpp_numbers (integration_id, organization_id) values ($1, $2)";
        database.run(before, &[&number, &organisation]).await;
        let before = "insert into wpp_token_leases (integration_id, organization_id, holder, held_until) values ($1, $2, $2, now())";
        database.run(before, &[&number, &organisation]).await;
        let table = if call == "claim_refresh" { "wpp_token_leases" } else { "wpp_numbers" };
        let ours = database.organisation;
        match call {
            "claim_webhook" => drop(database.value("wpp_claim_webhook($1, $2, 0)", &[&ours, &number]).await),
            "save_webhook" => {
                let save = "select wpp_save_webhook($1, $2, 'key', '1', null)";
                database.sql.query(save, &[&ours, &number]).await.unwrap();
            }
            "claim_refresh" => {
                drop(database.value("wpp_claim_refresh($1, $2, $3, 1000)", &[&ours, &number, &ME]).await);
            }
            _ => {
                let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
                database.save(&begun["creation"], ME, "key", "1").await;
            }
        }
        let whose = format!("(select organization_id from {table})");
        assert_eq!(id(&database.value(&whose, &[]).await), ours, "{call}");
    }
}

/// Where the mirror has one row for an organisation, it is that of a session that is one of its active numbers.
#[tokio::test]
async fn the_only_row_of_the_mirror_moves_on_from_a_session_that_is_no_active_number() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", ""]).await;
    let neighbour = database.neighbour().await;
    let unique =
        "reset role; alter table whatsapp_sessions add unique (organization_id); set role service_role";
    database.sql.batch_execute(unique).await.unwrap();
    let mirror = "insert into whatsapp_sessions (organization_id, session_name, status, updated_at)
        values ($1, $2, 'connected', '2026-01-01')";
    database.run(mirror, &[&database.organisation, &"wpp_gone"]).await;
    database.run(mirror, &[&neighbour, &"wpp_theirs"]).await;
    let theirs = database.all_of(neighbour).await;
    let save = async |session: &str| {
        let now = database.now().await + 1;
        let mirror =
            database.save_snapshot(database.organisation, session, "qr_issued", now, Some("2@")).await;
        (mirror["status"] == "qr_issued", mirror["qr"] == "2@", !mirror["qr_at_ms"].is_null())
    };
    assert_eq!(save("1").await, (true, true, true), "it moves from a session that is none");
    assert_eq!(save("2").await, (false, false, false), "it stays with an active number");
    assert_eq!(save("1").await, (true, true, true));
    database.run("update messenger_integrations set is_active = false where id = $1", &[&ids[0]]).await;
    assert_eq!(save("2").await, (true, true, true), "it moves from one that is not active");
    assert_eq!(database.all_of(neighbour).await, theirs);
}

#[tokio::test]
async fn a_number_works_when_it_is_active_and_has_a_key_and_a_session() {
    let database = Database::start().await;
    for (is_active, settings, expected) in [
        (Some(true), json!({"wppApiKey": "k", "wppAccountNumber": "1"}), true),
        (Some(false), json!({"wppApiKey": "k", "wppAccountNumber": "1"}), false),
        (None, json!({"wppApiKey": "k", "wppAccountNumber": "1"}), false),
        (Some(true), json!({"wppApiKey": "", "wppAccountNumber": "1"}), false),
        (Some(true), json!({"wppApiKey": 7, "wppAccountNumber": "1"}), false),
        (Some(true), json!({"wppAccountNumber": "1"}), false),
        (Some(true), json!({"wppApiKey": "k", "wppAccountNumber": ""}), false),
        (Some(true), json!({"wppApiKey": "k", "wppAccountNumber": 1}), false),
        (Some(true), json!({"wppApiKey": "k"}), false),
        (Some(true), json!(["wppApiKey", "wppAccountNumber"]), false),
        (Some(true), Value::Null, false),
    ] {
        let works = database.value("wpp_internal.works($1, $2)", &[&is_active, &Json(&settings)]).await;
        assert_eq!(works, expected, "{is_active:?} {settings}");
    }
}
