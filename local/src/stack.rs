//! A whole local system: a Supabase project and a WPP Platform, as the three functions see them.

use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::Result;
use crate::child::Output;
use crate::events::Event;
use crate::platform::{self, Platform};
use crate::postgres::{Postgres, Privileges, Storage, migrations};
use crate::postgrest::Postgrest;
use crate::supabase::Supabase;
use crate::users::Keys;

/// The settings of a stack. The defaults are free ports, new secrets, and data that is deleted with the stack.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PostgreSQL's port on 127.0.0.1; 0 takes a free one, here and below.
    pub postgres_port: u16,
    /// PostgREST's port.
    pub postgrest_port: u16,
    /// The port of the Supabase gateway (`supabase.rs`).
    pub supabase_port: u16,
    /// Where the data and the servers' output go.
    pub storage: Storage,
    /// The project's JWT secret, at least 32 bytes; `None` generates one.
    pub jwt_secret: Option<String>,
    /// The settings of the platform's simulator.
    pub platform: platform::Settings,
}

/// A running system without the functions. Dropping it stops every process and removes temporary data.
pub struct Stack {
    /// The platform's simulator.
    pub platform: Platform,
    /// The Supabase project as the functions see it: one URL for REST and JWKS.
    pub supabase: Supabase,
    /// The REST API behind `supabase`.
    pub postgrest: Postgrest,
    /// The database behind `postgrest`.
    pub postgres: Postgres,
    /// The project's secrets.
    pub keys: Keys,
}

/// A tenant with one user.
#[derive(Clone, Debug)]
pub struct Organization {
    /// `organizations.id`
    pub id: Uuid,
    /// `profiles.id`
    pub user: Uuid,
    /// The user's token, valid for an hour.
    pub token: String,
}

impl Organization {
    /// Returns a POST request by the organization's user.
    pub fn post(&self, name: &str, body: &Value) -> Event {
        Event::post(name).bearer(&self.token).json(body)
    }
}

impl Stack {
    /// Starts a stack with new secrets on free ports.
    pub async fn start() -> Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Starts a stack with these settings.
    pub async fn start_with(settings: Settings) -> Result<Self> {
        let keys = match &settings.jwt_secret {
            Some(secret) => Keys::with_jwt_secret(secret)?,
            None => Keys::generate()?,
        };
        let platform = Platform::start(settings.platform).await?;
        let postgres = Postgres::start(settings.postgres_port, &settings.storage).await?;
        let output = match &settings.storage {
            Storage::Temporary | Storage::OwnServer => Output::Captured,
            Storage::Lasting(directory) => Output::File(directory.join("postgrest.log")),
        };
        let database = postgres.url("authenticator");
        let postgrest = Postgrest::start(settings.postgrest_port, &database, &keys, output).await?;
        let supabase = Supabase::start(settings.supabase_port, &keys, &postgrest).await?;
        Ok(Self { platform, supabase, postgrest, postgres, keys })
    }

    /// Returns the environment of the functions.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("WPP_BASE_URL", self.platform.url()),
            ("WPP_SECRET", self.platform.secret()),
            ("SUPABASE_URL", self.supabase.url()),
            ("SUPABASE_SERVICE_ROLE_KEY", self.keys.service_role_key()),
            ("SUPABASE_JWT_SECRET", self.keys.jwt_secret().to_owned()),
            ("CORS_ALLOWED_ORIGINS", "*".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Connects to the database as the superuser.
    pub async fn sql(&self) -> Result<Client> {
        self.postgres.connect().await
    }

    /// Replaces the database with one that has these tables, and applies the migrations.
    pub async fn deploy(&self, privileges: Privileges, tables: &str) -> Result<()> {
        self.postgres.replace(privileges, tables).await?;
        self.postgres.migrate(&migrations()).await?;
        // PostgREST has prepared statements for tables that no longer exist.
        self.postgrest.restart().await
    }

    /// Creates an organization with one user.
    pub async fn organization(&self, name: &str) -> Result<Organization> {
        self.seed(Uuid::new_v4(), Uuid::new_v4(), name).await
    }

    /// Creates this organization and this user if they do not exist.
    pub async fn seed(&self, id: Uuid, user: Uuid, name: &str) -> Result<Organization> {
        let sql = self.sql().await?;
        let organization = "insert into organizations (id, name) values ($1, $2) on conflict do nothing";
        sql.execute(organization, &[&id, &name]).await?;
        let profile = "insert into profiles (id, organization_id) values ($1, $2) on conflict do nothing";
        sql.execute(profile, &[&user, &id]).await?;
        let token = self.keys.user_token(user);
        Ok(Organization { id, user, token })
    }

    /// Returns one line about the first process that ended unexpectedly, or `None` if all are running.
    pub async fn failure(&self) -> Option<String> {
        match self.postgres.failure().await {
            Some(failure) => Some(failure),
            None => self.postgrest.failure().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_app::until;

    #[tokio::test]
    async fn two_stacks_are_independent() {
        let (one, two) = tokio::join!(Stack::start(), Stack::start());
        let (one, two) = (one.unwrap(), two.unwrap());
        let organization = one.organization("one").await.unwrap();
        let present = "select count(*) from profiles where id = $1 and organization_id = $2";
        for (stack, expected) in [(&one, 1), (&two, 0)] {
            let sql = stack.sql().await.unwrap();
            let row = sql.query_one(present, &[&organization.user, &organization.id]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), expected);
        }
        assert_ne!(one.keys.jwt_secret(), two.keys.jwt_secret());
    }

    #[tokio::test]
    async fn server_that_dies_is_reported() {
        let settings = Settings { storage: Storage::OwnServer, ..Settings::default() };
        let stack = Stack::start_with(settings).await.unwrap();
        assert_eq!(stack.failure().await, None);
        let kill = "copy (select 1) to program 'kill -9 $(head -1 postmaster.pid)'";
        // The kill also ends this connection, before it gets an answer.
        let _ = stack.sql().await.unwrap().batch_execute(kill).await;
        until(async || stack.failure().await.is_some()).await;
        let failure = stack.failure().await.unwrap();
        assert!(failure.starts_with("PostgreSQL ended with signal: 9"), "{failure}");
    }
}
