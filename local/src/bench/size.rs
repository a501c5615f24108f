//! How large the functions are: on the disk, and in memory after many requests.

use std::fs;

use futures_util::future::{try_join, try_join3};

use super::figure::{Figure, Unit};
use super::machine::memory_mib;
use super::warm::{Scene, Warm};
use super::yardstick;
use crate::events::Event;
use crate::lambda::{Options, Sandbox, binary};
use crate::test_app::environment;
use crate::{FUNCTIONS, Result};

/// After this many requests a process has what it needs. After the second number it should need no more.
const SOME: usize = 4_000;
const MANY: usize = 20_000;

const POLL_EVERY: usize = 4;

/// What rounding and a page here or there may make of nothing, in MiB.
const FLAT: f64 = 0.25;

/// Measures the files, as they are deployed.
pub fn files() -> Result<Vec<Figure>> {
    let file = |name: &&str| {
        let bytes = fs::metadata(binary(name)?)?.len();
        Ok(Figure::new(format!("{name}, its binary"), Unit::Mb, bytes as f64 / 1e6).at_most(4.0))
    };
    FUNCTIONS.iter().map(file).collect()
}

/// Compares new processes of the two functions that are polled with one that does nothing, side by side. `lambda_runtime` leaks each
/// invocation's trace, so the idle function shows which part belongs to ours.
pub async fn memory(scene: &Scene) -> Result<Vec<Figure>> {
    let env = environment(&scene.app.stack, &[]);
    let options = |traced| Options { traced, ..Options::default() };
    let nothing = async |traced| {
        let empty = Sandbox::start_with(&yardstick()?, &[], options(traced)).await?;
        grown(&empty, async |_| empty.invoke(Warm::Qr.event(scene)).await.answered().map(drop)).await
    };
    let of = async |poll: Warm, traced| {
        let sandbox = Sandbox::start_with(&binary(poll.function())?, &env, options(traced)).await?;
        grown(&sandbox, async |request| {
            // Every fourth is a poll. The others have no token: any client can send such requests.
            if request % POLL_EVERY == 0 {
                poll.ask(&sandbox, scene).await.map(drop)
            } else {
                refused(&sandbox, poll.function()).await
            }
        })
        .await
    };
    let traced = try_join3(nothing(true), of(Warm::Qr, true), of(Warm::StatusWithQr, true));
    let untraced = try_join(nothing(false), of(Warm::Qr, false));
    let ((nothing, qr, status), (untraced_nothing, untraced_qr)) = try_join(traced, untraced).await?;
    let figures = [
        qr.figures("wpp-qr", nothing),
        status.figures("wpp-status", nothing),
        untraced_qr.figures("wpp-qr without traces", untraced_nothing),
    ];
    Ok(figures.concat())
}

/// What a process has of memory, in MiB.
#[derive(Clone, Copy)]
struct Used {
    after_some: f64,
    after_many: f64,
    peak: f64,
}

impl Used {
    fn growth(self) -> f64 {
        self.after_many - self.after_some
    }

    fn figures(self, name: &str, nothing: Self) -> [Figure; 2] {
        let peak = Figure::new(format!("{name}, peak memory in {MANY} requests"), Unit::Mib, self.peak);
        let growth =
            Figure::new(format!("{name}, growth from request {SOME} to {MANY}"), Unit::Mib, self.growth());
        [
            peak.at_most(8.0).note(format!("{:.1} of an empty function", nothing.peak)),
            growth.at_most(FLAT).note(format!("{:.1} of an empty function", nothing.growth())),
        ]
    }
}

async fn grown(sandbox: &Sandbox, ask: impl AsyncFn(usize) -> Result<()>) -> Result<Used> {
    let resident = || memory_mib(sandbox.pid(), "VmRSS");
    for request in 1..=SOME {
        ask(request).await?;
    }
    let after_some = resident()?;
    for request in SOME + 1..=MANY {
        ask(request).await?;
    }
    Ok(Used { after_some, after_many: resident()?, peak: memory_mib(sandbox.pid(), "VmHWM")? })
}

async fn refused(sandbox: &Sandbox, function: &str) -> Result<()> {
    let answer = sandbox.invoke(Event::get(function).v2()).await.answered()?;
    if answer.status == 401 { Ok(()) } else { Err(format!("{function} let a stranger in").into()) }
}
