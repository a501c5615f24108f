//! A database with an organization in it, and the SQL functions as a test asks them.

use local::postgres::{Postgres, Storage};
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

/// The tables that the SQL functions write.
const TABLES: [&str; 6] = [
    "messenger_integrations",
    "whatsapp_sessions",
    "wpp_numbers",
    "wpp_creations",
    "wpp_platform_ids",
    "wpp_token_leases",
];

/// Two attempts at the same thing.
pub const ME: Uuid = Uuid::from_u128(1);
pub const OTHER: Uuid = Uuid::from_u128(2);

/// A database with an organization and its user.
pub struct Database {
    pub postgres: Postgres,
    pub sql: Client,
    pub organization: Uuid,
    pub user: Uuid,
}

/// A request to begin a creation; the rest is as by default.
#[derive(Default)]
pub struct Begin<'a> {
    pub mode: &'a str,
    pub holder: Option<Uuid>,
    pub session: Option<&'a str>,
    pub integration: Option<Uuid>,
    pub waited_for: Option<Uuid>,
    pub rejected_key: Option<&'a str>,
}

impl Database {
    pub async fn start() -> Self {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        let sql = postgres.connect().await.unwrap();
        let mut database = Self { postgres, sql, organization: Uuid::nil(), user: Uuid::nil() };
        database.renew().await;
        database
    }

    /// Leaves nothing but a new organization.
    pub async fn renew(&mut self) {
        let empty = "reset role;
            truncate organizations, wpp_numbers, wpp_creations, wpp_platform_ids, wpp_token_leases cascade;
            set role service_role";
        self.sql.batch_execute(empty).await.unwrap();
        (self.organization, self.user) = self.organization().await;
    }

    /// Adds an organization that a query with a forgotten condition would hit. All its rows are older or newer than those of the tested
    /// organization, and look like them.
    pub async fn other_organization(&self) -> Uuid {
        let (other_organization, _) = self.organization().await;
        let primary = self.row(other_organization, "1", "primary").await;
        self.row(other_organization, "2", "fresh").await;
        self.row(other_organization, "3", "green_api primary").await;
        let (past, gone) = ("now() - interval '3 days'", Uuid::from_u128(9));
        let all = format!(
            "update messenger_integrations set created_at = {past} where organization_id = '{other_organization}';
             insert into wpp_numbers (integration_id, organization_id, session) values
               ('{gone}', '{other_organization}', '1'), ('{primary}', '{other_organization}', 'x');
             insert into wpp_creations (organization_id, kind, integration_id, platform_id, created_at, finished_at) values
               ('{other_organization}', 'first', null, '{other_organization}', {past}, null),
               ('{other_organization}', 'first', null, '{other_organization}', now(), null),
               ('{other_organization}', 'additional', null, '{other_organization}', now() + interval '1 hour', null),
               ('{other_organization}', 'replace', '{gone}', '{other_organization}', now(), now());
             insert into wpp_platform_ids (platform_id, organization_id, created_at)
               select '{other_organization}' || n, '{other_organization}', now() - n * interval '1 minute' from generate_series(1, 90) n;
             insert into wpp_token_leases (integration_id, organization_id, holder, held_until, failure, retry_at, key_digest)
               values ('{gone}', '{other_organization}', '{gone}', now(), 'api_key_rejected', {past}, md5('key'))"
        );
        self.sql.batch_execute(&all).await.unwrap();
        other_organization
    }

    /// Returns all that is kept of an organization.
    pub async fn all_of(&self, organization: Uuid) -> Vec<Value> {
        let mut all = Vec::new();
        for table in TABLES {
            let rows =
                format!("(select jsonb_agg(t order by t::text) from {table} t where organization_id = $1)");
            all.push(self.value(&rows, &[&organization]).await);
        }
        all
    }

