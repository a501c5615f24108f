//! The SQL functions about numbers, asked directly: which number is meant, what is known of it, its snapshot, who is primary.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use crate::harness::{Begin, Database, ME, id, place};

#[tokio::test]
async fn active_number_with_credentials_is_usable() {
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
        (Some(true), json!({"wppApiKey": "k", "wppAccountNumber": ".."}), false),
        (Some(true), json!({"wppApiKey": "k", "wppAccountNumber": "a/b"}), false),
        (Some(true), json!({"wppApiKey": "k\u{1}", "wppAccountNumber": "1"}), false),
        (Some(true), json!({"wppApiKey": "k".repeat(513), "wppAccountNumber": "1"}), false),
        (Some(true), json!(r#"{"wppApiKey": "k", "wppAccountNumber": "1"}"#), true),
        (Some(true), json!(["wppApiKey", "wppAccountNumber"]), false),
        (Some(true), json!("wppApiKey"), false),
        (Some(true), Value::Null, false),
    ] {
        let allow = "reset role; alter table messenger_integrations alter is_active drop not null; set role service_role";
        database.sql.batch_execute(allow).await.unwrap();
        let row = database.row(database.organization, "1", "").await;
        let change = "update messenger_integrations set is_active = $2, settings = $3 where id = $1";
        database.run(change, &[&row, &is_active, &Json(&settings)]).await;
        let is_usable = "(select is_usable from wpp_internal.numbers($1) where id = $2)";
        let is_usable = database.value(is_usable, &[&database.organization, &row]).await;
        assert_eq!(is_usable, expected, "{is_active:?} {settings}");
    }
}

#[tokio::test]
async fn usable_then_primary_then_oldest_number_is_chosen() {
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
        database.other_organization().await;
        let choose = "wpp_internal.choose_number($1, null, null, false)";
        let chosen = database.value(choose, &[&database.organization]).await;
        let found =
            database.value("wpp_find_number($1) -> 'number' -> 'integration_id'", &[&database.user]).await;
        assert_eq!((place(&ids, &chosen), place(&ids, &found)), (any, active), "{rows:?}");
    }
}

#[tokio::test]
async fn another_organizations_number_is_not_found() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    database.link("1").await;
    let (foreign, stranger) = database.organization().await;
    let before = database.everything().await;
    let now = database.now().await;
    assert_eq!(database.save_snapshot(foreign, "1", "disconnected", now, None).await, Value::Null);
    let claim = "wpp_claim_webhook($1, $2, 0)";
    assert_eq!(database.value(claim, &[&foreign, &number]).await, false);
    let save = "select wpp_save_webhook($1, $2, '1', 'https://elsewhere.example')";
    database.sql.query(save, &[&foreign, &number]).await.unwrap();
    for find in ["wpp_find_number($1, '1')", "wpp_find_number($1)"] {
        assert_eq!(database.value(find, &[&stranger]).await["number"], Value::Null);
    }
    let by_row = "wpp_find_number($1, null, $2)";
    assert_eq!(database.value(by_row, &[&stranger, &number]).await["number"], Value::Null);
    assert_eq!(database.everything().await, before);
}

/// What a look-up says of a number whose credentials we saved, after these changes.
#[tokio::test]
async fn record_of_another_session_is_ignored() {
    let mut database = Database::start().await;
    let noted = "update wpp_numbers set first_connected_at = now()";
    let other_key = "update messenger_integrations set settings = settings || '{\"wppApiKey\": \"theirs\"}'";
    let other_session =
        "update messenger_integrations set settings = settings || '{\"wppAccountNumber\": \"9\"}'";
    let offline = "update whatsapp_sessions set status = 'disconnected'";
    for (rows, changes, is_saved, is_noted, is_registered, is_news) in [
        (&["fresh"][..], &[][..], true, false, true, true),
        (&["fresh seen primary"], &[], true, false, true, true),
        (&["seen primary"], &[], false, false, false, false),
        (&["fresh seen primary"], &[noted], true, true, true, false),
        (&["fresh seen primary"], &[noted, offline], true, true, true, true),
        (&["fresh seen primary"], &[noted, other_key], true, true, true, false),
        (&["fresh seen primary"], &[noted, other_session], false, false, false, true),
        (&["fresh seen"], &[noted], true, true, true, true),
        (&["fresh seen", "primary"], &[noted], true, true, true, false),
        (&["seen", "fresh primary"], &[], false, false, false, true),
    ] {
        let ids = database.rows(rows).await;
        let register =
            "update wpp_numbers set webhook_url = 'https://hooks.example', webhook_session = session";
        for change in [register].iter().chain(changes) {
            database.run(change, &[]).await;
        }
        let number = "wpp_find_number($1, null, $2) -> 'number'";
        let number = database.value(number, &[&database.user, &ids[0]]).await;
        let known = ["credentials_saved_at_ms", "first_connected_at_ms", "webhook_url"]
            .map(|key| !number[key].is_null());
        let expected = ([is_saved, is_noted, is_registered], json!(is_news));
        assert_eq!((known, number["newly_connected"].clone()), expected, "{rows:?} {changes:?}");
    }
}

