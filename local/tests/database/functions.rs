//! The SQL functions, asked directly: what each answers, whose rows it touches, and what a wrong clock does to it.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use crate::harness::{Begin, Database, ME, OTHER, id};

/// The states of an organisation, and what each mode comes to.
#[tokio::test]
async fn each_mode_decides_by_what_the_organisation_has() {
    let cases = [
        // state, ensure, add_new, force_recreate, heal
        ("nothing", ["begun first", "begun additional", "begun first", "begun first"]),
        ("begun", ["busy first", "busy first", "busy first", "busy first"]),
        ("unlinked", ["existing", "existing", "begun replacement", "begun replacement"]),
        ("linked", ["existing", "begun additional", "begun replacement", "existing"]),
        ("old key", ["existing", "begun additional", "begun replacement", "begun replacement"]),
        ("no key", ["begun replacement", "begun additional", "begun replacement", "existing"]),
        ("off", ["begun replacement", "begun additional", "begun replacement", "existing"]),
        ("recreated", ["existing", "begun additional", "existing", "existing"]),
        ("recreating", ["existing", "begun additional", "busy replacement", "busy replacement"]),
        ("recreated anew", ["existing", "existing", "existing", "begun replacement"]),
    ];
    let mut database = Database::start().await;
    for (state, expected) in cases {
        let mut outcomes = Vec::new();
        for mode in ["ensure", "add_new", "force_recreate", "heal"] {
            database.renew().await;
            let neighbour = database.neighbour().await;
            let theirs = database.all_of(neighbour).await;
            database.reach(state).await;
            let rejected = match state {
                "old key" => Some("key 0"),
                "recreated anew" => Some("key 2"),
                _ => Some("key"),
            };
            let answer =
                database.begin(Begin { mode, holder: Some(OTHER), rejected, ..Begin::default() }).await;
            let mut outcome = answer["outcome"].as_str().unwrap().to_owned();
            if !answer["creation"].is_null() {
                let creation = "(select to_jsonb(c) from wpp_creations c where id = $1)";
                let creation = database.value(creation, &[&id(&answer["creation"])]).await;
                outcome = format!("{outcome} {}", creation["kind"].as_str().unwrap());
                let own = creation["platform_id"] == json!(database.organisation);
                assert_eq!(own, mode != "add_new" || state == "begun", "{state} {mode}: {creation}");
            }
            outcomes.push(outcome);
            assert_eq!(database.all_of(neighbour).await, theirs, "{state} {mode}");
        }
        assert_eq!(outcomes, expected, "{state}");
    }
}

impl Database {
    async fn reach(&self, state: &str) {
        if state == "nothing" {
            return;
        }
        if state == "begun" {
            self.begin(Begin { mode: "ensure", ..Begin::default() }).await;
            return;
        }
        let first = if state == "old key" { "key 0" } else { "key" };
        let number = self.number("ensure", first, "1").await;
        if state == "unlinked" {
            return;
        }
        self.link("1").await;
        let set = async |change: &str| {
            let change = format!("update messenger_integrations set {change} where id = $1");
            assert_eq!(self.run(&change, &[&number]).await, 1);
        };
        match state {
            "old key" => {
                let begun = self.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
                self.save(&begun["creation"], ME, "key", "1").await;
                set("settings = settings || '{\"wppApiKey\": \"key 0\"}'").await;
                // Long after it was replaced.
                let age = "update wpp_creations set finished_at = now() - interval '1 hour' where organization_id = $1";
                self.run(age, &[&self.organisation]).await;
            }
            "no key" => set("settings = settings - 'wppApiKey'").await,
            "off" => set("is_active = false").await,
            "recreated" | "recreated anew" | "recreating" => {
                let begun = self.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
                let given = match state {
                    "recreated" => ("key", "1"),
                    "recreated anew" => ("key 2", "2"),
                    _ => return,
                };
                self.save(&begun["creation"], ME, given.0, given.1).await;
            }
            _ => assert_eq!(state, "linked"),
        }
    }
}

#[tokio::test]
async fn a_named_number_is_the_one_that_is_meant_and_an_unknown_one_begins_nothing() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let second = database.number("add_new", "key 2", "2").await;
    let named = Begin { mode: "force_recreate", integration: Some(second), ..Begin::default() };
    assert_eq!(id(&database.begin(named).await["number"]["integration_id"]), second);
    let before = database.everything().await;
    for mode in ["ensure", "force_recreate", "heal"] {
        let begin = Begin { mode, integration: Some(Uuid::new_v4()), ..Begin::default() };
        assert_eq!(database.begin(begin).await["outcome"], "unknown", "{mode}");
    }
    assert_eq!(database.everything().await, before);
}

