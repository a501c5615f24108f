//! One number during one request: its platform calls, and the snapshot of their results.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::messages::Language;
use crate::number::advice::{Freshness, NumberAnswer};
use crate::number::prefetch::{self, Expect, Prefetch};
use crate::number::snapshot::{KnownState, State};
use crate::request_log;
use crate::store::{Number, NumberSelector, Snapshot, TokenRow};
use crate::upstream::CallError;
use crate::wpp::{PlatformError, PlatformResult, SessionAuth, SessionState, Status, WppApi, WppMsgClient};

/// How long the registration of a webhook may delay an answer.
const WEBHOOK_BUDGET: Duration = Duration::from_secs(2);

/// The shortest time between two attempts to register a webhook that is still pending.
const WEBHOOK_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// How often an unchanged `connected` or `disconnected` is saved again, so that the snapshot shows when it was last seen.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);

/// A number with its platform client, for one request.
pub struct NumberSession<'a> {
    /// The row.
    pub number: Number,
    /// When the row was read, by the database's clock.
    pub now: UnixMs,
    /// When all further calls must end.
    pub deadline: Deadline,
    app: &'a App,
    client: WppMsgClient<TokenRow>,
    prefetch: Prefetch,
}

impl<'a> NumberSession<'a> {
    /// Finds a user's number. `expect` says what the request will ask the platform, so that it can be asked while the row is read.
    ///
    /// Fails with [`Error::NoOrganization`], [`Error::NumberNotFound`], or [`Error::NoCredentials`] if the number has no session yet.
    pub async fn find(
        app: &'a App,
        user_id: Uuid,
        selector: &NumberSelector,
        expect: Expect,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let (found, prefetch) = prefetch::find(app, user_id, selector, expect, deadline).await?;
        request_log::organization(found.organization_id.ok_or(Error::NoOrganization)?);
        let number = found.number.ok_or(Error::NumberNotFound)?;
        Ok(Self { prefetch, ..Self::open(app, number, found.now, deadline)? })
    }

    /// Opens a number that was read at `now`. Returns [`Error::NoCredentials`] if it has no session yet.
    pub fn open(app: &'a App, number: Number, now: UnixMs, deadline: Deadline) -> Result<Self, Error> {
        request_log::organization(number.organization_id);
        let options = number.client_options(now).ok_or(Error::NoCredentials)?;
        if !number.ignored.is_empty() {
            tracing::warn!(settings = ?number.ignored, "invalid settings of a number were ignored");
        }
        request_log::session(&options.session);
        let row = TokenRow {
            store: app.store.clone(),
            organization_id: number.organization_id,
            integration_id: number.integration_id,
        };
        let permit = app.single_flight.of(number.integration_id);
        let client = WppMsgClient::new(app.wpp.clone(), row, permit, options);
        Ok(Self { app, number, client, now, deadline, prefetch: Prefetch::default() })
    }

    /// Returns the platform's session.
    pub(super) fn id(&self) -> &str {
        self.client.session()
    }

    /// Whether the number has an API key.
    pub fn has_api_key(&self) -> bool {
        self.number.settings.api_key.is_some()
    }

    /// Returns what an answer says about the number in this state. After a live answer, the sandbox remembers the number
    /// for the user's next request.
    pub fn describe(&mut self, known: &KnownState, freshness: Freshness, language: Language) -> NumberAnswer {
        if freshness == Freshness::Live
            && let Some(auth) = self.client.auth()
        {
            let was_connected = self.was_connected();
            self.app.prefetches.remember(&mut self.prefetch, auth, was_connected);
        }
        NumberAnswer::of(self, known, freshness, language)
    }

    /// Notes why the answer will be the last known state.
    pub fn note_stale(&self, error: &Error) {
        request_log::stale(error);
    }

    /// Makes sure that there is a usable token.
    pub async fn ensure_token(&mut self) -> Result<(), Error> {
        Ok(self.client.get_token(self.deadline).await.map(drop)?)
    }