#[tokio::test]
async fn number_is_linked_unless_its_record_says_otherwise() {
    let mut database = Database::start().await;
    let theirs = "update messenger_integrations set settings = settings || '{\"wppAccountNumber\": \"9\"}'";
    let given_away = "update wpp_numbers set organization_id = gen_random_uuid(), platform_id = null";
    let scan = "update whatsapp_sessions set status = 'qr_issued'";
    for (words, change, expected) in [
        ("fresh", None, false),
        ("fresh seen", None, true),
        ("fresh seen", Some(scan), false),
        ("fresh", Some("update wpp_numbers set first_connected_at = now()"), true),
        ("fresh", Some("update wpp_numbers set credentials_saved_at = null"), true),
        ("fresh", Some(theirs), true),
        ("fresh", Some("update messenger_integrations set settings = settings - 'wppAccountNumber'"), true),
        ("fresh", Some(given_away), true),
        ("", None, true),
    ] {
        let [number] = database.rows(&[words]).await[..] else { panic!("not one row") };
        if let Some(change) = change {
            database.run(change, &[]).await;
        }
        assert_eq!(database.counts_as_linked(number).await, expected, "{words} {change:?}");
    }
}

#[tokio::test]
async fn snapshot_needs_a_number_of_the_organization() {
    let mut database = Database::start().await;
    database.rows(&["", "telegram", "green_api"]).await;
    let other_organization = database.other_organization().await;
    database.row(other_organization, "7", "").await;
    for session in ["2", "3", "7", "9"] {
        let now = database.now().await;
        let mirror =
            database.save_snapshot(database.organization, session, "qr_issued", now, Some("2@")).await;
        assert_eq!(mirror, Value::Null, "{session}");
    }
    assert_eq!(database.value("(select count(*) from whatsapp_sessions)", &[]).await, 0);
}

/// The name of a session is unique among the snapshots, no matter which function has written its row.
#[tokio::test]
async fn snapshot_of_another_organization_is_not_read() {
    let mut database = Database::start().await;
    let [number] = database.rows(&["fresh"]).await[..] else { panic!("not one row") };
    let other_organization = database.other_organization().await;
    let mirror = "insert into whatsapp_sessions (organization_id, session_name, status, updated_at)
        values ($1, 'wpp_1', 'connected', '2026-01-01')";
    database.run(mirror, &[&other_organization]).await;
    let theirs = database.all_of(other_organization).await;
    assert!(!database.counts_as_linked(number).await);
    let snapshot = "wpp_find_number($1, '1') -> 'number' -> 'snapshot'";
    assert_eq!(database.value(snapshot, &[&database.user]).await, Value::Null);
    assert_eq!(database.all_of(other_organization).await, theirs);
}

/// Two rows that name a session: who may write its snapshot once it was squatted.
#[tokio::test]
async fn another_organizations_snapshot_is_taken_over() {
    let mut database = Database::start().await;
    // The session that we gave to the last row, and whether the snapshot of the first row's session is taken over.
    for (words, given, is_taken) in [
        (&["fresh"][..], "1", true),
        (&[""], "1", false),
        (&["", "fresh"], "2", false),
        (&["", "fresh"], "1", false),
    ] {
        let ids = database.rows(words).await;
        let (squatter, _) = database.organization().await;
        database.run("update wpp_numbers set session = $1", &[&given]).await;
        // What we gave to the row while another organization had it does not count.
        let earlier = "insert into wpp_numbers (integration_id, organization_id, session) values ($1, gen_random_uuid(), '1')";
        database.run(earlier, &[&ids[0]]).await;
        let squat =
            "insert into whatsapp_sessions (organization_id, session_name, status, last_qr_b64, last_qr_at)
            values ($1, 'wpp_1', 'qr_issued', '2@theirs', now())";
        database.run(squat, &[&squatter]).await;
        let now = database.now().await + 1;
        let snapshot =
            database.save_snapshot(database.organization, "1", "qr_issued", now, Some("2@ours")).await;
        assert_eq!(snapshot["qr"], if is_taken { json!("2@ours") } else { Value::Null }, "{words:?}");
        let qr = "(select jsonb_build_array(organization_id, last_qr_b64) from whatsapp_sessions)";
        let expected =
            if is_taken { json!([database.organization, "2@ours"]) } else { json!([squatter, "2@theirs"]) };
        assert_eq!(database.value(qr, &[]).await, expected, "{words:?}");
    }
}

