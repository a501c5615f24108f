//! A PostgreSQL server as a Supabase project has it: its roles, its default privileges, our migrations.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::Result;
use crate::child::Output;
use crate::cluster::Installation;
use crate::programs::workspace;
use crate::service::{Program, Service};

/// What a Supabase project has before its first migration.
const BOOTSTRAP: &str = include_str!("bootstrap.sql");

/// What Supabase takes back of that. Its own last statement names the schema, and so takes nothing from PUBLIC; here it
/// is taken as it is meant, so that whoever forgets a grant hears of it.
const TAKEN_BACK: &str = "
    alter default privileges in schema public
      revoke select, insert, update, delete on tables from anon, authenticated, service_role;
    alter default privileges in schema public
      revoke usage, select on sequences from anon, authenticated, service_role;
    alter default privileges in schema public
      revoke execute on functions from anon, authenticated, service_role;
    alter default privileges revoke execute on functions from public";

/// What a project grants by itself on new tables and functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privileges {
    /// Everything, to `anon`, `authenticated` and `service_role`: projects of before October 2026.
    Granted,
    /// Nothing that a request could use, not even to `service_role`: every project since.
    #[default]
    Nothing,
}

/// Settings of every server. No sockets beside the loopback address; small, since tests run many.
const FRUGAL: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=16MB",
    "max_connections=60",
    "wal_level=minimal",
    "max_wal_senders=0",
];

/// Settings of a server whose data nobody will miss.
const CARELESS: [&str; 3] = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// Where a server keeps its data.
#[derive(Clone, Debug, Default)]
pub enum Storage {
    /// In a temporary directory, removed on drop.
    #[default]
    Temporary,
    /// In `<directory>/postgres`, to be found there next time; its output in `<directory>/postgres.log`.
    Lasting(PathBuf),
}

/// A running PostgreSQL server. Dropping it ends it.
#[derive(Debug)]
pub struct Postgres {
    /// Declared before the scratch directory, since the server ends before its data goes.
    service: Service<Server>,
    _scratch: Option<Scratch>,
}

#[derive(Debug)]
struct Server {
    installation: Installation,
    data: PathBuf,
    settings: Vec<&'static str>,
}

/// A directory that is removed on drop.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next to make one.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Postgres {
    /// Starts a server on `127.0.0.1:port` (0 takes a free one), with our migrations applied.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, the port is in use, the server does not start or a migration fails.
    pub async fn start(port: u16, storage: &Storage) -> Result<Self> {
        Self::start_with(port, storage, Privileges::default()).await
    }

    /// [`Postgres::start`] with a project's default privileges.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(port: u16, storage: &Storage, privileges: Privileges) -> Result<Self> {
        let installation = Installation::find()?;
        let (data, output, scratch) = match storage {
            Storage::Temporary => {
                let scratch = Scratch(installation.scratch()?);
                let data = scratch.0.join("data");
                installation.copy_template(&data).await?;
                (data, Output::Captured, Some(scratch))
            }
            Storage::Lasting(directory) => {
                fs::create_dir_all(directory)?;
                let directory = fs::canonicalize(directory)?;
                let data = directory.join("postgres");
                installation.initialise(&data).await?;
                (data, Output::File(directory.join("postgres.log")), None)
            }
        };
        let careless = if scratch.is_some() { &CARELESS[..] } else { &[] };
        let settings = [&FRUGAL, careless].concat();
        let server = Server { installation, data, settings };
        let service = Service::start(server, port, output).await?;
        let postgres = Self { service, _scratch: scratch };
        postgres.bootstrap(privileges).await?;
        postgres.migrate(&migrations()).await?;
        Ok(postgres)
    }

    /// Puts another project in the place of this one, with these tables of its own in it and none of our migrations.
    ///
    /// # Errors
    /// When the SQL is refused.
    pub async fn replace(&self, privileges: Privileges, tables: &str) -> Result<()> {
        self.apply("public", "drop schema public cascade; create schema public").await?;
        self.bootstrap(privileges).await?;
        self.apply("the project's tables", tables).await
    }

    async fn bootstrap(&self, privileges: Privileges) -> Result<()> {
        self.apply("bootstrap.sql", BOOTSTRAP).await?;
        match privileges {
            Privileges::Granted => Ok(()),
            Privileges::Nothing => self.apply("default privileges", TAKEN_BACK).await,
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.service.port()
    }

    /// Its address for a client that is `role`; no password is needed.
    pub fn url(&self, role: &str) -> String {
        url(role, self.port())
    }

    /// Connects as the superuser.
    ///
    /// # Errors
    /// When the server is stopped.
    pub async fn connect(&self) -> Result<Client> {
        connect(self.port()).await
    }

    /// Applies the `*.sql` files of a directory in the order of their names, then has PostgREST look again.
    ///
    /// # Errors
    /// Names the file, and what PostgreSQL says against it.
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
    ///
    /// # Errors
    /// When the system does not say how it ended.
    pub async fn stop(&self) -> Result<()> {
        self.service.stop().await
    }

    /// Starts it again, on the same data and port; stops it first if it runs.
    ///
    /// # Errors
    /// When it does not start; the error holds what the server said.
    pub async fn restart(&self) -> Result<()> {
        self.service.restart().await
    }

    /// One line on why it ended, or nothing if it runs or was stopped.
    pub async fn failure(&self) -> Option<String> {
        self.service.failure().await
    }

    /// What it has written since it was started last.
    pub async fn logs(&self) -> String {
        self.service.logs().await
    }
}

