//! The SQL of a token's refresh, asked directly: who may fetch a token, and whose token is saved.

use local::postgres::{Postgres, Storage};
use serde_json::Value;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

/// A number in the database alone, with the token `old`.
struct Row {
    _postgres: Postgres,
    sql: tokio_postgres::Client,
    organization: Uuid,
    id: Uuid,
}

const HOLDER: Uuid = Uuid::from_u128(1);
const STRANGER: Uuid = Uuid::from_u128(2);

/// How many seconds are left of a pause.
const LEFT: &str = "extract(epoch from retry_at - clock_timestamp())::float8";

/// What is known of an earlier refresh.
const EARLIER: &str = "nullif(concat_ws(', ', failure, retry_at, token_digest, saved_at), '')";

async fn organization(sql: &tokio_postgres::Client) -> Uuid {
    let make = "insert into organizations (name) values ('one') returning id";
    sql.query_one(make, &[]).await.unwrap().get(0)
}

impl Row {
    async fn new() -> Self {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        let sql = postgres.connect().await.unwrap();
        let organization = organization(&sql).await;
        let make = r#"insert into messenger_integrations (organization_id, messenger_type, provider, settings)
            values ($1, 'whatsapp', 'wpp', '{"wppApiKey": "key", "wppJwtToken": "old"}') returning id"#;
        let another = make.replace(r#""key", "wppJwtToken": "old""#, r#""theirs""#);
        sql.query_one(&another, &[&organization]).await.unwrap();
        let id: Uuid = sql.query_one(make, &[&organization]).await.unwrap().get(0);
        // The leases of another number, and of the number while another organization had it.
        let others = "insert into wpp_token_leases
            (integration_id, organization_id, holder, held_until, key_digest, token_digest, saved_at)
            select i, o, $3, now() + interval '50 seconds', md5('key'), 'theirs', now()
            from (values (gen_random_uuid(), $1::uuid), ($2::uuid, gen_random_uuid())) l (i, o)";
        sql.execute(others, &[&organization, &id, &STRANGER]).await.unwrap();
        Self { _postgres: postgres, sql, organization, id }
    }

    async fn outcome(&self, query: &str, with: &[&(dyn ToSql + Sync)]) -> Value {
        let Json(answer): Json<Value> = self.sql.query_one(query, with).await.unwrap().get(0);
        assert!(answer["now_ms"].as_i64() > Some(1_700_000_000_000), "{answer}");
        let others = r#"select count(*) from wpp_token_leases where failure is null and retry_at is null
            and held_until > now() and token_digest = 'theirs' and saved_at is not null
            and exists (select from messenger_integrations where settings = '{"wppApiKey": "theirs"}')"#;
        assert_eq!(self.sql.query_one(others, &[]).await.unwrap().get::<_, i64>(0), 2, "{query}");
        answer["outcome"].clone()
    }

    async fn claim(&self, organization: Uuid, holder: Uuid) -> Value {
        let claim = "select wpp_claim_refresh($1, $2, $3, 8000, 'old')";
        self.outcome(claim, &[&organization, &self.id, &holder]).await
    }

    async fn save(&self, organization: Uuid, holder: Uuid) -> Value {
        let save = "select wpp_save_token($1, $2, $3, 'key', 'new', 1000, 'old')";
        self.outcome(save, &[&organization, &self.id, &holder]).await
    }

    async fn fail(&self, organization: Uuid, holder: Uuid) -> Value {
        let fail = "select wpp_release_refresh($1, $2, $3, 'platform', 30000)";
        self.outcome(fail, &[&organization, &self.id, &holder]).await
    }

    /// Returns the number and its lease.
    async fn all(&self) -> Value {
        let all = "select jsonb_build_object('number', (select to_jsonb(i) from messenger_integrations i where id = $1),
            'leases', (select jsonb_agg(l) from wpp_token_leases l))";
        let Json(all) = self.sql.query_one(all, &[&self.id]).await.unwrap().get(0);
        all
    }