/// The tables of others have constraints of their own.
#[tokio::test]
async fn another_organizations_only_snapshot_is_deleted_or_left() {
    let mut database = Database::start().await;
    for (constraint, status) in [
        ("alter table whatsapp_sessions add constraint one unique (organization_id)", json!("qr_issued")),
        (
            "create table messages (session_name text references whatsapp_sessions (session_name));
             insert into messages values ('wpp_1');
             alter table whatsapp_sessions add constraint theirs check (organization_id <> '00000000-0000-0000-0000-000000000000'),
               add constraint fixed foreign key (organization_id) references organizations (id)",
            json!("qr_issued"),
        ),
    ] {
        let [number] = database.rows(&["fresh"]).await[..] else { panic!("not one row") };
        let (squatter, _) = database.organization().await;
        let squat = "insert into whatsapp_sessions (organization_id, session_name, status) values ($1, $2, 'connected')";
        database.run(squat, &[&squatter, &"wpp_1"]).await;
        database.sql.batch_execute(&format!("reset role; {constraint}; set role service_role")).await.unwrap();
        let now = database.now().await + 1;
        let snapshot =
            database.save_snapshot(database.organization, "1", "qr_issued", now, Some("2@")).await;
        assert_eq!(snapshot["status"], status, "{constraint} {number}");
        database.sql.batch_execute("reset role; drop table if exists messages cascade; set role service_role").await.unwrap();
    }
}

#[tokio::test]
async fn only_the_snapshot_in_the_way_is_deleted() {
    let mut database = Database::start().await;
    database.rows(&["fresh"]).await;
    let (squatter, _) = database.organization().await;
    let one_of_each = "reset role; alter table whatsapp_sessions add unique (organization_id, status); set role service_role";
    database.sql.batch_execute(one_of_each).await.unwrap();
    let rows = "insert into whatsapp_sessions (organization_id, session_name, status)
        values ($1, 'wpp_0', 'disconnected'), ($2, 'wpp_1', 'connected'), ($2, 'wpp_2', 'pairing')";
    database.run(rows, &[&database.organization, &squatter]).await;
    let now = database.now().await + 1;
    database.save_snapshot(database.organization, "1", "qr_issued", now, None).await;
    let theirs = "(select jsonb_agg(session_name) from whatsapp_sessions where organization_id = $1)";
    assert_eq!(database.value(theirs, &[&squatter]).await, json!(["wpp_2"]));
}

#[tokio::test]
async fn unknown_session_gets_no_snapshot() {
    let mut database = Database::start().await;
    database.rows(&["fresh"]).await;
    let lost = "wpp_save_snapshot($1, '1', 'disconnected', $2, null, false)";
    let now = database.now().await + 1;
    assert_eq!(database.value(lost, &[&database.organization, &now]).await, Value::Null);
    database.save_snapshot(database.organization, "1", "connected", now, None).await;
    let later = database.now().await + 1;
    let snapshot = database.value(lost, &[&database.organization, &later]).await;
    assert_eq!(snapshot["status"], "disconnected");
}

#[tokio::test]
async fn long_qr_of_another_function_reads_as_none() {
    let mut database = Database::start().await;
    database.rows(&["fresh seen"]).await;
    for (length, is_read) in [(65_536, true), (65_537, false)] {
        let write = "update whatsapp_sessions set status = 'qr_issued', last_qr_b64 = repeat('2', $1)";
        database.run(write, &[&length]).await;
        let qr = "wpp_find_number($1, '1') -> 'number' -> 'snapshot' -> 'qr'";
        assert_eq!(database.value(qr, &[&database.user]).await.is_string(), is_read, "{length}");
    }
}

#[tokio::test]
async fn long_texts_in_a_row_are_cut() {
    let mut database = Database::start().await;
    database.rows(&["fresh seen"]).await;
    let long = "reset role; alter table whatsapp_sessions drop constraint whatsapp_sessions_status_check; set role service_role;
        update messenger_integrations set name = repeat('x', 1000000); update whatsapp_sessions set status = repeat('x', 1000000)";
    database.sql.batch_execute(long).await.unwrap();
    let number = database.value("wpp_find_number($1, '1') -> 'number'", &[&database.user]).await;
    let length = |text: &Value| text.as_str().unwrap().len();
    assert_eq!((length(&number["name"]), length(&number["snapshot"]["status"])), (200, 64));
}

#[tokio::test]
async fn rows_of_the_same_time_are_ordered_by_id() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", ""]).await;
    let smallest = Uuid::from_u128(1);
    for (id, becomes) in [(ids[0], Uuid::max()), (ids[1], smallest)] {
        let change = "update messenger_integrations set id = $2, created_at = 'epoch' where id = $1";
        database.run(change, &[&id, &becomes]).await;
    }
    let choose = "wpp_internal.choose_number($1, null, null, false)";
    assert_eq!(database.value(choose, &[&database.organization]).await, json!(smallest));
    database.sql.query("select wpp_internal.settle_primary($1)", &[&database.organization]).await.unwrap();
    assert_eq!(database.primaries().await, [smallest]);
}

