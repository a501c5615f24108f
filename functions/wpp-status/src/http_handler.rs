//! `wpp-status`: whether one of the organisation's numbers is linked, and the QR to scan where it is not.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::App;
use shared::clock::UnixMs;
use shared::deadline::Deadline;
use shared::error::Error;
use shared::http::request::ApiRequest;
use shared::number::hint::Advice;
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
    stale: Option<Stale>,
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
    last_qr_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_status: Option<String>,
}

/// That it is what was seen last.
#[derive(Serialize)]
struct Stale {
    stale: bool,
    seen_at: Option<String>,
}

/// `POST {"session_name"?, "session"?, "integration_id"?, "force"?}`, or `GET` with the same as parameters. A number that is
/// not named is the organisation's primary, else any active one.
pub async fn handle(app: Arc<App>, request: ApiRequest) -> Result<StatusAnswer, Error> {
    let (force, selector, language) = (request.flag("force")?, request.selector()?, request.language);

    let found = app.store.find(request.user_id, &selector, request.deadline).await?;
    record::organization(found.organization_id.ok_or(Error::NoOrganization)?);
    let number = match found.number {
        Some(number) if number.settings.session.is_some() && number.settings.api_key.is_some() => number,
        None if selector.is_named() => return Err(Error::NumberNotFound),
        Some(_) => return Ok(disconnected(say::NOT_CONNECTED_YET, language)),
        None => return Ok(disconnected(say::NO_NUMBER_YET, language)),
    };

    let mut session = NumberSession::open(&app, number, found.now, request.deadline)?;
    if force {
        return Ok(answer(live(&mut session, request.deadline).await?, &session, language));
    }
    if let Some(recent) = session.recent() {
        record::source(Source::Remembered);
        return Ok(answer(recent, &session, language));
    }
    let last_seen = session.number.snapshot.clone();
    if last_seen.is_some() {
        session.deadline = request.deadline.at_most(STALE_AFTER);
    }
    match (live(&mut session, request.deadline).await, last_seen) {
        (Ok(view), _) => Ok(answer(view, &session, language)),
        // An outage disconnects nobody.
        (Err(error), Some(last_seen)) if error.is_platform_outage() => {
            record::stale(&error);
            let mut answer = answer(View::last_seen(&last_seen, found.now), &session, language);
            answer.stale = Some(Stale { stale: true, seen_at: last_seen.at.to_rfc3339() });
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
    record::source(Source::Live);
    session.deadline = deadline;
    session.save_snapshot(&mut view).await;
    if view.is_connected() {
        session.make_up_for_webhook().await;
    }
    Ok(view)
}

fn disconnected(message: Sentence, language: Language) -> StatusAnswer {
    let advice = Advice::message(message, language);
    StatusAnswer { status: State::Disconnected, number: None, stale: None, advice }
}

fn answer(view: View, session: &NumberSession<'_>, language: Language) -> StatusAnswer {
    let due = Advice::due(&session.number, &view, session.webhook(), session.now, language);
    let advice = due.unwrap_or_else(|| match view.state {
        State::Disconnected => Advice::message(say::DISCONNECTED, language),
        State::QrPending => Advice::message(say::QR_COMING, language),
        _ => Advice::default(),
    });
    let number = NumberAnswer {
        account_number: session.id().to_owned(),
        webhook: session.webhook(),
        last_qr_at: view.qr_at.and_then(UnixMs::to_rfc3339),
        platform_status: view.platform_status().map(str::to_owned),
        qrcode: view.qr,
    };
    StatusAnswer { status: view.state, number: Some(number), stale: None, advice }
}
