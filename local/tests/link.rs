//! `make link` as a person meets it: the script itself, on a terminal or without one, against the functions behind plain HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::http::StatusCode;
use axum::{Json, Router};
use local::fault_injector::Fault;
use local::http_gateway;
use local::platform::QrForm;
use local::server::Server;
use local::test_app::{TestApp, until_within};
use quircs::Quirc;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// For whatever is still to come on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the script leaves its screen, and what encloses a line of the code there.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const LINE: [&str; 2] = ["\x1b[2K\x1b[38;5;231;48;5;16m", "\x1b[0m"];

/// A school, and the functions behind plain HTTP.
struct School {
    app: Arc<TestApp>,
    server: Server,
}

impl School {
    async fn start() -> Self {
        let app = Arc::new(TestApp::start().await);
        Self { server: http_gateway::serve(app.clone()).await.unwrap(), app }
    }

    fn link(&self, more: &[(&str, &str)]) -> Command {
        let url = format!("{}/functions/v1/", self.server.url());
        let mut command = link(&[("WPP_URL", &url), ("WPP_TOKEN", &self.app.school.token)]);
        command.envs(more.iter().copied());
        command
    }

    fn session(&self) -> String {
        self.app.platform.session_of(&self.app.school.id.to_string()).unwrap()
    }
}

/// Makes a command of the script, with only these variables. If it is given a terminal, Ctrl-C there goes to it.
fn link(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "if [ -t 0 ]; then exec setsid --ctty \"$@\"; else exec \"$@\"; fi", "link"]);
    command.args(["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/link.py")]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("TERM", "xterm-256color");
    command.envs(env.iter().copied()).kill_on_drop(true);
    command
}

/// A running script, and what it has written so far.
struct Run {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Run {
    fn piped(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        Self::spawn(command, reader)
    }

    fn on_terminal(mut command: Command, rows: u16) -> (Self, File) {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: rows, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap();
        let end = OpenOptions::new().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let own = || Stdio::from(end.try_clone().unwrap());
        command.stdin(own()).stdout(own()).stderr(own());
        let terminal = File::from(terminal);
        (Self::spawn(command, terminal.try_clone().unwrap()), terminal)
    }

    fn spawn(mut command: Command, mut from: impl Read + Send + 'static) -> Self {
        let child = command.spawn().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let into = written.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails after the terminal's other end is closed.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, written, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    async fn says(&self, text: &str) {
        until_within(PATIENCE, async || self.text().contains(text)).await;
    }

    /// Waits for the name of the picture that has the code, and returns it.
    async fn picture(&self) -> String {
        self.says("Scan it with the phone").await;
        let text = self.text();
        let (_, picture) = text.split_once("Open this picture and scan the code there:").unwrap();
        picture.lines().nth(1).unwrap().trim_start_matches("\x1b[2K").to_owned()
    }

