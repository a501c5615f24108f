//! PostgreSQL's programs and data directories: where they are, who may run them, how a new one is made quickly.

use std::env::temp_dir;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::id;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::Result;
use crate::child::{Child, Output, Signal, supervised};
use crate::programs::{named_by, on_path};

/// Where Debian's packages put the servers, a directory for each major version.
const DEBIAN_SERVERS: &str = "/usr/lib/postgresql";

/// Whom PostgreSQL runs as where we are root, which it refuses to be; the first that exists.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// Options of `initdb`: small segments of the write-ahead log, so that a copy is quick; no passwords, since only the
/// loopback address is served.
const INITDB: [&str; 6] =
    ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-sync"];

/// Begins the names of temporary directories; their owner's process id follows.
const SCRATCH: &str = "wpp-local-run-";

/// The installed PostgreSQL, and the user that runs it.
#[derive(Clone, Debug)]
pub struct Installation {
    programs: PathBuf,
    uid: u32,
    /// Whom to become, being root.
    stand_in: Option<(u32, u32)>,
}

impl Installation {
    /// Finds it: `POSTGRES_BIN` (a directory), the `PATH`, then Debian's place, newest version first.
    ///
    /// # Errors
    /// Says what to install when there is none.
    pub fn find() -> Result<Self> {
        let programs = match named_by("POSTGRES_BIN")? {
            Some(directory) => directory,
            None => installed().ok_or(
                "PostgreSQL is not installed: install it (Debian: apt-get install postgresql), \
                 or name the directory of its programs in POSTGRES_BIN",
            )?,
        };
        if !holds_server(&programs) {
            return Err(
                format!("{} does not hold PostgreSQL's initdb and postgres", programs.display()).into()
            );
        }
        let own = fs::metadata("/proc/self")?.uid();
        let stand_in = if own == 0 { Some(stand_in()?) } else { None };
        let uid = stand_in.map_or(own, |(uid, _)| uid);
        Ok(Self { programs, uid, stand_in })
    }

    /// A command that runs one of its programs on a leash, as the user it must be.
    pub fn command(&self, program: &str) -> Command {
        let mut command = supervised(self.programs.join(program), Signal::Interrupt);
        command.env("LC_ALL", "C");
        self.lower(&mut command);
        command
    }

    /// Initialises `data` unless it has been. Its parent must be within reach, see [`Installation::reaches`].
    ///
    /// # Errors
    /// When the system or `initdb` refuses.
    pub async fn initialise(&self, data: &Path) -> Result<()> {
        if data.exists() {
            return Ok(());
        }
        // Half a cluster, of an `initdb` that was interrupted, must not be taken for one.
        let unfinished = data.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        self.give_away(&unfinished)?;
        self.initdb(&unfinished).await?;
        Ok(fs::rename(unfinished, data)?)
    }

    /// Makes `data` by copying a template, which is made on first use: `initdb` takes a second or more.
    ///
    /// # Errors
    /// When the template or the copy cannot be made.
    pub async fn copy_template(&self, data: &Path) -> Result<()> {
        static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
        let template = TEMPLATE.get_or_try_init(|| self.template()).await?;
        let mut copy = supervised("cp", Signal::Terminate);
        copy.arg("-R").arg(template).arg(data);
        self.lower(&mut copy);
        finish(Child::spawn("cp", copy, &Output::Captured)?).await
    }

    /// Whether the user that runs PostgreSQL can get to `path`, or to where it would be made.
    pub fn reaches(&self, path: &Path) -> bool {
        let open =
            |directory: &Path| fs::metadata(directory).is_ok_and(|it| it.permissions().mode() & 0o001 != 0);
        self.stand_in.is_none() || path.ancestors().skip(1).filter(|above| above.exists()).all(open)
    }

    /// Makes a temporary directory that belongs to the user that runs PostgreSQL, and removes those whose owners are
    /// gone without having done so.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> io::Result<PathBuf> {
        let place = fs::canonicalize(self.temporary())?;
        sweep(&place);
        let directory = place.join(format!("{SCRATCH}{}-{:016x}", id(), fastrand::u64(..)));
        self.give_away(&directory)?;
        Ok(directory)
    }

    async fn initdb(&self, data: &Path) -> Result<()> {
        let mut initdb = self.command("initdb");
        initdb.args(INITDB).arg("-D").arg(data).current_dir(data);
        finish(Child::spawn("initdb", initdb, &Output::Captured)?).await
    }

    /// One initialised data directory per version and user, in the place for temporary files.
    async fn template(&self) -> Result<PathBuf> {
        let name = format!("wpp-local-template-{}-{}", self.version().await?, self.uid);
        let template = self.temporary().join(name);
        // Others write to that place too: what they put there is no template of ours.
        let is_ours = || fs::metadata(&template).is_ok_and(|there| there.uid() == self.uid);
        if is_ours() {
            return Ok(template);
        }
        let unfinished = self.scratch()?;
        self.initdb(&unfinished).await?;
        if let Err(error) = fs::rename(&unfinished, &template) {
            // Usually another process was quicker.
            fs::remove_dir_all(&unfinished)?;
            if !is_ours() {
                return Err(format!("cannot make {}: {error}", template.display()).into());
            }
        }
        Ok(template)
    }

    /// What `postgres --version` says, as it may stand in a file's name.
    async fn version(&self) -> Result<String> {
        let output = Command::new(self.programs.join("postgres")).arg("--version").output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect())
    }

    fn temporary(&self) -> PathBuf {
        let usual = temp_dir();
        if self.reaches(&usual.join(SCRATCH)) { usual } else { PathBuf::from("/tmp") }
    }

    fn give_away(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        self.stand_in.map_or(Ok(()), |(uid, gid)| chown(directory, Some(uid), Some(gid)))
    }

    fn lower(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.stand_in {
            command.uid(uid).gid(gid);
        }
    }
}

async fn finish(mut child: Child) -> Result<()> {
    if child.wait().await?.success() {
        return Ok(());
    }
    Err(child.exit_report().into())
}

fn holds_server(directory: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| directory.join(program).is_file())
}

fn installed() -> Option<PathBuf> {
    let on_path = on_path("postgres").and_then(|file| Some(file.parent()?.to_owned()));
    if let Some(directory) = on_path.filter(|directory| holds_server(directory)) {
        return Some(directory);
    }
    let major = |directory: &PathBuf| directory.file_name()?.to_str()?.parse::<u32>().ok();
    let mut versions: Vec<PathBuf> =
        fs::read_dir(DEBIAN_SERVERS).ok()?.flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(major);
    versions.iter().rev().map(|version| version.join("bin")).find(|directory| holds_server(directory))
}

/// User and group id of the first of [`STAND_INS`] that the machine knows.
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

fn sweep(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(SCRATCH).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Somebody else may be sweeping, or it may not be ours to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
