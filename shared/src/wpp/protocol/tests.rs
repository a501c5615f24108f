mod machine;
pub(crate) mod model;
mod walk;

use super::*;
use crate::store::StoreError;

type Failure = CallError<StoreError>;
type Event = super::Event<Failure>;
type Step = super::Step<Failure>;
type Error = ClientError<Failure>;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const AWAY: CallError<PlatformError> = CallError { call: "auth/token", why: PlatformError::Unavailable };
const DEAD: CallError<PlatformError> = CallError { call: "auth/token", why: PlatformError::KeyRefused };
const REJECTED: CallError<PlatformError> = CallError { call: "status", why: PlatformError::TokenRejected };
const SLOW: CallError<StoreError> = CallError { call: "claim", why: StoreError::TimedOut };

fn token(jwt: &str, left: u64) -> Token {
    let life = Duration::from_secs(3600);
    Token { jwt: Secret::new(jwt), expires_at: NOW.plus(Duration::from_secs(left)), life }
}

fn row(token: Option<Token>) -> Event {
    Event::Row { token, now: NOW }
}

fn rejected(jwt: &str) -> Event {
    Event::Rejected(Secret::new(jwt), REJECTED)
}

fn claim(replaces: Option<&str>, why: Why) -> Step {
    Step::Claim { replaces: replaces.map(Secret::new), why }
}

fn save(token: Token, replaces: Option<&str>) -> Step {
    Step::Save { token, replaces: replaces.map(Secret::new) }
}

/// Returns the protocol of a call after these events, with the last step.
fn after(events: impl IntoIterator<Item = Event>) -> (RefreshProtocol, Step) {
    let mut protocol = RefreshProtocol::new(false);
    let step = events.into_iter().map(|event| protocol.next(event)).last();
    (protocol, step.unwrap())
}

/// Returns all outcomes of a refresh except a new token.
fn failures() -> Vec<Event> {
    vec![
        Event::Busy(Duration::from_secs(6)),
        Event::Cooldown(DEAD),
        Event::Gone,
        Event::ClaimFailed(SLOW),
        Event::OutOfTime,
        Event::FetchFailed(AWAY),
        Event::FailureNoted(AWAY),
    ]
}

#[test]
fn first_step_depends_on_the_tokens_age() {
    for (left, expected) in [
        (3600, Step::Call(token("t", 3600))),
        (61, Step::Call(token("t", 61))),
        (60, claim(Some("t"), Why::Due)),
        (6, claim(Some("t"), Why::Due)),
        (5, claim(Some("t"), Why::Expired)),
        (0, claim(Some("t"), Why::Expired)),
    ] {
        assert_eq!(after([row(Some(token("t", left)))]).1, expected, "{left} s left");
    }
    assert_eq!(after([row(None)]).1, claim(None, Why::Missing));
}

#[test]
fn granted_lease_fetches_saves_and_uses_a_token() {
    for (old, replaces) in
        [(None, None), (Some(token("old", 30)), Some("old")), (Some(token("old", 0)), Some("old"))]
    {
        let new = token("new", 3600);
        let (mut protocol, step) = after([row(old), Event::Granted]);
        assert_eq!(step, Step::Fetch);
        assert_eq!(protocol.next(Event::Fetched(new.clone())), save(new.clone(), replaces));
        let mut other = protocol.clone();
        assert_eq!(protocol.next(Event::Saved(new.clone())), Step::Call(new.clone()));
        assert_eq!(other.next(Event::SaveFailed(new.clone(), SLOW)), Step::Call(new));
    }
}

/// A new token is used at least once, so that a wrong clock or an absurd TTL does not cause a loop.
#[test]
fn new_token_is_used_even_if_it_counts_as_expired() {
    let (_, step) = after([row(None), Event::Granted, Event::Saved(token("new", 0))]);
    assert_eq!(step, Step::Call(token("new", 0)));
}

#[test]
fn a_due_token_is_used_if_its_refresh_fails() {
    for event in failures() {
        let (mut protocol, step) = after([row(Some(token("t", 30))), event.clone()]);
        assert_eq!(step, Step::Call(token("t", 30)), "{event:?}");
        assert_eq!(protocol.next(row(Some(token("t", 30)))), Step::Call(token("t", 30)));
    }
    // A request with many calls also tries only once.
    assert_eq!(RefreshProtocol::new(true).next(row(Some(token("t", 30)))), Step::Call(token("t", 30)));
    assert_eq!(RefreshProtocol::new(true).next(row(Some(token("t", 5)))), claim(Some("t"), Why::Expired));
}

#[test]
fn a_due_token_that_is_rejected_is_replaced() {
    let (mut protocol, step) = after([row(Some(token("t", 30))), Event::FetchFailed(AWAY), rejected("t")]);
    assert_eq!(step, claim(Some("t"), Why::Rejected));
    assert_eq!(protocol.next(Event::FetchFailed(AWAY)), Step::Release(AWAY));
}

#[test]
fn without_a_usable_token_a_failure_is_final() {
    for (event, expected) in [
        (Event::Cooldown(DEAD), Step::Fail(Error::Platform(DEAD))),
        (Event::Gone, Step::Fail(Error::NumberGone)),
        (Event::ClaimFailed(SLOW), Step::Fail(Error::Store(SLOW))),
        (Event::OutOfTime, Step::Fail(Error::OutOfTime)),
        (Event::FetchFailed(AWAY), Step::Release(AWAY)),
        (Event::FailureNoted(AWAY), Step::Fail(Error::Platform(AWAY))),
        (Event::Busy(Duration::from_secs(6)), Step::Wait(Duration::from_secs(6))),
        (Event::Waited, claim(Some("t"), Why::Expired)),
    ] {
        assert_eq!(after([row(Some(token("t", 0))), event.clone()]).1, expected, "{event:?}");
    }
}

#[test]
fn second_rejection_fails_the_call() {
    let (mut protocol, step) = after([row(Some(token("t", 3600))), rejected("t")]);
    assert_eq!(step, claim(Some("t"), Why::Rejected));
    assert_eq!(protocol.next(Event::Saved(token("new", 3600))), Step::Call(token("new", 3600)));
    assert_eq!(protocol.next(rejected("new")), Step::Fail(Error::Platform(REJECTED)));
}

#[test]
fn another_holders_token_is_used_if_it_is_usable() {
    for (other, expected) in [
        (token("new", 3600), Step::Call(token("new", 3600))),
        (token("new", 30), Step::Call(token("new", 30))),
        (token("new", 5), claim(Some("new"), Why::Expired)),
        (token("old", 3600), claim(Some("old"), Why::Rejected)),
    ] {
        let (_, step) = after([row(Some(token("old", 3600))), rejected("old"), row(Some(other))]);
        assert_eq!(step, expected);
    }
}

/// The row got another API key while the old token was due, so the old token is useless.
#[test]
fn replaced_token_is_no_fallback() {
    let (_, step) = after([row(Some(token("t", 30))), row(None), Event::Gone]);
    assert_eq!(step, Step::Fail(Error::NumberGone));
}
