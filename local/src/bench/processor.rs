//! The processor's time for a warm request, with upstreams that answer at once.

use super::figure::{Figure, Unit};
use super::machine::processor_ms;
use super::sample::Sample;
use super::warm::{Scene, Warm};
use super::yardstick;
use crate::Result;
use crate::lambda::Sandbox;

/// Blocks take turns, so that a busy moment hits all alike.
const BLOCKS: usize = 10;
const BLOCK: usize = 200;
const WARM_UP: usize = 100;

/// Measures user and system time for each function and, as the yardstick, for one that does nothing.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let empty = Sandbox::start(&yardstick()?, &[]).await?;
    let mut nothing = Sample::default();
    let mut samples = Warm::ALL.map(|poll| (poll, Sample::default()));
    for _ in 0..WARM_UP {
        ask_empty(&empty, scene).await?;
        for poll in Warm::ALL {
            poll.ask(scene.app.sandbox(poll.function()), scene).await?;
        }
    }
    for _ in 0..BLOCKS {
        let before = processor_ms(empty.pid())?;
        for _ in 0..BLOCK {
            ask_empty(&empty, scene).await?;
        }
        nothing.push((processor_ms(empty.pid())? - before) / BLOCK as f64);
        for (poll, sample) in &mut samples {
            let sandbox = scene.app.sandbox(poll.function());
            let before = processor_ms(sandbox.pid())?;
            for _ in 0..BLOCK {
                poll.ask(sandbox, scene).await?;
            }
            sample.push((processor_ms(sandbox.pid())? - before) / BLOCK as f64);
        }
    }
    let figure = |(poll, sample): &(Warm, Sample)| {
        let what = format!("{}, processor time of a warm request", poll.name());
        let note = format!("{sample:.3}, {} requests; {nothing:.3} of an empty function", BLOCKS * BLOCK,);
        let figure = Figure::new(what, Unit::Ms, sample.median()).note(note);
        if *poll == Warm::Create { figure } else { figure.at_most(0.25) }
    };
    Ok(samples.iter().map(figure).collect())
}

/// Asks the idle function, which answers any request.
async fn ask_empty(empty: &Sandbox, scene: &Scene) -> Result<()> {
    empty.invoke(Warm::Qr.event(scene)).await.answered().map(drop)
}
