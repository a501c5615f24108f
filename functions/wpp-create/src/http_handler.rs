//! `wpp-create`: a number for the organisation, from its client on the platform to the QR that links it.

use std::sync::Arc;

use serde_json::json;
use shared::App;
use shared::clock::UnixMs;
use shared::error::Error;
use shared::http::request::Ask;
use shared::http::run::Answer;
use shared::number::creation::{Created, heal, obtain};
use shared::number::hint::Hint;
use shared::number::session::Line;
use shared::number::view::{State, View};
use shared::sentence::{self as say, Language};
use shared::store::{CreateMode, Number, Wanted};

use crate::linking;

/// `POST {"force_recreate"?, "add_new"?, "session"? | "session_name"? | "integration_id"?}`: the organisation's number (the
/// named one, where one is named), new credentials for it, or one more number.
pub async fn handle(app: Arc<App>, ask: Ask) -> Result<Answer, Error> {
    let wanted = ask.wanted()?;
    let mode = mode(&ask, &wanted)?;
    let (mut line, mut view) = attempt(&app, &ask, mode, &wanted).await?;
    // An unfinished number that turns out to be linked is finished; what was asked for is another one.
    if view.is_connected() && mode == CreateMode::AddNew && ask.idempotency_key.is_none() {
        (line, view) = attempt(&app, &ask, mode, &wanted).await?;
    }
    Ok(answer(&line, &view, ask.language))
}

fn mode(ask: &Ask, wanted: &Wanted) -> Result<CreateMode, Error> {
    match (ask.flag("force_recreate")?, ask.flag("add_new")?) {
        // A number that is added is not there yet, to be named or to be made again.
        (is_recreated, true) if is_recreated || wanted.is_named() => {
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
    ask: &Ask,
    mode: CreateMode,
    wanted: &Wanted,
) -> Result<(Line<'a>, View), Error> {
    let Created { number, now } = obtain(app, ask, mode, wanted.clone()).await?;
    match connect(app, ask, number.clone(), now).await {
        Err(Error::ApiKeyRejected) => {}
        connected => return connected,
    }
    let Created { number: healed, now } = heal(app, ask, &number).await?;
    // The platform may have given the same key again, and take it now.
    let is_as_it_was = healed.credentials_saved_at == number.credentials_saved_at
        && healed.settings.api_key() == number.settings.api_key();
    if is_as_it_was {
        return Err(Error::ApiKeyRejected);
    }
    connect(app, ask, healed, now).await
}

/// The number's way to its QR, and what was seen on it.
async fn connect<'a>(
    app: &'a App,
    ask: &Ask,
    number: Number,
    now: UnixMs,
) -> Result<(Line<'a>, View), Error> {
    let deadline = ask.deadline.for_a_wait().at_most(app.config.qr_wait);
    let mut line = Line::open(app, number, now, deadline)?;
    let mut view = linking::link(&mut line).await?;
    line.allow_until(ask.deadline);
    // What was not seen does not replace in the mirror what was.
    if view.is_seen() || line.number().seen.is_none() {
        line.remember(&mut view).await;
    }
    Ok((line, view))
}

fn answer(line: &Line<'_>, view: &View, language: Language) -> Answer {
    let status = match view.state {
        State::Connected => "connected",
        State::QrIssued => "qr_issued",
        State::QrPending | State::Disconnected => "starting",
    };
    let api_key = line.number().settings.api_key().map(|key| key.masked());
    let mut body = json!({
        "success": true, "session": line.session(), "apiKey": api_key, "status": status, "webhook": line.webhook(),
    });
    if let Some(qr) = &view.qr {
        body["qrcode"] = json!(qr);
    }
    if let Some(word) = view.platform_status() {
        body["platform_status"] = json!(word);
    }
    if let Some(hint) = Hint::due(line.number(), view, line.webhook(), line.now()) {
        hint.add_to(&mut body, language);
    }
    body
}
