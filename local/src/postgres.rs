//! The database of a Supabase project: its roles, its default privileges, our migrations.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::Result;
use crate::child::workspace;
use crate::cluster::{Cluster, connect, url};

const ROLES: &str = include_str!("roles.sql");

/// The default privileges of every project before October 2026.
const GRANTED: &str = "
    grant usage on schema public to anon, authenticated, service_role;
    alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
    alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
    alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
    alter default privileges grant execute on functions to public";

/// What Supabase takes back of that. Its own last statement names the schema, and so takes nothing from PUBLIC. Here it is taken as it is
/// meant, so that a forgotten grant shows in a test.
const TAKEN_BACK: &str = "
    alter default privileges in schema public
      revoke select, insert, update, delete on tables from anon, authenticated, service_role;
    alter default privileges in schema public
      revoke usage, select on sequences from anon, authenticated, service_role;
    alter default privileges in schema public
      revoke execute on functions from anon, authenticated, service_role;
    alter default privileges revoke execute on functions from public";

/// The database that each new server has; on the shared one, the template of the others.
const FIRST: &str = "postgres";

/// The server that the tests of this process share. It ends with the process.
static SHARED: OnceCell<Arc<Cluster>> = OnceCell::const_new();

/// Databases on the shared server whose tests are over. They go when the next one is made.
static FINISHED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a project grants on new tables and functions without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privileges {
    /// Everything, to `anon`, `authenticated` and `service_role`: projects of before October 2026.
    Granted,
    /// Nothing that a request could use, not even to `service_role`: every project since.
    #[default]
    Nothing,
}

/// The place of the data.
#[derive(Clone, Debug, Default)]
pub enum Storage {
    /// In its own database, on the server that all tests of this process share.
    #[default]
    Temporary,
    /// On its own server, which a test may stop. Its data is removed with it.
    OwnServer,
    /// In `<directory>/postgres`, to be found there next time; its output in `<directory>/postgres.log`.
    Lasting(PathBuf),
}

/// A project's database on a running server.
#[derive(Debug)]
pub struct Postgres {
    server: Arc<Cluster>,
    database: String,
}

impl Postgres {
    /// Starts a project's database with our migrations applied. If it has its own server, that listens on `127.0.0.1:port`; 0 takes a
    /// free port.
    pub async fn start(port: u16, storage: &Storage) -> Result<Self> {
        match storage {
            Storage::Temporary => Self::on_shared_server().await,
            Storage::OwnServer => Self::on_own_server(port, None).await,
            Storage::Lasting(directory) => Self::on_own_server(port, Some(directory)).await,
        }
    }

    async fn on_own_server(port: u16, directory: Option<&Path>) -> Result<Self> {
        let server = Arc::new(Cluster::start(port, directory).await?);
        let postgres = Self { server, database: FIRST.to_owned() };
        postgres.apply("roles.sql", ROLES).await?;
        postgres.set_privileges(Privileges::default()).await?;
        postgres.migrate(&migrations()).await?;
        Ok(postgres)
    }

