//! `wpp-create`: a number for the organisation, from its client on the platform to the QR that links it.

use std::sync::Arc;

use serde::Serialize;
use shared::App;
use shared::clock::UnixMs;
use shared::error::Error;
use shared::http::request::ApiRequest;
use shared::http::run::Answer;
use shared::number::creation::{ensure_credentials, repair_credentials};
use shared::number::hint::Advice;
use shared::number::qr::Format;
use shared::number::session::{NumberSession, Webhook};
use shared::number::view::{State, View};
use shared::platform::PlatformError;
use shared::record::{self, Source};
use shared::secret::Secret;
use shared::sentence::{self as say, Language};
use shared::store::{CreateMode, Number, NumberSelector};

use crate::linking;

/// The number and how far it is.
#[derive(Serialize)]
pub struct CreateAnswer {
    session: String,
    #[serde(rename = "apiKey")]
    api_key: Option<String>,
    status: &'static str,
    webhook: Webhook,
    #[serde(skip_serializing_if = "Option::is_none")]
    qrcode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_status: Option<String>,
    #[serde(flatten)]
    advice: Advice,
}

impl Answer for CreateAnswer {}

/// `POST {"force_recreate"?, "add_new"?, "session"? | "session_name"? | "integration_id"?}`: the organisation's number (the
/// named one, where one is named), new credentials for it, or one more number.
pub async fn handle(app: Arc<App>, request: ApiRequest) -> Result<CreateAnswer, Error> {
    let selector = request.selector()?;
    let mode = mode(&request, &selector)?;
    let (mut session, mut view) = attempt(&app, &request, mode, &selector).await?;
    // An unfinished number that turns out to be linked is finished; what was asked for is another one.
    if view.is_connected() && mode == CreateMode::AddNew {
        (session, view) = attempt(&app, &request, mode, &selector).await?;
    }
    Ok(answer(&session, view, request.language))
}

fn mode(request: &ApiRequest, selector: &NumberSelector) -> Result<CreateMode, Error> {
    match (request.flag("force_recreate")?, request.flag("add_new")?) {
        // A number that is added is not there yet, to be named or to be made again.
        (is_recreated, true) if is_recreated || selector.is_named() => {
            Err(Error::BadRequest { field: "add_new", wrong: say::FIELD_NOT_ALONE })
        }
        (_, true) => Ok(CreateMode::AddNew),
        (true, false) => Ok(CreateMode::ForceRecreate),
        (false, false) => Ok(CreateMode::Ensure),
    }
}

/// The number and how far it is.
async fn attempt<'a>(
    app: &'a App,
    request: &ApiRequest,
    mode: CreateMode,
    selector: &NumberSelector,
) -> Result<(NumberSession<'a>, View), Error> {
    let (user_id, deadline) = (request.user_id, request.deadline);
    let (number, now) = ensure_credentials(app, user_id, deadline, mode, selector.clone()).await?;
    match connect(app, request, number.clone(), now).await {
        Err(error) if error.platform() == Some(PlatformError::KeyRefused) => {
            let (repaired, now) = repair_credentials(app, user_id, deadline, &number).await?;
            connect(app, request, repaired, now).await
        }
        connected => connected,
    }
}

/// The number's way to its QR, and what was seen on it.
async fn connect<'a>(
    app: &'a App,
    request: &ApiRequest,
    number: Number,
    now: UnixMs,
) -> Result<(NumberSession<'a>, View), Error> {
    let mut session = NumberSession::open(app, number, now, request.deadline.for_a_wait())?;
    let mut view = linking::link(&mut session, app.config.qr_wait).await?;
    session.deadline = request.deadline;
    // What was not seen does not replace in the mirror what was.
    if view.is_seen() || session.number.snapshot.is_none() {
        session.save_snapshot(&mut view).await;
    }
    Ok((session, view))
}

fn answer(session: &NumberSession<'_>, view: View, language: Language) -> CreateAnswer {
    let advice = Advice::due(&session.number, &view, session.webhook(), session.now, language);
    record::state(view.state, Source::Live);
    CreateAnswer {
        session: session.id().to_owned(),
        api_key: session.number.settings.api_key.as_ref().map(Secret::masked),
        status: match view.state {
            State::Connected => "connected",
            State::QrIssued => "qr_issued",
            _ => "starting",
        },
        webhook: session.webhook(),
        platform_status: view.platform_status().map(str::to_owned),
        format: view.qr.as_deref().map(Format::of),
        qrcode: view.qr,
        advice: advice.unwrap_or_default(),
    }
}
