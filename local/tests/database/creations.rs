//! The SQL functions of a creation, asked directly: who begins or joins one, with which platform id, and what is saved.

use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::harness::{Begin, Database, ME, OTHER, id, place, sub_id};

/// The states of an organization, and the outcome for each mode.
#[tokio::test]
async fn mode_and_existing_numbers_decide_the_outcome() {
    let cases = [
        // state, ensure, add_new, force_recreate, repair
        ("nothing", ["begun first", "begun additional", "begun first", "begun first"]),
        ("begun", ["busy first", "busy first", "busy first", "busy first"]),
        ("unlinked", ["existing", "existing", "begun replace", "begun repair"]),
        ("linked", ["existing", "begun additional", "begun replace", "begun repair"]),
        ("other key", ["existing", "begun additional", "begun replace", "existing"]),
        ("no key", ["begun replace", "begun additional", "begun replace", "existing"]),
        ("off", ["begun replace", "begun additional", "begun replace", "existing"]),
        ("recreating", ["busy replace", "begun additional", "busy replace", "busy replace"]),
        ("recreated", ["existing", "begun additional", "begun replace", "begun repair"]),
        ("repairing", ["existing", "begun additional", "busy repair", "busy repair"]),
        ("unreadable", ["unreadable", "begun additional", "unreadable", "unreadable"]),
    ];
    let mut database = Database::start().await;
    for (state, expected) in cases {
        let mut outcomes = Vec::new();
        for mode in ["ensure", "add_new", "force_recreate", "repair"] {
            database.renew().await;
            let other_organization = database.other_organization().await;
            let theirs = database.all_of(other_organization).await;
            database.reach(state).await;
            let begin = Begin { mode, holder: Some(OTHER), rejected_key: Some("key"), ..Begin::default() };
            let answer = database.begin(begin).await;
            let mut outcome = answer["outcome"].as_str().unwrap().to_owned();
            if !answer["creation"].is_null() {
                let creation = "(select to_jsonb(c) from wpp_creations c where id = $1)";
                let creation = database.value(creation, &[&id(&answer["creation"])]).await;
                outcome = format!("{outcome} {}", creation["kind"].as_str().unwrap());
                let own = creation["platform_id"] == json!(database.organization);
                assert_eq!(own, mode != "add_new" || state == "begun", "{state} {mode}: {creation}");
            }
            outcomes.push(outcome);
            assert_eq!(database.all_of(other_organization).await, theirs, "{state} {mode}");
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
        let number = self.number("ensure", "key", "1").await;
        if state == "unlinked" {
            return;
        }
        self.link("1").await;
        let set = async |change: &str| {
            let change = format!("update messenger_integrations set {change} where id = $1");
            assert_eq!(self.run(&change, &[&number]).await, 1);
        };
        match state {
            "other key" => set("settings = settings || '{\"wppApiKey\": \"key 0\"}'").await,
            "no key" => set("settings = settings - 'wppApiKey'").await,
            "off" => set("is_active = false").await,
            "unreadable" => set("settings = '[1]'").await,
            "recreated" | "recreating" => {
                let begun = self.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
                if state == "recreated" {
                    self.save(&begun["creation"], ME, "key", "1").await;
                }
            }
            "repairing" => {
                self.begin(Begin { mode: "repair", rejected_key: Some("key"), ..Begin::default() }).await;
            }
            _ => assert_eq!(state, "linked"),
        }
    }
}

#[tokio::test]
async fn unknown_number_starts_no_creation() {
    let database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let second = database.number("add_new", "key 2", "2").await;
    let named = Begin { mode: "force_recreate", integration: Some(second), ..Begin::default() };
    assert_eq!(id(&database.begin(named).await["number"]["integration_id"]), second);
    let before = database.everything().await;
    for mode in ["ensure", "force_recreate", "repair"] {
        let begin = Begin { mode, integration: Some(Uuid::new_v4()), ..Begin::default() };
        assert_eq!(database.begin(begin).await["outcome"], "unknown", "{mode}");
    }
    assert_eq!(database.everything().await, before);
}

#[tokio::test]
async fn add_new_uses_a_recent_number_never_linked() {
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
        database.other_organization().await;
        let add = Begin { mode: "add_new", ..Begin::default() };
        let begun = database.begin(add).await;
        assert_eq!(place(&ids, &begun["number"]["integration_id"]), expected, "{rows:?}: {begun}");
        let outcome = if expected.is_some() { "existing" } else { "begun" };
        assert_eq!(begun["outcome"], outcome, "{rows:?}");
    }
}

