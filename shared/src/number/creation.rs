//! How an organisation comes by a number's credentials: the intention is written down first, so that whoever comes after
//! a crash, a retry or a double click finishes what was begun instead of beginning again.

use std::time::Duration;

use uuid::Uuid;

use crate::App;
use crate::backoff::Backoff;
use crate::clock::{UnixMs, millis};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::request::ApiRequest;
use crate::platform::{Credentials, PlatformError};
use crate::record;
use crate::secret::Secret;
use crate::store::{
    Attempt, BeginOutcome, CreateMode, CreateRequest, CreationLease, Number, NumberSelector, SaveOutcome,
};
use crate::upstream::CallError;

/// The platform's part of a creation, the repetitions included.
const CREATE_TIME: Duration = Duration::from_secs(8);

/// The longest that an attempt which has died blocks the next one.
const LEASE: Duration = Duration::from_secs(10);

/// An attempt gives up before its lease ends: two at once could each get a key that kills the other's.
const WORK_TIME: Duration = Duration::from_millis(9_500);

/// What giving a creation back after a failure may take.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// The pauses of whoever waits for another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Past the end of another attempt's lease, so that the next look finds it ended.
const AFTER_LEASE: Duration = Duration::from_millis(100);

/// Finds, joins or makes the number that a request is about. Answers the number with its credentials, and the database's
/// time when it was read. After a failure, [`Error::CreationInProgress`] included,
/// the same request goes on from there, with the same session.
pub async fn obtain(
    app: &App,
    request: &ApiRequest,
    mode: CreateMode,
    selector: NumberSelector,
) -> Result<(Number, UnixMs), Error> {
    let asked = CreateRequest { mode, selector, rejected: None };
    complete(app, request, asked, request.idempotency_key.clone()).await
}

/// New credentials for a number whose key the platform refuses, where nothing that works can be lost by it: no phone was
/// ever linked, somebody has begun to replace them, or a sibling wrote old ones back. Otherwise, the number as it is.
pub async fn heal(app: &App, request: &ApiRequest, number: &Number) -> Result<(Number, UnixMs), Error> {
    let selector = NumberSelector { session: None, integration_id: Some(number.integration_id) };
    let rejected = number.settings.api_key.clone();
    complete(app, request, CreateRequest { mode: CreateMode::Heal, selector, rejected }, None).await
}

async fn complete(
    app: &App,
    request: &ApiRequest,
    asked: CreateRequest,
    idempotency_key: Option<String>,
) -> Result<(Number, UnixMs), Error> {
    let mut attempt = Attempt {
        user_id: request.user_id,
        request: asked,
        holder: Uuid::new_v4(),
        lease_ms: millis(LEASE),
        waited_for: None,
        idempotency_key,
    };
    let wait_deadline = request.deadline.for_a_wait();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        // Counted from before the lease begins.
        let deadline = request.deadline.at_most(WORK_TIME);
        let begun = app.store.begin_creation(&attempt, request.deadline).await?;
        let now = begun.now;
        match begun.outcome {
            BeginOutcome::Existing { number } => return Ok((number, now)),
            BeginOutcome::Begun { creation, organization_id, platform_id, number } => {
                record::organization(organization_id);
                let lease = CreationLease { organization_id, creation, holder: attempt.holder };
                match (Work { app, deadline, lease, number, now }).run(&platform_id).await {
                    Err(Error::CreationInProgress) => attempt.waited_for = Some(creation),
                    outcome => return outcome.map(|number| (number, now)),
                }
            }
            BeginOutcome::Busy { creation, wait_ms } => {
                attempt.waited_for = Some(creation);
                let pause = backoff.pause(Duration::from_millis(wait_ms) + AFTER_LEASE);
                if !wait_deadline.sleep(pause).await {
                    return Err(Error::CreationInProgress);
                }
            }
            BeginOutcome::Mismatch => return Err(Error::IdempotencyMismatch),
            BeginOutcome::Unknown => return Err(Error::NumberNotFound),
            BeginOutcome::NoOrganization => return Err(Error::NoOrganization),
        }
    }
}

/// One attempt's turn at a creation. Each of its calls ends by the deadline.
struct Work<'a> {
    app: &'a App,
    deadline: Deadline,
    lease: CreationLease,
    /// The number that gets new credentials; nothing for a new one.
    number: Option<Number>,
    now: UnixMs,
}

impl Work<'_> {
    /// Asks the platform and saves at once what it gives. [`Error::CreationInProgress`]: another attempt has taken over.
    async fn run(&self, platform_id: &str) -> Result<Number, Error> {
        let saved = self.create_and_save(platform_id).await;
        // The next attempt need not wait for a lease whose holder has given up.
        if let Err(failed) = &saved
            && *failed != Error::CreationInProgress
        {
            // Where this fails too, the lease ends by itself.
            let _ = self.app.store.release_creation(&self.lease, Deadline::within(RELEASE_TIME)).await;
        }
        saved
    }

    async fn create_and_save(&self, platform_id: &str) -> Result<Number, Error> {
        let mut given = self.create(platform_id).await?;
        // A key that came just now may be refused because it is not active yet: that says nothing.
        let is_old = |number: &Number| {
            number.settings.api_key.as_ref() == Some(&given.api_key) && !number.key_is_new(self.now)
        };
        if self.number.as_ref().is_some_and(is_old) && !self.works(&given.api_key).await? {
            given = self.create_under_new_id().await?;
        }
        let mut saved = self.save(&given).await?;
        if matches!(saved, SaveOutcome::Rejected) {
            saved = self.save(&self.create_under_new_id().await?).await?;
        }
        match saved {
            SaveOutcome::Saved { number } => Ok(*number),
            SaveOutcome::Superseded => Err(Error::CreationInProgress),
            SaveOutcome::Rejected => Err(CallError { call: "create", why: PlatformError::KeyRefused }.into()),
            // Whoever has deleted it meanwhile meant that.
            SaveOutcome::Gone => Err(Error::NumberNotFound),
        }
    }

    /// For a key that the platform hands out and refuses: only another id brings another.
    async fn create_under_new_id(&self) -> Result<Credentials, Error> {
        let platform_id = self.app.store.assign_platform_id(&self.lease, self.deadline).await?;
        self.create(&platform_id.ok_or(Error::CreationInProgress)?).await
    }

    async fn save(&self, credentials: &Credentials) -> Result<SaveOutcome, Error> {
        Ok(self.app.store.save_credentials(&self.lease, credentials, self.deadline).await?)
    }

    async fn create(&self, platform_id: &str) -> Result<Credentials, Error> {
        let refused = CallError { call: "create", why: PlatformError::SecretRefused };
        let secret = self.app.keys.wpp_secret.as_ref().ok_or(refused)?;
        Ok(self.app.platform.create(secret, platform_id, self.deadline.at_most(CREATE_TIME)).await?)
    }

    async fn works(&self, api_key: &Secret) -> Result<bool, Error> {
        match self.app.platform.token(api_key, self.now, self.deadline.at_most(CREATE_TIME)).await {
            Ok(_) => Ok(true),
            Err(error) if error.why == PlatformError::KeyRefused => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
