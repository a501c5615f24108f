//! Twelve writers at once on the rows of a few organizations: our functions among everything that the other functions do there.
//! `TORTURE_SECONDS` is the duration, by default 5.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use futures_util::future::join_all;
use local::clock::unix_ms;
use local::postgres::{Postgres, Privileges, Storage, migrations};
use local::schema_variants::working;
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

const WRITERS: u64 = 12;

/// How many organizations they work on at a time, and for how long: an organization is limited to 30 new platform ids an hour.
const AT_A_TIME: usize = 3;
const TURN_MS: i64 = 500;

/// Records each update by our functions that changes a setting that is not ours.
const NOTE_LOST: &str = "
    create table lost (query text, was jsonb, became jsonb);
    create function note_lost() returns trigger language plpgsql security definer set search_path = '' as $$
    declare
      v_ours text[] := '{wppApiKey,wppAccountNumber,wppJwtToken,wppJwtExpiresAt,wppSubOrgId}';
    begin
      if current_query() ~ 'wpp_' and old.settings - v_ours <> new.settings - v_ours then
        insert into public.lost values (current_query(), old.settings, new.settings);
      end if;
      return null;
    end
    $$;
    create trigger note_lost after update on messenger_integrations for each row execute function note_lost()";

/// Makes each transaction linger on each row that it has locked. Otherwise two transactions hardly ever hold rows at the same time,
/// and a wrong order of locks makes no deadlock.
const LINGER: &str = "
    create function linger() returns trigger language plpgsql as
      'begin perform pg_sleep(random() * 0.01); return coalesce(new, old); end';
    create trigger linger before update or delete on messenger_integrations for each row execute function linger();
    create trigger linger before insert or update on whatsapp_sessions for each row execute function linger();
    create trigger linger before update on wpp_numbers for each row execute function linger()";

/// Lets our functions wait as long as it takes. A deadlock of the others holds its rows for a second, so two in a row would exceed
/// our functions' lock timeout. Only `wpp_save_snapshot` waits less than two seconds, and keeps its limit.
const BE_PATIENT: &str = "
    do $$
    declare
      v_function regprocedure;
    begin
      for v_function in select p.oid from pg_proc p where 'lock_timeout=2s' = any (p.proconfig) loop
        execute format('alter function %s set lock_timeout = 0', v_function);
      end loop;
    end
    $$";

/// An organization's number, or nulls if it has none.
const ANY_NUMBER: &str = "
    select i.id, i.settings from (select 1) one
    left join messenger_integrations i on i.organization_id = $1 and i.provider = 'wpp' order by random() limit 1";

/// What the other functions do, each statement in a transaction of its own, with the parameters organization, number and session.
const DELETE: &str =
    "delete from messenger_integrations where organization_id = $1 and id = $2 and $3::text is not null";
const CLEAR_PRIMARY: &str = "update messenger_integrations set is_primary = false
    where organization_id = $1 and messenger_type = 'whatsapp' and ($2::uuid, $3::text) is not null";
const SET_PRIMARY: &str = "update messenger_integrations set is_primary = true
    where organization_id = $1 and id = $2 and $3::text is not null";
const MERGE: &str =
    "update messenger_integrations set settings = settings || jsonb_build_object('theirs', random())
    where organization_id = $1 and id = $2 and $3::text is not null";
const REPORT: &str = "insert into whatsapp_sessions (organization_id, session_name, status, updated_at)
    select $1, 'wpp_' || $3, 'STATUS', now() where $2::uuid is not null
    on conflict (session_name) do update set status = excluded.status, updated_at = excluded.updated_at";

struct Writer {
    sql: Client,
    rng: Rng,
    places: Arc<Vec<(Uuid, Uuid)>>,
    counts: BTreeMap<String, u32>,
}

impl Writer {
    async fn work(mut self, start_ms: i64, duration_ms: i64) -> BTreeMap<String, u32> {
        let passed_ms = || unix_ms() - start_ms;
        while passed_ms() < duration_ms {
            let turn = usize::try_from(passed_ms() / TURN_MS).unwrap();
            let place = turn * AT_A_TIME + self.rng.usize(..AT_A_TIME);
            let (organization, user) = self.places[place % self.places.len()];
            self.act(organization, user).await;
        }
        self.counts
    }

