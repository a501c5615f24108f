//! The requests that are measured: each of a warm sandbox, of a number that stays as it is.

use serde_json::{Value, json};

use crate::Result;
use crate::events::Event;
use crate::lambda::{Answer, Sandbox};
use crate::test_app::{Number, TestApp};

/// A stack with a number that shows its QR and one that is linked.
pub struct Scene {
    /// The stack, with a sandbox of each function.
    pub app: TestApp,
    /// The number that shows its QR.
    pub waiting: Number,
    /// The linked one.
    pub linked: Number,
}

impl Scene {
    /// Starts one.
    pub async fn start() -> Self {
        let app = TestApp::start().await;
        let linked = app.number().await;
        app.link(&linked).await;
        let waiting = app.number().await;
        // A key that was saved just now is treated with more care.
        app.settle_keys().await;
        Self { app, waiting, linked }
    }

    /// Shows a new QR, which is good for 20 seconds, so that none turns up in the middle of a count.
    pub fn turn_qr(&self) -> Result<()> {
        let turned = self.app.platform.set_status(&self.waiting.session, "qr_required");
        turned.map_err(|(status, why)| format!("the platform's QR: {status} {why}").into())
    }
}

/// A request that leaves everything as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warm {
    /// `wpp-qr` of the number that shows its QR.
    Qr,
    /// `wpp-status` of it.
    StatusWithQr,
    /// `wpp-status` of the linked number.
    StatusConnected,
    /// `wpp-create` of the linked number.
    Create,
}

impl Warm {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Qr, Self::StatusWithQr, Self::StatusConnected, Self::Create];

    /// Returns its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qr => "wpp-qr",
            Self::StatusWithQr => "wpp-status with QR",
            Self::StatusConnected => "wpp-status connected",
            Self::Create => "wpp-create connected",
        }
    }

    /// Returns the function that answers it.
    pub fn function(self) -> &'static str {
        match self {
            Self::Qr => "wpp-qr",
            Self::StatusWithQr | Self::StatusConnected => "wpp-status",
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
            Self::StatusWithQr => post(json!({"session": scene.waiting.session, "force": true})),
            Self::StatusConnected => post(json!({"session": scene.linked.session, "force": true})),
            Self::Create => post(json!({"session": scene.linked.session})),
        };
        event.v2()
    }

    fn word(self) -> &'static str {
        match self {
            Self::Qr | Self::StatusWithQr => "qr_issued",
            Self::StatusConnected | Self::Create => "connected",
        }
    }

    /// Sends it, and makes sure of the answer: nothing is gained by a request that fails quickly.
    pub async fn ask(self, sandbox: &Sandbox, scene: &Scene) -> Result<Answer> {
        let answer = sandbox.invoke(self.event(scene)).await.answered()?;
        if answer.told() == (200, self.word()) {
            return Ok(answer);
        }
        Err(format!("{}: {} {}", self.name(), answer.status, answer.body).into())
    }

    /// Returns the upstream requests that it takes, once everything is warm.
    pub async fn upstream_requests(self, scene: &Scene) -> Result<u64> {
        scene.turn_qr()?;
        let sandbox = scene.app.sandbox(self.function());
        for _ in 0..2 {
            self.ask(sandbox, scene).await?;
        }
        scene.app.forget_calls();
        self.ask(sandbox, scene).await?;
        Ok(scene.app.all_calls())
    }
}