#[tokio::test]
async fn creation_is_busy_until_its_lease_ends() {
    let database = Database::start().await;
    let ensure = |holder| Begin { mode: "ensure", holder: Some(holder), ..Begin::default() };
    let begun = database.begin(ensure(ME)).await;
    assert_eq!((&begun["number"], &begun["is_usable"]), (&Value::Null, &json!(false)));
    assert_eq!(database.begin(ensure(ME)).await["outcome"], "begun", "its holder may repeat itself");
    let busy = database.begin(ensure(OTHER)).await;
    assert_eq!((&busy["outcome"], &busy["creation"]), (&json!("busy"), &begun["creation"]));
    assert!((1..=10_000).contains(&busy["wait_ms"].as_i64().unwrap()), "{busy}");
    let release = "select wpp_release_creation($1, $2, $3)";
    database.sql.query(release, &[&database.organization, &id(&begun["creation"]), &ME]).await.unwrap();
    assert_eq!(database.begin(ensure(OTHER)).await["outcome"], "begun", "its holder has given up");
    for until in ["now() - interval '1 ms'", "now() + interval '2 minutes'", "'infinity'"] {
        database.run("update wpp_creations set holder = $1", &[&ME]).await;
        database.run(&format!("update wpp_creations set held_until = {until}"), &[]).await;
        assert_eq!(database.begin(ensure(OTHER)).await["outcome"], "begun", "{until}");
    }
}

#[tokio::test]
async fn release_ends_one_lease_of_its_holder() {
    let database = Database::start().await;
    let begin = async |mode| database.begin(Begin { mode, ..Begin::default() }).await["creation"].clone();
    let (released, held) = (begin("add_new").await, begin("ensure").await);
    let release = "select wpp_release_creation($1, $2, $3)";
    database.sql.query(release, &[&database.organization, &id(&released), &ME]).await.unwrap();
    let leases = "(select jsonb_agg(id) from wpp_creations where held_until is not null)";
    assert_eq!(database.value(leases, &[]).await, json!([held]));
}

#[tokio::test]
async fn waiting_attempt_gets_the_creations_number() {
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

    // Not for another organization.
    let (organization, user) = database.organization().await;
    let ask = "wpp_begin_creation($1, '{\"mode\": \"ensure\"}', $2, 1000, $3)";
    let foreign = database.value(ask, &[&user, &OTHER, &id(&begun["creation"])]).await;
    assert_eq!((&foreign["outcome"], &foreign["organization_id"]), (&json!("begun"), &json!(organization)));

    // It holds as well if the number's session, by which it was named, has changed since.
    let named = || Begin { mode: "force_recreate", session: Some("1"), ..Begin::default() };
    let begun = database.begin(named()).await;
    database.save(&begun["creation"], ME, "key 3", "3").await;
    let waited = database.begin(Begin { waited_for: Some(id(&begun["creation"])), ..named() }).await;
    assert_eq!(waited["number"]["settings"]["wppAccountNumber"], "3", "{waited}");
    assert_eq!(database.begin(named()).await["outcome"], "unknown");
}

#[tokio::test]
async fn waiting_attempt_keeps_waiting_for_its_creation() {
    let mut database = Database::start().await;
    database.renew().await;
    let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    let newer = "insert into wpp_creations (organization_id, kind, platform_id, created_at)
        values ($1, 'additional', $1::uuid::text, now() + interval '1 second')";
    database.run(newer, &[&database.organization]).await;
    let waited_for = Some(id(&begun["creation"]));
    let wait = Begin { mode: "add_new", holder: Some(OTHER), waited_for, ..Begin::default() };
    let busy = database.begin(wait).await;
    assert_eq!((&busy["outcome"], &busy["creation"]), (&json!("busy"), &begun["creation"]));
}