#[tokio::test]
async fn row_that_was_not_primary_keeps_its_updated_at() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", ""]).await;
    database.run("update messenger_integrations set updated_at = 'epoch'", &[]).await;
    database.sql.query("select wpp_internal.settle_primary($1)", &[&database.organization]).await.unwrap();
    let kept = "(select jsonb_agg(id) from messenger_integrations where updated_at = 'epoch')";
    assert_eq!(
        (database.primaries().await, database.value(kept, &[]).await),
        (vec![ids[0]], json!([ids[1]]))
    );
}

#[tokio::test]
async fn locked_snapshot_is_returned_unchanged() {
    let mut database = Database::start().await;
    database.rows(&["fresh seen"]).await;
    let mut blocker = database.postgres.connect().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("select from whatsapp_sessions for update").await.unwrap();
    database.sql.batch_execute("set statement_timeout = '20s'").await.unwrap();
    let now = database.now().await + 1;
    let snapshot = database.save_snapshot(database.organization, "1", "disconnected", now, None).await;
    assert_eq!(snapshot["status"], "connected");
}

/// Another transaction has locked the records and does not end.
#[tokio::test]
async fn locked_record_is_waited_for_two_seconds_at_most() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    let (organization, user, creation) = (database.organization, database.user, id(&begun["creation"]));
    let mut blocker = database.postgres.connect().await.unwrap();
    for (lock, attempts) in [
        (
            "lock table wpp_creations, wpp_numbers in exclusive mode".to_owned(),
            vec![
                format!("wpp_begin_creation('{user}', '{{}}', '{ME}', 1000)"),
                format!("wpp_release_creation('{organization}', '{creation}', '{ME}')"),
                format!("wpp_claim_webhook('{organization}', '{number}', 1000)"),
                format!("wpp_save_webhook('{organization}', '{number}', '1', null)"),
            ],
        ),
        (
            format!("select wpp_internal.lock_organization('{organization}')"),
            vec![
                format!("wpp_begin_creation('{user}', '{{}}', '{ME}', 1000)"),
                format!("wpp_save_credentials('{organization}', '{creation}', '{ME}', 'key', '1')"),
                format!("wpp_assign_platform_id('{organization}', '{creation}', '{ME}')"),
            ],
        ),
    ] {
        let held = blocker.transaction().await.unwrap();
        held.batch_execute(&lock).await.unwrap();
        let refused = join_all(attempts.iter().map(async |attempt| {
            let sql = database.postgres.connect().await.unwrap();
            sql.batch_execute("set statement_timeout = '20s'").await.unwrap();
            sql.query_one(&format!("select {attempt}"), &[]).await.err()?.code().cloned()
        }));
        assert_eq!(refused.await, vec![Some(SqlState::LOCK_NOT_AVAILABLE); attempts.len()], "{lock}");
        held.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn newer_snapshot_stays_unless_its_clock_is_ahead() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let organization = database.organization;
    let now = database.now().await;
    for (stamp, stands) in [
        ("now() - interval '1 hour'", false),
        ("clock_timestamp() + interval '50 seconds'", true),
        ("clock_timestamp() + interval '70 seconds'", false),
        ("'infinity'", false),
        ("'-infinity'", false),
    ] {
        database.run("delete from whatsapp_sessions", &[]).await;
        let theirs = format!(
            "insert into whatsapp_sessions (organization_id, session_name, status, updated_at)
             values ($1, 'wpp_1', 'disconnected', {stamp})"
        );
        database.run(&theirs, &[&organization]).await;
        let mirror = database.save_snapshot(organization, "1", "qr_issued", now, Some("2@")).await;
        let expected = if stands { ("disconnected", None) } else { ("qr_issued", Some("2@")) };
        assert_eq!((mirror["status"].as_str().unwrap(), mirror["qr"].as_str()), expected, "{stamp}");
    }
}

#[tokio::test]
async fn snapshot_of_another_session_stays() {
    let mut database = Database::start().await;
    database.rows(&["seen", "seen"]).await;
    let now = database.now().await + 1;
    database.save_snapshot(database.organization, "1", "disconnected", now, None).await;
    let statuses = "(select jsonb_agg(status order by session_name) from whatsapp_sessions)";
    assert_eq!(database.value(statuses, &[]).await, json!(["disconnected", "connected"]));
}

