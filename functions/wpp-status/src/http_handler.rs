//! `wpp-status`: whether one of the organisation's numbers is linked, and the QR to scan where it is not.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use shared::App;
use shared::ask::{Ask, check_session};
use shared::clock::UnixMs;
use shared::edge::Answer;
use shared::error::Error;
use shared::hint::Hint;
use shared::number::{Line, State, View};
use shared::store::Wanted;

#[derive(Deserialize)]
struct Body {
    session_name: Option<String>,
    session: Option<String>,
    integration_id: Option<String>,
    #[serde(default)]
    force: Option<bool>,
}

/// `POST {"session_name"?, "session"?, "integration_id"?, "force"?}`. A number that is not named is the organisation's
/// primary, else any active one.
pub async fn handle(app: Arc<App>, ask: Ask) -> Result<Answer, Error> {
    let body: Body = ask.body_as()?;
    let force = body.force.unwrap_or(false);
    let wanted = wanted(body)?;
    let by_name = wanted.session.is_some() || wanted.integration_id.is_some();

    let found = app.store.find(ask.user_id, &wanted, ask.deadline).await?;
    found.organization_id.ok_or(Error::NoOrganization)?;
    let number = match found.number {
        Some(number) if number.settings.session().is_some() && number.settings.api_key().is_some() => number,
        None if by_name => return Err(Error::NumberNotFound),
        _ => return Ok(no_number()),
    };

    let mut line = Line::open(&app, number, found.now, ask.deadline)?;
    let view = match line.remembered().filter(|_| !force) {
        Some(remembered) => remembered,
        None => {
            let mut live = match line.look().await {
                // The session is gone, and with it the link: that is a state of the number, for the mirror too.
                Err(Error::SessionLost) => View::lost(),
                looked => looked?,
            };
            line.remember(&mut live).await;
            live
        }
    };
    Ok(answer(&view, &line))
}

fn wanted(body: Body) -> Result<Wanted, Error> {
    let session = body.session.or(body.session_name).filter(|session| !session.is_empty());
    let integration_id = body.integration_id.filter(|id| !id.is_empty()).map(|id| {
        id.parse().map_err(|_| Error::BadRequest("The integration_id is not a valid one.".to_owned()))
    });
    Ok(Wanted {
        session: session.map(check_session).transpose()?,
        integration_id: integration_id.transpose()?,
    })
}

fn no_number() -> Answer {
    json!({
        "success": true, "status": "disconnected",
        "message": "Your organisation has no WhatsApp number yet.",
    })
}

fn answer(view: &View, line: &Line<'_>) -> Answer {
    let mut body = json!({"success": true, "status": view.state, "account_number": line.session()});
    if let Some(qr) = &view.qr {
        body["qrcode"] = json!(qr);
    }
    if let Some(at) = view.qr_at.and_then(UnixMs::to_rfc3339) {
        body["last_qr_at"] = json!(at);
    }
    if let Some(message) = message(view) {
        body["message"] = json!(message);
    }
    // The platform's own word, for what we do not know how to name.
    if let Some(status) = view.status.as_ref().filter(|status| !status.word.is_empty()) {
        body["platform_status"] = json!(status.word);
    }
    if let Some(hint) = Hint::due(line.number(), view, line.now()) {
        hint.add_to(&mut body);
    }
    body
}

fn message(view: &View) -> Option<&'static str> {
    match view.state {
        State::Disconnected => Some("WhatsApp is disconnected on this number."),
        State::QrPending => Some("The QR code is being prepared."),
        State::Connected | State::QrIssued => None,
    }
}
