//! A number at work: its platform calls within one request, and the mirror of what they show.

use std::time::Duration;

use crate::App;
use crate::client::Client;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::store::{Number, Seen};
use crate::view::View;
use crate::wpp::{Link, PlatformError, Started, Status};

/// A webhook that takes longer is not worth the wait for a QR.
const WEBHOOK_TIME: Duration = Duration::from_secs(2);

/// A number with the client that speaks for it, for the length of one request.
pub struct Line<'a> {
    app: &'a App,
    number: Number,
    client: Client,
    now: UnixMs,
    deadline: Deadline,
}

impl<'a> Line<'a> {
    /// The line of a number that was read at `now`.
    ///
    /// # Errors
    /// [`Error::NumberNotFound`] where it has no session yet.
    pub fn open(app: &'a App, number: Number, now: UnixMs, deadline: Deadline) -> Result<Self, Error> {
        let client = Client::of_number(app, &number, now)?;
        Ok(Self { app, number, client, now, deadline })
    }

    /// The platform's session.
    pub fn session(&self) -> &str {
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
    pub fn remembered(&self) -> Option<View> {
        self.number.seen.as_ref().and_then(|seen| View::remembered(seen, self.now))
    }

    /// Asks the platform: for the status, and side by side for the QR, which it will need unless it was last seen connected.
    ///
    /// # Errors
    /// What failed.
    pub async fn look(&mut self) -> Result<View, Error> {
        let was_connected = self.number.seen.as_ref().is_some_and(|seen| seen.status == "connected");
        if !was_connected {
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

    /// Has the platform report to `url`.
    ///
    /// # Errors
    /// What failed.
    pub async fn set_webhook(&mut self, url: &str) -> Result<(), Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline.at_most(WEBHOOK_TIME));
        self.client
            .call(deadline, |access| async move {
                platform.set_webhook(&access.session, url, &access.jwt, deadline).await
            })
            .await
    }

    /// Brings the mirror up to date, where it is not. A mirror that cannot be written is a warning: the platform was
    /// asked, and its word is the answer. Fills in since when the QR is known.
    pub async fn remember(&mut self, view: &mut View) {
        let state = view.mirrored();
        let seen = self.number.seen.as_ref();
        // That a phone is linked for the first time is news, also where a sibling has mirrored it already.
        let first_link =
            view.is_connected() && self.number.keyed_at.is_some() && self.number.linked_at.is_none();
        if let Some(seen) =
            seen.filter(|seen| !first_link && seen.status == state.word() && seen.qr.as_deref() == state.qr())
        {
            view.qr_at = seen.qr_at;
            return;
        }
        let remembered = self
            .app
            .store
            .remember(self.number.organization_id, self.client.session(), state, self.now, self.deadline)
            .await;
        match remembered {
            Ok(true) => {}
            // The mirror has no room for it: since when it is so, nobody knows.
            Ok(false) => {
                view.qr_at = state.qr().is_some().then_some(self.now);
                return;
            }
            Err(error) => tracing::warn!(%error, "the state of a session could not be remembered"),
        }
        let (status, qr) = (state.word().to_owned(), state.qr().map(str::to_owned));
        let known_since = seen.filter(|seen| seen.qr == qr).and_then(|seen| seen.qr_at);
        view.qr_at = qr.is_some().then(|| known_since.unwrap_or(self.now));
        self.number.seen = Some(Seen { status, qr, qr_at: view.qr_at, at: self.now });
    }
}

fn needs_qr(status: &Status) -> bool {
    !matches!(status.link, Link::Connected | Link::Offline | Link::PasskeyRequired)
}