#[tokio::test]
async fn equal_qr_keeps_its_time() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let save_snapshot = async |qr| {
        let now = database.now().await + 1;
        database.save_snapshot(database.organization, "1", "qr_issued", now, Some(qr)).await["qr_at_ms"]
            .clone()
    };
    let first = save_snapshot("2@one").await;
    let past = "update whatsapp_sessions set last_qr_at = last_qr_at - interval '1 second'";
    database.run(past, &[]).await;
    assert_eq!(save_snapshot("2@one").await, json!(first.as_i64().unwrap() - 1000));
    assert!(save_snapshot("2@two").await.as_i64() >= first.as_i64());
}

/// If `whatsapp_sessions` has one row for an organization, that row is for a session of one of its active numbers.
#[tokio::test]
async fn only_an_inactive_numbers_snapshot_is_reused() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", ""]).await;
    let other_organization = database.other_organization().await;
    let unique =
        "reset role; alter table whatsapp_sessions add unique (organization_id); set role service_role";
    database.sql.batch_execute(unique).await.unwrap();
    let mirror = "insert into whatsapp_sessions (organization_id, session_name, status, updated_at)
        values ($1, $2, 'connected', '2026-01-01')";
    database.run(mirror, &[&database.organization, &"wpp_gone"]).await;
    database.run(mirror, &[&other_organization, &"wpp_theirs"]).await;
    let theirs = database.all_of(other_organization).await;
    let save = async |session: &str| {
        let now = database.now().await + 1;
        let mirror =
            database.save_snapshot(database.organization, session, "qr_issued", now, Some("2@")).await;
        (mirror["status"] == "qr_issued", mirror["qr"] == "2@", !mirror["qr_at_ms"].is_null())
    };
    assert_eq!(save("1").await, (true, true, true), "it moves from a session that is none");
    assert_eq!(save("2").await, (false, false, false), "it stays with an active number");
    assert_eq!(save("1").await, (true, true, true));
    database.run("update messenger_integrations set is_active = false where id = $1", &[&ids[0]]).await;
    assert_eq!(save("2").await, (true, true, true), "it moves from one that is not active");
    assert_eq!(database.all_of(other_organization).await, theirs);
}

/// An observed state is noted for that number alone, for its present credentials, and once. Only a phone that is connected now makes the
/// number primary.
#[tokio::test]
async fn first_connection_is_saved_once() {
    let mut database = Database::start().await;
    let ids = database.rows(&["fresh", "fresh", ""]).await;
    let other_organization = database.other_organization().await;
    let theirs = database.all_of(other_organization).await;
    database
        .run(
            "insert into wpp_numbers (integration_id, organization_id, session) values ($1, $2, 'x')",
            &[&ids[2], &database.organization],
        )
        .await;
    let noted = async || {
        let noted = "(select jsonb_agg(integration_id) from wpp_numbers where first_connected_at is not null and organization_id = $1)";
        let noted = database.value(noted, &[&database.organization]).await;
        noted.as_array().map(|rows| rows.iter().map(|row| place(&ids, row).unwrap()).collect::<Vec<_>>())
    };
    database.save_snapshot(database.organization, "1", "disconnected", database.now().await, None).await;
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
            &[&database.organization],
        )
        .await;
    let later = database.now().await + 1;
    database.save_snapshot(database.organization, "1", "disconnected", later, None).await;
    let old = "(select count(*) from wpp_numbers where first_connected_at = '2026-01-01')";
    assert_eq!((database.value(old, &[]).await, database.primaries().await), (json!(1), vec![]));
    assert_eq!(database.all_of(other_organization).await, theirs);
}

#[tokio::test]
async fn connection_that_another_function_saved_counts() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let now = database.now().await;
    database.save_snapshot(database.organization, "1", "qr_issued", now, Some("2@")).await;
    database.run("update whatsapp_sessions set status = 'connected'", &[]).await;
    let later = database.now().await + 1;
    database.save_snapshot(database.organization, "1", "disconnected", later, None).await;
    assert!(database.counts_as_linked(number).await);
}

/// The rows, the session that was just seen connected, and who is primary then.
#[tokio::test]
async fn best_number_becomes_primary_if_none_is_usable() {
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
        (&["off primary"], None, &[0]),
        (&["", "green_api primary"], None, &[1]),
        (&["", "green_api primary off"], None, &[0]),
        (&["", "green_api primary disabled"], None, &[0]),
        (&["primary disabled", ""], None, &[0]),
        (&["telegram primary", ""], None, &[0, 1]),
        (&["telegram green_api primary", ""], None, &[0, 1]),
        (&["telegram", "green_api"], None, &[]),
        (&["green_api", ""], None, &[1]),
    ] {
        let ids = database.rows(rows).await;
        let other_organization = database.other_organization().await;
        let theirs = database.all_of(other_organization).await;
        let settle = "select wpp_internal.settle_primary($1, $2)";
        database.sql.query(settle, &[&database.organization, &session]).await.unwrap();
        let mut primaries: Vec<_> = database
            .primaries()
            .await
            .iter()
            .map(|id| ids.iter().position(|known| known == id).unwrap())
            .collect();
        primaries.sort_unstable();
        assert_eq!(primaries, expected, "{rows:?} {session:?}");
        assert_eq!(database.all_of(other_organization).await, theirs, "{rows:?} {session:?}");
    }
}

