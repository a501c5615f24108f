//! The first request of a fresh sandbox against a warm one, with TLS to both upstreams.

use super::figure::{Figure, Unit};
use super::hop::timed;
use super::machine::processor_ms;
use super::sample::Sample;
use super::warm::{Scene, Warm};
use crate::Result;
use crate::tls::Https;

const SANDBOXES: usize = 20;
const WARM_UP: usize = 3;

/// What `wpp-qr` takes for a request, on the clock and of the processor, in milliseconds.
#[derive(Default)]
struct Cost {
    wait: Sample,
    processor: Sample,
}

/// Measures `wpp-qr` in sandboxes that have answered nothing yet.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let https = Https::before(&scene.app).await?;
    let (mut first, mut warm, mut connections) = (Cost::default(), Cost::default(), Sample::default());
    for _ in 0..SANDBOXES {
        let sandbox = https.process(&scene.app, "wpp-qr").await;
        sandbox.ready().await?;
        let ask = async |cost: &mut Cost| {
            let before = processor_ms(sandbox.pid())?;
            cost.wait.push(timed(Warm::Qr.ask(&sandbox, scene)).await?);
            cost.processor.push(processor_ms(sandbox.pid())? - before);
            Result::Ok(())
        };
        let before = https.handshakes();
        ask(&mut first).await?;
        connections.push((https.handshakes() - before) as f64);
        for _ in 0..WARM_UP {
            Warm::Qr.ask(&sandbox, scene).await?;
        }
        ask(&mut warm).await?;
    }
    let figure = |what: &str, first: &Sample, warm: &Sample| {
        Figure::new(
            format!("wpp-qr over TLS, first request of a fresh sandbox, {what}"),
            Unit::Ms,
            first.median(),
        )
        .note(format!("{first:.1}, {warm:.1} when warm; {SANDBOXES} sandboxes"))
    };
    Ok(vec![
        figure("p50", &first.wait, &warm.wait),
        figure("processor time", &first.processor, &warm.processor),
        Figure::new(
            "wpp-qr over TLS, connections that its first request opens",
            Unit::Count,
            connections.median(),
        ),
    ])
}
