//! Schools that check their numbers, and the sandboxes that serve them with the functions' own [`WppMsgClient`].

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::upstreams::{Number, Reach};
use super::{Scenario, Tally};
use crate::clock::UnixMs;
use crate::config::REQUEST_BUDGET;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::number::advice::poll_interval_after;
use crate::wpp::token::Age;
use crate::wpp::token::tests::stored_number::number_of;
use crate::wpp::{SingleFlight, WppMsgClient};

const START: UnixMs = UnixMs(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(3600);
const LONG: Duration = Duration::from_secs(24 * 3600);

/// How often a school checks its number. One time in four it links a phone, with up to `PAGES` pages open for a while.
const BETWEEN_VISITS: Duration = Duration::from_secs(15 * 60);
const LINKING: Duration = Duration::from_secs(3 * 60);
const PAGES: usize = 3;

/// The time within which a request freezes or dies (the duration of a refresh), and the longest freeze.
const MISHAP_WITHIN: Duration = Duration::from_millis(180);
const FREEZE: Duration = Duration::from_secs(20);

pub struct Fleet {
    pub scenario: Scenario,
    since: Deadline,
    numbers: Vec<Mutex<Number>>,
    /// Everything that an idle sandbox keeps about tokens. None of it runs.
    idle: Mutex<Vec<SingleFlight>>,
    tally: Mutex<Tally>,
}

/// The result of a request.
pub struct Outcome {
    pub answer: Result<(), Error>,
    /// How long it took to get the token that worked; zero if the first token was accepted.
    pub waited: Duration,
    /// Whether the token in the row worked.
    pub had_token: bool,
}

impl Fleet {
    pub fn run(scenario: Scenario) -> Tally {
        fastrand::seed(scenario.seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let fleet = Self::new(scenario);
            let schools = join_all((0..fleet.numbers.len()).map(|nth| fleet.school(nth)));
            let _ = timeout(fleet.scenario.length, join(schools, fleet.restart())).await;
            fleet.tally.into_inner().unwrap()
        })
    }

    fn new(scenario: Scenario) -> Self {
        let number = |_| {
            let of_the_wave = fastrand::u8(..3) == 0;
            let (from, length) = if of_the_wave {
                (START.plus(scenario.wave), MINUTE)
            } else {
                (START.minus(BETWEEN_VISITS), BETWEEN_VISITS + LIFE)
            };
            Mutex::new(Number::with_token(from.plus(length.mul_f64(fastrand::f64()))))
        };
        Self {
            since: Deadline::within(LONG),
            numbers: (0..scenario.schools).map(number).collect(),
            idle: Mutex::new((0..scenario.sandboxes).map(|_| SingleFlight::default()).collect()),
            tally: Mutex::default(),
            scenario,
        }
    }

    pub fn passed(&self) -> Duration {
        LONG - self.since.remaining()
    }

    pub fn now(&self) -> UnixMs {
        START.plus(self.passed())
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap()
    }

    /// Makes the platform forget every token at the end of its outage.
    async fn restart(&self) {
        sleep(self.scenario.platform_outage.end).await;
        self.numbers.iter().for_each(|number| number.lock().unwrap().forget());
    }

    /// Runs a school. Its visits have their own seed, so that two runs differ in little except what is compared.
    async fn school(&self, nth: usize) {
        let mut random = fastrand::Rng::with_seed(self.scenario.seed << 32 | nth as u64);
        loop {
            sleep(spread(BETWEEN_VISITS, random.f64())).await;
            if random.u8(..4) > 0 {
                self.serve(nth).await;
                continue;
            }
            let closed = Deadline::within(spread(LINKING, random.f64()));
            join_all((0..random.usize(1..=PAGES)).map(|_| self.page(nth, closed))).await;
        }
    }

    /// Opens a page a moment after another. It polls `wpp-qr` and `wpp-status` together, and again when their answers say so.
    async fn page(&self, nth: usize, closed: Deadline) {
        sleep(Duration::from_secs(2).mul_f64(fastrand::f64())).await;
        let opened = self.now();
        while !closed.remaining().is_zero() {
            join(self.serve(nth), self.serve(nth)).await;
            sleep(poll_interval_after(opened.until(self.now()))).await;
        }
    }

    /// Serves a request in an idle sandbox. In the middle of it, the sandbox may freeze and thaw, or die and be replaced by a new one.
    async fn serve(&self, nth: usize) {
        let begun = self.passed();
        self.tally().requests += 1;
        let Some(mut sandbox) = self.take_sandbox() else {
            return self.tally().fail("no sandbox was free", self.scenario.has_outage(&(begun..begun)));
        };
        let mut request = Box::pin(self.request(nth, sandbox.clone()));
        let has_mishap = fastrand::f64() < self.scenario.mishaps;
        let undisturbed = if has_mishap { MISHAP_WITHIN.mul_f64(fastrand::f64()) } else { LONG };
        match timeout(undisturbed, &mut request).await {
            Ok(outcome) => self.tally().note(&self.scenario, begun..self.passed(), outcome),
            Err(_) if fastrand::bool() => {
                sleep(FREEZE.mul_f64(fastrand::f64())).await;
                request.await;
                self.tally().frozen += 1;
            }
            Err(_) => {
                sandbox = SingleFlight::default();
                self.tally().died += 1;
            }
        }
        self.idle.lock().unwrap().push(sandbox);
    }

    fn take_sandbox(&self) -> Option<SingleFlight> {
        let mut idle = self.idle.lock().unwrap();
        let busy = self.scenario.sandboxes - idle.len();
        let any = (!idle.is_empty()).then(|| fastrand::usize(..idle.len()))?;
        let mut tally = self.tally();
        tally.sandboxes = tally.sandboxes.max(busy + 1);
        Some(idle.swap_remove(any))
    }

    /// Makes a warm request: the row, then a call with its token.
    async fn request(&self, nth: usize, sandbox: SingleFlight) -> Outcome {
        let deadline = Deadline::within(REQUEST_BUDGET);
        let reach = Reach { fleet: self, number: &self.numbers[nth] };
        let state = match reach.find(deadline).await {
            Ok(state) => state,
            Err(error) => {
                return Outcome { answer: Err(error.into()), waited: Duration::ZERO, had_token: false };
            }
        };
        let read = state.token();
        let mut client = WppMsgClient::new(reach, reach, sandbox.of(Uuid::from_u128(nth as u128)), state);
        let (begun, called) = (self.passed(), Cell::new(self.passed()));
        let call = |auth| {
            called.set(self.passed());
            reach.status(auth, deadline)
        };
        let answer = client.call(deadline, call).await.map_err(Error::from);
        let number = reach.number.lock().unwrap();
        let had_token =
            read.is_some_and(|token| number.age(number_of(&token.jwt), self.now()) != Age::Expired);
        Outcome { answer, waited: called.get() - begun, had_token }
    }
}

/// Returns a random time that is `mean` on average, and rarely much longer. `chance` is between 0 and 1.
fn spread(mean: Duration, chance: f64) -> Duration {
    mean.mul_f64(-(1.0 - chance).ln())
}

/// Returns a delay of about this length.
pub fn around(way: Duration) -> Duration {
    way / 2 + spread(way / 2, fastrand::f64())
}