/// What was begun for a number without a row, which request comes, and whether it continues that.
#[tokio::test]
async fn unfinished_new_number_is_joined() {
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
async fn latest_unfinished_creation_is_joined() {
    let database = Database::start().await;
    let begin = async |mode| database.begin(Begin { mode, ..Begin::default() }).await["creation"].clone();
    let (additional, first) = (begin("add_new").await, begin("ensure").await);
    assert_ne!(additional, first);
    assert_eq!(begin("add_new").await, first);
    database.run("update wpp_creations set created_at = 'epoch' where kind = 'first'", &[]).await;
    assert_eq!(begin("add_new").await, additional);
}

#[tokio::test]
async fn user_without_an_organization_starts_no_creation() {
    let mut database = Database::start().await;
    let before = database.everything().await;
    database.user = Uuid::new_v4();
    assert_eq!(database.begin(Begin::default()).await["outcome"], "no_organization", "no profile");
    database.run("insert into profiles (id) values ($1)", &[&database.user]).await;
    assert_eq!(database.begin(Begin::default()).await["outcome"], "no_organization", "no organization");
    assert_eq!(database.everything().await, before);
}

/// An unfinished creation of a number, who comes, and whether it is joined.
#[tokio::test]
async fn unfinished_creation_of_a_number_is_joined() {
    let mut database = Database::start().await;
    for (words, begun, asked, kind) in [
        ("fresh seen", "force_recreate", "ensure", Some("replace")),
        ("fresh", "force_recreate", "add_new", Some("replace")),
        ("fresh seen", "force_recreate", "add_new", None),
        ("fresh", "force_recreate", "repair", Some("replace")),
        ("fresh", "repair", "repair", Some("repair")),
        ("fresh", "repair", "force_recreate", Some("replace")),
        ("fresh", "repair", "ensure", None),
        ("fresh empty", "ensure", "ensure", Some("replace")),
    ] {
        database.rows(&[words, "seen sub"]).await;
        let begin = |mode| {
            let session = (mode != "add_new").then_some("1");
            Begin { mode, session, rejected_key: Some("key"), ..Begin::default() }
        };
        let first = database.begin(begin(begun)).await;
        let other = Begin { session: Some("2"), ..begin("force_recreate") };
        assert_ne!(database.begin(other).await["creation"], first["creation"], "another number's");
        let second = database.begin(begin(asked)).await;
        assert_eq!(first["creation"] == second["creation"], kind.is_some(), "{begun}, then {asked}");
        if let Some(kind) = kind {
            let now = "(select kind from wpp_creations where id = $1)";
            assert_eq!(database.value(now, &[&id(&first["creation"])]).await, kind, "{begun}, then {asked}");
        }
    }
}

/// What the platform gives for a refused key, what the number is, and whether its row gets that.
#[tokio::test]
async fn repair_saves_only_what_cannot_lose_a_link() {
    let mut database = Database::start().await;
    let linked = "update wpp_numbers set first_connected_at = now()";
    let written_back = "update wpp_numbers set session = 'ours', first_connected_at = now()";
    for (words, change, session, outcome) in [
        ("fresh", None, "1", "saved"),
        ("fresh", None, "new", "saved"),
        ("fresh", Some(linked), "1", "saved"),
        ("fresh", Some(linked), "new", "kept"),
        ("fresh seen", None, "new", "kept"),
        ("fresh", Some(written_back), "ours", "saved"),
        ("fresh", Some(written_back), "1", "saved"),
        ("fresh", Some(written_back), "new", "kept"),
        ("", None, "1", "saved"),
        ("", None, "new", "kept"),
    ] {
        database.rows(&[words]).await;
        if let Some(change) = change {
            database.run(change, &[]).await;
        }
        let repair = Begin { mode: "repair", rejected_key: Some("key"), ..Begin::default() };
        let begun = database.begin(repair).await;
        let settings = "(select settings from messenger_integrations)";
        let before = database.value(settings, &[]).await;
        let saved = database.save(&begun["creation"], ME, "key 2", session).await;
        assert_eq!(saved["outcome"], outcome, "{words} {change:?} {session}");
        let is_unchanged = database.value(settings, &[]).await == before;
        assert_eq!(is_unchanged, outcome == "kept", "{words} {change:?} {session}");
        let finished = "(select finished_at is not null from wpp_creations)";
        assert_eq!(database.value(finished, &[]).await, true);
    }
}

/// The platform gave the session for another number, or for this one while another organization had it.
#[tokio::test]
async fn another_numbers_session_is_not_saved_by_a_repair() {
    let mut database = Database::start().await;
    let ids = database.rows(&["", "off"]).await;
    let given = "insert into wpp_numbers (integration_id, organization_id, session)
        values ($1, $3, 'new'), ($2, gen_random_uuid(), 'new')";
    database.run(given, &[&ids[1], &ids[0], &database.organization]).await;
    let begun = database.begin(Begin { mode: "repair", rejected_key: Some("key"), ..Begin::default() }).await;
    assert_eq!(database.save(&begun["creation"], ME, "key 2", "new").await["outcome"], "kept");
}

#[tokio::test]
async fn number_that_lost_its_session_is_not_repaired() {
    let mut database = Database::start().await;
    database.rows(&[""]).await;
    let begun = database.begin(Begin { mode: "repair", rejected_key: Some("key"), ..Begin::default() }).await;
    database.run("update messenger_integrations set settings = settings - 'wppAccountNumber'", &[]).await;
    assert_eq!(database.save(&begun["creation"], ME, "key 2", "1").await["outcome"], "kept");
}

#[tokio::test]
async fn only_a_never_linked_number_gets_another_platform_id() {
    let mut database = Database::start().await;
    for (words, mode, outcome) in [
        ("fresh", "repair", "assigned"),
        ("fresh seen", "repair", "kept"),
        ("", "repair", "kept"),
        ("fresh seen", "force_recreate", "assigned"),
    ] {
        database.rows(&[words]).await;
        let other_organization = database.other_organization().await;
        let theirs = database.all_of(other_organization).await;
        let begun = database.begin(Begin { mode, rejected_key: Some("key"), ..Begin::default() }).await;
        let creation = id(&begun["creation"]);
        let assign = "wpp_assign_platform_id($1, $2, $3)";
        let assigned = database.value(assign, &[&database.organization, &creation, &ME]).await;
        assert_eq!(assigned["outcome"], outcome, "{words} {mode}");
        let now = "(select jsonb_build_array(platform_id, finished_at is null) from wpp_creations where organization_id = $1)";
        let expected = if outcome == "assigned" {
            json!([assigned["platform_id"], true])
        } else {
            json!([begun["platform_id"], false])
        };
        assert_eq!(database.value(now, &[&database.organization]).await, expected);
        assert_eq!(begun["platform_id"] == expected[0], outcome == "kept");
        assert_eq!(database.all_of(other_organization).await, theirs);
    }
}

/// The rows of an organization, which of them is asked for, and with which id.
#[tokio::test]
async fn saved_then_well_formed_platform_id_is_used() {
    let mut database = Database::start().await;
    for (rows, of, alone, expected) in [
        (&[""][..], 0, true, "own"),
        (&["sub"], 0, true, "sub"),
        (&["fresh"], 0, true, "own"),
        (&["empty"], 0, true, "own"),
        (&["", "empty"], 1, true, "new"),
        (&["", "empty"], 1, false, "own"),
        (&["off", "empty"], 1, true, "new"),
        (&["sub", "empty"], 1, true, "own"),
        (&["empty", "empty"], 1, true, "own"),
        (&["", ""], 1, true, "new"),
        (&["fresh", "fresh"], 1, true, "own"),
        (&["telegram", "empty"], 1, true, "own"),
        (&["green_api", "empty"], 1, true, "own"),
    ] {
        let ids = database.rows(rows).await;
        database.other_organization().await;
        let (organization, of) = (database.organization, ids[of]);
        let platform_id = "wpp_internal.platform_id($1, $2, $3)";
        let platform_id = database.value(platform_id, &[&organization, &of, &alone]).await;
        let platform_id = platform_id.as_str().unwrap().to_owned();
        let word = match platform_id.strip_prefix(&organization.to_string()).unwrap() {
            "" => "own",
            _ if platform_id == sub_id(organization) => "sub",
            new => new.starts_with("__wpp__").then_some("new").unwrap(),
        };
        assert_eq!(word, expected, "{rows:?}");
    }
    database.rows(&[""]).await;
    let of_a_new_number = "wpp_internal.platform_id($1, null, true)";
    let platform_id = database.value(of_a_new_number, &[&database.organization]).await;
    assert!(platform_id.as_str().unwrap().contains("__wpp__"), "{platform_id}");
}

/// When an organization brought thirty ids, and whether it may bring another one.
#[tokio::test]
async fn platform_ids_of_the_last_hour_count() {
    let mut database = Database::start().await;
    for (brought, may) in
        [("-60.5 minutes", true), ("-59.5 minutes", false), ("58 seconds", false), ("62 seconds", true)]
    {
        database.renew().await;
        let bring = format!(
            "insert into wpp_platform_ids (platform_id, organization_id, created_at)
             select n, $1, clock_timestamp() + interval '{brought}' from generate_series(1, 30) n"
        );
        database.run(&bring, &[&database.organization]).await;
        let given = "insert into wpp_numbers (integration_id, organization_id, platform_id)
            values (gen_random_uuid(), $1, $1::uuid::text)";
        database.run(given, &[&database.organization]).await;
        let wait_ms = "wpp_internal.use_platform_id($1, 'another')";
        let wait_ms = database.value(wait_ms, &[&database.organization]).await;
        assert_eq!(wait_ms.is_null(), may, "{brought}: {wait_ms}");
        // An id that was used is used again.
        let again = "jsonb_build_array(wpp_internal.use_platform_id($1, '1'), wpp_internal.use_platform_id($1, $1::uuid::text))";
        assert_eq!(database.value(again, &[&database.organization]).await, json!([null, null]));
    }
}

#[tokio::test]
async fn wait_ends_an_hour_after_the_thirtieth_last_id() {
    let database = Database::start().await;
    let bring = "insert into wpp_platform_ids (platform_id, organization_id, created_at)
        select n, $1, clock_timestamp() - n * interval '1 minute' from generate_series(31, 1, -1) n";
    database.run(bring, &[&database.organization]).await;
    let wait_ms =
        database.value("wpp_internal.use_platform_id($1, 'another')", &[&database.organization]).await;
    assert!((1_790_000..=1_800_000).contains(&wait_ms.as_i64().unwrap()), "{wait_ms}");
}

/// A tenant's administrator may write anything into a row, also ids of other organizations.
#[tokio::test]
async fn session_of_another_organization_is_not_saved() {
    let mut database = Database::start().await;
    database.number("ensure", "key", "1").await;
    let theirs = database.organization;
    let before = database.all_of(theirs).await;
    (database.organization, database.user) = database.organization().await;
    let begun = database.begin(Begin::default()).await;
    let save = async || database.save(&begun["creation"], ME, "another key", "1").await["outcome"].clone();
    assert_eq!(save().await, "taken");
    assert_eq!(database.all_of(theirs).await, before);
    // A number that was deleted leaves its session free.
    database.run("delete from messenger_integrations where organization_id = $1", &[&theirs]).await;
    assert_eq!(save().await, "saved");
}

#[tokio::test]
async fn platform_id_of_another_organization_is_ignored() {
    let mut database = Database::start().await;
    let victim = Uuid::from_u128(77).to_string();
    for tail in [
        "victim",
        "victim__wpp__00000001",
        "own__wpp__0000000",
        "own__wpp__0000000G",
        "own__wpp__00000001 ",
        "own__wpp__00000001\nvictim",
        "xown__wpp__00000001",
        "ownvictim",
        "",
        "%",
    ] {
        for form in [|id| json!(id), |id| json!([id]), |id| json!({"a": id})] {
            // The id is read only from a row that has none of the credentials that the functions save.
            database.rows(&["empty"]).await;
            let id = tail.replace("victim", &victim).replace("own", &database.organization.to_string());
            let written = Json(json!({"wppSubOrgId": form(id)}));
            database.run("update messenger_integrations set settings = settings || $1", &[&written]).await;
            let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
            assert_eq!(begun["platform_id"], json!(database.organization), "{written:?}");
        }
    }
    let (organization, victim) = (database.organization, victim.as_str());
    let foreign = "insert into wpp_creations (organization_id, kind, platform_id) values ($1, 'first', $2)";
    let refused = database.sql.execute(foreign, &[&organization, &victim]).await.unwrap_err();
    assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION));
}

