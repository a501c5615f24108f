//! `wpp-qr`: the QR of one of the organisation's numbers.

use std::sync::Arc;

use serde::Serialize;
use shared::App;
use shared::error::Error;
use shared::http::request::ApiRequest;
use shared::number::session::NumberSession;
use shared::platform::SessionState;
use shared::record::{self, Source};
use shared::sentence as say;
use shared::store::NumberSelector;

/// When to ask again for a QR that is not ready, and for the next one.
const POLL_AFTER_MS: u32 = 2_000;

/// The QR, and what it means that there is none.
#[derive(Serialize)]
pub struct QrAnswer {
    qr: Option<String>,
    state: &'static str,
    poll_after_ms: u32,
}

/// `GET ?session=` or `POST {"session"}`, or `session_name` in either. Answers `qr`, null only while the platform has none
/// ready.
pub async fn handle(app: Arc<App>, request: ApiRequest) -> Result<QrAnswer, Error> {
    let session =
        request.session()?.ok_or(Error::BadRequest { field: "session", wrong: say::FIELD_MISSING })?;
    let selector = NumberSelector { session: Some(session), integration_id: None };

    let found = app.store.find(request.user_id, &selector, request.deadline).await?;
    record::organization(found.organization_id.ok_or(Error::NoOrganization)?);
    let number = found.number.ok_or(Error::NumberNotFound)?;

    let mut session = NumberSession::open(&app, number, found.now, request.deadline)?;
    let qr = session.qr().await?;
    record::source(Source::Live);
    let state = match &qr {
        Some(_) => "ready",
        // A linked number has none either; whether it still is one, only the platform knows.
        None if session.may_be_connected()
            && matches!(session.status().await, Ok(status) if status.state == SessionState::Connected) =>
        {
            "connected"
        }
        None => "not_ready",
    };
    Ok(QrAnswer { qr, state, poll_after_ms: POLL_AFTER_MS })
}