#[tokio::test]
async fn a_creation_is_its_holders_until_its_lease_ends_and_one_of_the_far_future_has_ended() {
    let database = Database::start().await;
    let ensure = |holder| Begin { mode: "ensure", holder: Some(holder), ..Begin::default() };
    let begun = database.begin(ensure(ME)).await;
    assert_eq!(database.begin(ensure(ME)).await["outcome"], "begun", "its holder may repeat itself");
    let busy = database.begin(ensure(OTHER)).await;
    assert_eq!((&busy["outcome"], &busy["creation"]), (&json!("busy"), &begun["creation"]));
    assert!((1..=10_000).contains(&busy["wait_ms"].as_i64().unwrap()), "{busy}");
    let release = "select wpp_release_creation($1, $2, $3)";
    database.sql.query(release, &[&database.organisation, &id(&begun["creation"]), &ME]).await.unwrap();
    assert_eq!(database.begin(ensure(OTHER)).await["outcome"], "begun", "its holder has given up");
    for until in ["now() - interval '1 ms'", "now() + interval '2 minutes'", "'infinity'"] {
        database.run("update wpp_creations set holder = $1", &[&ME]).await;
        database.run(&format!("update wpp_creations set held_until = {until}"), &[]).await;
        assert_eq!(database.begin(ensure(OTHER)).await["outcome"], "begun", "{until}");
    }
}

#[tokio::test]
async fn who_has_waited_for_a_creation_is_answered_with_its_number() {
    let database = Database::start().await;
    let first = database.number("ensure", "key", "1").await;
    database.link("1").await;
    let begun = database.begin(Begin { mode: "add_new", ..Begin::default() }).await;
    let second =
        database.save(&begun["creation"], ME, "key 2", "2").await["number"]["integration_id"].clone();
    let wait = Begin { mode: "add_new", waited_for: Some(id(&begun["creation"])), ..Begin::default() };
    let waited = database.begin(wait).await;
    assert_eq!((&waited["outcome"], &waited["number"]["integration_id"]), (&json!("existing"), &second));
    assert_ne!(id(&second), first);

    // Also where its session, by which the number was named, is another one since.
    let named = || Begin { mode: "force_recreate", session: Some("1"), ..Begin::default() };
    let begun = database.begin(named()).await;
    database.save(&begun["creation"], ME, "key 3", "3").await;
    let waited = database.begin(Begin { waited_for: Some(id(&begun["creation"])), ..named() }).await;
    assert_eq!(waited["number"]["settings"]["wppAccountNumber"], "3", "{waited}");
    assert_eq!(database.begin(named()).await["outcome"], "unknown");
}

#[tokio::test]
async fn what_was_begun_is_kept_for_a_day_and_not_for_a_number_that_is_gone() {
    let database = Database::start().await;
    let click = || Begin { mode: "add_new", key: Some("click"), ..Begin::default() };
    let begun = database.begin(click()).await;
    assert_eq!(database.begin(click()).await["creation"], begun["creation"]);
    for (hours, same) in [(23.9, true), (24.1, false)] {
        for table in ["wpp_creations", "wpp_idempotency_keys"] {
            let age = format!("update {table} set created_at = now() - $1 * interval '1 hour'");
            database.run(&age, &[&hours]).await;
        }
        database.run("update wpp_creations set held_until = null", &[]).await;
        assert_eq!(database.begin(click()).await["creation"] == begun["creation"], same, "{hours} hours");
    }
    let number = database.number("add_new", "key", "1").await;
    database.run("delete from messenger_integrations where id = $1", &[&number]).await;
    database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    let left = "(select count(*) from wpp_numbers where integration_id = $1)";
    assert_eq!(database.value(left, &[&number]).await, 0);
}

