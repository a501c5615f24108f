//! `wpp-status`: whether one of the organisation's numbers is linked, and the QR to scan where it is not.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use shared::App;
use shared::clock::UnixMs;
use shared::deadline::Deadline;
use shared::error::Error;
use shared::http::request::ApiRequest;
use shared::http::run::Answer;
use shared::number::hint::Hint;
use shared::number::session::NumberSession;
use shared::number::view::{State, View};
use shared::sentence::{self as say, Language, Sentence};

/// A platform that is slower is not waited for where the last known state will do.
const STALE_AFTER: Duration = Duration::from_secs(4);

/// `POST {"session_name"?, "session"?, "integration_id"?, "force"?}`, or `GET` with the same as parameters. A number that is
/// not named is the organisation's primary, else any active one.
pub async fn handle(app: Arc<App>, request: ApiRequest) -> Result<Answer, Error> {
    let (force, selector) = (request.flag("force")?, request.selector()?);

    let found = app.store.find(request.user_id, &selector, request.deadline).await?;
    found.organization_id.ok_or(Error::NoOrganization)?;
    let number = match found.number {
        Some(number) if number.settings.session().is_some() && number.settings.api_key().is_some() => number,
        None if selector.is_named() => return Err(Error::NumberNotFound),
        Some(_) => return Ok(disconnected(say::NOT_CONNECTED_YET, request.language)),
        None => return Ok(disconnected(say::NO_NUMBER_YET, request.language)),
    };

    let mut session = NumberSession::open(&app, number, found.now, request.deadline)?;
    let last_seen = session
        .number()
        .snapshot
        .as_ref()
        .map(|snapshot| (View::last_seen(snapshot, found.now), snapshot.at))
        .filter(|_| !force);
    if let Some(recent) = session.recent().filter(|_| !force) {
        return Ok(answer(&recent, &session, request.language));
    }
    if last_seen.is_some() {
        session.allow_until(request.deadline.at_most(STALE_AFTER));
    }
    match (live(&mut session, request.deadline).await, last_seen) {
        (Ok(view), _) => Ok(answer(&view, &session, request.language)),
        (Err(error), Some((view, at))) if error.is_platform_outage() => {
            Ok(stale(&view, at, &session, request.language))
        }
        (Err(error), _) => Err(error),
    }
}

/// What the platform says now.
async fn live(session: &mut NumberSession<'_>, deadline: Deadline) -> Result<View, Error> {
    let mut view = match session.look().await {
        // The session is gone, and with it the link: that is a state of the number, for the mirror too.
        Err(Error::SessionLost) => View::lost(),
        looked => looked?,
    };
    session.allow_until(deadline);
    session.save_snapshot(&mut view).await;
    if view.is_connected() {
        session.make_up_for_webhook().await;
    }
    Ok(view)
}

/// The platform is away: an outage disconnects nobody.
fn stale(view: &View, seen_at: UnixMs, session: &NumberSession<'_>, language: Language) -> Answer {
    let mut body = answer(view, session, language);
    body["stale"] = json!(true);
    body["message"] = json!(say::LAST_KNOWN.text(language));
    body["seen_at"] = json!(seen_at.to_rfc3339());
    body
}

fn disconnected(message: Sentence, language: Language) -> Answer {
    json!({"success": true, "status": State::Disconnected, "message": message.text(language)})
}

fn answer(view: &View, session: &NumberSession<'_>, language: Language) -> Answer {
    let mut body = json!({
        "success": true, "status": view.state, "account_number": session.id(), "webhook": session.webhook(),
    });
    if let Some(qr) = &view.qr {
        body["qrcode"] = json!(qr);
    }
    if let Some(at) = view.qr_at.and_then(UnixMs::to_rfc3339) {
        body["last_qr_at"] = json!(at);
    }
    if let Some(word) = view.platform_status() {
        body["platform_status"] = json!(word);
    }
    if let Some(message) = message(view.state) {
        body["message"] = json!(message.text(language));
    }
    if let Some(hint) = Hint::due(session.number(), view, session.webhook(), session.now()) {
        hint.add_to(&mut body, language);
    }
    body
}

fn message(state: State) -> Option<Sentence> {
    match state {
        State::Disconnected => Some(say::DISCONNECTED),
        State::QrPending => Some(say::QR_COMING),
        State::Connected | State::QrIssued => None,
    }
}
