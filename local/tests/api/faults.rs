//! The fault matrix: what a caller gets for every fault at every upstream endpoint.
//!
//! `faults/table.md` has the expected results, for people and for the test. `FAULTS=print` prints the actual table.

pub mod cases;

use cases::{DATABASE, FaultCase, PLATFORM, fault, faults_of};
use futures_util::future::join_all;
use local::lambda::{Answer, Options};
use local::test_app::TestApp;
use serde_json::json;

use crate::secrets::{EVERYTHING, Search, UPSTREAM};

/// The expected results, by fault and endpoint.
const TABLE: &str = include_str!("faults/table.md");

/// Short, so that slow calls end soon, but long enough for the other calls on a busy machine.
const IMPATIENT: (&str, &str) = ("UPSTREAM_TIMEOUT_MS", "2500");

/// What a caller got, and the database's contents afterwards.
#[derive(Clone)]
struct Cell {
    answer: String,
    state: String,
}

/// Sends a request with a fault at an endpoint, then another one without. No answer may need the whole budget of a request: that
/// would be a `deadline_exceeded`, which the table does not have.
async fn cell(app: &TestApp, search: &mut Search, endpoint: &'static str, name: &str) -> Cell {
    let case = FaultCase::prepare(app, endpoint).await;
    search.plant(app, &case.school).await;
    let answer = case.send_with(name, UPSTREAM).await;
    let redirected = app.count("unknown");
    assert_eq!(redirected, 0, "{endpoint}, {name}: a redirect was followed");
    if answer.status != 200 {
        assert_error(&answer);
    }
    let cell = Cell { answer: summary(&answer), state: case.state().await };
    search.add_answer(format!("{endpoint} with {name}"), answer);

    app.end_waits().await;
    let healthy = case.send().await;
    assert_eq!(healthy.status, 200, "{endpoint} after {name}: {healthy:?}");
    case.assert_whole().await;
    search.add_answer(format!("{endpoint} after {name}"), healthy);
    search.add_qr(app, &case.school);
    cell
}

/// Asserts that an error has no state, has a sentence, and says what to do if retrying does not help.
fn assert_error(answer: &Answer) {
    assert_eq!(answer.json["success"], false, "{answer:?}");
    assert!(answer.json["error"].is_string(), "{answer:?}");
    for field in ["status", "qr", "qrcode"] {
        assert_eq!(answer.json.get(field), None, "{answer:?}");
    }
    if answer.status == 409 && answer.json["code"] != "platform_refused" {
        assert!(answer.json["error"].as_str().unwrap().contains("connect it again"), "{answer:?}");
    }
}

/// Returns `503 platform_busy ↻ 1 s`: the status, the code, whether to retry, and when. A success has its state instead of the code.
fn summary(answer: &Answer) -> String {
    let (status, word) = answer.told();
    let mut summary = format!("{status} {word}");
    if answer.json["retryable"] == true {
        summary += " ↻";
    }
    if let Some(seconds) = answer.headers.get("retry-after") {
        summary += &format!(" {seconds} s");
    }
    summary
}

