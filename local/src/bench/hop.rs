//! A warm poll against one direct call of the platform, with upstreams that are 20 ms away.

use futures_util::future::try_join;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::json;

use super::figure::{Figure, Unit};
use super::sample::Sample;
use super::warm::{Scene, Warm};
use crate::fault_injector::Fault;
use crate::{Result, clock, http};

const AWAY_MS: u64 = 20;
const ROUNDS: usize = 100;
const WARM_UP: usize = 5;

/// What a poll needs of its upstreams, asked for by one client on connections that are open.
struct Direct {
    platform: RequestBuilder,
    database: RequestBuilder,
}

impl Direct {
    async fn new(scene: &Scene) -> Result<Self> {
        let settings = scene.app.settings(&scene.waiting).await;
        let token = settings["wppJwtToken"].as_str().ok_or("the number has no token")?.to_owned();
        let (app, session, client) = (&scene.app, &scene.waiting.session, http::client()?);
        let qr = format!("{}/api/accounts/{session}/qr", app.platform.url());
        let find = format!("{}/rest/v1/rpc/wpp_find_number", app.supabase.url());
        let named = json!({"p_user_id": app.school.user, "p_session": session}).to_string();
        let database = client.post(find).header("apikey", app.keys.secret_key()).body(named);
        Ok(Self {
            platform: client.get(qr).bearer_auth(token),
            database: database.header("content-type", "application/json"),
        })
    }

    async fn platform(&self) -> Result<()> {
        answered(&self.platform).await
    }

    /// Makes both calls side by side. No poll can be quicker.
    async fn both(&self) -> Result<()> {
        try_join(self.platform(), answered(&self.database)).await.map(drop)
    }
}

async fn answered(request: &RequestBuilder) -> Result<()> {
    let request = request.try_clone().ok_or("a request that cannot be repeated")?;
    let answer = request.send().await?;
    let status = answer.status();
    answer.bytes().await?;
    if status == StatusCode::OK { Ok(()) } else { Err(format!("answered {status}").into()) }
}

/// Measures the waits, one after the other in each round.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let app = &scene.app;
    app.inject("*", Fault::Delay { ms: AWAY_MS });
    app.supabase.faults.inject("*", Fault::Delay { ms: AWAY_MS });
    let direct = Direct::new(scene).await?;
    let ask = async |poll: Warm| poll.ask(app.sandbox(poll.function()), scene).await.map(drop);
    let [mut one_call, mut both, mut qr, mut status, mut panel] = [(); 5].map(|()| Sample::default());
    for round in 0..WARM_UP + ROUNDS {
        let waits = [
            (&mut one_call, timed(direct.platform()).await?),
            (&mut both, timed(direct.both()).await?),
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
    let ours = format!("{qr:.1} ms against {both:.1} ms, {ROUNDS} rounds");
    let what = "wpp-qr, p50 against a direct call of each upstream, side by side";
    Ok(vec![
        figure("wpp-qr", &qr).at_most(1.15),
        Figure::new(what, Unit::Ratio, qr.against(&both).median()).note(ours),
        figure("wpp-status with QR", &status),
        figure("panel poll (both at once)", &panel),
    ])
}

/// Measures how long something takes, in milliseconds.
pub(super) async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<f64> {
    let began = clock::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}
