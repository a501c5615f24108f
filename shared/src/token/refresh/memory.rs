//! A number's row in memory, worked on as the SQL works on it, with a platform that gives tokens `t1`, `t2`, ...: what takes
//! time takes it by tokio's clock, which is paused in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::platform::{PlatformError, PlatformResult, SessionAuth};
use crate::secret::Secret;
use crate::store::{StoreError, StoreResult};
use crate::token::Token;
use crate::token::client::Client;
use crate::token::protocol::tests::model::{Claimed, Lease, Row};
use crate::token::single_flight::Flight;
use crate::token::store::{Answer, StoreCall, TokenState, TokenStore, failure_noted_as, word_for};
use crate::upstream::CallError;

const START: UnixMs = UnixMs(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// The holder of a lease that nobody here has asked for.
pub const STRANGER: u8 = u8::MAX;

#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    since: Deadline,
}

/// Something that others do to the row.
type Happening = fn(&mut State);

pub struct State {
    pub row: Row,
    pub session: &'static str,
    pub key_is_new: bool,
    /// When each token ends.
    pub ends: BTreeMap<u8, UnixMs>,
    /// When the lease and the pause after a failure end.
    pub held_until: UnixMs,
    pub cool_until: UnixMs,
    /// What the platform no longer takes.
    pub rejected: BTreeSet<u8>,
    /// How long the answer to a call is on its way.
    pub takes: BTreeMap<&'static str, Duration>,
    /// The calls that are not answered but fail at once.
    pub fails: BTreeMap<&'static str, PlatformError>,
    /// What happens to the row just before a call arrives.
    pub before: Option<(&'static str, Happening)>,
    /// How often each call was made.
    pub calls: BTreeMap<&'static str, u32>,
    /// When each claim was made.
    pub claimed_at: Vec<Duration>,
    /// With which token and session the platform was called.
    pub served: BTreeSet<(String, String)>,
    /// The failures noted, with the seconds of the pause after each.
    pub noted: Vec<(String, u64)>,
    /// Everybody who has asked for something.
    pub holders: Vec<Uuid>,
    fetching: u32,
}

/// One process with its single flight.
pub struct Sandbox {
    memory: Memory,
    flight: Arc<Flight>,
}

impl Memory {
    /// With the token `t0`, which ends in so many seconds.
    pub fn with_token(left: u64) -> Self {
        let state = State {
            row: Row { key: 0, token: Some(0), lease: None },
            session: "first",
            key_is_new: false,
            ends: BTreeMap::from([(0, START.plus(Duration::from_secs(left)))]),
            held_until: START,
            cool_until: START,
            rejected: BTreeSet::new(),
            takes: BTreeMap::new(),
            fails: BTreeMap::new(),
            before: None,
            calls: BTreeMap::new(),
            claimed_at: Vec::new(),
            served: BTreeSet::new(),
            noted: Vec::new(),
            holders: Vec::new(),
            fetching: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), since: Deadline::within(DAY) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        let now = self.now();
        let (is_held, is_cooling) = (state.held_until > now, state.cool_until > now);
        if let Some(lease) = &mut state.row.lease {
            lease.held &= is_held;
            lease.cooling = lease.cooling.filter(|_| is_cooling);
        }
        state
    }

    /// Somebody else has the lease for so long.
    pub fn lease_to_a_stranger(&self, time: Duration) {
        let mut state = self.state();
        state.row.lease = Some(Lease { holder: STRANGER, held: true, cooling: None, key: state.row.key });
        state.held_until = self.now().plus(time);
    }

    pub fn passed(&self) -> Duration {
        DAY - self.since.remaining()
    }

    fn now(&self) -> UnixMs {
        START.plus(self.passed())
    }

    pub fn sandbox(&self) -> Sandbox {
        Sandbox { memory: self.clone(), flight: Arc::default() }
    }

    pub fn calls(&self, call: &'static str) -> u32 {
        self.state().calls.get(call).copied().unwrap_or_default()
    }

    /// The answer to a call is on its way for so long.
    pub fn slow(&self, call: &'static str, takes: Duration) {
        self.state().takes.insert(call, takes);
    }

    /// A call fails at once.
    pub fn break_off(&self, call: &'static str, failure: PlatformError) {
        self.state().fails.insert(call, failure);
    }

    /// The platform no longer takes a token.
    pub fn reject(&self, token: u8) {
        self.state().rejected.insert(token);
    }

    /// A call that arrives, does its work at once, and is answered when its time has passed.
    async fn arrive<T>(
        &self,
        call: &'static str,
        deadline: Deadline,
        work: impl FnOnce(&mut State, UnixMs) -> T,
    ) -> Result<T, PlatformError> {
        let now = self.now();
        let (answer, takes) = {
            let mut state = self.state();
            *state.calls.entry(call).or_default() += 1;
            if call == "claim" {
                state.claimed_at.push(self.passed());
            }
            if let Some((_, happen)) = state.before.take_if(|(before, _)| *before == call) {
                happen(&mut state);
            }
            if let Some(failure) = state.fails.get(call) {
                return Err(*failure);
            }
            (work(&mut state, now), state.takes.get(call).copied().unwrap_or_default())
        };
        deadline.bound(tokio::time::sleep(takes)).await.map_err(|_| PlatformError::TimedOut)?;
        Ok(answer)
    }
}

impl State {
    /// As `number` in `migrations/` shows it.
    fn number(&self, now: UnixMs) -> Value {
        let saved_at = if self.key_is_new { now } else { now.minus(HOUR) };
        let mut settings =
            json!({"wppApiKey": format!("key{}", self.row.key), "wppAccountNumber": self.session});
        if let Some(token) = self.row.token {
            settings["wppJwtToken"] = json!(format!("t{token}"));
            settings["wppJwtExpiresAt"] = json!(self.ends[&token].0);
        }
        json!({
            "integration_id": Uuid::nil(), "organization_id": Uuid::nil(), "settings": settings,
            "credentials_saved_at_ms": saved_at.0, "first_connected_at_ms": null, "news_if_connected": false, "snapshot": null,
        })
    }

