//! The functions' state machine, for the walk: every state of one request, with each step computed once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::*;

/// A token is fresh at the tick of its issue, due at the next, and expired at the one after that.
const TICK: Duration = Duration::from_secs(1800);
const LIFE: Duration = Duration::from_secs(1830);

/// What a request is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Call(u8),
    Claim { replaces: Option<u8>, is_rejected: bool },
    Fetch { key: u8 },
    Save { key: u8, replaces: Option<u8>, token: u8 },
    Fail(CallError<PlatformError>),
}

/// Packs a token into one byte: its number, its key, and the tick of its issue.
pub fn token_code(number: u8, key: u8, tick: u8) -> u8 {
    number << 3 | key << 2 | tick
}

pub fn number_of(code: u8) -> u8 {
    code >> 3
}

pub fn key_of(code: u8) -> u8 {
    code >> 2 & 1
}

pub fn token(code: u8) -> Token {
    let jwt = Secret::new(code.to_string());
    Token { jwt, expires_at: now(code & 3).plus(LIFE), life: LIFE }
}

fn code_of(jwt: &Secret) -> u8 {
    jwt.expose().parse().unwrap()
}

pub fn now(tick: u8) -> UnixMs {
    UnixMs(1_800_000_000_000).plus(TICK * u32::from(tick))
}

/// The states that one request can be in, numbered, with what it is about to do in each.
pub struct Machine {
    states: Vec<(RefreshProtocol, Message)>,
    numbers: HashMap<(RefreshProtocol, Message), u16>,
    followed: HashMap<(u16, Event, u8), Option<u16>>,
}

impl Machine {
    /// A request that has not read the row yet.
    pub const NEW: u16 = 0;

    pub fn new() -> Self {
        let new = (RefreshProtocol::new(false), Message::Call(0));
        Self { states: vec![new], numbers: HashMap::new(), followed: HashMap::new() }
    }

    pub fn message(&self, request: u16) -> Message {
        self.states[usize::from(request)].1
    }

    /// Returns the state after an event, or `None` if the request ends. `key` is the API key that a fetch uses, or has used.
    pub fn next(&mut self, request: u16, event: Event, key: u8) -> Option<u16> {
        let followed = match self.followed.entry((request, event, key)) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(unknown) => unknown,
        };
        let mut protocol = self.states[usize::from(request)].0.clone();
        let event = followed.key().1.clone();
        let message = follow(&mut protocol, event, key);
        let next = message.map(|message| {
            let state = (protocol, message);
            *self.numbers.entry(state.clone()).or_insert_with(|| {
                self.states.push(state);
                u16::try_from(self.states.len() - 1).unwrap()
            })
        });
        *followed.insert(next)
    }
}

/// Does one step of the state machine, and asserts its invariants.
fn follow(protocol: &mut RefreshProtocol, event: Event, key: u8) -> Option<Message> {
    let before = protocol.clone();
    let mut step = protocol.next(event.clone());
    // A pause only lets other requests go first, and they may do so at any step.
    if matches!(step, Step::Wait(_)) {
        assert_eq!(before.fallback, None, "a wait with a token that serves");
        step = protocol.next(Event::Waited);
    }
    let read = match &event {
        Event::Row { token: Some(token), now } if before.rejected.as_ref() != Some(&token.jwt) => {
            Some((token, token.age(*now)))
        }
        _ => None,
    };
    // While a token has more than the skew left, no request fails because of a refresh, and none waits for one.
    if let Some((token, Age::Fresh | Age::Due)) = read {
        let tries =
            protocol.fallback.as_ref() == Some(token) && matches!(step, Step::Claim { why: Why::Due, .. });
        assert!(tries || step == Step::Call(token.clone()), "{step:?} with a token that serves");
    }
    if before.fallback.is_some() && !matches!(event, Event::Row { .. }) {
        assert!(
            matches!(step, Step::Call(_) | Step::Fetch | Step::Save { .. }),
            "{step:?} with a token that serves"
        );
    }
    if let Step::Claim { why, .. } = step {
        assert_eq!(why == Why::Due, protocol.fallback.is_some(), "only a token that serves is due");
        // Only `Rejected` matters to the database. The other reasons are for the log, so states that differ only in them are merged.
        if why != Why::Rejected {
            protocol.why = Why::Missing;
        }
    }
    let replaces = protocol.stored.as_ref().map(code_of);
    Some(match step {
        Step::Call(token) => {
            assert_ne!(before.rejected.as_ref(), Some(&token.jwt), "a call with a rejected token");
            let is_read = matches!(read, Some((read, Age::Fresh | Age::Due)) if *read == token);
            let is_new = matches!(&event, Event::Saved(new) | Event::SaveFailed(new, _) if *new == token);
            assert!(
                is_read || is_new || before.fallback.as_ref() == Some(&token),
                "a call with an expired token"
            );
            Message::Call(code_of(&token.jwt))
        }
        Step::Claim { why, .. } => Message::Claim { replaces, is_rejected: why == Why::Rejected },
        Step::Wait(_) => panic!("two pauses in a row"),
        Step::Fetch => Message::Fetch { key },
        Step::Save { token, .. } => Message::Save { key, replaces, token: code_of(&token.jwt) },
        Step::Release(failure) => Message::Fail(failure),
        Step::Fail(error) => {
            let twice = matches!(event, Event::Rejected(..)) && before.rejected.is_some();
            assert_eq!(twice, error == Error::Platform(REJECTED), "not what happened");
            return None;
        }
    })
}

/// Returns the event for a missing answer.
pub fn missing(message: Message) -> Event {
    match message {
        Message::Call(code) => Event::Rejected(token(code).jwt, REJECTED),
        Message::Claim { .. } => Event::ClaimFailed(SLOW),
        Message::Fetch { .. } => Event::FetchFailed(AWAY),
        Message::Save { token: code, .. } => Event::SaveFailed(token(code), SLOW),
        Message::Fail(failure) => Event::FailureNoted(failure),
    }
}
