//! `wpp-create`: a number for the organisation, from its client on the platform to the QR that links it.

use std::sync::Arc;

use serde_json::json;
use shared::App;
use shared::ask::Ask;
use shared::clock::UnixMs;
use shared::creation::{Created, obtain, revive};
use shared::edge::Answer;
use shared::error::Error;
use shared::hint::Hint;
use shared::number::Line;
use shared::sentence::{self as say, Language};
use shared::store::{Intention, Number, Wanted};
use shared::view::{State, View};

use crate::linking;

/// `POST {"force_recreate"?, "add_new"?, "session"? | "session_name"? | "integration_id"?}`: the organisation's number (the
/// named one, where one is named), new credentials for it, or one more number.
pub async fn handle(app: Arc<App>, ask: Ask) -> Result<Answer, Error> {
    let wanted = ask.wanted()?;
    let intention = intention(&ask, &wanted)?;
    let mut linked = attempt(&app, &ask, intention, &wanted).await?;
    // An unfinished number that turns out to be linked is finished; what was asked for is another one.
    let is_finished = linked.as_ref().is_some_and(|(_, view)| view.is_connected());
    if is_finished && intention == Intention::Additional && ask.idempotency_key.is_none() {
        linked = attempt(&app, &ask, intention, &wanted).await?;
    }
    Ok(match &linked {
        Some((line, view)) => answer(line, view, ask.language),
        None => json!({"success": true, "session": null, "apiKey": null, "status": "starting"}),
    })
}

fn intention(ask: &Ask, wanted: &Wanted) -> Result<Intention, Error> {
    match (ask.flag("force_recreate")?, ask.flag("add_new")?) {
        // A number that is added is not there yet, to be named or to be made again.
        (is_recreated, true) if is_recreated || wanted.is_named() => {
            Err(Error::BadRequest { field: "add_new", wrong: say::FIELD_NOT_ALONE })
        }
        (_, true) => Ok(Intention::Additional),
        (true, false) => Ok(Intention::Replacement),
        (false, false) => Ok(Intention::Use),
    }
}

/// The number and how far it is; nothing while another request is still making it.
async fn attempt<'a>(
    app: &'a App,
    ask: &Ask,
    intention: Intention,
    wanted: &Wanted,
) -> Result<Option<(Line<'a>, View)>, Error> {
    let Created::Ready { number, now } = obtain(app, ask, intention, wanted.clone()).await? else {
        return Ok(None);
    };
    match connect(app, ask, number.clone(), now).await {
        Err(Error::ApiKeyRejected) => {}
        connected => return connected.map(Some),
    }
    let Created::Ready { number: revived, now } = revive(app, ask, &number).await? else {
        return Ok(None);
    };
    // The platform may have given the same key again, and take it now.
    let is_as_it_was =
        revived.keyed_at == number.keyed_at && revived.settings.api_key() == number.settings.api_key();
    if is_as_it_was {
        return Err(Error::ApiKeyRejected);
    }
    connect(app, ask, revived, now).await.map(Some)
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
    let mut view = linking::link(app, &mut line).await?;
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
    let mut body = json!({"success": true, "session": line.session(), "apiKey": api_key, "status": status});
    if let Some(qr) = &view.qr {
        body["qrcode"] = json!(qr);
    }
    if let Some(word) = view.platform_status() {
        body["platform_status"] = json!(word);
    }
    if let Some(hint) = Hint::due(line.number(), view, line.now()) {
        hint.add_to(&mut body, language);
    }
    body
}
