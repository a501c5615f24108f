//! Platform calls for one number within one request, and the mirror of what they show.

use std::time::Duration;

use serde::Serialize;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::number::guess::HeadStart;
use crate::number::view::{State, View};
use crate::platform::{Platform, PlatformError, PlatformResult, SessionAuth, SessionState, Status};
use crate::record;
use crate::store::{Number, Snapshot};
use crate::token::client::Client;
use crate::upstream::CallError;

/// A webhook that takes longer is not worth the wait.
const WEBHOOK_TIME: Duration = Duration::from_secs(2);

/// A state that does not change is written again once in this, so that the mirror tells when it was seen last.
const CONFIRMED_EVERY: Duration = Duration::from_secs(60);

/// A webhook that is still to be registered is tried again once in this, whoever asks.
const WEBHOOK_EVERY: Duration = Duration::from_secs(60);

/// A number with the client that speaks for it, for the length of one request.
pub struct NumberSession<'a> {
    /// The row.
    pub number: Number,
    /// When it was read, by the database's clock.
    pub now: UnixMs,
    /// When the following calls must have ended.
    pub deadline: Deadline,
    app: &'a App,
    client: Client,
    head_start: HeadStart<'a>,
}

impl<'a> NumberSession<'a> {
    /// For a number that was read at `now`; [`Error::NumberNotFound`] where it has no session yet.
    pub fn open(app: &'a App, number: Number, now: UnixMs, deadline: Deadline) -> Result<Self, Error> {
        let client = Client::of_number(app, &number, now)?;
        if !number.ignored.is_empty() {
            tracing::warn!(settings = ?number.ignored, "settings of a number are out of bounds and were ignored");
        }
        record::organization(number.organization_id);
        record::session(client.session());
        Ok(Self { app, number, client, now, deadline, head_start: HeadStart::default() })
    }

    /// With the calls that were begun while the row was looked up.
    #[must_use]
    pub fn after(self, mut head_start: HeadStart<'a>) -> Self {
        head_start.judge(self.number.snapshot.as_ref(), self.now);
        Self { head_start, ..self }
    }

    /// Has the sandbox remember with what the platform has answered just now.
    pub fn remember(&mut self) {
        let was_connected = self.was_connected();
        if let Some(auth) = self.client.auth() {
            self.app.guesses.remember(&mut self.head_start, auth, was_connected);
        }
    }

    /// The platform's session.
    pub fn id(&self) -> &str {
        self.client.session()
    }

    /// Makes sure of a usable token.
    pub async fn token(&mut self) -> Result<(), Error> {
        self.client.get_token(self.deadline).await.map(drop)
    }

    /// What is remembered of the session and still holds.
    pub fn recent(&self) -> Option<View> {
        self.number.snapshot.as_ref().and_then(|snapshot| View::recent(snapshot, self.now))
    }

    /// Whether a phone was linked when somebody looked last.
    pub fn was_connected(&self) -> bool {
        self.number.snapshot.as_ref().is_some_and(|snapshot| snapshot.status == State::Connected)
    }

    /// Asks the platform: for the status, and side by side for the QR, which it will need unless it was last seen connected.
    pub async fn look(&mut self) -> Result<View, Error> {
        if !self.was_connected() {
            return self
                .call(|ahead, platform, auth, deadline| {
                    look_with_qr(
                        ahead.status(platform, auth.clone(), deadline),
                        ahead.qr(platform, auth, deadline),
                    )
                })
                .await;
        }
        let status = match self.status().await {
            Err(error) if error.platform() == Some(PlatformError::UnknownSession) => {
                let qr = self.qr().await.unwrap_or_default();
                return qr.map(View::scannable).ok_or(error);
            }
            status => status?,
        };
        let qr = if needs_qr(&status) { self.qr().await? } else { None };
        Ok(View::live(status, qr))
    }

    /// Asks the platform for the status alone.
    pub async fn status(&mut self) -> Result<Status, Error> {
        self.call(HeadStart::status).await
    }

    /// Asks the platform for the QR alone; nothing while it is not ready.
    pub async fn qr(&mut self) -> Result<Option<String>, Error> {
        self.call(HeadStart::qr).await
    }

    /// Has the platform bring the session up; with its status and its QR, as far as they are there at once.
    pub async fn start(&mut self) -> Result<(Option<Status>, Option<String>), Error> {
        self.call(|_, platform, auth, deadline| platform.start(auth, deadline)).await
    }

    async fn call<T, W>(
        &mut self,
        mut work: impl FnMut(&mut HeadStart<'a>, &'a Platform, SessionAuth, Deadline) -> W,
    ) -> Result<T, Error>
    where
        W: Future<Output = PlatformResult<T>>,
    {
        let (platform, deadline) = (&self.app.platform, self.deadline);
        let head_start = &mut self.head_start;
        self.client.call(deadline, |auth| work(head_start, platform, auth, deadline)).await
    }

