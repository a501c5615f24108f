//! How an organisation comes by a number's credentials: the intention is written down first, so that whoever comes after
//! a crash, a retry or a double click finishes what was begun instead of beginning again.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::request::ApiRequest;
use crate::platform::{Credentials, PlatformError};
use crate::secret::Secret;
use crate::store::{Attempt, BeginOutcome, CreateMode, Number, NumberSelector, Saved};

/// The platform's part of a creation, the repetitions included.
const CREATE_TIME: Duration = Duration::from_secs(8);

/// The longest that an attempt which has died blocks the next one.
const LEASE: Duration = Duration::from_secs(10);

/// An attempt gives up before its lease ends: two at once could each get a key that kills the other's.
const WORK_TIME: Duration = Duration::from_millis(9_500);

/// What giving a creation back after a failure may take.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// The first look for another attempt's result comes after this at the latest; the pauses double.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// The longest pause between two looks.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// A number that has its credentials.
#[derive(Debug)]
pub struct Created {
    /// The number.
    pub number: Number,
    /// When that was, by the database's clock.
    pub now: UnixMs,
}

/// Finds, joins or makes the number that a request is about.
///
/// # Errors
/// What failed, [`Error::CreationInProgress`] where another attempt is still at it; repeating the request goes on from
/// there, with the same session.
pub async fn obtain(
    app: &App,
    request: &ApiRequest,
    mode: CreateMode,
    selector: NumberSelector,
) -> Result<Created, Error> {
    let meaning = json!({"mode": mode.word(), "number": selector});
    let idempotency = request.idempotency_key.clone().map(|key| (key, meaning));
    complete(app, request, Attempt { selector, idempotency, ..attempt(request, mode) }).await
}

/// New credentials for a number whose key the platform refuses, where nothing that works can be lost by it: no phone was
/// ever linked, somebody has begun to replace them, or a sibling wrote old ones back. Otherwise, the number as it is.
///
/// # Errors
/// What failed; repeating the request goes on from there.
pub async fn heal(app: &App, request: &ApiRequest, number: &Number) -> Result<Created, Error> {
    let selector = NumberSelector { session: None, integration_id: Some(number.integration_id) };
    let rejected = number.settings.api_key();
    complete(app, request, Attempt { selector, rejected, ..attempt(request, CreateMode::Heal) }).await
}

fn attempt(request: &ApiRequest, mode: CreateMode) -> Attempt {
    Attempt {
        user_id: request.user_id,
        mode,
        selector: NumberSelector::default(),
        rejected: None,
        holder: Uuid::new_v4(),
        lease: LEASE,
        waited_for: None,
        idempotency: None,
    }
}

async fn complete(app: &App, request: &ApiRequest, mut attempt: Attempt) -> Result<Created, Error> {
    let patience = request.deadline.for_a_wait();
    let mut pause = FIRST_LOOK;
    loop {
        // Counted from before the lease begins.
        let work_deadline = request.deadline.at_most(WORK_TIME);
        let begun = app.store.begin_creation(&attempt, request.deadline).await?;
        match begun.outcome {
            BeginOutcome::Existing { number } => {
                return Ok(Created { number, now: begun.now });
            }
            BeginOutcome::Begun { creation, organization_id, platform_id, number } => {
                let (deadline, holder) = (work_deadline, attempt.holder);
                let work = Work { app, deadline, organization_id, creation, holder, number, now: begun.now };
                match work.run(platform_id).await? {
                    Some(number) => return Ok(Created { number, now: begun.now }),
                    None => attempt.waited_for = Some(creation),
                }
            }
            BeginOutcome::Busy { creation, wait_ms } => {
                attempt.waited_for = Some(creation);
                let longest = pause.min(Duration::from_millis(wait_ms) + FIRST_LOOK);
                if !patience.sleep(longest.mul_f64(0.5 + 0.5 * fastrand::f64())).await {
                    return Err(Error::CreationInProgress);
                }
                pause = (pause * 2).min(LONGEST_LOOK);
            }
            BeginOutcome::Mismatch => return Err(Error::IdempotencyMismatch),
            BeginOutcome::Unknown => return Err(Error::NumberNotFound),
            BeginOutcome::NoOrganization => return Err(Error::NoOrganization),
        }
    }
}