#[tokio::test]
async fn thirty_first_platform_id_in_an_hour_is_refused() {
    let mut database = Database::start().await;
    database.renew().await;
    database.other_organization().await;
    let add = || Begin { mode: "add_new", ..Begin::default() };
    let forget = "delete from messenger_integrations where organization_id = $1";
    for nth in 0..30 {
        let begun = database.begin(add()).await;
        assert_eq!(begun["outcome"], "begun", "{nth}");
        database.save(&begun["creation"], ME, &format!("key {nth}"), &format!("s{nth}")).await;
        // Numbers that are deleted count.
        database.run(forget, &[&database.organization]).await;
    }
    let refused = database.begin(add()).await;
    assert_eq!(refused["outcome"], "too_many", "{refused}");
    assert!((3_500_000..=3_600_000).contains(&refused["wait_ms"].as_i64().unwrap()), "{refused}");
    let creations = "(select count(*) from wpp_creations where organization_id = $1 and finished_at is null)";
    assert_eq!(database.value(creations, &[&database.organization]).await, 0);
    // What was begun is finished, and an id that was used is used again.
    let age = "update wpp_platform_ids set created_at = created_at - interval '59 minutes 50 seconds' where organization_id = $1";
    database.run(age, &[&database.organization]).await;
    let refused = database.begin(add()).await;
    assert!((1..=10_000).contains(&refused["wait_ms"].as_i64().unwrap()), "{refused}");
    let age = "update wpp_platform_ids set created_at = created_at - interval '20 seconds' where organization_id = $1
        and created_at = (select min(created_at) from wpp_platform_ids where organization_id = $1)";
    database.run(age, &[&database.organization]).await;
    let last = database.begin(add()).await;
    assert_eq!(last["outcome"], "begun", "{last}");
    assert_eq!(database.begin(add()).await["creation"], last["creation"]);
    let creation = id(&last["creation"]);
    let assign = "wpp_assign_platform_id($1, $2, $3)";
    let refused = database.value(assign, &[&database.organization, &creation, &ME]).await;
    assert_eq!(refused["outcome"], "too_many", "{refused}");
    database.save(&last["creation"], ME, "key", "1").await;
    let again = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    assert_eq!(again["outcome"], "begun", "{again}");
}