#[tokio::test]
async fn credentials_are_saved_by_the_holder_for_its_own_organisation_and_never_into_a_deleted_row() {
    let database = Database::start().await;
    let (foreign, _) = database.organisation().await;
    let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    let creation = &begun["creation"];
    let before = database.everything().await;
    for (organisation, holder) in [(database.organisation, OTHER), (foreign, ME)] {
        let late = database.save_in(organisation, creation, holder, "stolen", "9").await;
        assert_eq!(late["outcome"], "superseded");
    }
    for function in ["wpp_assign_platform_id", "wpp_release_creation"] {
        for (organisation, holder) in [(database.organisation, OTHER), (foreign, ME)] {
            let call = format!("select {function}($1, $2, $3)");
            database.sql.query(&call, &[&organisation, &id(creation), &holder]).await.unwrap();
        }
    }
    assert_eq!(database.everything().await, before);

    let saved = database.save(creation, ME, "key", "1").await;
    assert_eq!(
        (&saved["outcome"], &saved["number"]["settings"]["wppApiKey"]),
        (&json!("saved"), &json!("key"))
    );
    let again = database.save(creation, ME, "key", "1").await;
    assert_eq!(
        again["number"]["integration_id"], saved["number"]["integration_id"],
        "repeating it repeats the answer"
    );

    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.run("delete from messenger_integrations", &[]).await;
    assert_eq!(database.save(&begun["creation"], ME, "key 2", "1").await["outcome"], "gone");
    assert_eq!(database.value("(select count(*) from messenger_integrations)", &[]).await, 0);
}

#[tokio::test]
async fn a_row_that_the_original_made_for_the_same_session_meanwhile_becomes_the_number() {
    let database = Database::start().await;
    let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    let original = "insert into messenger_integrations (organization_id, messenger_type, provider, is_primary, settings)
        values ($1, 'whatsapp', 'wpp', true, '{\"wppApiKey\": \"key\", \"wppAccountNumber\": \"1\", \"theirs\": 1}')";
    database.run(original, &[&database.organisation]).await;
    database.save(&begun["creation"], ME, "key", "1").await;
    let rows = "(select jsonb_agg(settings -> 'theirs') from messenger_integrations)";
    assert_eq!(database.value(rows, &[]).await, json!([1]));
}

#[tokio::test]
async fn new_credentials_take_the_token_of_another_key_with_them_and_nothing_of_others() {
    let mut database = Database::start().await;
    for (key, keeps) in [("key", true), ("key 2", false)] {
        database.renew().await;
        let number = database.number("ensure", "key", "1").await;
        let write = "update messenger_integrations
            set settings = settings || '{\"wppJwtToken\": \"t\", \"wppJwtExpiresAt\": 1, \"theirs\": 1}'";
        database.run(write, &[]).await;
        let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
        database.save(&begun["creation"], ME, key, "1").await;
        let settings = "(select settings from messenger_integrations where id = $1)";
        let settings = database.value(settings, &[&number]).await;
        assert_eq!((settings.get("wppJwtToken").is_some(), &settings["theirs"]), (keeps, &json!(1)), "{key}");
    }
}

#[tokio::test]
async fn a_newer_snapshot_stands_unless_its_clock_is_a_minute_ahead() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let organisation = database.organisation;
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
        database.run(&theirs, &[&organisation]).await;
        let mirror = database.save_snapshot(organisation, "1", "qr_issued", now, Some("2@")).await;
        let expected = if stands { ("disconnected", None) } else { ("qr_issued", Some("2@")) };
        assert_eq!((mirror["status"].as_str().unwrap(), mirror["qr"].as_str()), expected, "{stamp}");
    }
}

#[tokio::test]
async fn since_when_a_qr_is_known_stays_while_it_is_the_same() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let save_snapshot = async |qr| {
        let now = database.now().await + 1;
        database.save_snapshot(database.organisation, "1", "qr_issued", now, Some(qr)).await["qr_at_ms"]
            .clone()
    };
    let first = save_snapshot("2@one").await;
    let past = "update whatsapp_sessions set last_qr_at = last_qr_at - interval '1 second'";
    database.run(past, &[]).await;
    assert_eq!(save_snapshot("2@one").await, json!(first.as_i64().unwrap() - 1000));
    assert!(save_snapshot("2@two").await.as_i64() >= first.as_i64());
}

#[tokio::test]
async fn a_session_of_another_organisation_is_neither_mirrored_nor_looked_up_nor_registered() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    database.link("1").await;
    let (foreign, stranger) = database.organisation().await;
    let before = database.everything().await;
    let now = database.now().await;
    assert_eq!(database.save_snapshot(foreign, "1", "disconnected", now, None).await, Value::Null);
    let claim = "wpp_claim_webhook($1, $2, 0)";
    assert_eq!(database.value(claim, &[&foreign, &number]).await, false);
    let save = "select wpp_save_webhook($1, $2, 'key', '1', 'https://elsewhere.example')";
    database.sql.query(save, &[&foreign, &number]).await.unwrap();
    for find in ["wpp_find_number($1, '1')", "wpp_find_number($1)"] {
        assert_eq!(database.value(find, &[&stranger]).await["number"], Value::Null);
    }
    let by_row = "wpp_find_number($1, null, $2)";
    assert_eq!(database.value(by_row, &[&stranger, &number]).await["number"], Value::Null);
    assert_eq!(database.everything().await, before);
}