    /// Whether the platform reports about the session to where it should.
    pub fn webhook(&self) -> Webhook {
        match &self.number.webhook_url {
            Some(url) if *url == self.app.config.webhook_url() => Webhook::Registered,
            _ => Webhook::Pending,
        }
    }

    /// Has the platform report about the session, and notes whether it does.
    pub async fn register_webhook(&mut self) -> Result<(), Error> {
        self.register_webhook_by(self.deadline.at_most(WEBHOOK_TIME)).await
    }

    async fn register_webhook_by(&mut self, deadline: Deadline) -> Result<(), Error> {
        let url = self.app.config.webhook_url();
        let register = |auth| self.app.platform.set_webhook(auth, &url, deadline);
        let registered = self.client.call(deadline, register).await;
        let known = registered.is_ok().then_some(url);
        if self.number.webhook_url != known {
            if let Err(error) = self.app.store.save_webhook(&self.number, known.as_deref(), deadline).await {
                tracing::warn!(%error, "whether the webhook is registered could not be saved");
            }
            self.number.webhook_url = known;
        }
        registered
    }

    /// Tries once more to register a webhook that is still pending, if nobody has just tried.
    pub async fn make_up_for_webhook(&mut self) {
        if self.webhook() == Webhook::Registered {
            return;
        }
        let deadline = self.deadline.at_most(WEBHOOK_TIME);
        let registered = match self.app.store.claim_webhook(&self.number, WEBHOOK_EVERY, deadline).await {
            Ok(true) => self.register_webhook_by(deadline).await,
            Ok(false) => return,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = registered {
            tracing::warn!(%error, "the webhook could not be registered");
        }
    }

    /// Brings the mirror up to date, where it is not, and the view to what the mirror then holds: somebody may have seen
    /// something newer. A mirror that cannot be written is a warning: the platform was asked, and its word is the answer.
    pub async fn save_snapshot(&mut self, view: &mut View) {
        let is_news = view.is_connected() && self.number.connected_is_news;
        let is_steady = matches!(view.state, State::Connected | State::Disconnected);
        let is_told = |known: &&Snapshot| {
            let is_old = is_steady && known.at.until(self.now) >= CONFIRMED_EVERY;
            view.is_mirrored_in(known) && !is_news && !is_old
        };
        if let Some(known) = self.number.snapshot.as_ref().filter(is_told) {
            view.qr_at = known.qr_at;
            return;
        }
        let (session, qr) = (self.client.session(), view.qr.as_deref());
        let (store, organization) = (&self.app.store, self.number.organization_id);
        let (state, is_known) = (view.state, !view.is_lost());
        match store.save_snapshot(organization, session, state, qr, is_known, self.now, self.deadline).await {
            Ok(Some(snapshot)) => {
                if view.is_mirrored_in(&snapshot) {
                    view.qr_at = snapshot.qr_at;
                } else {
                    *view = View::last_seen(&snapshot, self.now);
                }
                self.number.snapshot = Some(snapshot);
            }
            // The mirror has no room for it, or cannot be written: since when it is so, nobody knows.
            unsaved => {
                if let Err(error) = unsaved {
                    tracing::warn!(%error, "the state of a session could not be saved");
                }
                view.qr_at = view.qr.is_some().then_some(self.now);
            }
        }
    }
}

/// The status and the QR, asked for side by side.
async fn look_with_qr(
    status: impl Future<Output = PlatformResult<Status>>,
    qr: impl Future<Output = PlatformResult<Option<String>>>,
) -> PlatformResult<View> {
    let (status, qr) = match tokio::join!(status, qr) {
        // A session that shows a QR is there, whatever its status says.
        (Err(CallError { why: PlatformError::UnknownSession, .. }), Ok(Some(qr))) => {
            return Ok(View::scannable(qr));
        }
        (status, qr) => (status?, qr),
    };
    let qr = qr.or_else(|error| match error.why {
        // A QR that is not needed may fail as it likes, except over the token.
        why if why == PlatformError::TokenRejected || needs_qr(&status) => Err(error),
        _ => Ok(None),
    })?;
    Ok(View::live(status, qr))
}

/// Whether the platform reports about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Webhook {
    /// It does.
    Registered,
    /// Not yet, as far as we know: messages to the number reach nobody.
    Pending,
}

fn needs_qr(status: &Status) -> bool {
    !matches!(status.state, SessionState::Connected | SessionState::Offline | SessionState::PasskeyRequired)
}
