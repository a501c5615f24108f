//! `local link` as a person meets it: the program itself, on a terminal or without one, against the functions behind plain HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use local::fault_injector::Fault;
use local::front;
use local::link::Exit;
use local::platform::QrForm;
use local::server::{Server, severed};
use local::test_app::{TestApp, until_within};
use quircs::Quirc;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use tokio::process::{Child, Command};

/// For whatever is still to come on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the program enters and leaves its screen, and how it writes a line of the code there.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";

/// A school, and the functions behind plain HTTP.
struct School {
    app: Arc<TestApp>,
    server: Server,
}

impl School {
    async fn start() -> Self {
        let app = Arc::new(TestApp::start().await);
        Self { server: front::serve(app.clone()).await.unwrap(), app }
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

    fn scan(&self) {
        self.app.platform.scan(&self.session()).unwrap();
    }
}

/// Makes a command of the program, with only these variables. If it is given a terminal, that is its own: Ctrl-C goes to it.
fn link(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "if [ -t 0 ]; then exec setsid --ctty \"$@\"; else exec \"$@\"; fi", "link"]);
    command.args([env!("CARGO_BIN_EXE_local"), "link"]);
    command.env_clear().env("TERM", "xterm-256color").envs(env.iter().copied()).kill_on_drop(true);
    command
}

/// A running program, and what it has written so far.
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
        tcsetwinsize(&terminal, Winsize { ws_row: rows, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
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

    /// Returns how it ended, and all that it has written.
    async fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().await.unwrap();
        drop(self.child);
        tokio::task::spawn_blocking(|| self.reader.join().unwrap()).await.unwrap();
        (status.code(), String::from_utf8(self.written.lock().unwrap().clone()).unwrap())
    }
}

/// Reads lines of half blocks that are printed dark, or light, as a phone does.
fn scanned(lines: &[&str], is_dark: bool) -> String {
    let modules: Vec<Vec<bool>> = lines
        .iter()
        .flat_map(|line| {
            let half = |blocks: [char; 2]| line.chars().map(|c| blocks.contains(&c) == is_dark).collect();
            [half(['█', '▀']), half(['█', '▄'])]
        })
        .collect();
    let (width, height) = (modules[0].len() * 4, modules.len() * 4);
    let pixels = (0..width * height).map(|at| (at % width / 4, at / width / 4));
    let pixels: Vec<u8> = pixels.map(|(x, y)| if modules[y][x] { 0 } else { 255 }).collect();
    let mut reader = Quirc::default();
    let codes: Vec<_> = reader.identify(width, height, &pixels).collect();
    assert_eq!(codes.len(), 1, "{}", lines.join("\n"));
    let read = codes[0].as_ref().unwrap().decode().unwrap();
    String::from_utf8(read.payload).unwrap()
}

fn is_code(line: &str) -> bool {
    line.chars().count() > 20 && line.chars().all(|c| " █▀▄".contains(c))
}

#[tokio::test]
async fn a_number_is_linked_by_the_code_that_is_printed() {
    let school = School::start().await;
    let run = Run::piped(school.link(&[]));
    run.says("Scan it with the phone").await;
    let text = run.text();
    let code: Vec<_> = text.lines().filter(|line| is_code(line)).collect();
    assert_eq!(json!(scanned(&code, false)), school.app.shown_qr(&school.session()));
    school.scan();
    let (exit, text) = run.end().await;
    assert_eq!(exit, Some(Exit::Connected as i32), "{text}");
    assert_eq!(text.lines().last(), Some(format!("{} is connected.", school.session()).as_str()));
    assert!(!text.contains(&school.app.school.token) && !text.contains('\x1b'), "{text}");
}

