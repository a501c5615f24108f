//! A number in memory, whose database and platform a test controls. Delays use tokio's clock, which is paused in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::secret::Secret;
use crate::store::{Number, StoreError, StoreResult, lease_outcome};
use crate::upstream::CallError;
use crate::wpp::protocol::tests::model::Lease;
use crate::wpp::refresh::RefreshPermit;
use crate::wpp::token::tests::stored_number::{StoreCall, StoredNumber, TestStore, number_of};
use crate::wpp::{
    LeaseOutcome, PlatformError, PlatformResult, SessionAuth, Token, TokenSource, WppMsgClient,
};

const START: UnixMs = UnixMs(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The holder of a lease that no request here has asked for.
const STRANGER: Uuid = Uuid::max();

#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    since: Deadline,
}

/// A change of the row by others.
type Happening = fn(&mut StoredNumber);

pub struct State {
    pub number: StoredNumber,
    /// The tokens that the platform rejects.
    pub rejected: BTreeSet<u32>,
    /// How long the answer to a call takes.
    pub takes: BTreeMap<&'static str, Duration>,
    /// The calls that fail at once.
    pub fails: BTreeMap<&'static str, PlatformError>,
    /// What happens to the row just before a call arrives.
    pub before: Option<(&'static str, Happening)>,
    /// How often each call was made.
    pub calls: BTreeMap<&'static str, u32>,
    /// When each claim was made.
    pub claimed_at: Vec<Duration>,
    /// The token and session of each platform call.
    pub served: BTreeSet<(String, String)>,
    /// The saved failures, each with its cooldown in seconds.
    pub noted: Vec<(String, u64)>,
    /// All holders that made a call.
    pub holders: BTreeSet<Uuid>,
    fetching: u32,
}

/// One process with its single flight.
pub struct Sandbox {
    memory: Memory,
    permit: Arc<RefreshPermit>,
}

impl Memory {
    /// Makes a number with the token `t0`, which ends in this many seconds.
    pub fn with_token(left: u64) -> Self {
        let state = State {
            number: StoredNumber::with_token(START.plus(Duration::from_secs(left))),
            rejected: BTreeSet::new(),
            takes: BTreeMap::new(),
            fails: BTreeMap::new(),
            before: None,
            calls: BTreeMap::new(),
            claimed_at: Vec::new(),
            served: BTreeSet::new(),
            noted: Vec::new(),
            holders: BTreeSet::new(),
            fetching: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), since: Deadline::within(DAY) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Gives the lease to a stranger for this time.
    pub fn lease_to_a_stranger(&self, time: Duration) {
        let number = &mut self.state().number;
        number.row.lease =
            Some(Lease { holder: STRANGER, held: true, cooldown: None, key: number.row.key, saved: None });
        number.held_until = self.now().plus(time);
    }

    pub fn passed(&self) -> Duration {
        DAY - self.since.remaining()
    }

    fn now(&self) -> UnixMs {
        START.plus(self.passed())
    }

    pub fn sandbox(&self) -> Sandbox {
        Sandbox { memory: self.clone(), permit: Arc::default() }
    }

    pub fn calls(&self, call: &'static str) -> u32 {
        self.state().calls.get(call).copied().unwrap_or_default()
    }

    /// Makes the answer to a call take this long.
    pub fn slow(&self, call: &'static str, takes: Duration) {
        self.state().takes.insert(call, takes);
    }

    /// Makes a call fail at once.
    pub fn break_off(&self, call: &'static str, failure: PlatformError) {
        self.state().fails.insert(call, failure);
    }

    /// Makes the platform reject a token from now on.
    pub fn reject(&self, token: u32) {
        self.state().rejected.insert(token);
    }

    /// Runs a call's effect at once, and answers after its delay.
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
                happen(&mut state.number);
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

impl TokenSource for Memory {
    async fn fetch_token(&self, api_key: &Secret, now: UnixMs, deadline: Deadline) -> PlatformResult<Token> {
        self.state().fetching += 1;
        let work = |state: &mut State, _| {
            let is_known = api_key.expose() == format!("key{}", state.number.row.key);
            is_known.then(|| state.number.issue(now)).ok_or(PlatformError::KeyRefused)
        };
        let fetched = self.arrive("fetch", deadline, work).await;
        self.state().fetching -= 1;
        fetched.flatten().map_err(|why| CallError { call: "auth/token", why })
    }
}

impl TestStore for Memory {
    async fn ask(&self, holder: Uuid, call: StoreCall<'_>, deadline: Deadline) -> StoreResult<LeaseOutcome> {
        let name = match call {
            StoreCall::Claim { .. } => "claim",
            StoreCall::Save { .. } => "save",
            StoreCall::Release { .. } => "release",
        };
        let work = |state: &mut State, now| {
            state.holders.insert(holder);
            if let StoreCall::Release { failure, cooldown } = call {
                state.noted.push((failure.to_owned(), cooldown.as_secs()));
            }
            let answer = state.number.answer(holder, call, now);
            let is_double = answer["outcome"] == "granted" && state.fetching > 0;
            assert!(!is_double, "a lease is granted while another one's fetch is under way");
            answer
        };
        match self.arrive(name, deadline, work).await {
            Ok(answer) => Ok(lease_outcome(answer)),
            Err(PlatformError::TimedOut) => Err(CallError { call: name, why: StoreError::TimedOut }),
            Err(_) => Err(CallError { call: name, why: StoreError::Unavailable { retry_after: None } }),
        }
    }
}

impl Sandbox {
    /// Makes a request's client: the row is read now.
    pub fn client(&self) -> WppMsgClient<Memory, Memory> {
        let (memory, now) = (self.memory.clone(), self.memory.now());
        let number: Number = serde_json::from_value(memory.state().number.number(now)).unwrap();
        let options = number.client_options(now).unwrap();
        WppMsgClient::new(memory.clone(), memory, self.permit.clone(), options)
    }

    /// Makes a request with this much time. Returns the token that it used.
    pub async fn request(&self, time: Duration) -> Result<u32, Error> {
        self.call(&mut self.client(), time).await
    }

    /// Makes one call of a request.
    pub async fn call(
        &self,
        client: &mut WppMsgClient<Memory, Memory>,
        time: Duration,
    ) -> Result<u32, Error> {
        let deadline = Deadline::within(time);
        let serve = async |auth: SessionAuth| {
            let token = number_of(&auth.jwt);
            let work = |state: &mut State, _| {
                let is_good = state.number.session == auth.session && !state.rejected.contains(&token);
                state.served.insert((auth.jwt.expose().to_owned(), auth.session.clone()));
                if is_good { Ok(token) } else { Err(PlatformError::TokenRejected) }
            };
            let served = self.memory.arrive("call", deadline, work).await.and_then(|served| served);
            served.map_err(|why| CallError { call: "status", why })
        };
        Ok(client.call(deadline, serve).await?)
    }
}
