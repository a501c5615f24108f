//! How large the functions are: on the disk, and in memory after many requests.

use std::fs;

use super::figure::{Figure, Sample, Unit};
use super::machine::memory_mib;
use super::warm::{Scene, Warm};
use crate::events::Event;
use crate::lambda::{Options, Sandbox, binary};
use crate::{FUNCTIONS, Result};

/// The memory after this many requests is compared with that after the second number: it should not have grown.
const SOME: usize = 4_000;
const MANY: usize = 20_000;

/// Every fourth request is a poll. The others have no `Authorization`: any client can send such requests.
const POLL_EVERY: usize = 4;

/// Growth up to this, in MiB, counts as none.
const FLAT: f64 = 0.25;

/// Measures the largest binary, and the memory of `wpp-qr`. Its invocations have no X-Ray trace: the C library never frees a trace that
/// `lambda_runtime` put into the environment, see `docs/upstream/lambda_runtime.md`.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let megabytes = |name: &&str| Ok(fs::metadata(binary(name)?)?.len() as f64 / 1e6);
    let binaries = FUNCTIONS.iter().map(megabytes).collect::<Result<Sample>>()?;
    let options = Options { traced: false, ..Options::default() };
    let sandbox = Sandbox::start_with(&binary("wpp-qr")?, &scene.env, options).await?;
    let resident = || memory_mib(sandbox.pid(), "VmRSS");
    let mut after_some = 0.0;
    for request in 1..=MANY {
        if request % POLL_EVERY == 0 {
            Warm::Qr.ask(&sandbox, scene).await?;
        } else {
            let answer = sandbox.invoke(Event::get("wpp-qr").http_api()).await.answered()?;
            if answer.status != 401 {
                return Err(format!("wpp-qr without `Authorization`: {}", answer.body).into());
            }
        }
        if request == SOME {
            after_some = resident()?;
        }
    }
    let peak = memory_mib(sandbox.pid(), "VmHWM")?;
    let growth = resident()? - after_some;
    Ok(vec![
        Figure::new("the largest binary", Unit::Mb, binaries.percentile(100)).at_most(4.0),
        Figure::new(format!("wpp-qr, peak memory in {MANY} requests"), Unit::Mib, peak).at_most(5.0),
        Figure::new(format!("wpp-qr, growth from request {SOME} to {MANY}"), Unit::Mib, growth).at_most(FLAT),
    ])
}
