//! Creates or continues an organization's number, up to the QR code that links it.

use serde::{Deserialize, Serialize};
use shared::App;
use shared::clock::UnixMs;
use shared::error::Error;
use shared::http::request::{IntegrationId, RequestContext, SessionId, named_session};
use shared::http::response::ApiResponse;
use shared::messages as say;
use shared::number::advice::{Freshness, NumberAnswer};
use shared::number::creation::{ensure_credentials, repair_credentials};
use shared::number::qr::Format;
use shared::number::session::NumberSession;
use shared::number::snapshot::{KnownState, State};
use shared::secret::Secret;
use shared::store::{CreateMode, Number, NumberSelector};
use shared::wpp::PlatformError;

use crate::linking;

/// The JSON body. Without a session or id, it is about the number that `choose_number` finds. If there is none, one is created.
#[derive(Deserialize)]
pub struct CreateRequest {
    /// Whether to get new credentials for the number.
    #[serde(default)]
    force_recreate: bool,
    /// Whether to create one more number.
    #[serde(default)]
    add_new: bool,
    session: Option<SessionId>,
    /// The frontend's other names for `session`.
    session_name: Option<SessionId>,
    account_number: Option<SessionId>,
    integration_id: Option<IntegrationId>,
}

/// The number, and the state of its link.
#[derive(Serialize)]
pub struct CreateResponse {
    /// The API key, masked.
    #[serde(rename = "apiKey")]
    api_key: Option<String>,
    status: CreateStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    qrcode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    /// The fields of all three answers.
    #[serde(flatten)]
    number: NumberAnswer,
}

/// `state` in the three words that the frontend knows from `wpp-create`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum CreateStatus {
    Connected,
    QrIssued,
    Starting,
}

/// Finds or creates the number. If no phone is connected, starts its session and waits about `QR_WAIT_MS` for the QR code. Safe to
/// repeat: after an error, the same request continues with the same number.
pub async fn create_number(
    app: &App,
    context: &RequestContext,
    request: CreateRequest,
) -> Result<CreateResponse, Error> {
    let (mode, selector) = read(request)?;
    let (mut session, mut known) = create_and_start(app, context, mode, &selector).await?;
    // `add_new` first continues a number that was never linked. If that number is connected by now, it asks for another one.
    if known.is_connected() && mode == CreateMode::AddNew {
        (session, known) = create_and_start(app, context, mode, &selector).await?;
    }
    Ok(CreateResponse {
        api_key: session.number.settings.api_key.as_ref().map(Secret::masked),
        status: match known.state {
            State::Connected => CreateStatus::Connected,
            State::QrIssued => CreateStatus::QrIssued,
            _ => CreateStatus::Starting,
        },
        number: session.describe(&known, Freshness::Live, context.language),
        format: known.qr.as_deref().map(Format::of),
        qrcode: known.qr,
    })
}

fn read(request: CreateRequest) -> Result<(CreateMode, NumberSelector), Error> {
    let named = named_session(request.session, request.session_name, request.account_number)?;
    let selector = NumberSelector { session: named, integration_id: request.integration_id };
    let mode = match (request.force_recreate, request.add_new) {
        // A number to be added has no session yet, and no credentials to replace.
        (force_recreate, true) if force_recreate || selector.is_named() => {
            return Err(Error::bad_request("add_new", say::FIELD_NOT_ALONE));
        }
        (_, true) => CreateMode::AddNew,
        (true, false) => CreateMode::ForceRecreate,
        (false, false) => CreateMode::Ensure,
    };
    Ok((mode, selector))
}

/// Gets credentials and starts the session with them. If the platform refuses the API key, gets another one, once.
async fn create_and_start<'a>(
    app: &'a App,
    context: &RequestContext,
    mode: CreateMode,
    selector: &NumberSelector,
) -> Result<(NumberSession<'a>, KnownState), Error> {
    let (user_id, deadline) = (context.user_id, context.deadline);
    let (number, now) = ensure_credentials(app, user_id, deadline, mode, selector.clone()).await?;
    match start_session(app, context, number.clone(), now).await {
        Err(error) if error.platform() == Some(PlatformError::KeyRefused) => {
            let (repaired, now) = repair_credentials(app, user_id, deadline, &number).await?;
            start_session(app, context, repaired, now).await
        }
        started => started,
    }
}

/// Starts the session, waits for its QR code, and saves what the platform reported.
async fn start_session<'a>(
    app: &'a App,
    context: &RequestContext,
    number: Number,
    now: UnixMs,
) -> Result<(NumberSession<'a>, KnownState), Error> {
    let mut session = NumberSession::open(app, number, now, context.deadline.for_a_wait())?;
    let mut known = linking::link(&mut session, app.config.qr_wait).await?;
    session.deadline = context.deadline;
    // A state that the platform did not report must not replace one that it did.
    if known.is_reported() || session.number.snapshot.is_none() {
        session.save_snapshot(&mut known).await;
    }
    Ok((session, known))
}

impl ApiResponse for CreateResponse {
    fn state(&self) -> State {
        self.number.state()
    }
}

#[cfg(test)]
mod tests;
