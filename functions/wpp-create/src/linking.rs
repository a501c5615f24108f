//! From credentials to a QR code: fetches a token, registers the webhook, starts the session and waits for the QR code. The wait is
//! short: people who connect at the same time must not hold every sandbox.

use std::time::Duration;

use shared::error::Error;
use shared::number::session::NumberSession;
use shared::number::snapshot::KnownState;
use shared::wpp::{PlatformError, SessionState};

/// The pauses before another try with a new API key that is not active yet.
const API_KEY_RETRY_INTERVALS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3)];

/// The time between two polls for the QR code.
const QR_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The longest that a poll may take after the wait for the QR code is over.
const LAST_POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the number's state, once it has a QR code or `qr_wait` after its session was started: from then on, the frontend polls.
/// After a failure, the next request continues with the same number.
pub async fn link(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<KnownState, Error> {
    if session.number.key_is_new(session.now) {
        link_new(session, qr_wait).await
    } else {
        link_existing(session, qr_wait).await
    }
}

/// Links a number with a new API key, which may not be active yet.
async fn link_new(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<KnownState, Error> {
    let mut pauses = API_KEY_RETRY_INTERVALS.into_iter();
    while let Err(error) = session.ensure_token().await {
        let may_pass = error.platform() == Some(PlatformError::KeyNotActive);
        // If the pause does not fit, waiting would only hold the sandbox.
        let pause = pauses.next().filter(|pause| may_pass && *pause < session.deadline.remaining());
        let Some(pause) = pause else { return Err(error) };
        tracing::warn!(%error, "no token for a new key yet");
        session.deadline.sleep(pause).await;
    }
    bring_up(session, qr_wait).await
}

async fn link_existing(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<KnownState, Error> {
    match session.fetch_status().await {
        Ok(status) if status.state == SessionState::Connected => {
            session.retry_webhook().await;
            return Ok(KnownState::live(status, None));
        }
        // A session that the platform does not know may still exist after it is started.
        Err(error) if error.platform() != Some(PlatformError::UnknownSession) => return Err(error),
        _ => {}
    }
    bring_up(session, qr_wait).await
}

async fn bring_up(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<KnownState, Error> {
    let before = session.register_webhook().await;
    let started = session.start().await?;
    if let Err(error) = before {
        tracing::warn!(%error, "the webhook could not be registered before the start");
        // If the platform refuses it, the session may have been started before. If the platform hangs, it would hang again.
        if error.platform() != Some(PlatformError::TimedOut)
            && let Err(error) = session.register_webhook().await
        {
            tracing::warn!(%error, "the webhook could not be registered after the start");
        }
    }
    let mut known = match started {
        (Some(status), _) if status.state == SessionState::Connected => KnownState::live(status, None),
        (_, Some(qr)) => KnownState::qr_issued(qr),
        (Some(status), None) => KnownState::live(status, None),
        (None, None) => KnownState::starting(),
    };
    let wait = session.deadline.at_most(qr_wait);
    session.deadline = session.deadline.at_most(qr_wait + LAST_POLL_TIMEOUT);
    // After a failed poll the next one may succeed: the session was started.
    while waits_for_qr(&known) {
        let is_last = wait.remaining().is_zero();
        match session.poll().await {
            Ok(polled) => known = polled,
            Err(error) => tracing::warn!(%error, "a poll for the QR code failed"),
        }
        if is_last {
            break;
        }
        if waits_for_qr(&known) {
            wait.sleep(QR_POLL_INTERVAL).await;
        }
    }
    Ok(known)
}

/// Whether the platform may still show a QR code. It shows none until a passkey is confirmed.
fn waits_for_qr(known: &KnownState) -> bool {
    let passkey = known.status.as_ref().is_some_and(|status| status.state == SessionState::PasskeyRequired);
    known.qr.is_none() && !known.is_connected() && !passkey
}