    async fn act(&mut self, organization: Uuid, user: Uuid) {
        let row = self.sql.query_one(ANY_NUMBER, &[&organization]).await.unwrap();
        let number = row.get::<_, Option<Uuid>>(0).unwrap_or_default();
        let Json(settings): Json<Value> = row.get::<_, Option<_>>(1).unwrap_or(Json(json!({})));
        let text = |key: &str| settings[key].as_str().map(str::to_owned);
        let session = text("wppAccountNumber").unwrap_or_default();
        match self.rng.u32(..20) {
            0..4 => self.create(organization, user, text("wppApiKey")).await,
            4..8 => self.refresh(organization, number, text("wppApiKey"), text("wppJwtToken")).await,
            8..12 => {
                let status = self.word(&["connected", "disconnected", "qr_issued", "pairing"]);
                let save = "wpp_save_snapshot($1, $2, $3, wpp_internal.now_ms(), '2@' || $2)";
                self.ours("snapshot", save, &[&organization, &session, &status]).await;
            }
            12 => {
                let claim = "to_jsonb(wpp_claim_webhook($1, $2, 100))";
                if self.ours("webhook", claim, &[&organization, &number]).await == true {
                    let save = "to_jsonb(wpp_save_webhook($1, $2, $3, 'https://hooks.example')::text)";
                    self.ours("webhook", save, &[&organization, &number, &session]).await;
                }
            }
            13 if self.rng.bool() => self.theirs("delete", &[DELETE], organization, number, &session).await,
            13 => {
                let report = REPORT.replace("STATUS", "disconnected");
                self.theirs("disconnect", &[DELETE, &report], organization, number, &session).await;
            }
            14 | 15 => {
                self.theirs("primary", &[CLEAR_PRIMARY, SET_PRIMARY], organization, number, &session).await
            }
            16 | 17 => {
                let report = REPORT.replace("STATUS", self.word(&["connected", "qr_issued", "disconnected"]));
                self.theirs("report", &[&report], organization, number, &session).await;
            }
            _ => {
                self.theirs("merge", &[MERGE], organization, number, &session).await;
                // Writes back all settings as they were read, with a new token.
                let write_back = r#"update messenger_integrations set settings = $1::jsonb || '{"wppJwtToken": "theirs"}' where id = $2"#;
                let written = self.sql.execute(write_back, &[&Json(&settings), &number]).await;
                self.count("write back", written.map(|rows| rows.to_string()));
            }
        }
    }

    async fn create(&mut self, organization: Uuid, user: Uuid, key: Option<String>) {
        let mode = self.word(&["ensure", "add_new", "add_new", "force_recreate", "repair"]);
        let (holder, request) = (self.id(), Json(json!({"mode": mode, "rejected_key": key})));
        let begin = "wpp_begin_creation($1, $2, $3, 10000)";
        let begun = self.ours("begin", begin, &[&user, &request, &holder]).await;
        let Some(creation) = begun["creation"].as_str().filter(|_| begun["outcome"] == "begun") else {
            return;
        };
        let creation: Uuid = creation.parse().unwrap();
        let mut platform_id = begun["platform_id"].clone();
        if self.rng.u32(..4) == 0 {
            let assign = "wpp_assign_platform_id($1, $2, $3)";
            let assigned = self.ours("assign", assign, &[&organization, &creation, &holder]).await;
            if assigned["outcome"] != "assigned" {
                let release = "to_jsonb(wpp_release_creation($1, $2, $3)::text)";
                self.ours("release", release, &[&organization, &creation, &holder]).await;
                return;
            }
            platform_id = assigned["platform_id"].clone();
        }
        let (key, session) = (format!("key {}", self.id()), platform_id.as_str().unwrap());
        // Each platform id has one session. The id is a valid name of a session, so it stands in for it.
        let save = "wpp_save_credentials($1, $2, $3, $4, $5)";
        self.ours("credentials", save, &[&organization, &creation, &holder, &key, &session]).await;
    }

    async fn refresh(
        &mut self,
        organization: Uuid,
        number: Uuid,
        key: Option<String>,
        token: Option<String>,
    ) {
        let holder = self.id();
        let claim = "wpp_claim_refresh($1, $2, $3, 8000, $4)";
        let claimed = self.ours("claim", claim, &[&organization, &number, &holder, &token]).await;
        if claimed["outcome"] != "granted" {
        } else if self.rng.u32(..4) == 0 {
            let release = "wpp_release_refresh($1, $2, $3, 'platform', 50)";
            self.ours("release", release, &[&organization, &number, &holder]).await;
        } else {
            let new = format!("token {holder}");
            let save = "wpp_save_token($1, $2, $3, $4, $5, 1000, $6)";
            self.ours("token", save, &[&organization, &number, &holder, &key, &new, &token]).await;
        }
    }