/// A deletion of a number waits for an open decision about it, but no decision waits for a deletion. With several rows, that could be a
/// deadlock.
#[tokio::test]
async fn number_deleted_during_the_decision_stays_deleted() {
    let mut database = Database::start().await;
    database.rows(&["primary"]).await;
    let mut sibling = database.postgres.connect().await.unwrap();
    let deletion = sibling.transaction().await.unwrap();
    // Keeps the decision from its end until the row is gone.
    let hold = "insert into wpp_platform_ids (platform_id, organization_id) values ($1::uuid::text, $1)";
    deletion.execute(hold, &[&database.organization]).await.unwrap();
    deletion.batch_execute("delete from messenger_integrations").await.unwrap();
    let ensure = Begin { mode: "force_recreate", ..Begin::default() };
    let delete = async {
        let waits = "select 1 from pg_locks where not granted and locktype = 'transactionid'";
        while deletion.query(waits, &[]).await.unwrap().is_empty() {}
        deletion.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(database.begin(ensure), delete);
    assert_eq!((&answer["outcome"], &answer["number"]), (&json!("begun"), &Value::Null));
    let saved = database.save(&answer["creation"], ME, "key", "1").await;
    assert_eq!(saved["outcome"], "gone");

    // The other way round: what was decided about stays until the decision is known.
    database.rows(&["primary"]).await;
    database.other_organization().await;
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
    // Numbers of other organizations can be deleted.
    let others = "delete from messenger_integrations where organization_id <> $1";
    assert_eq!(database.run(others, &[&database.organization]).await, 3);
}

#[tokio::test]
async fn only_the_holder_saves_credentials() {
    let database = Database::start().await;
    let (foreign, _) = database.organization().await;
    let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    let creation = &begun["creation"];
    let before = database.everything().await;
    for (organization, holder) in [(database.organization, OTHER), (foreign, ME)] {
        let late = database.save_in(organization, creation, holder, "stolen", "9").await;
        assert_eq!(late["outcome"], "superseded");
    }
    for function in ["wpp_assign_platform_id", "wpp_release_creation"] {
        for (organization, holder) in [(database.organization, OTHER), (foreign, ME)] {
            let call = format!("select {function}($1, $2, $3)");
            database.sql.query(&call, &[&organization, &id(creation), &holder]).await.unwrap();
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
async fn repeated_save_changes_nothing() {
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
    // It gets no other platform id from then on.
    let assign = "wpp_assign_platform_id($1, $2, $3)";
    let creation = id(&begun["creation"]);
    let assigned = database.value(assign, &[&database.organization, &creation, &ME]).await;
    assert_eq!(assigned["outcome"], "superseded");
    database.run("delete from messenger_integrations", &[]).await;
    assert_eq!(database.save(&begun["creation"], ME, "key", "1").await["outcome"], "gone");
}

#[tokio::test]
async fn row_with_the_same_session_becomes_the_number() {
    let database = Database::start().await;
    let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    let original = "insert into messenger_integrations (organization_id, messenger_type, provider, is_primary, settings)
        values ($1, 'whatsapp', 'wpp', true, '{\"wppApiKey\": \"key\", \"wppAccountNumber\": \"1\", \"theirs\": 1}')";
    database.run(original, &[&database.organization]).await;
    database.save(&begun["creation"], ME, "key", "1").await;
    let rows = "(select jsonb_agg(settings -> 'theirs') from messenger_integrations)";
    assert_eq!(database.value(rows, &[]).await, json!([1]));
}

#[tokio::test]
async fn new_key_removes_the_old_keys_token() {
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

/// New credentials for a row, with a platform id and a session, and what is kept of before.
#[tokio::test]
async fn saving_credentials_completes_the_row() {
    let mut database = Database::start().await;
    for (words, is_own, key, session, is_noted) in [
        ("off sub fresh", true, "key", "1", true),
        ("off sub fresh", false, "key", "1", true),
        ("off fresh", false, "key 2", "1", true),
        ("off fresh", true, "key 2", "2", false),
    ] {
        let [number, _] = database.rows(&[words, "off"]).await[..] else { panic!("not two rows") };
        let organization = database.organization;
        let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
        let platform_id = if is_own { organization.to_string() } else { sub_id(organization) };
        database.run("update wpp_creations set platform_id = $1", &[&platform_id]).await;
        database
            .run(
                "update wpp_numbers set first_connected_at = now(), webhook_session = session,
            webhook_url = 'https://hooks.example', webhook_tried_at = now()",
                &[],
            )
            .await;
        let lease = "insert into wpp_token_leases
            (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
            select i, o, $1, now(), 'api_key_rejected', now() + interval '30 seconds', md5($3)
            from (values ($1::uuid, $2::uuid), ($1, gen_random_uuid()), ((select min(id::text)::uuid from messenger_integrations
              where id <> $1), $2)) l (i, o)";
        database.run(lease, &[&number, &organization, &key]).await;
        let saved = database.save(&begun["creation"], ME, key, session).await;
        assert_eq!(saved["outcome"], "saved", "{saved}");
        let row = "(select jsonb_build_array(i.is_active, i.is_primary, coalesce(i.settings ->> 'wppSubOrgId', i.organization_id::text),
              n.platform_id, n.session, n.first_connected_at is not null, n.webhook_url, n.webhook_tried_at, l.failure, l.retry_at)
            from messenger_integrations i join wpp_numbers n on n.integration_id = i.id
            join wpp_token_leases l on l.integration_id = i.id and l.organization_id = i.organization_id
            where i.id = $1)";
        let expected =
            json!([true, true, platform_id, platform_id, session, is_noted, null, null, null, null]);
        assert_eq!(database.value(row, &[&number]).await, expected, "{words} {is_own} {key}");
        let others =
            "(select count(*) from wpp_token_leases where failure is not null and retry_at is not null)";
        assert_eq!(database.value(others, &[]).await, 2);
        let another = "(select settings from messenger_integrations where id <> $1 and not is_active)";
        assert_eq!(
            database.value(another, &[&number]).await,
            json!({"wppAccountNumber": "2", "wppApiKey": "key"})
        );
    }
}

/// A number that others linked stays linked when its session gets a new key from us.
#[tokio::test]
async fn linked_session_stays_linked() {
    let mut database = Database::start().await;
    for (words, session, is_linked) in
        [("", "1", true), ("", "2", false), ("fresh", "1", false), ("fresh seen", "1", true)]
    {
        let [number] = database.rows(&[words]).await[..] else { panic!("not one row") };
        let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
        database.save(&begun["creation"], ME, "key 2", session).await;
        database.run("delete from whatsapp_sessions", &[]).await;
        assert_eq!(database.counts_as_linked(number).await, is_linked, "{words} {session}");
    }
}

#[tokio::test]
async fn previous_session_becomes_disconnected() {
    let mut database = Database::start().await;
    for (rows, session, status) in
        [(&["fresh seen"][..], "2", "disconnected"), (&["fresh seen"], "1", "connected")]
    {
        database.rows(rows).await;
        let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
        database.save(&begun["creation"], ME, "key 2", session).await;
        let left = "(select status from whatsapp_sessions where session_name = 'wpp_1')";
        assert_eq!(database.value(left, &[]).await, status, "{session}");
    }
    // Another number of the organization has another session.
    database.rows(&["fresh seen primary", ""]).await;
    let code = "update whatsapp_sessions set last_qr_b64 = '2@', last_qr_at = now()";
    database.run(code, &[]).await;
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.save(&begun["creation"], ME, "key 2", "3").await;
    let left = "(select jsonb_build_array(status, last_qr_b64, last_qr_at) from whatsapp_sessions where session_name = 'wpp_1')";
    assert_eq!(database.value(left, &[]).await, json!(["disconnected", null, null]));
    // Another number of the organization may have the same session.
    database.rows(&["fresh seen primary", ""]).await;
    database
        .run("update messenger_integrations set settings = settings || '{\"wppAccountNumber\": \"1\"}'", &[])
        .await;
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.save(&begun["creation"], ME, "key 2", "2").await;
    assert_eq!(database.value("(select status from whatsapp_sessions)", &[]).await, "connected");
}

#[tokio::test]
async fn saved_credentials_take_over_the_snapshot() {
    let mut database = Database::start().await;
    database.renew().await;
    let (squatter, _) = database.organization().await;
    let squat = "insert into whatsapp_sessions (organization_id, session_name, status, last_qr_b64, last_qr_at)
        values ($2, 'wpp_0', 'connected', null, null), ($1, 'wpp_1', 'connected', '2@', now()), ($1, 'wpp_2', 'connected', null, null)";
    database.run(squat, &[&squatter, &database.organization]).await;
    let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
    database.save(&begun["creation"], ME, "key", "1").await;
    let rows = "(select jsonb_agg(jsonb_build_array(organization_id, status, last_qr_b64, last_qr_at) order by session_name)
        from whatsapp_sessions)";
    let (ours, theirs) = (database.organization, squatter);
    let expected = json!([
        [ours, "connected", null, null],
        [ours, "disconnected", null, null],
        [theirs, "connected", null, null]
    ]);
    assert_eq!(database.value(rows, &[]).await, expected);
}

#[tokio::test]
async fn settings_in_text_are_saved_as_an_object() {
    let mut database = Database::start().await;
    database.rows(&["fresh"]).await;
    let stringify =
        "update messenger_integrations set settings = to_jsonb((settings || '{\"theirs\": 1}')::text)";
    database.run(stringify, &[]).await;
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.save(&begun["creation"], ME, "key 2", "1").await;
    let settings = database.value("(select settings from messenger_integrations)", &[]).await;
    assert_eq!((&settings["wppApiKey"], &settings["theirs"]), (&json!("key 2"), &json!(1)));
    // What cannot be read by then stays as it is.
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.run("update messenger_integrations set settings = '[1]'", &[]).await;
    assert_eq!(database.save(&begun["creation"], ME, "key 3", "1").await["outcome"], "unreadable");
    assert_eq!(database.value("(select settings from messenger_integrations)", &[]).await, json!([1]));
}

#[tokio::test]
async fn saved_credentials_clear_the_webhook() {
    let database = Database::start().await;
    let number = database.number("ensure", "key", "1").await;
    let url =
        async || database.value("wpp_find_number($1) -> 'number' -> 'webhook_url'", &[&database.user]).await;
    let save = "select wpp_save_webhook($1, $2, '1', 'https://hooks.example')";
    database.sql.query(save, &[&database.organization, &number]).await.unwrap();
    assert_eq!(url().await, "https://hooks.example");
    let begun = database.begin(Begin { mode: "force_recreate", ..Begin::default() }).await;
    database.save(&begun["creation"], ME, "key", "1").await;
    assert_eq!(url().await, Value::Null);
}

/// Leases of numbers that were deleted or belong to another organization, and whether a key is refused because of them.
#[tokio::test]
async fn rejected_key_of_a_deleted_number_is_not_saved() {
    let mut database = Database::start().await;
    for (failure, key, is_theirs, with_row, outcome) in [
        ("api_key_rejected", "key", false, false, "rejected"),
        ("api_key_rejected", "key", false, true, "saved"),
        ("platform", "key", false, false, "saved"),
        ("api_key_rejected", "key 2", false, false, "saved"),
        ("api_key_rejected", "key", true, false, "saved"),
    ] {
        database.renew().await;
        let other_organization = database.other_organization().await;
        let begun = database.begin(Begin { mode: "ensure", ..Begin::default() }).await;
        if with_row {
            database.row(database.organization, "1", "off").await;
        }
        let lease = "insert into wpp_token_leases
            (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
            values ($1, $2, $1, now(), $3, now(), md5($4))";
        let whose = if is_theirs { other_organization } else { database.organization };
        database.run(lease, &[&Uuid::from_u128(7), &whose, &failure, &key]).await;
        let saved = database.save(&begun["creation"], ME, "key", "1").await;
        assert_eq!(saved["outcome"], outcome, "{failure} {key} theirs {is_theirs}");
        let rows = "(select count(*) from messenger_integrations where organization_id = $1)";
        let expected = i32::from(outcome == "saved");
        assert_eq!(
            database.value(rows, &[&database.organization]).await,
            expected,
            "{failure} {key} {with_row}"
        );
    }
}

/// A person can always delete a number with a dead key, and connect again. The platform may give the dead key once more.
#[tokio::test]
async fn rejected_key_is_remembered_for_a_day() {
    let database = Database::start().await;
    let number = database.number("ensure", "dead", "1").await;
    let lease = "insert into wpp_token_leases (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
        values ($1, $2, $1, now(), 'api_key_rejected', now(), md5('dead'))";
    database.run(lease, &[&number, &database.organization]).await;
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

/// Records about numbers that exist, were deleted or were given away: their age in hours, and whether they are kept.
#[tokio::test]
async fn old_and_orphaned_records_are_deleted() {
    let mut database = Database::start().await;
    let [here] = database.rows(&[""]).await[..] else { panic!("not one row") };
    let organization = database.organization;
    let other_organization = database.other_organization().await;
    let given = database.row(other_organization, "7", "").await;
    let theirs = database.all_of(other_organization).await;
    let gone = Uuid::from_u128(8);
    let ago = |hours: f64| format!("now() - {hours} * interval '1 hour'");
    let mut expected = Vec::new();
    for (nth, (number, created, finished, held, stays)) in [
        (None, 23.9, None, None, true),
        (None, 24.1, None, None, false),
        (None, 24.1, Some(23.9), None, true),
        (None, 25.0, Some(24.1), None, false),
        (None, 24.1, None, Some(23.9), true),
        (Some(here), 1.0, None, None, true),
        (Some(gone), 1.0, None, None, false),
        (Some(given), 1.0, None, None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let time = |age: Option<f64>| age.map_or_else(|| "null".to_owned(), ago);
        let insert = format!(
            "insert into wpp_creations (organization_id, kind, integration_id, platform_id, created_at, finished_at, held_until)
             values ($1, 'first', $2, $3, {}, {}, {})",
            ago(created),
            time(finished),
            time(held)
        );
        let name = format!("{organization}__wpp__{nth:08}");
        database.run(&insert, &[&organization, &number, &name]).await;
        expected.extend(stays.then_some(name));
    }
    for (number, stays) in [(here, true), (gone, false), (given, false)] {
        let insert = "insert into wpp_numbers (integration_id, organization_id) values ($1, $2)";
        database.run(insert, &[&number, &organization]).await;
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
        database.run(&insert, &[&number, &organization, &failure, &lease]).await;
        expected.extend(stays.then(|| lease.to_owned()));
    }
    let ids = "update wpp_numbers set platform_id = $2::uuid::text where integration_id = $1 and organization_id = $2";
    database.run(ids, &[&here, &organization]).await;
    for (id, age, stays) in [
        (format!("{organization}"), 1.1, true),
        (format!("{organization}__wpp__00000000"), 1.1, true),
        ("used lately".to_owned(), 0.99, true),
        ("used long ago".to_owned(), 1.01, false),
    ] {
        let insert = format!(
            "insert into wpp_platform_ids (platform_id, organization_id, created_at) values ($1, $2, {})",
            ago(age)
        );
        database.run(&insert, &[&id, &organization]).await;
        expected.extend(stays.then_some(id));
    }
    database.sql.query("select wpp_internal.delete_old_rows($1)", &[&organization]).await.unwrap();
    let left = "(select jsonb_agg(name) from (
        select platform_id from wpp_creations where organization_id = $1
        union all select integration_id::text from wpp_numbers where organization_id = $1
        union all select platform_id from wpp_platform_ids where organization_id = $1
        union all select key_digest from wpp_token_leases where organization_id = $1) l (name))";
    let Value::Array(left) = database.value(left, &[&organization]).await else { panic!("nothing is left") };
    let mut left: Vec<_> = left.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(database.all_of(other_organization).await, theirs);
}