/// One attempt's turn at a creation.
struct Work<'a> {
    app: &'a App,
    deadline: Deadline,
    organization_id: Uuid,
    creation: Uuid,
    holder: Uuid,
    /// The number that gets new credentials; nothing for a new one.
    number: Option<Number>,
    now: UnixMs,
}

impl Work<'_> {
    /// Asks the platform and saves at once what it gives. Nothing, where another attempt has taken over.
    async fn run(&self, platform_id: String) -> Result<Option<Number>, Error> {
        let work = async {
            let Some(given) = self.credentials(&platform_id).await? else { return Ok(None) };
            match self.save(&given).await? {
                // Only another id brings another key.
                Saved::Rejected => match self.create_under_new_id().await? {
                    Some(given) => saved_number(self.save(&given).await?),
                    None => Ok(None),
                },
                saved => saved_number(saved),
            }
        };
        let saved = self.deadline.bound(work).await;
        let saved = saved.unwrap_or(Err(Error::Platform(PlatformError::TimedOut)));
        if saved.is_err() {
            self.leave().await;
        }
        saved
    }

    async fn credentials(&self, platform_id: &str) -> Result<Option<Credentials>, Error> {
        let given = self.create(platform_id).await?;
        // A key that came just now may be refused because it is not active yet: that says nothing.
        let is_old = |number: &Number| {
            number.settings.api_key().as_ref() == Some(&given.api_key) && !number.key_is_new(self.now)
        };
        if self.number.as_ref().is_some_and(is_old) && !self.works(&given.api_key).await? {
            return self.create_under_new_id().await;
        }
        Ok(Some(given))
    }

    /// For a key that the platform hands out and refuses. Nothing, where another attempt has taken over.
    async fn create_under_new_id(&self) -> Result<Option<Credentials>, Error> {
        let (organization, store) = (self.organization_id, &self.app.store);
        match store.assign_platform_id(organization, self.creation, self.holder, self.deadline).await? {
            Some(platform_id) => self.create(&platform_id).await.map(Some),
            None => Ok(None),
        }
    }

    async fn create(&self, platform_id: &str) -> Result<Credentials, Error> {
        let secret =
            self.app.config.wpp_secret.as_ref().ok_or(Error::Platform(PlatformError::SecretRefused))?;
        let deadline = self.deadline.at_most(CREATE_TIME);
        self.app.platform.create(secret, platform_id, deadline).await.map_err(Error::Platform)
    }

    async fn works(&self, api_key: &Secret) -> Result<bool, Error> {
        match self.app.platform.token(api_key, self.now, self.deadline.at_most(CREATE_TIME)).await {
            Ok(_) => Ok(true),
            Err(PlatformError::KeyRefused) => Ok(false),
            Err(error) => Err(Error::Platform(error)),
        }
    }

    async fn save(&self, credentials: &Credentials) -> Result<Saved, Error> {
        let (organization, store) = (self.organization_id, &self.app.store);
        let saved =
            store.save_credentials(organization, self.creation, self.holder, credentials, self.deadline);
        Ok(saved.await?)
    }

    /// The next attempt need not wait for a lease whose holder has given up.
    async fn leave(&self) {
        let (organization, deadline) = (self.organization_id, Deadline::within(LEAVE_TIME));
        if let Err(error) =
            self.app.store.release_creation(organization, self.creation, self.holder, deadline).await
        {
            tracing::debug!(%error, "a failed creation keeps its lease until that ends");
        }
    }
}

/// Nothing, where another attempt has taken over.
fn saved_number(saved: Saved) -> Result<Option<Number>, Error> {
    match saved {
        Saved::Saved { number } => Ok(Some(number)),
        Saved::Superseded => Ok(None),
        Saved::Rejected => Err(Error::ApiKeyRejected),
        // Whoever has deleted it meanwhile meant that.
        Saved::Gone => Err(Error::NumberNotFound),
    }
}
