//! `wpp-qr`: the QR of one of the organisation's numbers.

use std::sync::Arc;

use serde::Serialize;
use shared::App;
use shared::error::Error;
use shared::http::request::ApiRequest;
use shared::http::run::{Answer, Drawn};
use shared::number::freshness::Freshness;
use shared::number::guess::Ask;
use shared::number::qr::Format;
use shared::number::session::NumberSession;
use shared::number::view::{State, View};
use shared::record::{self, Source};
use shared::sentence as say;
use shared::store::NumberSelector;

use crate::drawing;

/// The QR, and what it means that there is none.
#[derive(Serialize)]
pub struct QrAnswer {
    qr: Option<String>,
    format: Option<Format>,
    state: &'static str,
    #[serde(flatten)]
    freshness: Freshness,
    #[serde(skip)]
    drawn: Option<Drawn>,
}

impl Answer for QrAnswer {
    fn drawn(&self) -> Option<&Drawn> {
        self.drawn.as_ref()
    }
}

/// `GET ?session=` or `POST {"session"}`, or `session_name` in either. Answers `qr`, null while the platform has none; or the
/// QR itself, in the form that `Accept` names.
pub async fn handle(app: Arc<App>, request: ApiRequest) -> Result<QrAnswer, Error> {
    let session =
        request.session()?.ok_or(Error::BadRequest { field: "session", wrong: say::FIELD_MISSING })?;
    let selector = NumberSelector { session: Some(session), integration_id: None };

    let (found, ahead) = app.find_and_ask(&request, &selector, Ask::Qr).await?;
    record::organization(found.organization_id.ok_or(Error::NoOrganization)?);
    let number = found.number.ok_or(Error::NumberNotFound)?;

    let mut session = NumberSession::open(&app, number, found.now, request.deadline)?.after(ahead);
    let qr = session.qr().await?;
    let state = match &qr {
        Some(_) => State::QrIssued,
        // Only the status tells why there is no QR: the session starts, a phone is linked, or the session is gone.
        None => View::live(session.status().await?, None).state,
    };
    session.remember();
    record::state(state, Source::Live);
    let drawn = match (request.drawing, &qr) {
        (None, _) => None,
        (Some(drawing), Some(qr)) => Some(drawing::draw(qr, drawing)?),
        (Some(_), None) if state == State::Connected => return Err(Error::AlreadyConnected),
        (Some(_), None) => return Err(Error::QrNotReady),
    };
    let snapshot = session.number.snapshot.as_ref().filter(|snapshot| qr.is_some() && snapshot.qr == qr);
    let qr_at = snapshot.and_then(|snapshot| snapshot.qr_at);
    Ok(QrAnswer {
        format: qr.as_deref().map(Format::of),
        qr,
        state: match state {
            State::QrIssued => "ready",
            State::Connected => "connected",
            _ => "not_ready",
        },
        freshness: Freshness::of(&session.number, state, qr_at, Source::Live, session.now),
        drawn,
    })
}