#[tokio::test]
async fn a_terminal_is_restored_after_ctrl_c() {
    let school = School::start().await;
    let (run, mut terminal) = Run::on_terminal(school.link(&[]), 50);
    run.says("A new code in ").await;
    let text = run.text();
    let frame = text.rsplit("\x1b[H").find(|frame| frame.contains("A new code in ")).unwrap();
    let code: Vec<_> = frame
        .lines()
        .filter_map(|line| line.strip_prefix(BLACK_ON_WHITE)?.strip_suffix("\x1b[0m\x1b[K"))
        .collect();
    assert_eq!(json!(scanned(&code, true)), school.app.shown_qr(&school.session()));
    terminal.write_all(b"\x03").unwrap();
    let (exit, text) = run.end().await;
    assert_eq!(exit, Some(Exit::Interrupted as i32), "{text}");
    let (_, left) = text.split_once(ENTER).unwrap().1.split_once(LEAVE).unwrap();
    assert_eq!(left, "Interrupted. The same command goes on with this number.\r\n");
    assert!(!text.contains(&school.app.school.token));
}

#[tokio::test]
async fn a_small_window_is_told_the_size_that_it_needs() {
    let school = School::start().await;
    let (run, terminal) = Run::on_terminal(school.link(&[("NO_COLOR", "1")]), 20);
    run.says("make the window larger").await;
    assert!(!run.text().contains('█'), "{}", run.text());
    tcsetwinsize(&terminal, Winsize { ws_row: 60, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    run.says("█").await;
    school.scan();
    let (exit, text) = run.end().await;
    assert_eq!(exit, Some(Exit::Connected as i32), "{text}");
    assert!(!text.contains("\x1b[38"), "a colour in spite of NO_COLOR: {text}");
}

#[tokio::test]
async fn a_picture_is_kept_in_a_file_while_it_is_the_code() {
    let school = School::start().await;
    school.app.platform.behave(|behavior| behavior.qr_form = QrForm::DataUrl);
    let run = Run::piped(school.link(&[]));
    run.says("Scan it with the phone").await;
    let text = run.text();
    let path = text.lines().find_map(|line| line.strip_prefix("The platform sent a picture")).unwrap();
    let path = path.rsplit_once(": ").unwrap().1.to_owned();
    assert!(fs::read(&path).unwrap().starts_with(b"\x89PNG"));
    school.scan();
    assert_eq!(run.end().await.0, Some(Exit::Connected as i32));
    assert!(!fs::exists(&path).unwrap());
}

#[tokio::test]
async fn an_outage_is_told_and_waited_out() {
    let school = School::start().await;
    let run = Run::piped(school.link(&[]));
    run.says("Scan it with the phone").await;
    school.app.inject("qr", Fault::status(503));
    run.says("WhatsApp cannot be reached right now.").await;
    school.app.clear_faults();
    school.scan();
    let (exit, text) = run.end().await;
    assert_eq!(exit, Some(Exit::Connected as i32), "{text}");
}

#[tokio::test]
async fn a_number_that_is_disconnected_meanwhile_is_not_waited_for() {
    let school = School::start().await;
    let run = Run::piped(school.link(&[]));
    run.says("Scan it with the phone").await;
    school.app.platform.set_status(&school.session(), "offline").unwrap();
    let (exit, text) = run.end().await;
    assert_eq!(exit, Some(Exit::Refused as i32), "{text}");
    assert!(text.lines().last().unwrap().contains("disconnected"), "{text}");
}

#[tokio::test]
async fn a_number_is_named_by_its_session() {
    let school = School::start().await;
    let first = school.app.number().await;
    school.app.link(&first).await;
    let (exit, text) = Run::piped(school.link(&[("SESSION", &first.session)])).end().await;
    assert_eq!(
        (exit, text),
        (Some(0), format!("Getting the code ready…\n{} is connected.\n", first.session))
    );
    let run = Run::piped(school.link(&[("ADD", "1")]));
    run.says("Scan it with the phone").await;
    assert_eq!(school.app.numbers().await.len(), 2);
}

#[tokio::test]
async fn every_end_has_its_exit_code_and_its_sentence() {
    let school = School::start().await;
    let nowhere = tempfile::tempdir().unwrap();
    let nowhere = nowhere.path().to_str().unwrap();
    let closed = format!("http://127.0.0.1:{}", local::service::free_port().unwrap());
    for (env, exit, sentence) in [
        (&[("WPP_TOKEN", "no-token")][..], Exit::Refused, "Please sign in again."),
        (&[("WPP_TOKEN", "no-token"), ("LANG", "ru_RU.UTF-8")], Exit::Refused, "Войдите снова."),
        (&[("SESSION", "0"), ("ADD", "1")], Exit::Refused, "add_new"),
        (&[("WAIT_S", "2")], Exit::GaveUp, "No phone has scanned the code within 2 s."),
        (&[("WAIT_S", "soon")], Exit::Unusable, "WAIT_S"),
        (&[("WPP_TOKEN", "")], Exit::Unusable, "WPP_TOKEN"),
        (&[("WPP_TOKEN", "secret\nsecret")], Exit::Unusable, "WPP_TOKEN"),
        (&[("WPP_URL", "http://example.com/functions/v1")], Exit::Unusable, "WPP_URL"),
        (&[("WPP_URL", &closed)], Exit::Unreachable, "No answer from http://127.0.0.1"),
        (&[("WPP_URL", ""), ("WPP_LOCAL_DATA", nowhere)], Exit::Unreachable, "start it with `make dev`"),
    ] {
        let (code, text) = Run::piped(school.link(env)).end().await;
        assert_eq!(code, Some(exit as i32), "{env:?}: {text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains(sentence), "{env:?}: {text}");
        assert!(!text.contains("secret") && !text.contains(&school.app.school.token), "{env:?}: {text}");
    }
}

/// What stands before the functions answers in words of its own.
#[tokio::test]
async fn control_characters_of_others_move_no_cursor() {
    let escape = json!({"error": "\x1b[2Jboo", "retryable": false}).to_string();
    for (status, body, exit, said) in [
        (403, "{\"message\":\"Forbidden\"}", Exit::Refused, "answered 403 Forbidden."),
        (200, "<html>", Exit::Refused, "answered 200 OK."),
        (502, "<html>", Exit::GaveUp, "answered 502 Bad Gateway."),
        (409, &escape, Exit::Refused, " [2Jboo"),
    ] {
        let answer = (StatusCode::from_u16(status).unwrap(), body.to_owned());
        let (code, text) = ended_with(Router::new().fallback(async || answer)).await;
        assert_eq!(code, Some(exit as i32), "{text}");
        assert!(text.lines().last().unwrap().contains(said) && !text.contains('\x1b'), "{text}");
    }
}

#[tokio::test]
async fn an_address_that_has_answered_is_asked_again() {
    let created = json!({"session": "1", "status": "starting", "poll_after_ms": 1}).to_string();
    let router = Router::new().route("/wpp-create", post(async || created)).fallback(async || severed());
    let (code, text) = ended_with(router).await;
    assert_eq!(code, Some(Exit::Unreachable as i32), "{text}");
}

#[tokio::test]
async fn nothing_is_asked_before_the_answer_wants_it() {
    let waits = json!({"error": "Busy.", "retryable": true}).to_string();
    let polls = json!({"session": "1", "status": "starting", "poll_after_ms": 3_600_000}).to_string();
    for (status, body) in [(503, waits), (200, polls)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let answer = (StatusCode::from_u16(status).unwrap(), [("retry-after", "3600")], body);
        let answers = async move || {
            count.fetch_add(1, Relaxed);
            answer
        };
        let (code, text) = ended_with(Router::new().fallback(answers)).await;
        assert_eq!((code, asked.load(Relaxed)), (Some(Exit::GaveUp as i32), 1), "{text}");
    }
}

#[tokio::test]
async fn the_countdown_goes_by_the_functions_clock() {
    let (now, end) = ("2026-11-25T09:00:00.250Z", "2026-11-25T09:00:07.250Z");
    let code = json!({"session": "1", "qrcode": "2@", "seen_at": now, "qr_good_until": end}).to_string();
    let server = Server::start(0, Router::new().fallback(async || code)).await.unwrap();
    let (run, _terminal) = Run::on_terminal(link(&[("WPP_URL", &server.url()), ("WPP_TOKEN", "secret")]), 50);
    run.says("A new code in ").await;
    assert!(run.text().contains("A new code in 7 s."), "{}", run.text());
}

/// Returns how it ends, within five seconds, if the functions answer like this.
async fn ended_with(functions: Router) -> (Option<i32>, String) {
    let server = Server::start(0, functions).await.unwrap();
    Run::piped(link(&[("WPP_URL", &server.url()), ("WPP_TOKEN", "secret"), ("WAIT_S", "5")])).end().await
}
