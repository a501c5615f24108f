//! A number at work: what its session is like right now, and the mirror of that in `whatsapp_sessions`.

use std::time::Duration;

use serde::Serialize;

use crate::App;
use crate::client::Client;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::store::{Mirrored, Number, Seen};
use crate::wpp::{Link, PlatformError, Started, Status};

/// A `connected` that was seen so recently is believed.
const CONNECTED_HOLDS: Duration = Duration::from_secs(10);

/// A QR that was seen so recently can still be scanned: the platform makes a new one every 20 to 30 s.
const QR_HOLDS: Duration = Duration::from_secs(25);

/// A webhook that takes longer is not worth the wait for a QR.
const WEBHOOK_TIME: Duration = Duration::from_secs(2);

/// A session's state in the frontend's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A phone is linked.
    Connected,
    /// A QR waits to be scanned.
    QrIssued,
    /// A QR is on its way.
    QrPending,
    /// No phone, and no QR without a new attempt.
    Disconnected,
}

/// What is known of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: State,
    /// The QR to scan; only with [`State::QrIssued`].
    pub qr: Option<String>,
    /// When that QR was first seen.
    pub qr_at: Option<UnixMs>,
    /// The platform's own word; nothing where it was not asked.
    pub status: Option<Status>,
}

impl View {
    /// A session that was started and has shown nothing yet.
    pub fn starting() -> Self {
        Self { state: State::QrPending, qr: None, qr_at: None, status: None }
    }

    /// A session with a QR to scan.
    pub fn scannable(qr: String) -> Self {
        Self { state: State::QrIssued, qr: Some(qr), ..Self::starting() }
    }

    /// A session that the platform does not know.
    pub fn lost() -> Self {
        Self::live(Status { link: Link::Lost, word: String::new() }, None)
    }

    /// Whether the platform has shown it, and not the hope that it is coming up.
    pub fn is_seen(&self) -> bool {
        self.status.is_some() || self.qr.is_some()
    }

    /// The platform's own word, for what we do not know how to name.
    pub fn platform_status(&self) -> Option<&str> {
        self.status.as_ref().map(|status| status.word.as_str()).filter(|word| !word.is_empty())
    }

    /// Whether a phone is linked.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// From the platform's word and its QR.
    pub fn live(status: Status, qr: Option<String>) -> Self {
        let (state, qr) = match (&status.link, qr) {
            (Link::Connected, _) => (State::Connected, None),
            (Link::Offline | Link::Lost, _) => (State::Disconnected, None),
            (_, Some(qr)) => (State::QrIssued, Some(qr)),
            (_, None) => (State::QrPending, None),
        };
        Self { state, qr, qr_at: None, status: Some(status) }
    }

    /// From the mirror, where it is recent enough to be believed.
    fn remembered(seen: &Seen, now: UnixMs) -> Option<Self> {
        let recent = |at: UnixMs, holds| at <= now && at.until(now) < holds;
        match (seen.status.as_str(), &seen.qr, seen.qr_at) {
            ("connected", ..) if recent(seen.at, CONNECTED_HOLDS) => {
                Some(Self { state: State::Connected, qr: None, qr_at: None, status: None })
            }
            ("qr_issued", Some(qr), Some(at)) if recent(at, QR_HOLDS) => {
                Some(Self { state: State::QrIssued, qr: Some(qr.clone()), qr_at: Some(at), status: None })
            }
            _ => None,
        }
    }

    fn mirrored(&self) -> Mirrored<'_> {
        match (self.state, &self.qr) {
            (State::Connected, _) => Mirrored::Connected,
            (State::Disconnected, _) => Mirrored::Disconnected,
            (_, Some(qr)) => Mirrored::QrIssued(qr),
            (_, None) => Mirrored::Pairing,
        }
    }
}

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
        let client = Client::of_number(app, &number)?;
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
        self.client.get_token(self.now, self.deadline).await.map(drop)
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
            .call(self.now, deadline, |access| async move {
                platform.status(&access.session, &access.jwt, deadline).await
            })
            .await
    }

    /// Asks the platform for the QR alone; nothing while it is not ready.
    ///
    /// # Errors
    /// What failed.
    pub async fn qr(&mut self) -> Result<Option<String>, Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline);
        self.client
            .call(self.now, deadline, |access| async move {
                platform.qr(&access.session, &access.jwt, deadline).await
            })
            .await
    }

    async fn look_with_qr(&mut self) -> Result<View, Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline);
        self.client
            .call(self.now, deadline, |access| async move {
                let (status, qr) = tokio::join!(
                    platform.status(&access.session, &access.jwt, deadline),
                    platform.qr(&access.session, &access.jwt, deadline),
                );
                let status = status?;
                // A QR that is not needed may fail as it likes, except over the token.
                let qr = match qr {
                    Ok(qr) => qr,
                    Err(PlatformError::TokenRefused) => return Err(PlatformError::TokenRefused),
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
            .call(self.now, deadline, |access| async move {
                platform.start(&access.session, &access.jwt, deadline).await
            })
            .await
    }

    /// Has the platform report to `url`.
    ///
    /// # Errors
    /// What failed.
    pub async fn set_webhook(&mut self, url: &str) -> Result<(), Error> {
        let (platform, deadline) = (&self.app.platform, self.deadline.at_most(WEBHOOK_TIME));
        self.client
            .call(self.now, deadline, |access| async move {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(status: &str, qr: Option<&str>, age_ms: i64) -> Option<State> {
        let (now, at) = (UnixMs(1_000_000), UnixMs(1_000_000 - age_ms));
        let seen = Seen { status: status.to_owned(), qr: qr.map(str::to_owned), qr_at: Some(at), at };
        View::remembered(&seen, now).map(|view| view.state)
    }

    #[test]
    fn connected_is_believed_for_10_seconds_and_a_qr_for_25() {
        assert_eq!(remembered("connected", None, 9_999), Some(State::Connected));
        assert_eq!(remembered("connected", None, 10_000), None);
        assert_eq!(remembered("qr_issued", Some("2@"), 24_999), Some(State::QrIssued));
        assert_eq!(remembered("qr_issued", Some("2@"), 25_000), None);
    }

    #[test]
    fn nothing_else_is_believed_nor_what_was_seen_in_the_future() {
        assert_eq!(remembered("pairing", None, 0), None);
        assert_eq!(remembered("disconnected", None, 0), None);
        assert_eq!(remembered("qr_issued", None, 0), None);
        assert_eq!(remembered("connected", None, -1), None);
    }
}