/// Other rows of the organization: what they are, and who is primary once a new number is connected.
#[tokio::test]
async fn number_replaces_an_unusable_primary_number() {
    let rows = [
        // provider, active, enabled, credentials; whether it stays primary
        ("wpp", true, true, true, true),
        ("wpp", true, false, true, true),
        ("wpp", false, true, true, false),
        ("wpp", true, true, false, false),
        ("green_api", true, true, false, true),
        ("green_api", false, true, false, false),
        ("green_api", true, false, false, false),
    ];
    let mut database = Database::start().await;
    for (provider, active, enabled, credentials, keeps) in rows {
        database.renew().await;
        let case = format!("{provider}, active {active}, enabled {enabled}, credentials {credentials}");
        let other = "insert into messenger_integrations
            (organization_id, messenger_type, provider, is_active, is_enabled, is_primary, settings)
            values ($1, 'whatsapp', $2, $3, $4, true, $5) returning id";
        let settings =
            if credentials { json!({"wppApiKey": "k", "wppAccountNumber": "9"}) } else { json!({}) };
        let values: [&(dyn ToSql + Sync); 5] =
            [&database.organization, &provider, &active, &enabled, &Json(settings)];
        let other: Uuid = database.sql.query_one(other, &values).await.unwrap().get(0);
        let number = database.number("add_new", "key", "1").await;
        assert_eq!(database.primaries().await, [if keeps { other } else { number }], "{case}, created");
        database.run("update messenger_integrations set is_primary = id = $1", &[&other]).await;
        database.link("1").await;
        assert_eq!(database.primaries().await, [if keeps { other } else { number }], "{case}, connected");
        let find = "wpp_find_number($1, '1') -> 'number' -> 'newly_connected'";
        assert_eq!(database.value(find, &[&database.user]).await, false, "{case}");
    }
}

#[tokio::test]
async fn linked_number_replaces_a_primary_never_linked() {
    let database = Database::start().await;
    let first = database.number("ensure", "key", "1").await;
    let second = database.number("add_new", "key 2", "2").await;
    assert_eq!(database.primaries().await, [first]);
    database.link("2").await;
    assert_eq!(database.primaries().await, [second]);
    database.link("1").await;
    assert_eq!(database.primaries().await, [second]);
}

#[tokio::test]
async fn number_just_seen_becomes_primary() {
    let database = Database::start().await;
    let original =
        "insert into messenger_integrations (organization_id, messenger_type, provider, created_at, settings)
        values ($1, 'whatsapp', 'wpp', '2026-01-01', '{\"wppApiKey\": \"k\", \"wppAccountNumber\": \"9\"}')";
    let number = database.number("ensure", "key", "1").await;
    database.run("update messenger_integrations set is_primary = false", &[]).await;
    database.run(original, &[&database.organization]).await;
    database.link("1").await;
    assert_eq!(database.primaries().await, [number]);
}

/// A row of another table's making may have no such column.
#[tokio::test]
async fn missing_is_enabled_counts_as_enabled() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", "green_api primary"]).await;
    let theirs = "reset role; alter table messenger_integrations drop is_enabled; set role service_role";
    database.sql.batch_execute(theirs).await.unwrap();
    database.sql.query("select wpp_internal.settle_primary($1)", &[&database.organization]).await.unwrap();
    assert_eq!(database.primaries().await, [ids[1]]);
}

/// Rows that the owner's own constraint keeps from being primary, or that another transaction has locked, delay no request.
#[tokio::test]
async fn locked_row_does_not_become_primary() {
    let mut database = Database::start().await;
    let [number] = database.rows(&[""]).await[..] else { panic!("not one row") };
    let mut blocker = database.postgres.connect().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("select from messenger_integrations for update").await.unwrap();
    database.sql.batch_execute("set statement_timeout = '20s'").await.unwrap();
    database.sql.query("select wpp_internal.settle_primary($1)", &[&database.organization]).await.unwrap();
    database.link("1").await;
    assert!(database.primaries().await.is_empty());
    lock.commit().await.unwrap();
    database.link("1").await;
    assert_eq!(database.primaries().await, [number]);
}

