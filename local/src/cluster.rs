//! PostgreSQL servers: their programs, their system user and their data.

use std::env::temp_dir;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::id;

use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::Result;
use crate::child::{Child, Output, Signal, named_by, on_path, supervised};
use crate::service::{Program, Service};

/// The directory of Debian's PostgreSQL packages, with a subdirectory for each major version.
const DEBIAN_SERVERS: &str = "/usr/lib/postgresql";

/// The users that can run PostgreSQL if this process is root, because PostgreSQL refuses to run as root. The first one that exists
/// is used.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// Options of `initdb`. No passwords, because the server listens only on loopback.
const INITDB: [&str; 6] =
    ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-sync"];

/// Settings of every server. It listens only on loopback, and has enough connections for all tests of a process.
const SETTINGS: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=32MB",
    "max_connections=400",
    "wal_level=minimal",
    "max_wal_senders=0",
];

/// Settings of a server whose data may be lost.
const CARELESS: [&str; 3] = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// The prefix of temporary directories; the owner's process id follows.
const SCRATCH: &str = "wpp-local-run-";

/// A running PostgreSQL server. Dropping it stops the server, and removes temporary data.
pub(crate) type Cluster = Service<Server>;

/// How a server is run.
#[derive(Debug)]
pub(crate) struct Server {
    installation: Installation,
    data: PathBuf,
    scratch: Option<TempDir>,
}

impl Cluster {
    /// Starts a server on `127.0.0.1:port` whose data and output stay in `directory`; without one, its data is
    /// temporary.
    pub async fn start(port: u16, directory: Option<&Path>) -> Result<Self> {
        let installation = Installation::find()?;
        let Some(directory) = directory else {
            let scratch = installation.scratch()?;
            let data = scratch.path().to_owned();
            installation.initdb(&data).await?;
            return Self::run(Server { installation, data, scratch: Some(scratch) }, port, Output::Captured)
                .await;
        };
        fs::create_dir_all(directory)?;
        let directory = fs::canonicalize(directory)?;
        let data = directory.join("postgres");
        if !data.exists() {
            // The incomplete cluster of an interrupted `initdb` must not be used.
            let unfinished = directory.join("postgres.unfinished");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)?;
            }
            fs::create_dir(&unfinished)?;
            installation.initdb(&unfinished).await?;
            fs::rename(unfinished, &data)?;
        }
        let output = Output::File(directory.join("postgres.log"));
        Self::run(Server { installation, data, scratch: None }, port, output).await
    }
}

impl Program for Server {
    const NAME: &str = "PostgreSQL";

    fn command(&self, port: u16) -> Command {
        let mut command = self.installation.command("postgres");
        command.arg("-D").arg(&self.data).current_dir(&self.data);
        command.args(["-p", &port.to_string()]);
        let careless = if self.scratch.is_some() { &CARELESS[..] } else { &[] };
        for setting in SETTINGS.iter().chain(careless) {
            command.args(["-c", setting]);
        }
        command
    }

    /// Returns whether this server answers there. Another server would have another directory.
    async fn answers(&self, port: u16) -> bool {
        let Ok(client) = connect(&url("postgres", port, "template1")).await else { return false };
        let directory = client.query_one("show data_directory", &[]).await;
        directory.is_ok_and(|row| row.get::<_, String>(0) == self.data.to_string_lossy())
    }
}

/// Returns a database's URL for a client with this role; no password is needed.
pub(crate) fn url(role: &str, port: u16, database: &str) -> String {
    format!("postgresql://{role}@127.0.0.1:{port}/{database}")
}

/// Connects to a database.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // The connection ends with the client. A failure shows in the client's calls.
    tokio::spawn(async { drop(connection.await) });
    Ok(client)
}

/// The installed PostgreSQL, and the user that runs it.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    programs: PathBuf,
    /// The user and group to switch to if this process is root.
    stand_in: Option<(u32, u32)>,
}

impl Installation {
    /// Finds it in `POSTGRES_BIN` (a directory), on the `PATH`, or in Debian's directory, newest version first.
    pub fn find() -> Result<Self> {
        let named = named_by("POSTGRES_BIN")?;
        let programs =
            named.map_or_else(installed, |directory| Some(directory).filter(|it| holds_server(it))).ok_or(
                "PostgreSQL is not installed: install it (Debian: apt-get install postgresql), \
             or name the directory of its initdb and postgres in POSTGRES_BIN",
            )?;
        let is_root = fs::metadata("/proc/self")?.uid() == 0;
        let stand_in = if is_root { Some(stand_in()?) } else { None };
        Ok(Self { programs, stand_in })
    }

    /// Returns whether the user that runs PostgreSQL can reach `path`, or the directory in which it would be created.
    pub fn reaches(&self, path: &Path) -> bool {
        let open =
            |directory: &Path| fs::metadata(directory).is_ok_and(|it| it.permissions().mode() & 0o001 != 0);
        self.stand_in.is_none() || path.ancestors().skip(1).filter(|above| above.exists()).all(open)
    }

    /// Returns a command that runs one of its programs supervised, as the right user.
    fn command(&self, program: &str) -> Command {
        let mut command = supervised(self.programs.join(program), Signal::INT);
        command.env("LC_ALL", "C");
        if let Some((uid, gid)) = self.stand_in {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Creates a temporary directory, and removes those of owners that are gone.
    fn scratch(&self) -> Result<TempDir> {
        let usual = temp_dir();
        let place = if self.reaches(&usual.join(SCRATCH)) { usual } else { PathBuf::from("/tmp") };
        let place = fs::canonicalize(place)?;
        sweep(&place);
        Ok(tempfile::Builder::new().prefix(&format!("{SCRATCH}{}-", id())).tempdir_in(place)?)
    }

    /// Makes a new cluster in an empty directory.
    async fn initdb(&self, data: &Path) -> Result<()> {
        fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = self.stand_in {
            chown(data, Some(uid), Some(gid))?;
        }
        let mut initdb = self.command("initdb");
        initdb.args(INITDB).arg("-D").arg(data).current_dir(data);
        let mut child = Child::spawn("initdb", initdb, &Output::Captured)?;
        if child.wait().await?.success() { Ok(()) } else { Err(child.exit_report().into()) }
    }
}

fn holds_server(directory: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| directory.join(program).is_file())
}

fn installed() -> Option<PathBuf> {
    let on_path = on_path("postgres").and_then(|file| Some(file.parent()?.to_owned()));
    let debian = fs::read_dir(DEBIAN_SERVERS).into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = debian.map(|entry| entry.path()).collect();
    let major = |version: &PathBuf| version.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(|version| std::cmp::Reverse(major(version)));
    on_path.into_iter().chain(versions.iter().map(|version| version.join("bin"))).find(|it| holds_server(it))
}

/// Returns the user and group id of the first of [`STAND_INS`] that exists.
fn stand_in() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let mut fields =
            users.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?.skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = STAND_INS.iter().find_map(|name| ids(name));
    found.ok_or_else(|| {
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`".into()
    })
}

/// Removes what killed processes left behind. Keeps the shared server of a running test process.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(SCRATCH).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another process may be cleaning up, too, or this one may not have the right to remove the directory.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