    /// Returns the snapshot's state, if it is recent enough.
    pub fn recent(&self) -> Option<KnownState> {
        self.number.snapshot.as_ref().and_then(|snapshot| KnownState::recent(snapshot, self.now))
    }

    /// Returns the snapshot's state, however old it is.
    pub fn last_known(&self) -> Option<KnownState> {
        self.number.snapshot.as_ref().map(|snapshot| KnownState::of_snapshot(snapshot, self.now))
    }

    /// Returns the state of a session with this QR code. The snapshot may say when the code was first seen.
    pub fn qr_issued(&self, qr: String) -> KnownState {
        let snapshot = self.number.snapshot.as_ref().filter(|snapshot| snapshot.qr.as_ref() == Some(&qr));
        KnownState { qr_at: snapshot.and_then(|snapshot| snapshot.qr_at), ..KnownState::qr_issued(qr) }
    }

    /// Whether a phone was connected when the snapshot was written.
    fn was_connected(&self) -> bool {
        self.number.snapshot.as_ref().is_some_and(|snapshot| snapshot.state == State::Connected)
    }

    /// Asks the platform for the status and for the QR code, at the same time. If a phone was connected, asks for the status first: a
    /// connected number needs no QR code. Fails with [`PlatformError::UnknownSession`] if the platform knows neither.
    pub async fn poll(&mut self) -> Result<KnownState, Error> {
        if !self.was_connected() {
            return self
                .call(|prefetch, wpp, auth, deadline| {
                    status_and_qr(
                        prefetch.status(wpp, auth.clone(), deadline),
                        prefetch.qr(wpp, auth, deadline),
                    )
                })
                .await;
        }
        let status = match self.fetch_status().await {
            Err(error) if error.platform() == Some(PlatformError::UnknownSession) => {
                let qr = self.fetch_qr().await.unwrap_or_default();
                return qr.map(KnownState::qr_issued).ok_or(error);
            }
            status => status?,
        };
        let qr = if needs_qr(&status) { self.fetch_qr().await? } else { None };
        Ok(KnownState::live(status, qr))
    }

    /// Asks the platform for the status. Fails with [`PlatformError::UnknownSession`] if the platform does not know the session.
    pub async fn fetch_status(&mut self) -> Result<Status, Error> {
        self.call(Prefetch::status).await
    }

    /// Asks the platform for the QR code. Returns `None` while the session is starting, connected or unknown.
    pub async fn fetch_qr(&mut self) -> Result<Option<String>, Error> {
        self.call(Prefetch::qr).await
    }

    /// Starts the session on the platform. Returns its status and its QR code, if the platform has them at once.
    pub async fn start(&mut self) -> Result<(Option<Status>, Option<String>), Error> {
        self.call(|_, wpp, auth, deadline| wpp.start(auth, deadline)).await
    }