#[tokio::test]
async fn webhook_is_tried_once_a_minute() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    database.number("add_new", "key 2", "2").await;
    let claim =
        async || database.value("wpp_claim_webhook($1, $2, 60000)", &[&database.organization, &number]).await;
    assert_eq!((claim().await, claim().await), (json!(true), json!(false)));
    for (tried, may) in [("59 seconds", false), ("61 seconds", true), ("-2 minutes", true)] {
        let age = format!("update wpp_numbers set webhook_tried_at = clock_timestamp() - interval '{tried}'");
        database.run(&age, &[]).await;
        assert_eq!(claim().await, may, "{tried} ago");
    }
    // Only this number's counts.
    database.run("update wpp_numbers set webhook_tried_at = null", &[]).await;
    assert_eq!(claim().await, true);
    let save = "select wpp_save_webhook($1, $2, '1', 'https://hooks.example')";
    database.sql.query(save, &[&database.organization, &number]).await.unwrap();
    let tried = "(select jsonb_agg(integration_id) from wpp_numbers where webhook_tried_at is not null or webhook_url is not null)";
    assert_eq!(database.value(tried, &[]).await, json!([number]));
}

#[tokio::test]
async fn webhook_is_known_for_the_session_it_was_registered_for() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let url = async || {
        database
            .value("wpp_find_number($1, null, $2) -> 'number' -> 'webhook_url'", &[&database.user, &number])
            .await
    };
    assert_eq!(url().await, Value::Null);
    let save = async |url: Option<&str>| {
        let save = "select wpp_save_webhook($1, $2, '1', $3)";
        database.sql.query(save, &[&database.organization, &number, &url]).await.unwrap();
    };
    save(Some("https://hooks.example")).await;
    assert_eq!(url().await, "https://hooks.example");
    save(None).await;
    assert_eq!(url().await, Value::Null);
    save(Some("https://hooks.example")).await;
    let other = "update messenger_integrations set settings = settings || '{\"wppAccountNumber\": \"2\"}'";
    database.run(other, &[]).await;
    assert_eq!(url().await, Value::Null);
}

/// Another transaction has locked the rows and does not end. That costs two seconds, but does not keep a connection for the time of a
/// whole call.
#[tokio::test]
async fn locked_row_is_waited_for_two_seconds_at_most() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    let mut blocker = database.postgres.connect().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    let all = "select from messenger_integrations for update; select from whatsapp_sessions for update";
    lock.batch_execute(all).await.unwrap();
    let (organization, creation) = (database.organization, id(&begun["creation"]));
    let attempts = [
        format!("wpp_save_credentials('{organization}', '{creation}', '{ME}', 'key', '1')"),
        format!("wpp_claim_refresh('{organization}', '{number}', '{ME}', 8000, 'old')"),
        format!("wpp_save_token('{organization}', '{number}', '{ME}', 'key', 'new', 1000, 'old')"),
        format!("wpp_release_refresh('{organization}', '{number}', '{ME}', 'platform', 1000)"),
    ];
    let refused = join_all(attempts.iter().map(async |attempt| {
        let sql = database.postgres.connect().await.unwrap();
        // Longer than the wait for the lock, and shorter than for ever.
        sql.batch_execute("set statement_timeout = '20s'").await.unwrap();
        let error = sql.query_one(&format!("select {attempt}"), &[]).await.unwrap_err();
        error.code().cloned()
    }));
    assert_eq!(refused.await, [(); 4].map(|()| Some(SqlState::LOCK_NOT_AVAILABLE)));
    // A number that is about to be deleted may be the answer.
    database.run("delete from wpp_creations", &[]).await;
    let existing = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    assert_eq!(existing["outcome"], "existing");
    // Making another number primary can wait for the next time.
    database
        .run("update wpp_numbers set first_connected_at = null where integration_id = $1", &[&number])
        .await;
    let mirror =
        database.save_snapshot(database.organization, "1", "connected", database.now().await, None).await;
    assert_eq!(mirror["status"], "connected");

    lock.commit().await.unwrap();
    let claim = "wpp_claim_refresh($1, $2, $3, 8000, null)";
    let claim = database.value(claim, &[&organization, &number, &ME]).await;
    assert_eq!(claim["outcome"], "granted");
}

/// An operator may give a row to another organization, which asks the platform with an id of its own.
#[tokio::test]
async fn number_given_to_another_organization_starts_over() {
    let mut database = Database::start().await;
    let [number] = database.rows(&["fresh sub"]).await[..] else { panic!("not one row") };
    let (ours, user) = database.organization().await;
    (database.organization, database.user) = (ours, user);
    database.run("update messenger_integrations set organization_id = $1", &[&ours]).await;
    let find = "wpp_find_number($1) -> 'number' -> 'credentials_saved_at_ms'";
    assert_eq!(database.value(find, &[&user]).await, Value::Null);
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    assert_eq!(begun["platform_id"], json!(ours), "{begun}");
    assert_eq!(database.save(&begun["creation"], ME, "key", "1").await["outcome"], "saved");
    assert_eq!(database.value("wpp_claim_webhook($1, $2, 0)", &[&ours, &number]).await, true);
    let claim = "wpp_claim_refresh($1, $2, $3, 1000)";
    assert_eq!(database.value(claim, &[&ours, &number, &ME]).await["outcome"], "granted");
}

