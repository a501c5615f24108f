//! Finds and runs programs on this machine. Each ends when its owner does, even if the owner is killed or panics.

use std::env;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::process::{ChildStdin, Command};

use crate::Result;

/// The script that runs the command; it explains itself.
const SUPERVISE: &str = include_str!("supervise.sh");

/// How often a dropped child is checked until it has ended.
const DROP_POLL: Duration = Duration::from_millis(2);

/// How long a drop waits: a little longer than the script waits before it kills.
const DROP_TIMEOUT: Duration = Duration::from_secs(7);

/// The destination of a child's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Kept only for [`Child::logs`].
    Captured,
    /// To this file, which is truncated first.
    File(PathBuf),
    /// To the terminal of this process.
    Terminal,
}

/// Returns a command that runs `program` supervised. Add arguments and environment, then [`Child::spawn`] it.
///
/// When its owner is gone or drops it, the program gets the signal `stop_signal`, and is killed if it has not ended after five seconds.
pub fn supervised(program: impl AsRef<OsStr>, stop_signal: Signal) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SUPERVISE, "supervise", &stop_signal.as_raw().to_string()]).arg(program);
    command
}

/// A running program. Dropping it ends the program, and waits for that for some seconds.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: u32,
    process: tokio::process::Child,
    /// When this is closed, the script knows that the owner is gone.
    pipe: Option<ChildStdin>,
    log: Option<File>,
}

impl Child {
    /// Starts a command made by [`supervised`]; error messages use `name`.
    pub fn spawn(name: &str, mut command: Command, output: &Output) -> Result<Self> {
        let log = open_log(output).map_err(|error| format!("{name}: cannot write its output: {error}"))?;
        let sink = || log.as_ref().map_or(Ok(Stdio::inherit()), |file| file.try_clone().map(Stdio::from));
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(sink()?)
            .stderr(sink()?)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let pipe = process.stdin.take();
        let pid = process.id().ok_or_else(|| format!("{name} has no process id"))?;
        Ok(Self { name: name.to_owned(), pid, process, pipe, log })
    }

    /// Returns the program's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns its output so far, standard output and error combined; empty for [`Output::Terminal`].
    pub fn logs(&self) -> String {
        let Some(log) = &self.log else { return String::new() };
        let length = log.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = log.read_at(&mut bytes, 0).unwrap_or_default();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    /// Returns how it ended, or `None` if it is running.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Waits until the process ends on its own. The wait can be canceled and restarted.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.process.wait().await?)
    }

    /// Sends the signal of [`supervised`] and waits until it has ended.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.pipe = None;
        Ok(self.process.wait().await?)
    }

    /// Kills it at once and waits until it has ended.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        if self.ended().is_none() {
            self.process.start_kill()?;
        }
        self.stop().await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        kill_process(pid, signal).map_err(|_| format!("{} is not running", self.name).into())
    }

    /// Returns one line: its name, whether it is running or how it ended, and its last line of output, preferably one with an error.
    pub fn exit_report(&mut self) -> String {
        let how = self.ended().map_or("is running".to_owned(), |status| format!("ended with {status}"));
        let logs = self.logs();
        let lines = || logs.lines().map(str::trim).filter(|line| !line.is_empty());
        let complains = |line: &&str| line.contains("FATAL") || line.to_lowercase().contains("error");
        match lines().rfind(complains).or_else(|| lines().next_back()) {
            Some(line) => format!("{} {how}: {line}", self.name),
            None => format!("{} {how}", self.name),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.pipe = None;
        let checks = DROP_TIMEOUT.as_millis() / DROP_POLL.as_millis();
        for _ in 0..checks {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(DROP_POLL);
        }
    }
}

fn open_log(output: &Output) -> io::Result<Option<File>> {
    match output {
        Output::Captured => tempfile::tempfile().map(Some),
        Output::File(path) => {
            File::create(path)?;
            OpenOptions::new().read(true).append(true).open(path).map(Some)
        }
        Output::Terminal => Ok(None),
    }
}

/// Returns the first directory on the `PATH` that holds `program`, with that name.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Returns the file that an environment variable names, if it is set. Fails if the file does not exist.
pub(crate) fn named_by(variable: &str) -> Result<Option<PathBuf>> {
    let Some(value) = env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let path = PathBuf::from(value);
    if path.exists() {
        return Ok(Some(path));
    }
    Err(format!("{variable} names {}, which does not exist", path.display()).into())
}

/// Returns the root of the workspace that this crate is a part of.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command as Blocking;

    use super::*;

    fn sh(script: &str, ending: Signal) -> Child {
        // A shell cannot trap a signal that was ignored when it started, as SIGINT is in a background job.
        let mut command = supervised("env", ending);
        command.args(["--default-signal=INT", "/bin/sh", "-c", script]);
        Child::spawn("script", command, &Output::Captured).unwrap()
    }

    /// Polls until `done`, for at most ten seconds.
    async fn until(mut done: impl FnMut() -> bool) -> bool {
        for _ in 0..1000 {
            if done() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn alive(pid: &str) -> bool {
        // A zombie has ended, even if its parent has not read its exit status.
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn output_and_exit_status_are_passed_through() {
        let mut child = sh("echo out; echo err >&2; exit 7", Signal::TERM);
        assert_eq!(child.wait().await.unwrap().code(), Some(7));
        assert_eq!(child.logs(), "out\nerr\n");
        assert_eq!(child.exit_report(), "script ended with exit status: 7: err");
    }

    #[tokio::test]
    async fn stop_sends_the_chosen_signal_even_to_a_frozen_program() {
        let mut child =
            sh("trap 'echo bye; exit 3' INT; echo ready; while :; do sleep 0.01; done", Signal::INT);
        assert!(until(|| child.logs().contains("ready")).await);
        child.signal(Signal::STOP).unwrap();
        assert_eq!(child.stop().await.unwrap().code(), Some(3));
        assert_eq!(child.logs(), "ready\nbye\n");
        assert!(child.signal(Signal::TERM).is_err());
    }

    #[tokio::test]
    async fn a_dropped_child_ends_with_its_descendants() {
        let child =
            sh("setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait", Signal::TERM);
        assert!(until(|| child.logs().ends_with('\n')).await);
        let (leader, descendant) = (child.pid().to_string(), child.logs());
        assert!(alive(&leader) && alive(&descendant));
        drop(child);
        assert!(!alive(&leader));
        assert!(until(|| !alive(&descendant)).await);
    }

    #[tokio::test]
    async fn a_child_ends_when_its_owner_is_killed() {
        // A shell acts as the owner: it holds the only writing end of the pipe.
        let directory = tempfile::tempdir().unwrap();
        let owner = r#"mkfifo pipe; sh -c "$0" supervise 15 sh -c 'echo $$ > pid; sleep 1000' <pipe & exec sleep 1000 >pipe"#;
        let mut owner =
            Blocking::new("/bin/sh").args(["-c", owner, SUPERVISE]).current_dir(&directory).spawn().unwrap();
        let pid = || std::fs::read_to_string(directory.path().join("pid")).unwrap_or_default();
        assert!(until(|| pid().ends_with('\n')).await);
        let child = pid();
        assert!(alive(&child));
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert!(until(|| !alive(&child)).await);
    }
}