    /// Merges keys into the number's settings, as another function may.
    async fn merge(&self, keys: &str) {
        let merge = "update messenger_integrations set settings = settings || $1::text::jsonb where id = $2";
        assert_eq!(self.sql.execute(merge, &[&keys, &self.id]).await.unwrap(), 1);
    }

    async fn set(&self, change: &str) {
        let set = format!(
            "update wpp_token_leases set {change} where integration_id = $1 and organization_id = $2"
        );
        assert_eq!(self.sql.execute(&set, &[&self.id, &self.organization]).await.unwrap(), 1);
    }

    /// Returns a value of the lease, as text.
    async fn lease(&self, value: &str) -> Option<String> {
        let lease = format!(
            "select ({value})::text from wpp_token_leases where integration_id = $1 and organization_id = $2"
        );
        self.sql.query_one(&lease, &[&self.id, &self.organization]).await.unwrap().get(0)
    }
}

#[tokio::test]
async fn another_holder_changes_nothing() {
    let row = Row::new().await;
    let (ours, theirs) = (row.organization, organization(&row.sql).await);
    let before = row.all().await;
    assert_eq!(row.claim(theirs, HOLDER).await, "gone");
    assert_eq!(row.all().await, before);

    assert_eq!(row.claim(ours, HOLDER).await, "granted");
    let before = row.all().await;
    assert_eq!(row.claim(ours, STRANGER).await, "busy");
    for (organization, holder, outcome) in [(theirs, HOLDER, "gone"), (ours, STRANGER, "changed")] {
        assert_eq!(row.save(organization, holder).await, outcome);
        assert_eq!(row.fail(organization, holder).await, outcome);
        assert_eq!(row.all().await, before);
    }

    assert_eq!(row.fail(ours, HOLDER).await, "saved");
    assert_eq!(row.claim(ours, STRANGER).await, "cooldown");
    assert_eq!(row.claim(ours, HOLDER).await, "granted");
    assert_eq!(row.save(ours, HOLDER).await, "saved");
    assert_eq!(row.claim(ours, STRANGER).await, "changed");
}

