//! From credentials to a QR: the token fetched, the webhook registered, the session started, the QR waited for. The wait has
//! a limit of its own: people who connect at once must not hold every sandbox. Each call has its own timeout.

use std::time::Duration;

use shared::error::Error;
use shared::number::session::NumberSession;
use shared::number::view::View;
use shared::platform::{PlatformError, SessionState};

/// A new key that is not active yet is tried again after these.
const KEY_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3)];

/// Between two looks for the QR.
const QR_PAUSE: Duration = Duration::from_secs(1);

/// Returns how far the number is `qr_wait` after its session was started: the frontend polls from there. After a failure the
/// number stands, and the same request goes on with it.
pub async fn link(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<View, Error> {
    if session.number.key_is_new(session.now) {
        link_new(session, qr_wait).await
    } else {
        link_existing(session, qr_wait).await
    }
}

/// A key saved just now may not be active yet.
async fn link_new(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<View, Error> {
    let mut pauses = KEY_PAUSES.into_iter();
    while let Err(error) = session.token().await {
        let may_pass = error.platform() == Some(PlatformError::KeyNotActive);
        // A pause that does not fit would hold the sandbox in vain.
        let pause = pauses.next().filter(|pause| may_pass && *pause < session.deadline.remaining());
        let Some(pause) = pause else { return Err(error) };
        tracing::warn!(%error, "no token for a new key yet");
        session.deadline.sleep(pause).await;
    }
    bring_up(session, qr_wait).await
}

async fn link_existing(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<View, Error> {
    match session.status().await {
        Ok(status) if status.state == SessionState::Connected => {
            session.make_up_for_webhook().await;
            return Ok(View::live(status, None));
        }
        // A session that the platform does not know may still come up when it is started.
        Err(error) if error.platform() != Some(PlatformError::UnknownSession) => return Err(error),
        _ => {}
    }
    bring_up(session, qr_wait).await
}

async fn bring_up(session: &mut NumberSession<'_>, qr_wait: Duration) -> Result<View, Error> {
    let before = session.register_webhook().await;
    let started = session.start().await?;
    if let Err(error) = before {
        tracing::warn!(%error, "the webhook could not be registered before the start");
        // A platform that refuses it may take it for a session that was started; one that hangs would hang again.
        if error.platform() != Some(PlatformError::TimedOut)
            && let Err(error) = session.register_webhook().await
        {
            tracing::warn!(%error, "the webhook could not be registered after the start");
        }
    }
    let mut view = match started {
        (Some(status), _) if status.state == SessionState::Connected => View::live(status, None),
        (_, Some(qr)) => View::scannable(qr),
        (Some(status), None) => View::live(status, None),
        (None, None) => View::starting(),
    };
    session.deadline = session.deadline.at_most(qr_wait);
    // A look that fails is not the last one: the session was started, and stays so.
    while waits_for_qr(&view) {
        match session.look().await {
            Ok(snapshot) => view = snapshot,
            Err(error) => tracing::warn!(%error, "a look for the QR failed"),
        }
        if waits_for_qr(&view) && !session.deadline.sleep(QR_PAUSE).await {
            break;
        }
    }
    Ok(view)
}

/// Whether the platform may show a QR by itself: not where a passkey comes first.
fn waits_for_qr(view: &View) -> bool {
    let passkey = view.status.as_ref().is_some_and(|status| status.state == SessionState::PasskeyRequired);
    view.qr.is_none() && !view.is_connected() && !passkey
}
