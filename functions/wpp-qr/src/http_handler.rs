//! The QR code of one of the organization's numbers.

use serde::{Deserialize, Serialize};
use shared::App;
use shared::error::Error;
use shared::http::accept::ImageFormat;
use shared::http::request::{RequestContext, SessionId, named_session};
use shared::http::response::{ApiResponse, Image};
use shared::number::advice::{Freshness, NumberAnswer};
use shared::number::prefetch::Expect;
use shared::number::qr::Format;
use shared::number::session::NumberSession;
use shared::number::snapshot::{KnownState, State};
use shared::store::NumberSelector;

use crate::qr_image;

/// The query string of a GET, or the JSON body of a POST.
#[derive(Deserialize)]
pub struct QrRequest {
    session: Option<SessionId>,
    /// The frontend's other names for `session`.
    session_name: Option<SessionId>,
    account_number: Option<SessionId>,
}

/// The QR code, and the number's state. An image instead of the JSON, if `Accept` prefers one.
#[derive(Serialize)]
pub struct QrResponse {
    /// Null if the platform has none.
    qr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    /// The fields of all three answers.
    #[serde(flatten)]
    number: NumberAnswer,
}

/// Returns the current QR code, and the number's state.
pub async fn get_qr(app: &App, context: &RequestContext, request: QrRequest) -> Result<QrResponse, Error> {
    let named = named_session(request.session, request.session_name, request.account_number)?;
    let named = named.ok_or(Error::missing_field("session"))?;
    let selector = NumberSelector { session: Some(named), integration_id: None };
    let mut session =
        NumberSession::find(app, context.user_id, &selector, Expect::Qr, context.deadline).await?;

    let known = match session.fetch_qr().await? {
        Some(qr) => session.qr_issued(qr),
        // Only the status tells why there is no code: the session is starting, a phone is connected, or the session does not exist.
        None => KnownState::live(session.fetch_status().await?, None),
    };
    let number = session.describe(&known, Freshness::Live, context.language);
    Ok(QrResponse { format: known.qr.as_deref().map(Format::of), qr: known.qr, number })
}

impl ApiResponse for QrResponse {
    fn state(&self) -> State {
        self.number.state()
    }

    fn image(&self, format: ImageFormat) -> Option<Result<Image, Error>> {
        Some(match (&self.qr, self.state()) {
            (Some(qr), _) => qr_image::draw(qr, format),
            (None, State::Connected) => Err(Error::AlreadyConnected),
            (None, _) => Err(Error::QrNotReady),
        })
    }
}

#[cfg(test)]
mod tests;
