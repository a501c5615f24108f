//! Eight processes of the functions share one expired token, as on a busy day.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use futures_util::future::join_all;
use local::clock;
use local::events::Event;
use local::fault_injector::Point;
use local::lambda::{Answer, Ended, Options, Sandbox, binary};
use local::platform::AcceptedTokens;
use local::test_app::{Number, TestApp, environment};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

/// The processes alternate between these functions.
const FUNCTIONS: [&str; 2] = ["wpp-qr", "wpp-status"];
const PROCESSES: usize = 8;
const REQUESTS_PER_PROCESS: usize = 50;

/// Longer than 400 requests take on a small machine, so that the test does not depend on timing.
const INVOCATION_TIMEOUT_MS: i64 = 55_000;

/// Only one fleet runs at a time.
static ONE_FLEET_AT_A_TIME: Mutex<()> = Mutex::const_new(());

struct Fleet {
    _machine: MutexGuard<'static, ()>,
    app: TestApp,
    number: Number,
    sandboxes: Vec<(&'static str, Sandbox)>,
}

impl Fleet {
    /// Starts eight processes and adds a number whose token expired an hour ago.
    async fn start() -> Self {
        let machine = ONE_FLEET_AT_A_TIME.lock().await;
        let (app, number) = TestApp::start_with_number().await;
        app.set_token_end(&number, -3600).await;
        app.end_waits().await;
        let env = [("REQUEST_BUDGET_MS", "60000"), ("UPSTREAM_TIMEOUT_MS", "60000")];
        let env = environment(&app.stack, &env);
        let options = Options { concurrency: REQUESTS_PER_PROCESS, ..Options::default() };
        let start = async |name: &&'static str| {
            let sandbox = Sandbox::start_with(&binary(name).unwrap(), &env, options).await.unwrap();
            sandbox.ready().await.unwrap();
            (*name, sandbox)
        };
        let sandboxes = join_all(FUNCTIONS.iter().cycle().take(PROCESSES).map(start)).await;
        Self { _machine: machine, app, number, sandboxes }
    }

    async fn request(&self, (name, sandbox): &(&'static str, Sandbox)) -> Ended {
        let event = match *name {
            "wpp-qr" => Event::get(name).query("session", &self.number.session),
            _ => Event::post(name).json(&json!({"session": self.number.session, "force": true})),
        };
        let event = event.bearer(&self.app.school.token).http_api();
        sandbox.invoke_by(event, clock::unix_ms() + INVOCATION_TIMEOUT_MS).await
    }

    async fn crowd(&self, sandboxes: &[(&'static str, Sandbox)]) -> Vec<Answer> {
        let requests =
            sandboxes.iter().flat_map(|sandbox| (0..REQUESTS_PER_PROCESS).map(|_| self.request(sandbox)));
        join_all(requests).await.into_iter().map(|ended| ended.answered().unwrap()).collect()
    }

    /// Makes all requests read the row before any of them continues.
    async fn refreshes_once(&self) {
        let hold = self.app.hold("rpc/wpp_find_number", Point::After);
        let together = async {
            hold.reached(PROCESSES * REQUESTS_PER_PROCESS).await;
            hold.release();
        };
        let (answers, ()) = tokio::join!(self.crowd(&self.sandboxes), together);
        self.app.assert_served(&self.number, &answers);
        let calls = self.app.calls();
        println!("{} requests of {PROCESSES} processes: {calls}", answers.len());
        let mut others = calls.clone();
        others.as_object_mut().unwrap().remove("rpc/wpp_claim_refresh");
        let expected = json!({"rpc/wpp_find_number": 400, "rpc/wpp_save_token": 1, "token": 1, "qr": 400, "status": 200});
        assert_eq!(others, expected);
        // The requests of a sandbox share one claim, so there are far fewer claims than requests.
        assert!(calls["rpc/wpp_claim_refresh"].as_u64() < Some(REQUESTS_PER_PROCESS as u64 * 4), "{calls}");
        self.app.assert_stored_token_is_good(&self.number).await;
    }

    /// Kills the first process while it has the lease, which then expires.
    async fn survives_its_holder(&self, point: Point) {
        let (holder, survivors) = self.sandboxes.split_first().unwrap();
        let hold = self.app.hold_one("token", point);
        let rest = async {
            hold.reached(1).await;
            holder.1.kill().await.unwrap();
            hold.release();
            self.crowd(survivors).await
        };
        let (victim, answers) = tokio::join!(self.request(holder), rest);
        assert_eq!(victim, Ended::Died);
        self.app.assert_served(&self.number, &answers);
        let calls = self.app.calls();
        println!("{} requests of {} survivors: {calls}", answers.len(), survivors.len());
        assert_eq!((&calls["token"], &calls["rpc/wpp_save_token"]), (&json!(2), &json!(1)));
        self.app.assert_stored_token_is_good(&self.number).await;
    }
}

#[tokio::test]
async fn four_hundred_requests_of_eight_processes_fetch_one_token() {
    Fleet::start().await.refreshes_once().await;
}

/// The platform accepts only the newest token: a second one would break the calls that still use the first.
#[tokio::test]
async fn four_hundred_requests_fetch_one_newest_token() {
    let fleet = Fleet::start().await;
    fleet.app.platform.behave(|behavior| behavior.accepted_tokens = AcceptedTokens::Newest);
    fleet.refreshes_once().await;
}

#[tokio::test]
async fn holder_killed_before_fetch_costs_one_more_token() {
    Fleet::start().await.survives_its_holder(Point::Before).await;
}

#[tokio::test]
async fn holder_killed_before_save_costs_one_more_token() {
    Fleet::start().await.survives_its_holder(Point::After).await;
}
