//! What all three answers say about a number: its state, how old the state is, and when to poll again. If the number is stuck, they
//! also say what a person can do.

use std::ops::Not;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{UnixMs, millis};
use crate::messages::{self as say, Language, Sentence};
use crate::number::session::{NumberSession, Webhook};
use crate::number::snapshot::{KnownState, QR_TTL, State};
use crate::store::Number;
use crate::wpp::SessionState;

/// A session that has been starting for longer is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2 * 60);

/// If a number is not linked for this long after it got credentials, its QR code was forgotten, or cannot be scanned.
const SCAN_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The shortest time between two polls: a person waits with the phone in hand.
const SHORTEST_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The longest time between two polls: after a scan, the person must not wait longer for the page to change.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_secs(15);

/// The interval is the time since the last change, divided by this.
const POLL_INTERVAL_DIVISOR: u32 = 30;

/// The source of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The platform has just reported it.
    Live,
    /// A snapshot that is recent enough.
    Recent,
    /// A snapshot of any age, because the platform cannot be reached.
    Stale,
}

/// What an answer says about a number. Fields that do not apply are left out.
#[derive(Debug, PartialEq, Serialize)]
pub struct NumberAnswer {
    /// The platform's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// The frontend's other name for `session`.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_number: Option<String>,
    /// The number's name on the settings page.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<Webhook>,
    /// The platform's word for the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_status: Option<String>,
    /// Why the number is stuck: a stable code for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// What a person needs to know and to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<String>,
    /// Whether this is only the last known state.
    #[serde(skip_serializing_if = "Not::not")]
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_qr_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_good_until: Option<String>,
    /// In milliseconds. Left out if waiting does not change the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    poll_after_ms: Option<i64>,
}

impl NumberAnswer {
    /// Returns the answer for an organization without a number, or for a number without credentials: disconnected, with the reason.
    pub fn without_number(message: Sentence, language: Language) -> Self {
        Self {
            session: None,
            account_number: None,
            name: None,
            state: State::Disconnected,
            webhook: None,
            platform_status: None,
            code: None,
            message: Some(message.text(language).to_owned()),
            seen_at: None,
            stale: false,
            last_qr_at: None,
            qr_good_until: None,
            poll_after_ms: None,
        }
    }

    /// Returns the number's state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the answer about a number in this state.
    pub(super) fn of(
        session: &NumberSession<'_>,
        known: &KnownState,
        freshness: Freshness,
        language: Language,
    ) -> Self {
        let (number, now, webhook) = (&session.number, session.now, session.webhook());
        let advice = Advice::for_number(number, known, webhook, now);
        let message = match (freshness, advice, known.state) {
            (Freshness::Stale, ..) => Some(say::LAST_KNOWN.text(language).to_owned()),
            (_, Some(advice), _) => Some(advice.text(language)),
            (_, None, State::Disconnected) => Some(say::DISCONNECTED.text(language).to_owned()),
            (_, None, State::QrPending) => Some(say::QR_COMING.text(language).to_owned()),
            (_, None, _) => None,
        };
        let seen_at = match freshness {
            Freshness::Live => Some(now),
            Freshness::Recent | Freshness::Stale => number.snapshot.as_ref().map(|snapshot| snapshot.at),
        };
        Self {
            session: Some(session.id().to_owned()),
            account_number: Some(session.id().to_owned()),
            name: number.name.clone(),
            state: known.state,
            webhook: Some(webhook),
            platform_status: known.platform_status().map(str::to_owned),
            code: advice.map(|advice| advice.code),
            message,
            seen_at: seen_at.and_then(UnixMs::to_rfc3339),
            stale: freshness == Freshness::Stale,
            last_qr_at: known.qr_at.and_then(UnixMs::to_rfc3339),
            qr_good_until: known.qr_at.and_then(|at| at.plus(QR_TTL).to_rfc3339()),
            poll_after_ms: poll_interval(number, known.state, freshness, seen_at, now).map(millis),
        }
    }
}

/// What a person can do about a number that is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Advice {
    code: &'static str,
    what: Sentence,
    action: Sentence,
}

impl Advice {
    /// Returns the advice for a number in this state, which may be newer than its snapshot. Returns `None` if it is not stuck.
    fn for_number(number: &Number, known: &KnownState, webhook: Webhook, now: UnixMs) -> Option<Self> {
        let is_over = |since: Option<UnixMs>, limit| since.is_some_and(|since| since.until(now) > limit);
        let never_linked_since = number.credentials_saved_at.filter(|_| number.first_connected_at.is_none());
        let advice = |code, what, action| Some(Self { code, what, action });
        match (known.state, known.status.as_ref().map(|status| status.state)) {
            (State::Connected, _) if webhook == Webhook::Pending => {
                advice("webhook_pending", say::MESSAGES_MISSING, say::WAIT_OR_CONTACT_SUPPORT)
            }
            (_, Some(SessionState::Lost)) => advice("session_lost", say::SESSION_LOST, say::RECONNECT),
            (_, Some(SessionState::PasskeyRequired)) => {
                advice("passkey_required", say::PASSKEY_WANTED, say::CONFIRM_PASSKEY)
            }
            (State::QrPending, _) if is_over(starting_since(number), STUCK_AFTER) => {
                advice("start_stuck", say::STARTING_LONG, say::RECONNECT)
            }
            (State::QrIssued, _) if is_over(never_linked_since, SCAN_TIMEOUT) => {
                advice("qr_not_scanned", say::QR_WAITING, say::SCAN)
            }
            _ => None,
        }
    }

    fn text(self, language: Language) -> String {
        format!("{} {}", self.what.text(language), self.action.text(language))
    }
}

/// Returns since when a number without a QR code has been starting, if that is known.
fn starting_since(number: &Number) -> Option<UnixMs> {
    match &number.snapshot {
        // New credentials are a new start.
        Some(snapshot) if snapshot.state == State::QrPending => {
            Some(snapshot.at).max(number.credentials_saved_at)
        }
        Some(_) => None,
        // Without a snapshot: a number that was never linked has been starting since it has credentials.
        None => number.credentials_saved_at.filter(|_| number.first_connected_at.is_none()),
    }
}

/// Returns how long to wait before the next poll. Returns `None` if waiting does not change the state.
fn poll_interval(
    number: &Number,
    state: State,
    freshness: Freshness,
    seen_at: Option<UnixMs>,
    now: UnixMs,
) -> Option<Duration> {
    let unchanged_since = match state {
        _ if freshness == Freshness::Stale => seen_at,
        State::QrPending => starting_since(number),
        // For a number that was linked before, it is unknown when a person began to link it again.
        State::QrIssued => number.credentials_saved_at.filter(|_| number.first_connected_at.is_none()),
        State::Connected | State::Disconnected | State::Unknown => return None,
    };
    Some(poll_interval_after(unchanged_since.map_or(Duration::ZERO, |since| since.until(now))))
}

/// Returns how long to wait before the next poll of a state that has not changed for this long: whole seconds.
pub(crate) fn poll_interval_after(unchanged_for: Duration) -> Duration {
    let interval =
        (unchanged_for / POLL_INTERVAL_DIVISOR).clamp(SHORTEST_POLL_INTERVAL, LONGEST_POLL_INTERVAL);
    Duration::from_secs(interval.as_secs())
}

#[cfg(test)]
mod tests;
