//! `wpp-qr`: the QR of one of the organisation's numbers.

use std::sync::Arc;

use serde_json::json;
use shared::App;
use shared::error::Error;
use shared::http::request::Ask;
use shared::http::run::Answer;
use shared::number::session::Line;
use shared::platform::Link;
use shared::sentence as say;
use shared::store::Wanted;

/// When to ask again for a QR that is not ready, and for the next one.
const POLL_AFTER_MS: u32 = 2_000;

/// `GET ?session=` or `POST {"session"}`, or `session_name` in either. Answers `qr`, null only while the platform has none
/// ready.
pub async fn handle(app: Arc<App>, ask: Ask) -> Result<Answer, Error> {
    let session = ask.session()?.ok_or(Error::BadRequest { field: "session", wrong: say::FIELD_MISSING })?;
    let wanted = Wanted { session: Some(session), integration_id: None };

    let found = app.store.find(ask.user_id, &wanted, ask.deadline).await?;
    found.organization_id.ok_or(Error::NoOrganization)?;
    let number = found.number.ok_or(Error::NumberNotFound)?;

    let mut line = Line::open(&app, number, found.now, ask.deadline)?;
    let qr = line.qr().await?;
    let state = match &qr {
        Some(_) => "ready",
        // A linked number has none either; whether it still is one, only the platform knows.
        None if line.was_connected()
            && matches!(line.status().await, Ok(status) if status.link == Link::Connected) =>
        {
            "connected"
        }
        None => "not_ready",
    };
    Ok(json!({"success": true, "qr": qr, "state": state, "poll_after_ms": POLL_AFTER_MS}))
}
