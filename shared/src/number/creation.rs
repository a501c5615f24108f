//! How a number gets its credentials. A creation is recorded before the platform is asked. If it is interrupted, or two requests ask
//! for it at once, the next request finishes it instead of starting a second one.

use std::time::Duration;

use uuid::Uuid;

use crate::App;
use crate::backoff::Backoff;
use crate::clock::{UnixMs, millis};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::request_log;
use crate::secret::Secret;
use crate::store::{
    AssignOutcome, Attempt, BeginOutcome, CreateMode, CreateRequest, CreationLease, Number, NumberSelector,
    SaveOutcome,
};
use crate::upstream::CallError;
use crate::wpp::{Credentials, PlatformError};

/// The lease of an attempt: a crashed attempt blocks the next one for at most this long.
const LEASE: Duration = Duration::from_secs(10);

/// An attempt ends this long before its lease, so that two never run at once: each could get an API key that revokes the other's.
const LEASE_MARGIN: Duration = Duration::from_millis(500);

/// How long an attempt may take.
const ATTEMPT_BUDGET: Duration = LEASE.saturating_sub(LEASE_MARGIN);
const _: () = assert!(ATTEMPT_BUDGET.as_millis() < LEASE.as_millis());

/// The longest that one platform call of a creation may take, retries included.
const CREATE_BUDGET: Duration = Duration::from_secs(8);

/// The time to release a creation that failed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The first and the longest pause of a request that waits for another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Added to the time that another attempt's lease has left, which limits the pause before the next try.
const LEASE_WAIT_MARGIN: Duration = Duration::from_millis(100);

/// Finds or creates the number that a request names, or joins a creation that is under way. Returns the number with its
/// credentials, and the database's time when it was read. After an error, repeating the request continues the creation and gets the
/// same session.
pub async fn ensure_credentials(
    app: &App,
    user_id: Uuid,
    deadline: Deadline,
    mode: CreateMode,
    selector: NumberSelector,
) -> Result<(Number, UnixMs), Error> {
    let request = CreateRequest { mode, selector, rejected_key: None };
    run(app, user_id, deadline, request).await
}

/// Gets new credentials for a number whose API key the platform refuses. Saves them only if the session stays
/// the same, or no phone was ever linked to it; otherwise fails with [`PlatformError::KeyRefused`].
pub async fn repair_credentials(
    app: &App,
    user_id: Uuid,
    deadline: Deadline,
    number: &Number,
) -> Result<(Number, UnixMs), Error> {
    let selector = NumberSelector { session: None, integration_id: Some(number.integration_id) };
    let rejected_key = number.settings.api_key.clone();
    let request = CreateRequest { mode: CreateMode::Repair, selector, rejected_key };
    let (repaired, now) = run(app, user_id, deadline, request).await?;
    let is_unchanged = repaired.credentials_saved_at == number.credentials_saved_at
        && repaired.settings.api_key == number.settings.api_key;
    if is_unchanged { Err(key_refused()) } else { Ok((repaired, now)) }
}

async fn run(
    app: &App,
    user_id: Uuid,
    request_deadline: Deadline,
    request: CreateRequest,
) -> Result<(Number, UnixMs), Error> {
    let mut attempt =
        Attempt { user_id, request, holder: Uuid::new_v4(), lease_ms: millis(LEASE), waited_for: None };
    let wait_deadline = request_deadline.for_a_wait();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        // Starts before the lease does, so it also ends first.
        let deadline = request_deadline.at_most(ATTEMPT_BUDGET);
        let begun = app.store.begin_creation(&attempt, request_deadline).await?;
        let now = begun.now;
        match begun.outcome {
            BeginOutcome::Existing { number } => return Ok((number, now)),
            BeginOutcome::Begun { creation, organization_id, platform_id, number, is_usable } => {
                request_log::organization(organization_id);
                let lease = CreationLease { organization_id, creation, holder: attempt.holder };
                let held = HeldCreation { app, deadline, lease, number: number.clone(), now };
                match (held.run(&platform_id).await, number) {
                    (Err(Error::CreationInProgress), _) => attempt.waited_for = Some(creation),
                    // Another request asked for new credentials, but the old ones still work.
                    (Err(error), Some(number)) if is_usable && attempt.request.mode == CreateMode::Ensure => {
                        tracing::warn!(%error, "could not finish an earlier force_recreate; the credentials before it still work");
                        return Ok((number, now));
                    }
                    (outcome, _) => return outcome.map(|number| (number, now)),
                }
            }
            BeginOutcome::Busy { creation, wait_ms } => {
                attempt.waited_for = Some(creation);
                let pause = backoff.pause(Duration::from_millis(wait_ms) + LEASE_WAIT_MARGIN);
                if !wait_deadline.sleep(pause).await {
                    return Err(Error::CreationInProgress);
                }
            }
            BeginOutcome::TooMany { wait_ms } => return Err(too_many_numbers(wait_ms)),
            BeginOutcome::Unknown => return Err(Error::NumberNotFound),
            BeginOutcome::NoOrganization => return Err(Error::NoOrganization),
        }
    }
}

