//! `wpp-status`: whether one of the organisation's numbers is linked, and the QR to scan where it is not.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::App;
use shared::deadline::Deadline;
use shared::error::Error;
use shared::http::request::ApiRequest;
use shared::http::run::Answer;
use shared::number::freshness::Freshness;
use shared::number::guess::{Ask, HeadStart};
use shared::number::hint::Advice;
use shared::number::qr::Format;
use shared::number::session::{NumberSession, Webhook};
use shared::number::view::{State, View};
use shared::platform::PlatformError;
use shared::record::{self, Source};
use shared::sentence::{self as say, Language, Sentence};

/// A platform that is slower is not waited for where the last known state will do.
const STALE_AFTER: Duration = Duration::from_secs(4);

/// How a number is. Of one that is not there yet, only the status and a message.
#[derive(Serialize)]
pub struct StatusAnswer {
    status: State,
    #[serde(flatten)]
    number: Option<NumberAnswer>,
    #[serde(flatten)]
    advice: Advice,
}

/// What is known of a number.
#[derive(Serialize)]
struct NumberAnswer {
    account_number: String,
    webhook: Webhook,
    #[serde(skip_serializing_if = "Option::is_none")]
    qrcode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_status: Option<String>,
    #[serde(flatten)]
    freshness: Freshness,
}

impl Answer for StatusAnswer {}

/// `POST {"session_name"?, "session"?, "integration_id"?, "force"?}`, or `GET` with the same as parameters. A number that is
/// not named is the organisation's primary, else the oldest active one with credentials.
pub async fn handle(app: Arc<App>, request: ApiRequest) -> Result<StatusAnswer, Error> {
    let (force, selector, language) = (request.flag("force")?, request.selector()?, request.language);

    // Where a recent state will do, the platform is not asked.
    let (found, ahead) = if force {
        app.find_and_ask(&request, &selector, Ask::Status).await?
    } else {
        (app.store.find(request.user_id, &selector, request.deadline).await?, HeadStart::default())
    };
    record::organization(found.organization_id.ok_or(Error::NoOrganization)?);
    let number = match found.number {
        Some(number) if number.settings.session.is_some() && number.settings.api_key.is_some() => number,
        None if selector.is_named() => return Err(Error::NumberNotFound),
        Some(_) => return Ok(disconnected(say::NOT_CONNECTED_YET, language)),
        None => return Ok(disconnected(say::NO_NUMBER_YET, language)),
    };

    let mut session = NumberSession::open(&app, number, found.now, request.deadline)?.after(ahead);
    if force {
        return Ok(answer(live(&mut session, request.deadline).await?, Source::Live, &session, language));
    }
    if let Some(recent) = session.recent() {
        return Ok(answer(recent, Source::Remembered, &session, language));
    }
    let last_seen = session.number.snapshot.clone();
    if last_seen.is_some() {
        session.deadline = request.deadline.at_most(STALE_AFTER);
    }
    match (live(&mut session, request.deadline).await, last_seen) {
        (Ok(view), _) => Ok(answer(view, Source::Live, &session, language)),
        // An outage disconnects nobody.
        (Err(error), Some(last_seen)) if error.is_platform_outage() => {
            record::stale(&error);
            let view = View::last_seen(&last_seen, found.now);
            let mut answer = answer(view, Source::Stale, &session, language);
            answer.advice.message = Some(say::LAST_KNOWN.text(language).to_owned());
            Ok(answer)
        }
        (Err(error), _) => Err(error),
    }
}

/// What the platform says now.
async fn live(session: &mut NumberSession<'_>, deadline: Deadline) -> Result<View, Error> {
    let mut view = match session.look().await {
        // The session is gone, and with it the link: that is a state of the number, for the mirror too.
        Err(error) if error.platform() == Some(PlatformError::UnknownSession) => View::lost(),
        looked => looked?,
    };
    session.deadline = deadline;
    session.save_snapshot(&mut view).await;
    session.remember();
    if view.is_connected() {
        session.make_up_for_webhook().await;
    }
    Ok(view)
}

fn disconnected(message: Sentence, language: Language) -> StatusAnswer {
    let advice = Advice::message(message, language);
    StatusAnswer { status: State::Disconnected, number: None, advice }
}

fn answer(view: View, source: Source, session: &NumberSession<'_>, language: Language) -> StatusAnswer {
    let due = Advice::due(&session.number, &view, session.webhook(), session.now, language);
    let advice = due.unwrap_or_else(|| match view.state {
        State::Disconnected => Advice::message(say::DISCONNECTED, language),
        State::QrPending => Advice::message(say::QR_COMING, language),
        _ => Advice::default(),
    });
    let number = NumberAnswer {
        account_number: session.id().to_owned(),
        webhook: session.webhook(),
        format: view.qr.as_deref().map(Format::of),
        freshness: Freshness::of(&session.number, view.state, view.qr_at, source, session.now),
        platform_status: view.platform_status().map(str::to_owned),
        qrcode: view.qr,
    };
    record::state(view.state, source);
    StatusAnswer { status: view.state, number: Some(number), advice }
}