/// Fills the cells of some endpoints, in a separate stack: a fault is injected by endpoint, so no two cells may run at once.
/// Searches all output for secrets.
async fn columns(endpoints: &[&'static str], faults: &[&str], log_format: &str) -> Vec<Vec<Cell>> {
    let variables = [&[IMPATIENT, ("AWS_LAMBDA_LOG_FORMAT", log_format)], &EVERYTHING[..]].concat();
    let app = TestApp::start_with(&variables, Options::default()).await;
    let mut search = Search::begin(&app);
    let mut columns = Vec::new();
    for endpoint in endpoints {
        let mut cells = Vec::new();
        for name in faults {
            cells.push(cell(&app, &mut search, endpoint, name).await);
        }
        columns.push(cells);
    }
    search.end(&app).await;
    columns
}

/// Returns the state of most cells in a column; only other states are written in the cells.
fn usual_state(column: &[Cell]) -> &str {
    let times = |state: &str| column.iter().filter(|cell| cell.state == state).count();
    column.iter().map(|cell| cell.state.as_str()).max_by_key(|state| times(state)).unwrap()
}

fn rendered(endpoints: &[&str], faults: &[&str], columns: &[Vec<Cell>]) -> Vec<String> {
    let row = |name: &str, cells: Vec<String>| format!("| {name} | {} |", cells.join(" | "));
    let names = endpoints.iter().map(|name| format!("`{}`", name.trim_start_matches("rpc/"))).collect();
    let usual: Vec<_> = columns.iter().map(|column| usual_state(column).to_owned()).collect();
    let mut rows = vec![row("", names), "|---".repeat(endpoints.len() + 1) + "|"];
    for (at, name) in faults.iter().enumerate() {
        let cells = columns.iter().zip(&usual).map(|(column, usual)| match &column[at] {
            Cell { answer, state } if state == usual => answer.clone(),
            Cell { answer, state } => format!("{answer} · {state}"),
        });
        rows.push(row(name, cells.collect()));
    }
    rows.push(row("*left in the database*", usual));
    rows
}

async fn check(endpoints: &[&'static str], log_format: &str) {
    let faults = faults_of(endpoints);
    // Two at once, because most of the time is spent waiting for slow calls.
    let columns = endpoints.chunks(3).map(|endpoints| columns(endpoints, &faults, log_format));
    let columns = join_all(columns).await.concat();
    let found = rendered(endpoints, &faults, &columns);
    if std::env::var("FAULTS").is_ok_and(|what| what == "print") {
        println!("{}\n", found.join("\n"));
    }
    let expected: Vec<_> = TABLE.lines().skip_while(|line| *line != found[0]).take(found.len()).collect();
    let wrong: Vec<_> = found.iter().filter(|row| !expected.contains(&row.as_str())).collect();
    let cells = endpoints.len() * faults.len();
    let counted = format!("{} endpoints with {} faults: {cells} cells", endpoints.len(), faults.len());
    assert!(TABLE.contains(&counted), "the table does not say: {counted}");
    assert!(wrong.is_empty(), "{} of {} rows are otherwise: {wrong:#?}", wrong.len(), found.len());
    println!("{cells} cells as expected");
}

#[tokio::test]
async fn platform_faults_have_the_documented_answers() {
    check(&PLATFORM, "Text").await;
}

#[tokio::test]
async fn database_faults_have_the_documented_answers() {
    check(&DATABASE, "JSON").await;
}

/// Asserts that both answers agree: a page polls both at once, so the platform's answer must mean the same to both. An error is not a
/// state.
fn assert_consistent(qr: &Answer, status: &Answer, case: &str) {
    match (qr.told(), status.told()) {
        ((200, "qr_issued"), (200, "qr_issued")) => {
            assert_eq!(qr.json["qr"], status.json["qrcode"], "{case}")
        }
        ((200, polled), (200, seen)) if polled == seen => {
            assert_eq!(qr.json["poll_after_ms"], status.json["poll_after_ms"], "{case}");
        }
        ((409, "session_lost"), (200, "disconnected")) => {
            assert_eq!(status.json["code"], "session_lost", "{case}");
        }
        ((200, _), (200, _)) | ((409, "session_lost"), _) => panic!("{case}: {qr:?} {status:?}"),
        _ => {}
    }
}

/// Polls both functions while the platform reports `word`, with each fault at one endpoint or at both.
async fn assert_consistent_with(word: &str) {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "500")], Options::default()).await;
    let number = app.settled_number().await;
    let status = async || app.post("wpp-status", json!({"session": number.session, "force": true})).await;
    app.platform.set_status(&number.session, word).unwrap();
    for name in faults_of(&PLATFORM) {
        for endpoints in [&["status"][..], &["qr"], &["status", "qr"]] {
            // The healthy platform is polled last.
            assert_eq!(status().await.status, 200);
            match fault(name, &app.platform.url(), "") {
                Some(fault) => endpoints.iter().for_each(|endpoint| app.inject(endpoint, fault.clone())),
                None => app.platform.server.refuse().await.unwrap(),
            }
            let polled = app.poll_qr(&number.session).await;
            assert_consistent(&polled, &status().await, &format!("{word}, {name} at {endpoints:?}"));
            app.platform.server.accept().await.unwrap();
            app.clear_faults();
            app.end_waits().await;
        }
    }
}

#[tokio::test]
async fn the_qr_never_contradicts_the_status() {
    join_all(["qr_required", "starting", "connected", "offline"].map(assert_consistent_with)).await;
}
