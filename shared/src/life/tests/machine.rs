//! The product's machine as the walk runs it: every state that one request can be in, each step of it taken once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::*;

/// A token is fresh at the tick of its issue, to be replaced soon at the next, and has ended at the one after that.
const TICK: Duration = Duration::from_secs(1800);
const LIFE: Duration = Duration::from_secs(1880);

const PLATFORM: &str = "platform";
pub const REJECTED: &str = "api_key_rejected";

/// What a request is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Call(u8),
    Claim { replaced: Option<u8>, early: bool },
    Fetch { key: u8 },
    Save { key: u8, replaced: Option<u8>, token: u8 },
    Fail { failure: &'static str, cools: bool },
}

/// A token in one byte: its number, its key, and the tick of its issue.
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
    states: Vec<(Life, Message)>,
    numbers: HashMap<(Life, Message), u16>,
    followed: HashMap<(u16, Event, u8), Option<u16>>,
}

impl Machine {
    /// A request that has not read the row yet.
    pub const NEW: u16 = 0;

    pub fn new() -> Self {
        let new = (Life::new(Spread::of(&0)), Message::Call(0));
        Self { states: vec![new], numbers: HashMap::new(), followed: HashMap::new() }
    }

    pub fn message(&self, request: u16) -> Message {
        self.states[usize::from(request)].1
    }

    /// The state after an event, if the request goes on. `key` is the one that a fetch uses, or has used.
    pub fn next(&mut self, request: u16, event: Event, key: u8) -> Option<u16> {
        let followed = match self.followed.entry((request, event, key)) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(unknown) => unknown,
        };
        let mut life = self.states[usize::from(request)].0.clone();
        let event = followed.key().1.clone();
        let message = follow(&mut life, event, key);
        let next = message.map(|message| {
            let state = (life, message);
            *self.numbers.entry(state.clone()).or_insert_with(|| {
                self.states.push(state);
                u16::try_from(self.states.len() - 1).unwrap()
            })
        });
        *followed.insert(next)
    }
}

/// One step of the product's machine, and what must hold for it.
fn follow(life: &mut Life, event: Event, key: u8) -> Option<Message> {
    let before = life.clone();
    let served = before.early || event == Event::Served;
    let mut step = life.next(event.clone());
    // Nothing is left of a pause but that others may come first, and they may at any step.
    if matches!(step, Step::Wait(_)) {
        life.looks = 0;
        step = life.next(Event::Waited);
    }
    assert!(
        event != Event::Refused || before.refused.is_none() || matches!(step, Step::End(_)),
        "a second refusal is not the end"
    );
    // Only the answer to a call asks for these.
    if !matches!(step, Step::Call(_)) {
        (life.current, life.soon) = (None, false);
    }
    let replaced = life.replaced.as_ref().map(code_of);
    Some(match step {
        Step::Call(token) => {
            assert_ne!(before.refused.as_ref(), Some(&token.jwt), "a call with a refused token");
            let read = match &event {
                Event::Row { token: Some(read), now } | Event::Superseded { token: Some(read), now } => {
                    *read == token && read.freshness(*now, before.spread) != Freshness::Unusable
                }
                _ => false,
            };
            assert!(read || before.fetched.as_ref() == Some(&token), "a call with an unusable token");
            Message::Call(code_of(&token.jwt))
        }
        Step::Claim { early, .. } => {
            assert_eq!(early, served, "only what is served can wait");
            Message::Claim { replaced, early }
        }
        Step::Wait(_) => panic!("two pauses in a row"),
        Step::Fetch => Message::Fetch { key },
        Step::Save { token, .. } => Message::Save { key, replaced, token: code_of(&token.jwt) },
        Step::Release { failure: FetchFailure::KeyRejected, .. } => {
            Message::Fail { failure: REJECTED, cools: true }
        }
        Step::Release { early, .. } => Message::Fail { failure: PLATFORM, cools: !early },
        Step::End(outcome) => {
            assert_eq!(outcome.is_ok(), served, "not what happened");
            return None;
        }
    })
}

/// What a sender takes a missing answer for.
pub fn missing(message: Message) -> Event {
    match message {
        Message::Call(_) => Event::Refused,
        Message::Claim { .. } => Event::ClaimFailed,
        Message::Fetch { .. } => Event::FetchFailed(FetchFailure::Platform),
        Message::Save { .. } => Event::SaveFailed,
        Message::Fail { .. } => Event::Released,
    }
}