/// The token in the row, the caller's token, and the outcome of the claim.
#[tokio::test]
async fn empty_or_non_text_token_counts_as_missing() {
    let row = Row::new().await;
    for (stored, replaces, outcome) in [
        (r#"{"wppJwtToken": "old"}"#, Some("old"), "granted"),
        (r#"{"wppJwtToken": "other"}"#, Some("old"), "changed"),
        (r#"{"wppJwtToken": "old"}"#, None, "changed"),
        (r#"{"wppJwtToken": ""}"#, None, "granted"),
        (r#"{"wppJwtToken": 7}"#, None, "granted"),
        (r#"{"wppJwtToken": 7}"#, Some("7"), "changed"),
        (r#"{"wppJwtToken": null}"#, None, "granted"),
        ("{}", Some("old"), "changed"),
    ] {
        row.merge(stored).await;
        if stored == "{}" {
            row.sql
                .execute("update messenger_integrations set settings = settings - 'wppJwtToken'", &[])
                .await
                .unwrap();
        }
        let claim = "select wpp_claim_refresh($1, $2, $3, 8000, $4)";
        let claimed = row.outcome(claim, &[&row.organization, &row.id, &HOLDER, &replaces]).await;
        assert_eq!(claimed, outcome, "{stored} {replaces:?}");
    }
}

#[tokio::test]
async fn new_lease_clears_the_last_failure() {
    let row = Row::new().await;
    let ours = row.organization;
    row.claim(ours, HOLDER).await;
    row.merge(r#"{"wppApiKey": "key 2"}"#).await;
    assert_eq!(row.claim(ours, STRANGER).await, "granted");
    assert_eq!(row.claim(ours, HOLDER).await, "busy", "the lease is for the key that is there");

    assert_eq!(row.fail(ours, STRANGER).await, "saved");
    assert_eq!(row.claim(ours, HOLDER).await, "cooldown");
    row.merge(r#"{"wppApiKey": "key 3"}"#).await;
    assert_eq!(row.fail(ours, STRANGER).await, "changed", "a failure with another key does not count");
    assert_eq!(row.claim(ours, HOLDER).await, "granted");
    assert_eq!(row.fail(ours, HOLDER).await, "saved");
    assert_eq!(row.claim(ours, HOLDER).await, "granted");
    row.set("held_until = now()").await;
    assert_eq!(row.claim(ours, STRANGER).await, "granted");
    // A failure ends the lease, and so does a change of the row in between.
    assert_eq!(row.fail(ours, STRANGER).await, "saved");
    row.set("retry_at = null").await;
    assert_eq!(row.claim(ours, HOLDER).await, "granted");
}

/// The row at the time of the save, and what becomes of the token `new` that replaces `old`.
#[tokio::test]
async fn token_is_saved_over_the_old_one() {
    let row = Row::new().await;
    for (meanwhile, holder, outcome, stored, end) in [
        ("{}", HOLDER, "saved", "new", 1000),
        (r#"{"wppApiKey": "key 2"}"#, HOLDER, "changed", "old", 1),
        (r#"{"wppJwtToken": "other"}"#, HOLDER, "changed", "other", 1),
        (r#"{"wppJwtToken": "new"}"#, HOLDER, "saved", "new", 1000),
        (r#"{"wppJwtToken": "new"}"#, STRANGER, "saved", "new", 1),
        (r#"{"wppJwtToken": "other"}"#, STRANGER, "changed", "other", 1),
    ] {
        row.merge(r#"{"wppApiKey": "key", "wppJwtToken": "old", "wppJwtExpiresAt": 1, "theirs": 1}"#).await;
        assert_eq!(row.claim(row.organization, HOLDER).await, "granted");
        row.merge(meanwhile).await;
        assert_eq!(row.save(row.organization, holder).await, outcome, "{meanwhile}");
        let settings = row.all().await["number"]["settings"].clone();
        let kept = (&settings["wppJwtToken"], &settings["wppJwtExpiresAt"], &settings["theirs"]);
        assert_eq!(kept, (&stored.into(), &end.into(), &1.into()), "{meanwhile}");
        let claim = "select wpp_claim_refresh($1, $2, $3, 8000, $4)";
        let next = row.outcome(claim, &[&row.organization, &row.id, &STRANGER, &stored]).await;
        let ended = holder == HOLDER || meanwhile.contains("key 2");
        assert_eq!(next, if ended { "granted" } else { "busy" }, "{meanwhile}");
        row.set("held_until = now()").await;
    }
}

/// A clock that was an hour ahead, or an operator's `infinity`, does not keep a number from its token.
#[tokio::test]
async fn lease_lasts_as_long_as_requested() {
    let row = Row::new().await;
    for lease_ms in [50_000, 20_000] {
        let claim = "select wpp_claim_refresh($1, $2, $3, $4, 'old')";
        row.outcome(claim, &[&row.organization, &row.id, &HOLDER, &lease_ms]).await;
        let busy = "select wpp_claim_refresh($1, $2, $3, 8000, 'old')";
        let busy = row.sql.query_one(busy, &[&row.organization, &row.id, &STRANGER]).await.unwrap();
        let Json(busy): Json<Value> = busy.get(0);
        let wait_ms = busy["wait_ms"].as_i64().unwrap();
        assert!((i64::from(lease_ms) - 10_000..=i64::from(lease_ms)).contains(&wait_ms), "{busy}");
    }
}

#[tokio::test]
async fn cooldown_lasts_as_long_as_requested() {
    let row = Row::new().await;
    row.claim(row.organization, HOLDER).await;
    row.fail(row.organization, HOLDER).await;
    let left: f64 = row.lease(LEFT).await.unwrap().parse().unwrap();
    assert!((20.0..=30.0).contains(&left), "{left}");
}

#[tokio::test]
async fn lease_more_than_a_minute_ahead_has_ended() {
    let row = Row::new().await;
    let ours = row.organization;
    for (ahead, held, cooldown) in [
        ("now() + interval '58 seconds'", "busy", "cooldown"),
        ("now() + interval '61 seconds'", "granted", "granted"),
        ("now() + interval '1 hour'", "granted", "granted"),
        ("'infinity'", "granted", "granted"),
        ("now()", "granted", "granted"),
        ("'-infinity'", "granted", "granted"),
    ] {
        row.claim(ours, HOLDER).await;
        row.set(&format!("holder = '{HOLDER}', held_until = {ahead}, retry_at = null")).await;
        assert_eq!(row.claim(ours, STRANGER).await, held, "{ahead}");
        row.set(&format!(
            "holder = '{HOLDER}', held_until = now(), retry_at = {ahead}, failure = 'platform'"
        ))
        .await;
        assert_eq!(row.claim(ours, STRANGER).await, cooldown, "{ahead}");
    }
}

#[tokio::test]
async fn token_rejected_within_a_minute_starts_a_cooldown() {
    let row = Row::new().await;
    let ours = row.organization;
    for (saved, outcome) in [("58 seconds", "cooldown"), ("62 seconds", "granted")] {
        row.merge(r#"{"wppJwtToken": "old"}"#).await;
        assert_eq!(row.claim(ours, HOLDER).await, "granted");
        assert_eq!(row.save(ours, HOLDER).await, "saved");
        assert_eq!(row.lease("nullif(concat_ws(', ', failure, retry_at), '')").await, None);
        row.set(&format!("saved_at = now() - interval '{saved}'")).await;
        let claim = "select wpp_claim_refresh($1, $2, $3, 8000, 'new', true)";
        assert_eq!(row.outcome(claim, &[&ours, &row.id, &STRANGER]).await, outcome, "{saved}");
        if outcome == "cooldown" {
            let left: f64 = row.lease(LEFT).await.unwrap().parse().unwrap();
            assert!((28.0..=30.0).contains(&left), "{left}");
            assert_eq!(
                row.lease("concat_ws(', ', failure, token_digest, saved_at)").await.unwrap(),
                "token_rejected"
            );
            row.set("retry_at = null").await;
        }
    }
}

#[tokio::test]
async fn number_without_an_api_key_gets_a_lease() {
    let row = Row::new().await;
    row.merge(r#"{"wppApiKey": null}"#).await;
    assert_eq!(row.claim(row.organization, HOLDER).await, "granted");
    assert_eq!(row.claim(row.organization, STRANGER).await, "busy");
    assert_eq!(row.fail(row.organization, STRANGER).await, "changed");
    assert_eq!(row.fail(row.organization, HOLDER).await, "saved");
}

#[tokio::test]
async fn lease_has_only_its_own_refreshs_token() {
    let row = Row::new().await;
    let ours = row.organization;
    let earlier = "failure = 'platform', retry_at = now(), token_digest = 'old', saved_at = now()";
    row.claim(ours, HOLDER).await;
    row.set(earlier).await;
    assert_eq!(row.claim(ours, HOLDER).await, "granted");
    assert_eq!(row.lease(EARLIER).await, None);
    row.set(earlier).await;
    assert_eq!(row.fail(ours, HOLDER).await, "saved");
    assert_eq!(row.lease("concat_ws(', ', failure, token_digest, saved_at)").await.unwrap(), "platform");
    row.set(earlier).await;
    assert_eq!(row.save(ours, HOLDER).await, "saved");
    assert_eq!(row.lease("nullif(concat_ws(', ', failure, retry_at), '')").await, None);
}
