//! Walks every interleaving of three sandboxes, breadth first: the functions' own [`RefreshProtocol`], with models of the database
//! and the platform. At every step a sandbox may crash, and a message may arrive twice. A message or its answer may be lost or
//! late. A lease may end while its holder still works, and the platform may forget its tokens. Another function may write a token,
//! and a `force_recreate` may bring another API key.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::LazyLock;

use super::machine::{Machine, Message, key_of, missing, now, number_of, token, token_code};
use super::model::{Claimed, Row};
use super::{DEAD, Duration, Event, REJECTED};
use crate::wpp::refresh::{failure_code, failure_of};

/// The first token is one tick old at the start. After two more ticks, it and its immediate replacement have expired.
const TICKS: std::ops::RangeInclusive<u8> = 1..=3;

/// How many faults one path may have. `WALK_MISHAPS` allows more; two give about 40 times as many states.
static MISHAPS: LazyLock<u8> = LazyLock::new(|| {
    std::env::var("WALK_MISHAPS").ok().and_then(|mishaps| mishaps.parse().ok()).unwrap_or(1)
});

/// More steps than a request needs when no other request interferes.
const PATIENCE: usize = 16;

/// A holder that is gone and has the lease.
const GONE: u8 = 10;

/// A holder that is gone, has no lease, and whose late message may still arrive.
const LONG_GONE: u8 = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Manner {
    AllTokens,
    NewestToken,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    manner: Manner,
    tick: u8,
    row: Row,
    /// The last token of each of the two keys.
    newest: [Option<u8>; 2],
    /// How many tokens there are.
    issued: u8,
    /// The platform has forgotten all tokens before this one.
    forgotten: u8,
    /// The sandboxes' requests, by their number in the [`Machine`]. A request's index is its holder.
    requests: [Option<u16>; 3],
    /// A delayed message, with its holder. No request waits for its answer.
    late: Option<(u8, Message)>,
    mishaps: u8,
    /// How many more refreshes are justified.
    reasons: u8,
}

/// What happens to a message other than a plain answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its sender gets a failure. The message arrives at once, later or never.
    Unanswered,
    /// Its sender crashes. The message arrives at once, later or never.
    Orphaned,
    /// It is answered, and arrives a second time later.
    Repeated,
}

impl World {
    /// Makes a world whose row holds a due token or no token.
    fn new(manner: Manner, first: Option<u8>) -> Self {
        Self {
            manner,
            tick: *TICKS.start(),
            row: Row { key: 0, token: first, lease: None },
            newest: [first, None],
            issued: 1,
            forgotten: 0,
            requests: [None; 3],
            late: None,
            mishaps: 0,
            reasons: 1,
        }
    }