    async fn call<T, W>(
        &mut self,
        mut work: impl FnMut(&mut Prefetch, &'a WppApi, SessionAuth, Deadline) -> W,
    ) -> Result<T, Error>
    where
        W: Future<Output = PlatformResult<T>>,
    {
        let (wpp, deadline) = (&self.app.wpp, self.deadline);
        let prefetch = &mut self.prefetch;
        Ok(self.client.call(deadline, |auth| work(prefetch, wpp, auth, deadline)).await?)
    }

    /// Returns whether the platform reports about the session to this project.
    pub(super) fn webhook(&self) -> Webhook {
        match &self.number.webhook_url {
            Some(url) if *url == self.app.config.webhook_url() => Webhook::Registered,
            _ => Webhook::Pending,
        }
    }

    /// Registers the webhook, and saves whether that succeeded.
    pub async fn register_webhook(&mut self) -> Result<(), Error> {
        self.register_webhook_by(self.deadline.at_most(WEBHOOK_BUDGET)).await
    }

    async fn register_webhook_by(&mut self, deadline: Deadline) -> Result<(), Error> {
        let url = self.app.config.webhook_url();
        let register = |auth| self.app.wpp.set_webhook(auth, &url, deadline);
        let registered = self.client.call(deadline, register).await;
        let known = registered.is_ok().then_some(url);
        if self.number.webhook_url != known {
            if let Err(error) = self.app.store.save_webhook(&self.number, known.as_deref(), deadline).await {
                tracing::warn!(%error, "whether the webhook is registered could not be saved");
            }
            self.number.webhook_url = known;
        }
        Ok(registered?)
    }

    /// Registers a webhook that is still pending, unless another request has just tried.
    pub async fn retry_webhook(&mut self) {
        if self.webhook() == Webhook::Registered {
            return;
        }
        let deadline = self.deadline.at_most(WEBHOOK_BUDGET);
        let claimed = self.app.store.claim_webhook(&self.number, WEBHOOK_RETRY_INTERVAL, deadline).await;
        let registered = match claimed {
            Ok(true) => self.register_webhook_by(deadline).await,
            Ok(false) => return,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = registered {
            tracing::warn!(%error, "the webhook could not be registered");
        }
    }

    /// Updates the snapshot. If another request has saved a newer state, `known` becomes that state. If the snapshot cannot be
    /// saved, only logs a warning, because the platform has answered.
    pub async fn save_snapshot(&mut self, known: &mut KnownState) {
        let is_news = known.is_connected() && self.number.newly_connected;
        let is_steady = matches!(known.state, State::Connected | State::Disconnected);
        let is_saved = |snapshot: &&Snapshot| {
            let is_old = is_steady && snapshot.at.until(self.now) >= SNAPSHOT_INTERVAL;
            known.is_in(snapshot) && !is_news && !is_old
        };
        if let Some(snapshot) = self.number.snapshot.as_ref().filter(is_saved) {
            known.qr_at = snapshot.qr_at;
            return;
        }
        let (session, qr) = (self.client.session(), known.qr.as_deref());
        let (store, organization) = (&self.app.store, self.number.organization_id);
        // A session that is known only from the row gets no first snapshot until the platform has reported its state.
        let is_from_platform = self.number.credentials_saved_at.is_some();
        let may_insert = !known.is_lost() && (known.is_reported() || is_from_platform);
        match store
            .save_snapshot(organization, session, known.state, qr, may_insert, self.now, self.deadline)
            .await
        {
            Ok(Some(snapshot)) => {
                if known.is_in(&snapshot) {
                    known.qr_at = snapshot.qr_at;
                } else {
                    *known = KnownState::of_snapshot(&snapshot, self.now);
                }
                self.number.snapshot = Some(snapshot);
            }
            // No row was written: a first snapshot was not allowed, the table has no room for it, or the number is gone.
            unsaved => {
                if let Err(error) = unsaved {
                    tracing::warn!(%error, "the state of a session could not be saved");
                }
                known.qr_at = known.qr.is_some().then_some(self.now);
            }
        }
    }
}

async fn status_and_qr(
    status: impl Future<Output = PlatformResult<Status>>,
    qr: impl Future<Output = PlatformResult<Option<String>>>,
) -> PlatformResult<KnownState> {
    let (status, qr) = match tokio::join!(status, qr) {
        // A session with a QR code exists, whatever its status says.
        (Err(CallError { why: PlatformError::UnknownSession, .. }), Ok(Some(qr))) => {
            return Ok(KnownState::qr_issued(qr));
        }
        (status, qr) => (status?, qr),
    };
    let qr = qr.or_else(|error| match error.why {
        // A QR code that is not needed may fail, unless the token is at fault.
        why if why == PlatformError::TokenRejected || needs_qr(&status) => Err(error),
        _ => Ok(None),
    })?;
    Ok(KnownState::live(status, qr))
}

/// Whether the platform reports about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Webhook {
    /// The webhook is registered.
    Registered,
    /// The webhook is not registered yet, according to the database: incoming messages are lost.
    Pending,
}

fn needs_qr(status: &Status) -> bool {
    !matches!(status.state, SessionState::Connected | SessionState::Offline | SessionState::PasskeyRequired)
}
