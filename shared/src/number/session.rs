//! A number at work: its platform calls within one request, and the mirror of what they show.

use std::time::Duration;

use serde::Serialize;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::number::view::View;
use crate::platform::{PlatformError, SessionState, Started, Status};
use crate::store::{MirrorState, Number};
use crate::token::client::Client;

/// A webhook that takes longer is not worth the wait.
const WEBHOOK_TIME: Duration = Duration::from_secs(2);

/// A state that does not change is written again once in this, so that the mirror tells when it was seen last.
const CONFIRMED_EVERY: Duration = Duration::from_secs(60);

/// A webhook that is still to be registered is tried again once in this, whoever asks.
const WEBHOOK_EVERY: Duration = Duration::from_secs(60);

/// A number with the client that speaks for it, for the length of one request.
pub struct NumberSession<'a> {
    app: &'a App,
    number: Number,
    client: Client,
    now: UnixMs,
    deadline: Deadline,
}

impl<'a> NumberSession<'a> {
    /// The line of a number that was read at `now`.
    ///
    /// # Errors
    /// [`Error::NumberNotFound`] where it has no session yet.
    pub fn open(app: &'a App, number: Number, now: UnixMs, deadline: Deadline) -> Result<Self, Error> {
        let client = Client::of_number(app, &number, now)?;
        Ok(Self { app, number, client, now, deadline })
    }

    /// The platform's session.
    pub fn id(&self) -> &str {
        self.client.session()
    }

    /// When the number was read, by the database's clock.
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// The row.
    pub fn number(&self) -> &Number {
        &self.number
    }

    /// Gives the line's calls another deadline.
    pub fn allow_until(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Pauses, but not past the line's time; tells whether the whole pause fitted.
    pub async fn sleep(&self, pause: Duration) -> bool {
        self.deadline.sleep(pause).await
    }

    /// Makes sure of a usable token.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn token(&mut self) -> Result<(), Error> {
        self.client.get_token(self.deadline).await.map(drop)
    }

    /// What is remembered of the session and still holds.
    pub fn recent(&self) -> Option<View> {
        self.number.snapshot.as_ref().and_then(|snapshot| View::recent(snapshot, self.now))
    }

    /// Whether a phone was linked when somebody looked last.
    pub fn was_connected(&self) -> bool {
        self.number.snapshot.as_ref().is_some_and(|snapshot| snapshot.status == "connected")
    }

    /// Whether a phone may be linked, as far as the database knows.
    pub fn may_be_connected(&self) -> bool {
        self.was_connected() || self.number.snapshot.is_none() && self.number.first_connected_at.is_some()
    }

    /// Asks the platform: for the status, and side by side for the QR, which it will need unless it was last seen connected.
    ///
    /// # Errors
    /// What failed.
    pub async fn look(&mut self) -> Result<View, Error> {
        if !self.was_connected() {
            return self.look_with_qr().await;
        }
        let status = self.status().await?;
        let qr = if needs_qr(&status) { self.qr().await? } else { None };
        Ok(View::live(status, qr))
    }

    /// Asks the platform for the status alone.
    ///
    /// # Errors
    /// What failed.
    pub async fn status(&mut self) -> Result<Status, Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline);
        self.client
            .call(
                deadline,
                |access| async move { platform.status(&access.session, &access.jwt, deadline).await },
            )
            .await
    }

    /// Asks the platform for the QR alone; nothing while it is not ready.
    ///
    /// # Errors
    /// What failed.
    pub async fn qr(&mut self) -> Result<Option<String>, Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline);
        self.client
            .call(deadline, |access| async move { platform.qr(&access.session, &access.jwt, deadline).await })
            .await
    }

    async fn look_with_qr(&mut self) -> Result<View, Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline);
        self.client
            .call(deadline, |access| async move {
                let (status, qr) = tokio::join!(
                    platform.status(&access.session, &access.jwt, deadline),
                    platform.qr(&access.session, &access.jwt, deadline),
                );
                let status = status?;
                // A QR that is not needed may fail as it likes, except over the token.
                let qr = match qr {
                    Ok(qr) => qr,
                    Err(PlatformError::TokenRejected) => return Err(PlatformError::TokenRejected),
                    // The status has just shown that the session is known: there is no QR for it yet.
                    Err(PlatformError::UnknownSession) => None,
                    Err(error) if needs_qr(&status) => return Err(error),
                    Err(_) => None,
                };
                Ok(View::live(status, qr))
            })
            .await
    }

    /// Has the platform bring the session up.
    ///
    /// # Errors
    /// What failed.
    pub async fn start(&mut self) -> Result<Started, Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline);
        self.client
            .call(
                deadline,
                |access| async move { platform.start(&access.session, &access.jwt, deadline).await },
            )
            .await
    }

    /// Whether the platform reports about the session to where it should.
    pub fn webhook(&self) -> Webhook {
        match &self.number.webhook_url {
            Some(url) if *url == self.app.config.webhook_url() => Webhook::Registered,
            _ => Webhook::Pending,
        }
    }

    /// Has the platform report about the session, and notes whether it does.
    ///
    /// # Errors
    /// What failed.
    pub async fn register_webhook(&mut self) -> Result<(), Error> {
        self.register_webhook_by(self.deadline.at_most(WEBHOOK_TIME)).await
    }

    async fn register_webhook_by(&mut self, deadline: Deadline) -> Result<(), Error> {
        let url = self.app.config.webhook_url();
        let (platform, to) = (&self.app.platform, &url);
        let registered = self
            .client
            .call(deadline, |access| async move {
                platform.set_webhook(&access.session, to, &access.jwt, deadline).await
            })
            .await;
        let known = registered.is_ok().then_some(url);
        if self.number.webhook_url != known {
            if let Err(error) = self.app.store.save_webhook(&self.number, known.as_deref(), deadline).await {
                tracing::warn!(%error, "whether the webhook is registered could not be noted");
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
        let state = view.mirrored();
        let is_news = view.is_connected() && self.number.news_if_connected;
        let is_steady = matches!(state, MirrorState::Connected | MirrorState::Disconnected);
        if let Some(snapshot) = self.number.snapshot.as_ref()
            && !is_news
            && !(is_steady && snapshot.at.until(self.now) >= CONFIRMED_EVERY)
            && snapshot.status == state.word()
            && snapshot.qr.as_deref() == state.qr()
        {
            view.qr_at = snapshot.qr_at;
            return;
        }
        let (store, organization) = (&self.app.store, self.number.organization_id);
        match store.save_snapshot(organization, self.client.session(), state, self.now, self.deadline).await {
            Ok(Some(snapshot)) if snapshot.status == state.word() && snapshot.qr.as_deref() == state.qr() => {
                view.qr_at = snapshot.qr_at;
                self.number.snapshot = Some(snapshot);
            }
            Ok(Some(snapshot)) => {
                *view = View::last_seen(&snapshot, self.now);
                self.number.snapshot = Some(snapshot);
            }
            // The mirror has no room for it, or cannot be written: since when it is so, nobody knows.
            Ok(None) => view.qr_at = view.qr.is_some().then_some(self.now),
            Err(error) => {
                tracing::warn!(%error, "the state of a session could not be remembered");
                view.qr_at = view.qr.is_some().then_some(self.now);
            }
        }
    }
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