#[tokio::test]
async fn a_webhook_is_tried_once_a_minute_and_registered_for_the_credentials_that_it_was_registered_with() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let claim =
        async || database.value("wpp_claim_webhook($1, $2, 60000)", &[&database.organisation, &number]).await;
    assert_eq!((claim().await, claim().await), (json!(true), json!(false)));
    for (tried, may) in [("59 seconds", false), ("61 seconds", true), ("-2 minutes", true)] {
        let age = format!("update wpp_numbers set webhook_tried_at = clock_timestamp() - interval '{tried}'");
        database.run(&age, &[]).await;
        assert_eq!(claim().await, may, "{tried} ago");
    }
    let url =
        async || database.value("wpp_find_number($1) -> 'number' -> 'webhook_url'", &[&database.user]).await;
    assert_eq!(url().await, Value::Null);
    let save = "select wpp_save_webhook($1, $2, 'key', '1', 'https://hooks.example')";
    database.sql.query(save, &[&database.organisation, &number]).await.unwrap();
    assert_eq!(url().await, "https://hooks.example");
    let forget = "select wpp_save_webhook($1, $2, 'key', '1', null)";
    database.sql.query(forget, &[&database.organisation, &number]).await.unwrap();
    assert_eq!(url().await, Value::Null);
    database.sql.query(save, &[&database.organisation, &number]).await.unwrap();
    let recreate = "update messenger_integrations set settings = settings || '{\"wppApiKey\": \"key 2\"}'";
    database.run(recreate, &[]).await;
    assert_eq!(url().await, Value::Null);
}

/// Other rows of the organisation: what they are, and who is primary once a new number is connected.
#[tokio::test]
async fn a_number_that_works_becomes_primary_where_the_primary_does_not_work() {
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
            [&database.organisation, &provider, &active, &enabled, &Json(settings)];
        let other: Uuid = database.sql.query_one(other, &values).await.unwrap().get(0);
        let number = database.number("add_new", "key", "1").await;
        assert_eq!(database.primaries().await, [if keeps { other } else { number }], "{case}, created");
        database.run("update messenger_integrations set is_primary = id = $1", &[&other]).await;
        database.link("1").await;
        assert_eq!(database.primaries().await, [if keeps { other } else { number }], "{case}, connected");
        let find = "wpp_find_number($1, '1') -> 'number' -> 'news_if_connected'";
        assert_eq!(database.value(find, &[&database.user]).await, false, "{case}");
    }
}

#[tokio::test]
async fn a_linked_number_takes_the_place_of_a_primary_that_was_never_linked() {
    let database = Database::start().await;
    let first = database.number("ensure", "key", "1").await;
    let second = database.number("add_new", "key 2", "2").await;
    assert_eq!(database.primaries().await, [first]);
    database.link("2").await;
    assert_eq!(database.primaries().await, [second]);
    database.link("1").await;
    assert_eq!(database.primaries().await, [second]);
}

/// Somebody has locked the rows and does not go on: that costs two seconds, and not a connection for as long as a call takes.
#[tokio::test]
async fn rows_that_somebody_has_locked_are_waited_for_for_two_seconds_or_not_at_all() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    let mut blocker = database.postgres.connect().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    let all = "select from messenger_integrations for update; select from whatsapp_sessions for update";
    lock.batch_execute(all).await.unwrap();
    let (organisation, creation) = (database.organisation, id(&begun["creation"]));
    let attempts = [
        format!("wpp_save_credentials('{organisation}', '{creation}', '{ME}', 'key', '1')"),
        format!("wpp_claim_refresh('{organisation}', '{number}', '{ME}', 8000, 'old')"),
        format!("wpp_save_token('{organisation}', '{number}', '{ME}', 'key', 'new', 1000, 'old')"),
        format!("wpp_release_refresh('{organisation}', '{number}', '{ME}', 'platform', 1000)"),
    ];
    let refused = join_all(attempts.iter().map(async |attempt| {
        let sql = database.postgres.connect().await.unwrap();
        // Longer than the wait for the lock, and shorter than for ever.
        sql.batch_execute("set statement_timeout = '20s'").await.unwrap();
        let error = sql.query_one(&format!("select {attempt}"), &[]).await.unwrap_err();
        error.code().cloned()
    }));
    assert_eq!(refused.await, [(); 4].map(|()| Some(SqlState::LOCK_NOT_AVAILABLE)));
    // What is about to be deleted may be answered with.
    let existing = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    assert_eq!(existing["outcome"], "existing");
    // Making another number primary can wait for the next time.
    database
        .run("update wpp_numbers set first_connected_at = null where integration_id = $1", &[&number])
        .await;
    let mirror =
        database.save_snapshot(database.organisation, "1", "connected", database.now().await, None).await;
    assert_eq!(mirror["status"], "connected");

    lock.commit().await.unwrap();
    let claim = "wpp_claim_refresh($1, $2, $3, 8000, null)";
    let claim = database.value(claim, &[&organisation, &number, &ME]).await;
    assert_eq!(claim["outcome"], "granted");
}

