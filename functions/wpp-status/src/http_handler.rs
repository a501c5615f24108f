//! Whether one of the organization's numbers is connected, and the QR code to scan if it is not.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::App;
use shared::error::Error;
use shared::http::request::{IntegrationId, RequestContext, SessionId, named_session};
use shared::http::response::ApiResponse;
use shared::messages::{self as say, Sentence};
use shared::number::advice::{Freshness, NumberAnswer};
use shared::number::prefetch::Expect;
use shared::number::qr::Format;
use shared::number::session::NumberSession;
use shared::number::snapshot::{KnownState, State};
use shared::store::NumberSelector;
use shared::wpp::PlatformError;

/// How long an unforced request waits for the platform before it answers with the last known state.
const STALE_TIMEOUT: Duration = Duration::from_secs(4);

/// The query string of a GET, or the JSON body of a POST. Without a session or id, it is about the primary number, otherwise the
/// oldest active one with credentials.
#[derive(Deserialize)]
pub struct StatusRequest {
    session: Option<SessionId>,
    /// The frontend's other names for `session`.
    session_name: Option<SessionId>,
    account_number: Option<SessionId>,
    integration_id: Option<IntegrationId>,
    /// Whether to ask the platform even if the stored state is recent.
    #[serde(default)]
    force: bool,
}

/// The state of a number, or of an organization without one.
#[derive(Serialize)]
pub struct StatusResponse {
    /// The same as `state`.
    status: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    qrcode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    /// The fields of all three answers.
    #[serde(flatten)]
    number: NumberAnswer,
}

/// Returns the number's state: a recent one from the database unless `force` is set, otherwise the platform's. If the
/// platform is down, an unforced request gets the last known state.
pub async fn get_status(
    app: &App,
    context: &RequestContext,
    request: StatusRequest,
) -> Result<StatusResponse, Error> {
    let named = named_session(request.session, request.session_name, request.account_number)?;
    let selector = NumberSelector { session: named, integration_id: request.integration_id };
    let expect = if request.force { Expect::Status } else { Expect::Nothing };
    let mut session =
        match NumberSession::find(app, context.user_id, &selector, expect, context.deadline).await {
            Err(Error::NumberNotFound) if !selector.is_named() => {
                return Ok(without_number(context, say::NO_NUMBER_YET));
            }
            Err(Error::NoCredentials) => return Ok(without_number(context, say::NOT_CONNECTED_YET)),
            found => found?,
        };
    if !session.has_api_key() {
        return Ok(without_number(context, say::NOT_CONNECTED_YET));
    }

    if request.force {
        let known = poll(&mut session, context).await?;
        return Ok(response(&mut session, known, Freshness::Live, context));
    }
    if let Some(known) = session.recent() {
        return Ok(response(&mut session, known, Freshness::Recent, context));
    }
    let last_known = session.last_known();
    if last_known.is_some() {
        session.deadline = context.deadline.at_most(STALE_TIMEOUT);
    }
    match (poll(&mut session, context).await, last_known) {
        (Ok(known), _) => Ok(response(&mut session, known, Freshness::Live, context)),
        (Err(error), Some(known)) if error.is_platform_outage() => {
            session.note_stale(&error);
            Ok(response(&mut session, known, Freshness::Stale, context))
        }
        (Err(error), _) => Err(error),
    }
}

/// Asks the platform, and saves its answer.
async fn poll(session: &mut NumberSession<'_>, context: &RequestContext) -> Result<KnownState, Error> {
    let mut known = match session.poll().await {
        // The session no longer exists, so the phone is not linked. This state is saved like any other.
        Err(error) if error.platform() == Some(PlatformError::UnknownSession) => KnownState::lost(),
        polled => polled?,
    };
    session.deadline = context.deadline;
    session.save_snapshot(&mut known).await;
    if known.is_connected() {
        session.retry_webhook().await;
    }
    Ok(known)
}

fn response(
    session: &mut NumberSession<'_>,
    known: KnownState,
    freshness: Freshness,
    context: &RequestContext,
) -> StatusResponse {
    let number = session.describe(&known, freshness, context.language);
    let format = known.qr.as_deref().map(Format::of);
    StatusResponse { status: known.state, format, qrcode: known.qr, number }
}

fn without_number(context: &RequestContext, message: Sentence) -> StatusResponse {
    let number = NumberAnswer::without_number(message, context.language);
    StatusResponse { status: number.state(), qrcode: None, format: None, number }
}

impl ApiResponse for StatusResponse {
    fn state(&self) -> State {
        self.status
    }
}

#[cfg(test)]
mod tests;