    /// Calls a function of the migrations. It may fail only by a deadlock, and the server's log says whose that was.
    async fn ours(&mut self, act: &str, call: &str, values: &[&(dyn ToSql + Sync)]) -> Value {
        let answer = self.sql.query_one(&format!("select {call}"), values).await;
        if answer.as_ref().is_err_and(|error| error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED)) {
            *self.counts.entry(format!("{act} deadlock")).or_default() += 1;
            return Value::Null;
        }
        let answer = answer.unwrap_or_else(|error| panic!("{act}: {:?}", error.as_db_error()));
        let answer = answer.get::<_, Option<Json<Value>>>(0).map_or(Value::Null, |json| json.0);
        *self
            .counts
            .entry(format!("{act} {}", answer["outcome"].as_str().unwrap_or_default()))
            .or_default() += 1;
        answer
    }

    async fn theirs(
        &mut self,
        act: &str,
        statements: &[&str],
        organization: Uuid,
        number: Uuid,
        session: &str,
    ) {
        for statement in statements {
            let done = self.sql.execute(*statement, &[&organization, &number, &session]).await;
            self.count(act, done.map(|rows| rows.to_string()));
        }
    }

    /// Counts an act of another function. Two of those can make each other fail: by a deadlock, or by a unique index of the tables' owner.
    fn count(&mut self, act: &str, done: Result<String, tokio_postgres::Error>) {
        let outcome = done.unwrap_or_else(|error| {
            let code = error.code().unwrap();
            assert!(
                [SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION].contains(code),
                "{act}: {error:?}"
            );
            code.code().to_owned()
        });
        *self.counts.entry(format!("{act} {outcome}")).or_default() += 1;
    }

    fn word(&mut self, words: &[&'static str]) -> &'static str {
        self.rng.choice(words).unwrap()
    }

    fn id(&mut self) -> Uuid {
        Uuid::from_u128(self.rng.u128(..))
    }
}

/// Whether one of our functions held what another transaction waited for. A function that only waits for a row also blocks
/// those behind it in the row's queue, but they would deadlock without it, too.
fn involves_ours(log: &str) -> bool {
    // The other functions name sessions with this beginning.
    let log = log.replace("'wpp_'", "");
    let mut holders = log.lines().filter(|line| !line.contains(" on tuple "));
    holders.any(|line| {
        let Some((_, holder)) = line.split_once("blocked by process ") else { return false };
        let statement = log.split_once(&format!("Process {}: ", holder.trim_end_matches('.')));
        statement.is_some_and(|(_, after)| after.split("\tProcess ").next().unwrap().contains("wpp_"))
    })
}

async fn torture(shape: usize) {
    let seconds = std::env::var("TORTURE_SECONDS").map_or(5, |seconds| seconds.parse::<i64>().unwrap());
    let shape = working().swap_remove(shape);
    let postgres = Postgres::start(0, &Storage::OwnServer).await.unwrap();
    postgres.replace(Privileges::Nothing, &shape.sql).await.unwrap();
    postgres.migrate(&migrations()).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    sql.batch_execute(NOTE_LOST).await.unwrap();
    sql.batch_execute(LINGER).await.unwrap();
    sql.batch_execute(BE_PATIENT).await.unwrap();
    let mut places = Vec::new();
    for _ in 0..usize::try_from(seconds * 1000 / TURN_MS).unwrap() * AT_A_TIME {
        let (organization, user) = (Uuid::new_v4(), Uuid::new_v4());
        sql.execute("insert into organizations (id) values ($1)", &[&organization]).await.unwrap();
        sql.execute("insert into profiles (id, organization_id) values ($1, $2)", &[&user, &organization])
            .await
            .unwrap();
        places.push((organization, user));
    }
    let (places, start_ms) = (Arc::new(places), unix_ms());
    let mut writers = Vec::new();
    for seed in 0..WRITERS {
        let sql = postgres.connect().await.unwrap();
        sql.batch_execute("set role service_role").await.unwrap();
        let writer =
            Writer { sql, rng: Rng::with_seed(seed), places: places.clone(), counts: BTreeMap::new() };
        writers.push(tokio::spawn(writer.work(start_ms, seconds * 1000)));
    }
    let mut counts = BTreeMap::<String, u32>::new();
    for counted in join_all(writers).await {
        for (act, count) in counted.unwrap() {
            *counts.entry(act).or_default() += count;
        }
    }
    let lost = sql.query_one("select count(*), min(query) from lost", &[]).await.unwrap();
    let bare = "select count(*) from messenger_integrations where provider = 'wpp'
        and (coalesce(settings ->> 'wppApiKey', '') = '' or coalesce(settings ->> 'wppAccountNumber', '') = '')";
    let bare: i64 = sql.query_one(bare, &[]).await.unwrap().get(0);
    let logs = postgres.logs().await;
    let deadlocks: Vec<_> =
        logs.split("deadlock detected").skip(1).map(|log| log.split_once("HINT").unwrap().0).collect();
    let of_ours: Vec<_> = deadlocks.iter().filter(|log| involves_ours(log)).collect();
    println!(
        "{}, {seconds} s: {} acts, {} deadlocks, {counts:?}",
        shape.name,
        counts.values().sum::<u32>(),
        deadlocks.len()
    );
    assert_eq!(
        lost.get::<_, i64>(0),
        0,
        "settings of others changed by {:?}",
        lost.get::<_, Option<&str>>(1)
    );
    assert_eq!(bare, 0, "numbers without credentials");
    assert!(of_ours.is_empty(), "{of_ours:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_writers_lose_nothing_in_the_usual_shape() {
    torture(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_writers_lose_nothing_with_one_snapshot_row() {
    torture(1).await;
}