    /// Copies a migrated database, which takes a tenth of the time that a server takes.
    async fn on_shared_server() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(1);
        let server = SHARED
            .get_or_try_init(async || {
                Ok::<_, crate::Error>(Self::on_own_server(0, None).await?.server.clone())
            })
            .await?
            .clone();
        // A database can be copied only while it has no connections.
        let sql = connect(&url("postgres", server.port(), "template1")).await?;
        let finished = std::mem::take(&mut *FINISHED.lock().unwrap_or_else(PoisonError::into_inner));
        for database in finished {
            sql.batch_execute(&format!("drop database {database} with (force)")).await?;
        }
        let database = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
        sql.batch_execute(&format!("create database {database} template {FIRST}")).await?;
        Ok(Self { server, database })
    }

    /// Puts another project in the place of this one, with these tables of its own in it and none of our migrations.
    pub async fn replace(&self, privileges: Privileges, tables: &str) -> Result<()> {
        self.apply(
            "public",
            "drop schema if exists wpp_internal cascade; drop schema public cascade; create schema public",
        )
        .await?;
        self.set_privileges(privileges).await?;
        self.apply("the project's tables", tables).await
    }

    async fn set_privileges(&self, privileges: Privileges) -> Result<()> {
        self.apply("default privileges", GRANTED).await?;
        match privileges {
            Privileges::Granted => Ok(()),
            Privileges::Nothing => self.apply("default privileges", TAKEN_BACK).await,
        }
    }

    /// Returns its address for a client that is `role`; no password is needed.
    pub fn url(&self, role: &str) -> String {
        url(role, self.server.port(), &self.database)
    }

    /// Connects as the superuser.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.url("postgres")).await
    }

    /// Applies the `*.sql` files of a directory in the order of their names, then has PostgREST look again.
    pub async fn migrate(&self, directory: &Path) -> Result<()> {
        let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
        files.sort();
        for file in files {
            self.apply(&file.display().to_string(), &fs::read_to_string(&file)?).await?;
        }
        self.apply("reload", "notify pgrst, 'reload schema'").await
    }

    /// Runs SQL as the superuser; `what` is what an error calls it.
    async fn apply(&self, what: &str, sql: &str) -> Result<()> {
        let client = self.connect().await?;
        client.batch_execute(sql).await.map_err(|error| match error.as_db_error() {
            // The error's own text hides it.
            Some(complaint) => format!("{what}: {complaint}").into(),
            None => format!("{what}: {error}").into(),
        })
    }

    /// Ends every session and the server; its data and its port stay for [`Postgres::restart`].
    pub async fn stop(&self) -> Result<()> {
        if self.is_shared() {
            return Err("other tests use this server: take Storage::OwnServer".into());
        }
        self.server.stop().await
    }

    /// Starts it again, on the same data and port.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.server.restart().await
    }

    /// Returns one line on why the server ended, or `None` if it runs or was stopped.
    pub async fn failure(&self) -> Option<String> {
        self.server.failure().await
    }

    /// Returns what the server has written since it was started last. A shared server writes about all its databases.
    pub async fn logs(&self) -> String {
        self.server.logs().await
    }

    fn is_shared(&self) -> bool {
        self.database != FIRST
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.is_shared() {
            let database = std::mem::take(&mut self.database);
            FINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(database);
        }
    }
}

/// Returns the directory of our migrations. `local/sql_mutants.py` names another one, with a mistake in it.
pub fn migrations() -> PathBuf {
    std::env::var_os("WPP_LOCAL_MIGRATIONS").map_or_else(|| workspace().join("migrations"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::is_free;

    #[tokio::test]
    async fn a_dropped_server_leaves_no_data_and_a_free_port() {
        let postgres = Postgres::start(0, &Storage::OwnServer).await.unwrap();
        let data = postgres.connect().await.unwrap().query_one("show data_directory", &[]).await.unwrap();
        let (port, data) = (postgres.server.port(), data.get::<_, String>(0));
        assert!(Path::new(&data).exists() && !is_free(port));
        drop(postgres);
        assert!(!Path::new(&data).exists() && is_free(port));
    }

    #[tokio::test]
    async fn a_database_is_dropped_after_its_test() {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        assert!(postgres.stop().await.is_err() && postgres.restart().await.is_err());
        let (server, mine) = (postgres.server.clone(), postgres.database.clone());
        let client = postgres.connect().await.unwrap();
        drop(postgres);
        Postgres::start(0, &Storage::Temporary).await.unwrap();
        assert!(client.query_one("select 1", &[]).await.is_err());
        assert!(connect(&url("postgres", server.port(), &mine)).await.is_err());
    }

    #[tokio::test]
    async fn new_tables_are_open_to_supabases_roles_only() {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        let client = postgres.connect().await.unwrap();
        let new = "create table new (); create function new() returns int language sql as 'select 1'";
        let may = "select has_table_privilege($1, 'new', 'select, insert, update, delete'),
            has_function_privilege($1, 'new()', 'execute')";
        // Twice, since a database may have been the other before.
        for privileges in [Privileges::Granted, Privileges::Nothing, Privileges::Granted] {
            postgres.replace(privileges, new).await.unwrap();
            for role in ["anon", "authenticated", "service_role"] {
                let row = client.query_one(may, &[&role]).await.unwrap();
                let granted = privileges == Privileges::Granted;
                assert_eq!((row.get(0), row.get(1)), (granted, granted), "{role}: {privileges:?}");
            }
        }
    }
}
