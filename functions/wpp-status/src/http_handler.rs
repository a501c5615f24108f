//! `wpp-status`: whether one of the organisation's numbers is linked, and the QR to scan where it is not.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use shared::App;
use shared::ask::{Ask, Named};
use shared::clock::UnixMs;
use shared::edge::Answer;
use shared::error::Error;
use shared::hint::Hint;
use shared::number::Line;
use shared::view::{State, View};

#[derive(Deserialize)]
struct Body {
    force: Option<bool>,
}

/// `POST {"session_name"?, "session"?, "integration_id"?, "force"?}`. A number that is not named is the organisation's
/// primary, else any active one.
pub async fn handle(app: Arc<App>, ask: Ask) -> Result<Answer, Error> {
    let force = ask.body_as::<Body>()?.force.unwrap_or(false);
    let wanted = ask.body_as::<Named>()?.wanted()?;

    let found = app.store.find(ask.user_id, &wanted, ask.deadline).await?;
    found.organization_id.ok_or(Error::NoOrganization)?;
    let number = match found.number {
        Some(number) if number.settings.session().is_some() && number.settings.api_key().is_some() => number,
        None if wanted.is_named() => return Err(Error::NumberNotFound),
        Some(_) => return Ok(disconnected("This WhatsApp number has no credentials yet. Connect it first.")),
        None => return Ok(disconnected("Your organisation has no WhatsApp number yet.")),
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

fn disconnected(message: &str) -> Answer {
    json!({"success": true, "status": State::Disconnected, "message": message})
}

fn answer(view: &View, line: &Line<'_>) -> Answer {
    let mut body = json!({"success": true, "status": view.state, "account_number": line.session()});
    if let Some(qr) = &view.qr {
        body["qrcode"] = json!(qr);
    }
    if let Some(at) = view.qr_at.and_then(UnixMs::to_rfc3339) {
        body["last_qr_at"] = json!(at);
    }
    if let Some(word) = view.platform_status() {
        body["platform_status"] = json!(word);
    }
    let hint = Hint::due(line.number(), view, line.now());
    if let Some(hint) = hint {
        hint.add_to(&mut body);
    }
    // The frontend shows no hint, but a message.
    if let Some(message) = hint.map(|hint| hint.sentence).or(message(view.state)) {
        body["message"] = json!(message);
    }
    body
}

fn message(state: State) -> Option<&'static str> {
    match state {
        State::Disconnected => Some("WhatsApp is disconnected on this number."),
        State::QrPending => Some("The QR code is being prepared."),
        State::Connected | State::QrIssued => None,
    }
}