    /// Returns all worlds that can follow this one in one step.
    fn successors(&self, machine: &mut Machine) -> Vec<Self> {
        let mut next = Vec::new();
        let mut add = |change: &mut dyn FnMut(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        let may_go_wrong = self.mishaps < *MISHAPS;
        for (i, request) in self.requests.iter().enumerate() {
            if request.is_none() {
                add(&mut |world| world.begin(i, machine));
                continue;
            }
            add(&mut |world| world.step(i, None, machine));
            if may_go_wrong {
                for fate in [Fate::Unanswered, Fate::Orphaned, Fate::Repeated] {
                    add(&mut |world| world.mishap(|world| world.step(i, Some(fate), machine)));
                }
            }
        }
        if let Some((holder, message)) = self.late {
            add(&mut |world| {
                world.late = None;
                world.arrive(holder, message);
            });
        }
        if self.tick < *TICKS.end() {
            add(&mut |world| {
                world.tick += 1;
                world.reasons += 1;
                // A tick is longer than the time for which a token counts as new.
                world.row.lease.iter_mut().for_each(|lease| lease.saved = None);
            });
        }
        if let Some(lease) = &self.row.lease {
            if lease.held && self.is_idle(lease.holder, machine) {
                add(&mut Self::end_lease);
            } else if lease.held && may_go_wrong {
                add(&mut |world| world.mishap(Self::end_lease));
            }
            if lease.cooldown.is_some() {
                add(&mut Self::end_pause);
            }
        }
        if may_go_wrong {
            add(&mut |world| world.mishap(|world| world.forgotten = world.issued));
            add(&mut |world| world.mishap(|world| world.row.token = Some(world.issue(world.row.key))));
            if self.row.key == 0 {
                add(&mut |world| world.mishap(|world| world.row.recreate()));
            }
        }
        next
    }

    /// Whether the lease's holder no longer uses it, so that it ends only when it expires.
    fn is_idle(&self, holder: u8, machine: &Machine) -> bool {
        let request = self.requests.get(usize::from(holder)).copied().flatten();
        request.is_none_or(|request| matches!(machine.message(request), Message::Call(_)))
    }

    /// Adds a fault, which may cost a refresh. If only the newest token is valid, the fault may also leave an invalid one in the row.
    fn mishap(&mut self, change: impl FnOnce(&mut Self)) {
        self.mishaps += 1;
        self.reasons += if self.manner == Manner::NewestToken { 2 } else { 1 };
        change(self);
    }

    fn begin(&mut self, i: usize, machine: &mut Machine) {
        let event = Event::Row { token: self.row.token.map(token), now: now(self.tick) };
        self.requests[i] = machine.next(Machine::NEW, event, self.row.key);
    }

    fn step(&mut self, i: usize, fate: Option<Fate>, machine: &mut Machine) {
        let Some(request) = self.requests[i] else { return };
        let (holder, message) = (place(i), machine.message(request));
        let is_answered = matches!(fate, None | Some(Fate::Repeated));
        if is_answered && matches!(message, Message::Call(token) if self.accepts(token)) {
            return self.leave(i);
        }
        // A call changes nothing at the platform.
        if fate.is_some() && !matches!(message, Message::Call(_)) {
            self.late = Some((holder, message));
        }
        let answer = match fate {
            Some(Fate::Orphaned) => return self.leave(i),
            Some(Fate::Unanswered) => missing(message),
            None | Some(Fate::Repeated) => self.arrive(holder, message),
        };
        if matches!(answer, Event::SaveFailed(..)) {
            self.forget_name(i);
        }
        let key = if let Message::Fetch { key } = message { key } else { self.row.key };
        match machine.next(request, answer, key) {
            None => self.leave(i),
            goes_on => self.requests[i] = goes_on,
        }
    }

    /// Ends a request that is over, or whose sandbox is gone.
    fn leave(&mut self, i: usize) {
        self.requests[i] = None;
        self.forget_name(i);
    }

    /// Gives the request a new holder id, or this holder id to another request.
    fn forget_name(&mut self, i: usize) {
        let had_lease = self.row.lease.as_ref().is_some_and(|lease| lease.holder == place(i));
        let name = if had_lease { GONE } else { LONG_GONE };
        self.rename(|holder| if holder == place(i) { name } else { holder });
    }

    /// Applies the message's effect, and returns the answer to it.
    fn arrive(&mut self, holder: u8, message: Message) -> Event {
        let now = now(self.tick);
        match message {
            Message::Call(code) => Event::Rejected(token(code).jwt, REJECTED),
            Message::Claim { replaces, is_rejected } => match self.row.claim(holder, replaces, is_rejected) {
                Claimed::Granted => Event::Granted,
                Claimed::Changed => Event::Row { token: self.row.token.map(token), now },
                Claimed::Busy => Event::Busy(Duration::from_secs(1)),
                Claimed::Cooldown(failure) => Event::Cooldown(failure_of(failure)),
            },
            Message::Fetch { key } if key != self.row.key => Event::FetchFailed(DEAD),
            Message::Fetch { key } => {
                assert_ne!(self.reasons, 0, "a refresh too many");
                self.reasons -= 1;
                Event::Fetched(token(self.issue(key)))
            }
            Message::Save { key, replaces, token: new } => {
                let before = self.row.token;
                let saved = self.row.save(holder, key, replaces, new);
                assert!(!saved || before <= self.row.token, "an older token over a newer one");
                if saved {
                    Event::Saved(token(new))
                } else {
                    Event::Row { token: self.row.token.map(token), now }
                }
            }
            Message::Fail(failure) => {
                if self.row.fail(holder, Some(failure_code(failure))) {
                    Event::Row { token: self.row.token.map(token), now }
                } else {
                    Event::FailureNoted(failure)
                }
            }
        }
    }

    fn accepts(&self, code: u8) -> bool {
        let newest = self.newest[usize::from(key_of(code))] == Some(code);
        key_of(code) == self.row.key
            && number_of(code) >= self.forgotten
            && now(self.tick) < token(code).expires_at
            && (newest || self.manner == Manner::AllTokens)
    }

    fn issue(&mut self, key: u8) -> u8 {
        let token = token_code(self.issued, key, self.tick);
        self.issued += 1;
        if self.manner == Manner::NewestToken {
            self.newest[usize::from(key)] = Some(token);
        }
        token
    }

    fn end_lease(&mut self) {
        self.row.lease.iter_mut().for_each(|lease| lease.held = false);
    }

    fn end_pause(&mut self) {
        self.row.lease.iter_mut().for_each(|lease| lease.cooldown = None);
    }

    /// Asserts what must hold in every world, whatever happened before.
    fn check(&self, machine: &mut Machine, settled: &mut HashSet<u64>) {
        let key = self.row.token.map_or(self.row.key, key_of);
        assert_eq!(key, self.row.key, "a token beside another key");
        let around = fingerprint(&(self.tick, &self.row, self.newest, self.forgotten));
        for request in self.requests {
            if settled.insert(fingerprint(&(around, request))) {
                let requests = [request, None, None];
                let mut alone = Self { requests, late: None, reasons: u8::MAX, ..self.clone() };
                alone.settle(machine);
                // A new token that is rejected costs one request and a cooldown.
                let mut next_is_served = || {
                    alone.end_pause();
                    alone.begin(0, machine);
                    alone.settle(machine)
                };
                assert!(next_is_served() || next_is_served(), "the next request is not served");
            }
        }
    }

    /// Lets the first request continue alone, with no other lease in the way. Returns whether it was served.
    fn settle(&mut self, machine: &mut Machine) -> bool {
        self.end_lease();
        let mut served = false;
        for _ in 0..PATIENCE {
            let Some(request) = self.requests[0] else { return served };
            served |= matches!(machine.message(request), Message::Call(token) if self.accepts(token));
            self.step(0, None, machine);
        }
        panic!("a request that is left alone does not end");
    }

    /// Normalizes the order of the sandboxes and the ids of holders that are gone, because neither makes a difference.
    fn canonical(mut self) -> Self {
        let lease = self.row.lease.as_ref().map(|lease| lease.holder);
        let late = self.late.map(|(holder, _)| holder);
        let mut order = [0, 1, 2];
        order.sort_by_key(|&i| (self.requests[i], lease == Some(place(i)), late == Some(place(i))));
        self.requests = order.map(|i| self.requests[i]);
        self.rename(|holder| order.iter().position(|&i| place(i) == holder).map_or(holder, place));
        match &mut self.row.lease {
            // Its late message got the lease.
            Some(lease) if lease.holder == LONG_GONE => lease.holder = GONE,
            Some(lease) if lease.holder == GONE => {}
            _ => self.late.iter_mut().filter(|late| late.0 == GONE).for_each(|late| late.0 = LONG_GONE),
        }
        self
    }

    fn rename(&mut self, name: impl Fn(u8) -> u8) {
        self.row.lease.iter_mut().for_each(|lease| lease.holder = name(lease.holder));
        self.late.iter_mut().for_each(|(holder, _)| *holder = name(*holder));
    }
}

fn place(i: usize) -> u8 {
    u8::try_from(i).unwrap()
}

fn fingerprint(value: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

/// Walks all states. `states` is how many there must be, by the number of faults.
fn walk(manner: Manner, states: [usize; 3]) {
    let (mut machine, mut settled) = (Machine::new(), HashSet::new());
    let (mut seen, mut steps) = (HashSet::new(), 0);
    let mut queue: VecDeque<_> =
        [None, Some(token_code(0, 0, 0))].map(|first| World::new(manner, first)).into();
    while let Some(world) = queue.pop_front() {
        for next in world.successors(&mut machine) {
            steps += 1;
            let next = next.canonical();
            if seen.insert(fingerprint(&next)) {
                next.check(&mut machine, &mut settled);
                queue.push_back(next);
            }
        }
    }
    println!("{manner:?}, {} mishaps at most: {} states, {steps} steps", *MISHAPS, seen.len());
    // The counts are fixed, so that the walk is not narrowed by accident. A change of the protocol changes them.
    if let Some(states) = states.get(usize::from(*MISHAPS)) {
        assert_eq!(seen.len(), *states);
    }
}

#[test]
fn every_interleaving_holds_if_all_tokens_stay_valid() {
    walk(Manner::AllTokens, [7_048, 426_128, 12_566_009]);
}

#[test]
fn every_interleaving_holds_if_the_newest_token_is_valid() {
    walk(Manner::NewestToken, [6_114, 480_480, 17_769_313]);
}