#[tokio::test]
async fn the_mark_goes_to_the_number_that_was_just_seen_and_not_to_one_that_was_linked_long_ago() {
    let database = Database::start().await;
    let original =
        "insert into messenger_integrations (organization_id, messenger_type, provider, created_at, settings)
        values ($1, 'whatsapp', 'wpp', '2026-01-01', '{\"wppApiKey\": \"k\", \"wppAccountNumber\": \"9\"}')";
    let number = database.number("ensure", "key", "1").await;
    database.run("update messenger_integrations set is_primary = false", &[]).await;
    database.run(original, &[&database.organisation]).await;
    database.link("1").await;
    assert_eq!(database.primaries().await, [number]);
}

#[tokio::test]
async fn a_link_that_only_a_sibling_has_seen_counts() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let now = database.now().await;
    database.save_snapshot(database.organisation, "1", "qr_issued", now, Some("2@")).await;
    database.run("update whatsapp_sessions set status = 'connected'", &[]).await;
    let later = database.now().await + 1;
    database.save_snapshot(database.organisation, "1", "disconnected", later, None).await;
    assert_eq!(database.value("wpp_internal.was_linked($1)", &[&number]).await, true);
}

#[tokio::test]
async fn new_credentials_have_their_webhook_still_to_be_registered_also_where_they_are_the_same() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let url =
        async || database.value("wpp_find_number($1) -> 'number' -> 'webhook_url'", &[&database.user]).await;
    let save = "select wpp_save_webhook($1, $2, 'key', '1', 'https://hooks.example')";
    database.sql.query(save, &[&database.organisation, &number]).await.unwrap();
    assert_eq!(url().await, "https://hooks.example");
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.save(&begun["creation"], ME, "key", "1").await;
    assert_eq!(url().await, Value::Null);
}

/// The way out of a dead key that a person has: delete the number, connect again. The platform may give the dead key once more.
#[tokio::test]
async fn a_key_that_was_rejected_for_a_deleted_number_is_not_saved_again_for_a_day() {
    let database = Database::start().await;
    let number = database.number("ensure", "dead", "1").await;
    let lease = "insert into wpp_token_leases (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
        values ($1, $2, $1, now(), 'api_key_rejected', now(), md5('dead'))";
    database.run(lease, &[&number, &database.organisation]).await;
    database.run("delete from messenger_integrations", &[]).await;
    for (hours, outcome) in [(23.9, "rejected"), (24.1, "saved")] {
        let age = "update wpp_token_leases set retry_at = now() - $1 * interval '1 hour'";
        database.run(age, &[&hours]).await;
        let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
        assert_eq!(
            database.save(&begun["creation"], ME, "dead", "1").await["outcome"],
            outcome,
            "{hours} hours"
        );
    }
}

#[tokio::test]
async fn credentials_that_the_original_has_written_since_are_not_healed() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    database.link("1").await;
    let original = "update messenger_integrations set settings = settings || '{\"wppApiKey\": \"theirs\"}'";
    database.run(original, &[]).await;
    let heal = Begin { mode: "heal", rejected: Some("theirs"), ..Begin::default() };
    assert_eq!(database.begin(heal).await["outcome"], "existing");
}

#[tokio::test]
async fn an_empty_row_beside_a_number_gets_an_id_of_its_own() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let empty = "insert into messenger_integrations (organization_id, messenger_type, provider)
        values ($1, 'whatsapp', 'wpp') returning id";
    let empty: Uuid = database.sql.query_one(empty, &[&database.organisation]).await.unwrap().get(0);
    let named = Begin { mode: "ensure", integration: Some(empty), ..Begin::default() };
    let begun = database.begin(named).await;
    assert!(begun["platform_id"].as_str().unwrap().contains("__wpp__"), "{begun}");
}