    /// Adds a row of an organization, younger than the one before. It is an active number, not primary, with credentials that others have
    /// saved, unless words say otherwise.
    pub async fn row(&self, organization: Uuid, session: &str, words: &str) -> Uuid {
        let is = |word| words.split(' ').any(|said| said == word);
        let mut settings = json!({"wppAccountNumber": session});
        if !is("empty") {
            settings["wppApiKey"] = json!("key");
        }
        if is("sub") {
            settings["wppSubOrgId"] = json!(sub_id(organization));
        }
        let insert = "insert into messenger_integrations
            (organization_id, messenger_type, provider, is_active, is_enabled, is_primary, settings, created_at)
            values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp()) returning id";
        let messenger = if is("telegram") { "telegram" } else { "whatsapp" };
        let provider = if is("green_api") { "green_api" } else { "wpp" };
        let primary = if is("unmarked") { None } else { Some(is("primary")) };
        let values: [&(dyn ToSql + Sync); 7] =
            [&organization, &messenger, &provider, &!is("off"), &!is("disabled"), &primary, &Json(settings)];
        let row: Uuid = self.sql.query_one(insert, &values).await.unwrap().get(0);
        if is("fresh") {
            let hours = if is("aged") { 24.1 } else { 23.9 };
            let saved = "insert into wpp_numbers (integration_id, organization_id, session, platform_id, credentials_saved_at)
                select id, organization_id, settings ->> 'wppAccountNumber',
                  coalesce(settings ->> 'wppSubOrgId', organization_id::text),
                  clock_timestamp() - $2 * interval '1 hour' from messenger_integrations where id = $1";
            self.run(saved, &[&row, &hours]).await;
        }
        if is("seen") {
            let mirror = "insert into whatsapp_sessions (organization_id, session_name, status)
                values ($1, 'wpp_' || $2, 'connected')";
            self.run(mirror, &[&organization, &session]).await;
        }
        row
    }

    /// Rows of our organization, with the sessions 1, 2, 3...
    pub async fn rows(&mut self, rows: &[&str]) -> Vec<Uuid> {
        self.renew().await;
        self.sql
            .batch_execute("reset role; alter table messenger_integrations alter is_primary drop not null; set role service_role")
            .await
            .unwrap();
        let mut ids = Vec::new();
        for (index, words) in rows.iter().enumerate() {
            ids.push(self.row(self.organization, &(index + 1).to_string(), words).await);
        }
        ids
    }

    pub async fn organization(&self) -> (Uuid, Uuid) {
        let (organization, user) = (Uuid::new_v4(), Uuid::new_v4());
        self.run("insert into organizations (id) values ($1)", &[&organization]).await;
        self.run("insert into profiles (id, organization_id) values ($1, $2)", &[&user, &organization]).await;
        (organization, user)
    }

    pub async fn run(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) -> u64 {
        self.sql.execute(statement, values).await.unwrap()
    }

    /// Returns the answer of a query of one JSON value.
    pub async fn value(&self, query: &str, values: &[&(dyn ToSql + Sync)]) -> Value {
        let row = self.sql.query_one(&format!("select to_jsonb({query})"), values).await.unwrap();
        row.get::<_, Option<Json<Value>>>(0).map_or(Value::Null, |json| json.0)
    }

    pub async fn begin(&self, begin: Begin<'_>) -> Value {
        let holder = begin.holder.unwrap_or(ME);
        let request = json!({"mode": begin.mode, "session": begin.session, "integration_id": begin.integration,
            "rejected_key": begin.rejected_key});
        let begin_creation = "wpp_begin_creation($1, $2, $3, 10000, $4)";
        self.value(begin_creation, &[&self.user, &Json(request), &holder, &begin.waited_for]).await
    }

    pub async fn save(&self, creation: &Value, holder: Uuid, key: &str, session: &str) -> Value {
        self.save_in(self.organization, creation, holder, key, session).await
    }

    pub async fn save_in(
        &self,
        organization: Uuid,
        creation: &Value,
        holder: Uuid,
        key: &str,
        session: &str,
    ) -> Value {
        let save = "wpp_save_credentials($1, $2, $3, $4, $5)";
        self.value(save, &[&organization, &id(creation), &holder, &key, &session]).await
    }

    /// Creates a number, even if another one is not linked yet. Returns its row.
    pub async fn number(&self, mode: &str, key: &str, session: &str) -> Uuid {
        let link_all = "update wpp_numbers set first_connected_at = 'epoch' where first_connected_at is null";
        self.run(link_all, &[]).await;
        let begun = self.begin(Begin { mode, ..Begin::default() }).await;
        assert_eq!(begun["outcome"], "begun", "{begun}");
        let number = id(&self.save(&begun["creation"], ME, key, session).await["number"]["integration_id"]);
        self.run("update wpp_numbers set first_connected_at = null where first_connected_at = 'epoch'", &[])
            .await;
        number
    }

    pub async fn save_snapshot(
        &self,
        organization: Uuid,
        session: &str,
        status: &str,
        at_ms: i64,
        qr: Option<&str>,
    ) -> Value {
        let save_snapshot = "wpp_save_snapshot($1, $2, $3, $4, $5)";
        self.value(save_snapshot, &[&organization, &session, &status, &at_ms, &qr]).await
    }

    pub async fn link(&self, session: &str) {
        let now = self.now().await;
        let mirror = self.save_snapshot(self.organization, session, "connected", now, None).await;
        assert_eq!(mirror["status"], "connected");
    }

    pub async fn counts_as_linked(&self, number: Uuid) -> bool {
        let never =
            "(select never_linked from messenger_integrations i, wpp_internal.numbers(i.organization_id) n
            where i.id = $1 and n.id = i.id)";
        self.value(never, &[&number]).await == false
    }

    pub async fn now(&self) -> i64 {
        self.value("wpp_internal.now_ms()", &[]).await.as_i64().unwrap()
    }

    /// Returns the rows of all tables, as text.
    pub async fn everything(&self) -> String {
        let mut all = String::new();
        for table in TABLES {
            let rows = format!("(select jsonb_agg(t order by t::text) from {table} t)");
            all += &self.value(&rows, &[]).await.to_string();
        }
        all
    }

    /// Returns the primary rows.
    pub async fn primaries(&self) -> Vec<Uuid> {
        let rows = "select id from messenger_integrations where organization_id = $1 and is_primary";
        self.sql.query(rows, &[&self.organization]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

/// Returns a platform id of the organization's own form.
pub fn sub_id(organization: Uuid) -> String {
    format!("{organization}__wpp__00000001")
}

/// Returns the place of a row among these.
pub fn place(rows: &[Uuid], row: &Value) -> Option<usize> {
    row.as_str().map(|row| rows.iter().position(|known| known.to_string() == row).unwrap())
}

pub fn id(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}