impl Program for Server {
    const NAME: &str = "PostgreSQL";

    fn command(&self, port: u16) -> Command {
        let mut command = self.installation.command("postgres");
        command.arg("-D").arg(&self.data).current_dir(&self.data);
        command.args(["-p", &port.to_string()]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command
    }

    /// Another's server has another directory.
    async fn answers(&self, port: u16) -> bool {
        let Ok(client) = connect(port).await else { return false };
        let directory = client.query_one("show data_directory", &[]).await;
        directory.is_ok_and(|row| row.get::<_, String>(0) == self.data.to_string_lossy())
    }
}

/// Where our migrations are.
pub fn migrations() -> PathBuf {
    workspace().join("migrations")
}

fn url(role: &str, port: u16) -> String {
    format!("postgresql://{role}@127.0.0.1:{port}/postgres")
}

async fn connect(port: u16) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&url("postgres", port), NoTls).await?;
    // It ends with the client; a failure shows in the client's own calls.
    tokio::spawn(async { drop(connection.await) });
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports;

    fn scratch(postgres: &Postgres) -> PathBuf {
        postgres._scratch.as_ref().unwrap().0.clone()
    }

    async fn count(client: &Client, sql: &str) -> i64 {
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn data_and_port_outlast_a_stop_but_sessions_do_not() {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        let client = postgres.connect().await.unwrap();
        client.batch_execute("create table kept (); insert into kept default values").await.unwrap();
        postgres.stop().await.unwrap();
        assert!(client.query_one("select 1", &[]).await.is_err());
        assert!(postgres.connect().await.is_err());
        postgres.restart().await.unwrap();
        let client = postgres.connect().await.unwrap();
        assert_eq!(count(&client, "select count(*) from kept").await, 1);
    }

    #[tokio::test]
    async fn a_dropped_server_leaves_no_data_and_a_free_port() {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        let (port, scratch) = (postgres.port(), scratch(&postgres));
        drop(postgres);
        assert!(!scratch.exists());
        assert!(ports::is_free(port));
    }

    #[tokio::test]
    async fn lasting_data_is_found_again() {
        let installation = Installation::find().unwrap();
        let scratch = Scratch(installation.scratch().unwrap());
        let storage = Storage::Lasting(scratch.0.clone());
        let postgres = Postgres::start(0, &storage).await.unwrap();
        postgres.connect().await.unwrap().batch_execute("create table kept ()").await.unwrap();
        drop(postgres);
        let postgres = Postgres::start(0, &storage).await.unwrap();
        let client = postgres.connect().await.unwrap();
        assert_eq!(count(&client, "select count(*) from kept").await, 0);
    }

    #[tokio::test]
    async fn new_tables_and_functions_are_open_to_supabases_roles_or_to_nobody() {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        let client = postgres.connect().await.unwrap();
        let new = "create table new (); create function new() returns int language sql as 'select 1'";
        let may = "select has_table_privilege($1, 'new', 'select, insert, update, delete'),
            has_function_privilege($1, 'new()', 'execute')";
        // Twice, since a lasting database may have been the other before.
        for privileges in [Privileges::Granted, Privileges::Nothing, Privileges::Granted] {
            postgres.replace(privileges, new).await.unwrap();
            for role in ["anon", "authenticated", "service_role"] {
                let row = client.query_one(may, &[&role]).await.unwrap();
                let granted = privileges == Privileges::Granted;
                assert_eq!((row.get(0), row.get(1)), (granted, granted), "{role}: {privileges:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_broken_migration_is_named_with_its_error() {
        let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
        let directory = scratch(&postgres).join("migrations");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("1_good.sql"), "create table good ()").unwrap();
        fs::write(directory.join("2_bad.sql"), "create tabel bad ()").unwrap();
        let error = postgres.migrate(&directory).await.unwrap_err().to_string();
        assert!(error.ends_with("2_bad.sql: ERROR: syntax error at or near \"tabel\""), "{error}");
    }
}
