//! A warm poll against one direct call of the platform, with upstreams that are 20 ms away.

use futures_util::future::try_join;
use reqwest::{Client, StatusCode};

use super::figure::{Figure, Unit};
use super::sample::Sample;
use super::warm::{Scene, Warm};
use crate::fault_injector::Fault;
use crate::{Result, clock, http};

const AWAY_MS: u64 = 20;
const ROUNDS: usize = 100;
const WARM_UP: usize = 5;

/// The functions' client does what ours does here: one request on a connection that is open.
struct Direct {
    client: Client,
    url: String,
    token: String,
}

impl Direct {
    async fn new(scene: &Scene) -> Result<Self> {
        let settings = scene.app.settings(&scene.waiting).await;
        let token = settings["wppJwtToken"].as_str().ok_or("the number has no token")?.to_owned();
        let url = format!("{}/api/accounts/{}/qr", scene.app.platform.url(), scene.waiting.session);
        Ok(Self { client: http::client()?, url, token })
    }

    async fn call(&self) -> Result<()> {
        let answer = self.client.get(&self.url).bearer_auth(&self.token).send().await?;
        let status = answer.status();
        answer.bytes().await?;
        if status == StatusCode::OK { Ok(()) } else { Err(format!("the platform answered {status}").into()) }
    }
}

/// The waits, one after the other in each round.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let app = &scene.app;
    app.inject("*", Fault::Delay { ms: AWAY_MS });
    app.supabase.faults.inject("*", Fault::Delay { ms: AWAY_MS });
    let direct = Direct::new(scene).await?;
    let ask = async |poll: Warm| poll.ask(app.sandbox(poll.function()), scene).await.map(drop);
    let (mut one_call, mut qr, mut status, mut panel) =
        (Sample::default(), Sample::default(), Sample::default(), Sample::default());
    for round in 0..WARM_UP + ROUNDS {
        let waits = [
            (&mut one_call, timed(direct.call()).await?),
            (&mut qr, timed(ask(Warm::Qr)).await?),
            (&mut status, timed(ask(Warm::StatusWithQr)).await?),
            (&mut panel, timed(try_join(ask(Warm::Qr), ask(Warm::StatusWithQr))).await?),
        ];
        if round >= WARM_UP {
            waits.into_iter().for_each(|(sample, wait)| sample.push(wait));
        }
    }
    app.clear_faults();
    let figure = |name: &str, sample: &Sample| {
        let what = format!("{name}, p50 against one direct platform call");
        let note = format!("{sample:.1} ms against {one_call:.1} ms, {ROUNDS} rounds");
        Figure::new(what, Unit::Ratio, sample.against(&one_call).median()).note(note)
    };
    Ok(vec![
        figure("wpp-qr", &qr).at_most(1.15),
        figure("wpp-status with QR", &status),
        figure("panel poll (both at once)", &panel),
    ])
}

/// How long something takes, in milliseconds.
pub(super) async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<f64> {
    let began = clock::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}