/// Another writer may stringify twice. Each value is up to its tenant.
#[tokio::test]
async fn settings_are_read_within_bounds() {
    let mut database = Database::start().await;
    let [number] = database.rows(&["fresh"]).await[..] else { panic!("not one row") };
    let whole =
        json!({"wppApiKey": " key\n", "wppAccountNumber": "1", "wppJwtToken": "t", "wppJwtExpiresAt": 7});
    let read = json!({"wppApiKey": "key", "wppAccountNumber": "1", "wppJwtToken": "t", "wppJwtExpiresAt": 7});
    for (settings, is_readable, expected, ignored) in [
        (whole.clone(), true, read.clone(), json!([])),
        (json!(whole.to_string()), true, read, json!([])),
        (json!(null), true, json!({}), json!([])),
        (json!([1]), false, json!({}), json!([])),
        (json!("x"), false, json!({}), json!([])),
        (json!("[]"), false, json!({}), json!([])),
        (json!(7), false, json!({}), json!([])),
        (json!({"wppApiKey": 7, "wppJwtToken": ""}), true, json!({}), json!(["wppApiKey"])),
        (json!({"wppApiKey": "k\u{0001}x"}), true, json!({}), json!(["wppApiKey"])),
        (json!({"wppApiKey": "k".repeat(512)}), true, json!({"wppApiKey": "k".repeat(512)}), json!([])),
        (json!({"wppApiKey": "k".repeat(513)}), true, json!({}), json!(["wppApiKey"])),
        (
            json!({"wppAccountNumber": "9".repeat(128)}),
            true,
            json!({"wppAccountNumber": "9".repeat(128)}),
            json!([]),
        ),
        (json!({"wppAccountNumber": "9".repeat(129)}), true, json!({}), json!(["wppAccountNumber"])),
        (json!({"wppAccountNumber": "1/../2"}), true, json!({}), json!(["wppAccountNumber"])),
        (json!({"wppJwtToken": "t".repeat(8193)}), true, json!({}), json!(["wppJwtToken"])),
        (json!({"wppJwtToken": "t".repeat(8192)}), true, json!({"wppJwtToken": "t".repeat(8192)}), json!([])),
        (json!({"wppJwtExpiresAt": {"a": "b"}}), true, json!({}), json!([])),
        (json!({"wppJwtExpiresAt": "17"}), true, json!({"wppJwtExpiresAt": "17"}), json!([])),
        (
            json!({"wppJwtExpiresAt": "1".repeat(32)}),
            true,
            json!({"wppJwtExpiresAt": "1".repeat(32)}),
            json!([]),
        ),
        (json!({"wppJwtExpiresAt": "1".repeat(33)}), true, json!({}), json!([])),
    ] {
        database.run("update messenger_integrations set settings = $1", &[&Json(&settings)]).await;
        let found = "wpp_find_number($1, null, $2) -> 'number'";
        let found = database.value(found, &[&database.user, &number]).await;
        let seen = (&found["is_readable"], &found["settings"], &found["ignored"]);
        assert_eq!(seen, (&json!(is_readable), &expected, &ignored), "{settings}");
    }
}

/// A helper that is called although it could be inlined costs each look-up some microseconds.
#[tokio::test]
async fn single_expression_helpers_are_inlined() {
    let database = Database::start().await;
    let helpers = "select p.proname::text, p.proargtypes::regtype[]::text[] from pg_proc p
        where p.pronamespace = 'wpp_internal'::regnamespace and p.prosqlbody is not null and p.provolatile <> 'v'";
    let helpers = database.sql.query(helpers, &[]).await.unwrap();
    assert!(helpers.len() > 8, "{}", helpers.len());
    for helper in helpers {
        let (name, types): (String, Vec<String>) = (helper.get(0), helper.get(1));
        // A column of each type, so that nothing is worked out before the plan is made.
        let column = |kind: &String| match kind.as_str() {
            "jsonb" => "i.settings".to_owned(),
            "timestamp with time zone" => "i.created_at".to_owned(),
            "uuid" => "i.organization_id".to_owned(),
            "text" => "i.name".to_owned(),
            "integer" => "i.priority".to_owned(),
            "boolean" => "i.is_active".to_owned(),
            other => panic!("{name} takes {other}"),
        };
        let arguments: Vec<_> = types.iter().map(column).collect();
        let explain = format!(
            "explain (verbose, costs off) select wpp_internal.{name}({}) from messenger_integrations i",
            arguments.join(", ")
        );
        let plan = database.sql.query(&explain, &[]).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|line| line.get(0)).collect();
        assert!(!plan.concat().contains(&format!("wpp_internal.{name}(")), "{plan:#?}");
    }
}