/// A creation whose lease this attempt holds. Every call ends before the deadline, except the release.
struct HeldCreation<'a> {
    app: &'a App,
    deadline: Deadline,
    lease: CreationLease,
    /// The number that gets new credentials; `None` if its row does not exist yet.
    number: Option<Number>,
    now: UnixMs,
}

impl HeldCreation<'_> {
    /// Asks the platform for credentials and saves them at once. Fails with [`Error::CreationInProgress`] if another attempt has
    /// taken over.
    async fn run(&self, platform_id: &str) -> Result<Number, Error> {
        let saved = self.create_and_save(platform_id).await;
        if let Err(failed) = &saved
            && *failed != Error::CreationInProgress
        {
            // A failed release can be ignored: the lease expires by itself.
            let _ = self.app.store.release_creation(&self.lease, Deadline::within(RELEASE_TIMEOUT)).await;
        }
        saved
    }

    async fn create_and_save(&self, platform_id: &str) -> Result<Number, Error> {
        let mut credentials = self.create(platform_id).await?;
        if self.must_be_active(&credentials.api_key) && self.platform_refuses(&credentials.api_key).await? {
            credentials = self.create_with_new_id().await?;
        }
        let mut saved = self.save(&credentials).await?;
        if matches!(saved, SaveOutcome::Rejected) {
            saved = self.save(&self.create_with_new_id().await?).await?;
        }
        match saved {
            SaveOutcome::Saved { number } => Ok(*number),
            SaveOutcome::Kept | SaveOutcome::Rejected => Err(key_refused()),
            SaveOutcome::Taken => Err(CallError { call: "create", why: PlatformError::BadAnswer }.into()),
            SaveOutcome::Superseded => Err(Error::CreationInProgress),
            SaveOutcome::Gone => Err(Error::NumberNotFound),
        }
    }

    /// Whether the number has had this API key for so long that it must be active.
    fn must_be_active(&self, api_key: &Secret) -> bool {
        let has_had = |number: &Number| {
            number.settings.api_key.as_ref() == Some(api_key) && !number.key_is_new(self.now)
        };
        self.number.as_ref().is_some_and(has_had)
    }

    async fn platform_refuses(&self, api_key: &Secret) -> Result<bool, Error> {
        match self.app.wpp.get_initial_token(api_key, self.now, self.deadline.at_most(CREATE_BUDGET)).await {
            Ok(_) => Ok(false),
            Err(error) if error.why == PlatformError::KeyRefused => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Gets another API key after the platform has refused the one that it had just returned. That takes a new platform id.
    async fn create_with_new_id(&self) -> Result<Credentials, Error> {
        match self.app.store.assign_platform_id(&self.lease, self.deadline).await? {
            AssignOutcome::Assigned { platform_id } => self.create(&platform_id).await,
            AssignOutcome::Kept => Err(key_refused()),
            AssignOutcome::TooMany { wait_ms } => Err(too_many_numbers(wait_ms)),
            AssignOutcome::Superseded => Err(Error::CreationInProgress),
        }
    }

    async fn create(&self, platform_id: &str) -> Result<Credentials, Error> {
        // Reported like a refused secret.
        let missing = CallError { call: "create", why: PlatformError::SecretRefused };
        let secret = self.app.secrets.wpp_secret.as_ref().ok_or(missing)?;
        Ok(self.app.wpp.create_client(secret, platform_id, self.deadline.at_most(CREATE_BUDGET)).await?)
    }

    async fn save(&self, credentials: &Credentials) -> Result<SaveOutcome, Error> {
        Ok(self.app.store.save_credentials(&self.lease, credentials, self.deadline).await?)
    }
}

fn key_refused() -> Error {
    CallError { call: "create", why: PlatformError::KeyRefused }.into()
}

fn too_many_numbers(wait_ms: u64) -> Error {
    Error::TooManyNumbers(Duration::from_millis(wait_ms))
}