    /// As the SQL functions answer.
    fn answer(&mut self, holder: Uuid, call: StoreCall<'_>, now: UnixMs) -> Value {
        let holder = self.holder(holder);
        let outcome = match call {
            StoreCall::Claim { replaces, lease } => match self.row.claim(holder, replaces.map(number_of)) {
                Claimed::Granted => {
                    assert_eq!(self.fetching, 0, "a lease is granted while another one's fetch is under way");
                    self.held_until = now.plus(lease);
                    "granted"
                }
                Claimed::Moved => "moved",
                Claimed::Busy => {
                    let wait_ms = now.until(self.held_until).as_millis();
                    return json!({"now_ms": now.0, "outcome": "busy", "wait_ms": wait_ms});
                }
                Claimed::Cooling(failure) => {
                    return json!({"now_ms": now.0, "outcome": "cooling", "failure": failure});
                }
            },
            StoreCall::Save { token, api_key, replaces } => {
                let key = api_key.unwrap().expose()[3..].parse().unwrap();
                let saved = self.row.save(holder, key, replaces.map(number_of), number_of(&token.jwt));
                if saved { "saved" } else { "moved" }
            }
            StoreCall::Release { failure, cool } => {
                self.noted.push((failure.to_owned(), cool.as_secs()));
                self.cool_until = now.plus(cool);
                let word = word_for(failure_noted_as(failure));
                let moved = self.row.fail(holder, Some(word).filter(|_| !cool.is_zero()));
                if moved { "moved" } else { return json!({"now_ms": now.0, "outcome": "noted"}) }
            }
        };
        json!({"now_ms": now.0, "outcome": outcome, "number": self.number(now)})
    }

    fn holder(&mut self, holder: Uuid) -> u8 {
        let known = self.holders.iter().position(|known| *known == holder);
        u8::try_from(known.unwrap_or_else(|| {
            self.holders.push(holder);
            self.holders.len() - 1
        }))
        .unwrap()
    }

    /// `force_recreate`.
    pub fn recreate(&mut self) {
        self.row.recreate();
        self.session = "second";
    }
}

fn number_of(jwt: &Secret) -> u8 {
    jwt.expose()[1..].parse().unwrap()
}

impl TokenStore for Memory {
    async fn fetch(&self, api_key: &Secret, now: UnixMs, deadline: Deadline) -> PlatformResult<Token> {
        self.state().fetching += 1;
        let work = |state: &mut State, _| {
            if api_key.expose() != format!("key{}", state.row.key) {
                return Err(PlatformError::KeyRefused);
            }
            let token = u8::try_from(state.ends.len()).unwrap();
            let issued = Token::issued(Secret::new(format!("t{token}")), None, now);
            state.ends.insert(token, issued.expires_at);
            Ok(issued)
        };
        let fetched = self.arrive("fetch", deadline, work).await;
        self.state().fetching -= 1;
        fetched.flatten().map_err(|why| CallError { call: "auth/token", why })
    }

    async fn ask(&self, holder: Uuid, call: StoreCall<'_>, deadline: Deadline) -> StoreResult<Answer> {
        let name = match call {
            StoreCall::Claim { .. } => "claim",
            StoreCall::Save { .. } => "save",
            StoreCall::Release { .. } => "release",
        };
        match self.arrive(name, deadline, |state, now| state.answer(holder, call, now)).await {
            Ok(answer) => Ok(serde_json::from_value(answer).unwrap()),
            Err(PlatformError::TimedOut) => Err(CallError { call: name, why: StoreError::TimedOut }),
            Err(_) => Err(CallError { call: name, why: StoreError::Unavailable { retry_after: None } }),
        }
    }
}

impl Sandbox {
    /// A request's client: the row is read now.
    pub fn client(&self) -> Client<Memory> {
        let number = serde_json::from_value(self.memory.state().number(self.memory.now())).unwrap();
        let state = TokenState::of(&number, self.memory.now()).unwrap();
        Client::new(self.memory.clone(), self.flight.clone(), state)
    }

    /// A request with this much time. Answers the token that served it.
    pub async fn request(&self, time: Duration) -> Result<u8, Error> {
        self.call(&mut self.client(), time).await
    }

    /// One call of a request.
    pub async fn call(&self, client: &mut Client<Memory>, time: Duration) -> Result<u8, Error> {
        let deadline = Deadline::within(time);
        let serve = async |auth: SessionAuth| {
            let token = number_of(&auth.jwt);
            let work = |state: &mut State, _| {
                let is_good = state.session == auth.session && !state.rejected.contains(&token);
                state.served.insert((auth.jwt.expose().to_owned(), auth.session.clone()));
                if is_good { Ok(token) } else { Err(PlatformError::TokenRejected) }
            };
            let served = self.memory.arrive("call", deadline, work).await.and_then(|served| served);
            served.map_err(|why| CallError { call: "status", why })
        };
        client.call(deadline, serve).await
    }
}
