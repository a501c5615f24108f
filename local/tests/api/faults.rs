//! The fault matrix: every upstream endpoint with every fault, and what a caller gets.
//!
//! `faults/table.md` says what is expected, for people and for the test alike. `FAULTS=print` prints the table as it is.

pub mod cases;

use cases::{DATABASE, FAULTS, FaultCase, PLATFORM};
use futures_util::future::join_all;
use local::lambda::{Answer, Options};
use local::test_app::TestApp;

use crate::openapi::assert_as_written;

/// What is expected, fault by fault and endpoint by endpoint.
const TABLE: &str = include_str!("faults/table.md");

/// Short, so that what is slow ends soon, and long enough for the other calls on a busy machine.
const IMPATIENT: (&str, &str) = ("UPSTREAM_TIMEOUT_MS", "2500");

/// What a caller got, and what stood in the database then.
#[derive(Clone)]
struct Cell {
    answer: String,
    state: String,
}

/// Meets an endpoint with a fault, then once more without. No answer may need the whole budget of a request: that would
/// be a `deadline_exceeded`, which the table does not have.
async fn cell(app: &TestApp, endpoint: &'static str, name: &str) -> Cell {
    let case = FaultCase::prepare(app, endpoint).await;
    let answer = case.send_with(name, "an upstream's own text").await;
    assert_as_written(case.function(), "post", &answer);
    let redirected = app.stack.platform.faults.count("unknown");
    assert_eq!(redirected, 0, "{endpoint}, {name}: a redirect was followed");
    if answer.status != 200 {
        assert_error(&answer);
    }
    let cell = Cell { answer: summary(&answer), state: case.state().await };

    case.wait_out_leases().await;
    let healthy = case.send().await;
    assert_eq!(healthy.status, 200, "{endpoint} after {name}: {healthy:?}");
    case.assert_whole().await;
    cell
}

/// An error is no state, has a sentence, and says what to do where repeating it does not help.
fn assert_error(answer: &Answer) {
    assert_eq!(answer.json["success"], false, "{answer:?}");
    assert!(answer.json["error"].is_string(), "{answer:?}");
    for field in ["status", "qr", "qrcode"] {
        assert_eq!(answer.json.get(field), None, "{answer:?}");
    }
    if answer.status == 409 {
        assert!(answer.json["hint"].as_str().unwrap().contains("connect it again"), "{answer:?}");
    }
}

/// `503 platform_busy ↻ 1 s`: the status, the code, whether to try again, and when. Of a success, the `status` in place of the code.
fn summary(answer: &Answer) -> String {
    let code = if answer.status == 200 { &answer.json["status"] } else { &answer.json["code"] };
    let mut summary = format!("{} {}", answer.status, code.as_str().unwrap_or_default());
    if answer.json["retryable"] == true {
        summary += " ↻";
    }
    if let Some(seconds) = answer.headers.get("retry-after") {
        summary += &format!(" {seconds} s");
    }
    summary
}

/// Some endpoints' cells, in a stack of their own: a fault is injected by endpoint, so no two cells may run at once.
async fn columns(endpoints: &[&'static str]) -> Vec<Vec<Cell>> {
    let app = TestApp::start_with(&[IMPATIENT], Options::default()).await;
    let mut columns = Vec::new();
    for endpoint in endpoints {
        let mut cells = Vec::new();
        for name in FAULTS {
            cells.push(cell(&app, endpoint, name).await);
        }
        columns.push(cells);
    }
    columns
}

/// The state that stands in most cells of a column; only the others spell theirs out.
fn usual_state(column: &[Cell]) -> &str {
    let times = |state: &str| column.iter().filter(|cell| cell.state == state).count();
    column.iter().map(|cell| cell.state.as_str()).max_by_key(|state| times(state)).unwrap()
}

fn rendered(endpoints: &[&str], columns: &[Vec<Cell>]) -> Vec<String> {
    let row = |name: &str, cells: Vec<String>| format!("| {name} | {} |", cells.join(" | "));
    let names = endpoints.iter().map(|name| format!("`{}`", name.trim_start_matches("rpc/"))).collect();
    let usual: Vec<_> = columns.iter().map(|column| usual_state(column).to_owned()).collect();
    let mut rows = vec![row("", names), "|---".repeat(endpoints.len() + 1) + "|"];
    for (at, name) in FAULTS.iter().enumerate() {
        let cells = columns.iter().zip(&usual).map(|(column, usual)| match &column[at] {
            Cell { answer, state } if state == usual => answer.clone(),
            Cell { answer, state } => format!("{answer} · {state}"),
        });
        rows.push(row(name, cells.collect()));
    }
    rows.push(row("*left in the database*", usual));
    rows
}

async fn check(endpoints: &[&'static str]) {
    let columns = join_all(endpoints.chunks(3).map(columns)).await.concat();
    let found = rendered(endpoints, &columns);
    if std::env::var("FAULTS").is_ok_and(|what| what == "print") {
        println!("{}\n", found.join("\n"));
    }
    let expected: Vec<_> = TABLE.lines().skip_while(|line| *line != found[0]).take(found.len()).collect();
    let wrong: Vec<_> = found.iter().filter(|row| !expected.contains(&row.as_str())).collect();
    assert_eq!(columns.iter().map(Vec::len).sum::<usize>(), 108, "half of the cells that the table promises");
    assert!(wrong.is_empty(), "{} of {} rows are otherwise: {wrong:#?}", wrong.len(), found.len());
    println!("{} cells as expected", endpoints.len() * FAULTS.len());
}

#[tokio::test]
async fn every_fault_of_the_platform_has_its_answer_and_passes() {
    check(&PLATFORM).await;
}

#[tokio::test]
async fn every_fault_of_the_database_has_its_answer_and_passes() {
    check(&DATABASE).await;
}
