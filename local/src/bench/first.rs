//! The first request of a fresh sandbox against a warm one. The upstreams here speak plain HTTP, and the functions trust no
//! certificate that we could make: what TLS adds is said by the connections that are opened, each with a handshake.

use std::fs;

use super::figure::{Figure, Unit};
use super::hop::timed;
use super::sample::Sample;
use super::warm::{Scene, Warm};
use crate::Result;

const SANDBOXES: usize = 20;
const WARM_UP: usize = 3;

/// `wpp-qr` in sandboxes that have answered nothing yet.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let (mut first, mut warm) = (Sample::default(), Sample::default());
    let (mut at_start, mut by_request) = (Sample::default(), Sample::default());
    for _ in 0..SANDBOXES {
        let sandbox = scene.app.process("wpp-qr").await;
        sandbox.ready().await?;
        let before = sockets(sandbox.pid())?;
        first.push(timed(Warm::Qr.ask(&sandbox, scene)).await?);
        at_start.push(before);
        by_request.push(sockets(sandbox.pid())? - before);
        for _ in 0..WARM_UP {
            Warm::Qr.ask(&sandbox, scene).await?;
        }
        warm.push(timed(Warm::Qr.ask(&sandbox, scene)).await?);
    }
    Ok(vec![
        Figure::new("wpp-qr, first request of a fresh sandbox, no TLS", Unit::Ms, first.median())
            .note(format!("{first:.1}, {warm:.1} when warm; {SANDBOXES} sandboxes")),
        Figure::new("wpp-qr, connections that its first request opens", Unit::Count, by_request.median())
            .note(format!("each a TLS handshake; {:.0} sockets are open before", at_start.median())),
    ])
}

/// The sockets that a process has open.
fn sockets(pid: u32) -> Result<f64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    Ok(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count() as f64)
}
