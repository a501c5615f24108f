//! What the bench sends: to each function a request that changes nothing, about one of two numbers.

use serde_json::{Value, json};

use crate::Result;
use crate::events::Event;
use crate::fault_injector::Fault;
use crate::lambda::Sandbox;
use crate::test_app::{Number, TestApp, environment};

/// The delay of each upstream request where a measurement is about waiting, in milliseconds.
pub const AWAY_MS: u64 = 20;

/// A stack with a number that shows its QR and one that is linked.
pub struct Scene {
    pub app: TestApp,
    /// The number that shows its QR.
    pub waiting: Number,
    linked: Number,
    /// The environment of the functions.
    pub env: Vec<(String, String)>,
}

impl Scene {
    pub async fn start() -> Self {
        let app = TestApp::start().await;
        let linked = app.number().await;
        app.link(&linked).await;
        let waiting = app.number().await;
        // A request treats an API key that was saved less than a minute ago differently.
        app.settle_keys().await;
        let env = environment(&app.stack, &[]);
        Self { app, waiting, linked, env }
    }

    /// Makes the platform issue a new QR, which stays for 20 seconds, so that it does not change during a measurement.
    pub fn renew_qr(&self) -> Result<()> {
        let renewed = self.app.platform.set_status(&self.waiting.session, "qr_required");
        renewed.map_err(|(status, why)| format!("the platform's QR: {status} {why}").into())
    }

    /// Delays each upstream request by [`AWAY_MS`], until the app's faults are cleared.
    pub fn move_upstreams_away(&self) {
        self.app.platform.faults.inject("*", Fault::Delay { ms: AWAY_MS });
        self.app.supabase.faults.inject("*", Fault::Delay { ms: AWAY_MS });
    }
}

/// A request that changes nothing, for a warm sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warm {
    /// `wpp-qr`, for the number that shows its QR.
    Qr,
    /// `wpp-status` with `force`, for the same number.
    Status,
    /// `wpp-create`, for the linked number.
    Create,
}

impl Warm {
    pub const ALL: [Self; 3] = [Self::Qr, Self::Status, Self::Create];

    pub fn function(self) -> &'static str {
        match self {
            Self::Qr => "wpp-qr",
            Self::Status => "wpp-status",
            Self::Create => "wpp-create",
        }
    }

    /// Returns the request as the school's page sends it.
    pub fn event(self, scene: &Scene) -> Value {
        let post = |body| scene.app.school.post(self.function(), &body);
        let event = match self {
            Self::Qr => {
                Event::get("wpp-qr").bearer(&scene.app.school.token).query("session", &scene.waiting.session)
            }
            Self::Status => post(json!({"session": scene.waiting.session, "force": true})),
            Self::Create => post(json!({"session": scene.linked.session})),
        };
        event.http_api()
    }

    /// Sends the request. An unexpected answer is an error: a request that fails does less work.
    pub async fn ask(self, sandbox: &Sandbox, scene: &Scene) -> Result<()> {
        let answer = sandbox.invoke(self.event(scene)).await.answered()?;
        let expected = if self == Self::Create { "connected" } else { "qr_issued" };
        if answer.told() == (200, expected) {
            return Ok(());
        }
        Err(format!("{}: {} {}", self.function(), answer.status, answer.body).into())
    }
}