    /// Returns how it ended, and all that it has written.
    async fn end(mut self) -> (i32, String) {
        let status = self.child.wait().await.unwrap();
        drop(self.child);
        tokio::task::spawn_blocking(|| self.reader.join().unwrap()).await.unwrap();
        (status.code().unwrap(), String::from_utf8(self.written.lock().unwrap().clone()).unwrap())
    }
}

/// Reads lines of half blocks, of which the light ones are printed, as a phone does.
fn scanned(lines: &[&str]) -> String {
    let modules: Vec<Vec<bool>> = lines
        .iter()
        .flat_map(|line| {
            [['█', '▀'], ['█', '▄']].map(|light| line.chars().map(|c| light.contains(&c)).collect())
        })
        .collect();
    let (width, height) = (modules[0].len() * 4, modules.len() * 4);
    let pixels = (0..width * height).map(|at| (at % width / 4, at / width / 4));
    let pixels: Vec<u8> = pixels.map(|(x, y)| if modules[y][x] { 255 } else { 0 }).collect();
    let mut reader = Quirc::default();
    let codes: Vec<_> = reader.identify(width, height, &pixels).collect();
    assert_eq!(codes.len(), 1, "{}", lines.join("\n"));
    String::from_utf8(codes[0].as_ref().unwrap().decode().unwrap().payload).unwrap()
}

#[tokio::test]
async fn number_is_linked_by_the_code_on_the_terminal() {
    let school = School::start().await;
    let (run, _terminal) = Run::on_terminal(school.link(&[]), 31);
    run.says("Scan it with the phone").await;
    let text = run.text();
    let frame = text.split("\x1b[H").find(|frame| frame.contains("Scan it with the phone")).unwrap();
    let code: Vec<_> =
        frame.lines().filter_map(|line| line.strip_prefix(LINE[0])?.split(LINE[1]).next()).collect();
    assert_eq!(json!(scanned(&code)), school.app.shown_qr(&school.session()));
    school.app.platform.scan(&school.session()).unwrap();
    let (exit, text) = run.end().await;
    assert_eq!(exit, 0, "{text}");
    let left = text.rsplit_once(LEAVE).unwrap().1;
    assert_eq!(left, format!("The number {} is connected.\r\n", school.session()));
    assert!(!text.contains(&school.app.school.token));
}

/// The code is a picture, too, where the platform sends one.
#[tokio::test]
async fn picture_is_kept_until_ctrl_c_if_no_code_fits() {
    let school = School::start().await;
    for (rows, form) in [(30, QrForm::Text), (60, QrForm::DataUrl)] {
        school.app.platform.behave(|behavior| behavior.qr_form = form);
        let (run, mut terminal) = Run::on_terminal(school.link(&[]), rows);
        let picture = run.picture().await;
        assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
        assert!(!run.text().contains('█'), "{}", run.text());
        assert_eq!(run.text().contains("it needs 53 × 31 characters."), rows == 30);
        terminal.write_all(b"\x03").unwrap();
        let (exit, text) = run.end().await;
        assert_eq!(exit, 130, "{text}");
        let left = text.rsplit_once(LEAVE).unwrap().1;
        assert_eq!(left, "Interrupted. Run the same command again: it continues with this number.\r\n");
        assert!(!fs::exists(&picture).unwrap());
    }
}

#[tokio::test]
async fn code_is_drawn_once_the_window_is_large_enough() {
    let school = School::start().await;
    let (run, terminal) = Run::on_terminal(school.link(&[]), 24);
    run.picture().await;
    tcsetwinsize(&terminal, Winsize { ws_row: 40, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    run.says("█").await;
}

#[tokio::test]
async fn outage_is_shown_until_it_ends() {
    let school = School::start().await;
    let run = Run::piped(school.link(&[]));
    let picture = run.picture().await;
    school.app.inject("*", Fault::status(503));
    run.says(
        "WhatsApp cannot be reached right now. Please try again in a moment. This command keeps trying.",
    )
    .await;
    school.app.clear_faults();
    school.app.platform.scan(&school.session()).unwrap();
    let (exit, text) = run.end().await;
    assert_eq!(exit, 0, "{text}");
    assert!(!text.contains('\x1b') && !fs::exists(&picture).unwrap(), "{text}");
}

#[tokio::test]
async fn number_that_is_unlinked_is_not_waited_for() {
    let school = School::start().await;
    let run = Run::piped(school.link(&[]));
    run.picture().await;
    school.app.platform.set_status(&school.session(), "offline").unwrap();
    let (exit, text) = run.end().await;
    assert_eq!(exit, 1, "{text}");
    assert!(
        text.lines().last().unwrap().contains("disconnected from WhatsApp. Run the same command again"),
        "{text}"
    );
}

#[tokio::test]
async fn number_is_named_by_its_session() {
    let school = School::start().await;
    let first = school.app.number().await;
    school.app.link(&first).await;
    let (exit, text) = Run::piped(school.link(&[("SESSION", &first.session)])).end().await;
    let said = format!("Getting the code ready…\nThe number {} is connected.\n", first.session);
    assert_eq!((exit, text), (0, said));
    Run::piped(school.link(&[("ADD", "1")])).picture().await;
    assert_eq!(school.app.numbers().await.len(), 2);
}

#[tokio::test]
async fn every_end_has_its_exit_code_with_a_sentence() {
    let school = School::start().await;
    let nowhere = tempfile::tempdir().unwrap();
    let nowhere = nowhere.path().to_str().unwrap();
    let closed = format!("http://127.0.0.1:{}", local::service::free_port().unwrap());
    for (env, exit, sentence) in [
        (
            &[("WPP_TOKEN", "no-token")][..],
            1,
            "Please sign in again. To do so here, put a new token in WPP_TOKEN",
        ),
        (&[("WPP_TOKEN", "no-token"), ("LANG", "ru_RU.UTF-8")], 1, "Войдите снова."),
        (&[("SESSION", "0"), ("ADD", "1")], 1, "add_new"),
        (&[("WAIT_S", "1")], 3, "Time is up, and the number is not connected. Run the same command again"),
        (&[("WPP_TOKEN", "")], 1, "WPP_TOKEN"),
        (&[("WPP_TOKEN", "secret\nsecret")], 1, "WPP_TOKEN"),
        (&[("WPP_URL", "http://example.com/functions/v1")], 1, "WPP_URL"),
        (&[("WPP_URL", &closed)], 1, "http://127.0.0.1"),
        (&[("WPP_URL", ""), ("WPP_LOCAL_DATA", nowhere)], 1, "start `make dev`"),
    ] {
        let (code, text) = Run::piped(school.link(env)).end().await;
        assert_eq!(code, exit, "{env:?}: {text}");
        assert!(text.lines().last().unwrap().contains(sentence), "{env:?}: {text}");
        assert!(!text.contains("secret") && !text.contains(&school.app.school.token), "{env:?}: {text}");
    }
}

#[tokio::test]
async fn answer_of_a_gateway_moves_no_cursor() {
    let error = |code, retryable| json!({"error": "\x1b[2Jboo", "code": code, "retryable": retryable});
    for (status, body, exit, said) in [
        (403, json!({"message": "Forbidden"}), 1, " answered with the HTTP status 403."),
        (302, json!("elsewhere"), 1, " answered with the HTTP status 302."),
        (502, json!([]), 3, "Time is up"),
        (409, error("platform_refused", false), 1, "[2Jboo"),
        (
            409,
            error("api_key_rejected", false),
            1,
            "[2Jboo You can connect it again from here: make link AGAIN=1",
        ),
        (503, error("platform_busy", true), 3, "Time is up"),
    ] {
        let (code, text, asked) = ended_with(status, "0", body).await;
        assert_eq!((code, asked), (exit, 1), "{text}");
        assert!(text.lines().last().unwrap().contains(said) && !text.contains('\x1b'), "{text}");
    }
}

#[tokio::test]
async fn nothing_is_asked_before_the_answer_wants_it() {
    let polls =
        json!({"session": "1", "state": "qr_pending", "message": "Soon.", "poll_after_ms": 3_600_000});
    assert_eq!(ended_with(200, "", polls).await.2, 1);
    let waits = json!({"error": "Busy.", "retryable": true});
    let (code, text, asked) = ended_with(503, "3600", waits).await;
    assert_eq!((code, asked), (1, 1), "{text}");
}

/// Returns how it ends within a second if the functions answer like this, and how often they were asked.
async fn ended_with(status: u16, retry_after: &str, body: Value) -> (i32, String, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer =
        (StatusCode::from_u16(status).unwrap(), [("retry-after", retry_after.to_owned())], Json(body));
    let router = Router::new().fallback(async move || {
        count.fetch_add(1, Relaxed);
        answer
    });
    let server = Server::start(0, router).await.unwrap();
    let env = [("WPP_URL", &*server.url()), ("WPP_TOKEN", "secret"), ("WAIT_S", "1")];
    let (code, text) = Run::piped(link(&env)).end().await;
    (code, text, asked.load(Relaxed))
}
