//! A token's life, told with the platform client itself: `now` is an argument, so an hour passes in no time.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::App;
use shared::client::{Access, Client, Options};
use shared::clock::UnixMs;
use shared::config::Config;
use shared::deadline::Deadline;
use shared::error::Error;
use shared::secret::Secret;
use shared::store::{Number, Wanted};
use shared::token::Token;
use shared::upstream::Upstream;
use shared::wpp::{Platform, PlatformError, Status};

use local::gate::Fault;
use local::stage::{Line, Stage, environment};

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

async fn status(platform: &Platform, access: Access) -> Result<Status, PlatformError> {
    platform.status(&access.session, &access.jwt, deadline()).await
}

/// A number whose row is read anew for every request, as a function does.
struct Story {
    stage: Stage,
    line: Line,
    app: App,
}

impl Story {
    async fn begin() -> Self {
        let stage = Stage::start().await;
        let line = stage.number().await;
        // A key this old is not one that may still become active.
        stage.settle_keys().await;
        stage.end_waits(&line).await;
        let env: BTreeMap<_, _> = environment(&stage.world, &[]).into_iter().collect();
        let app = App::new(Config::read(|name| env.get(name).cloned(), &[]).unwrap()).unwrap();
        Self { stage, line, app }
    }

    async fn number(&self) -> Number {
        let wanted = Wanted { session: Some(self.line.session.clone()), integration_id: None };
        let found = self.app.store.find(self.stage.school.user, &wanted, deadline()).await.unwrap();
        found.number.unwrap()
    }

    async fn stored(&self) -> Token {
        self.number().await.settings.token().unwrap()
    }

    /// A request when the stored token has `left` seconds to live; with the calls that it made to the platform and
    /// for the right to refresh.
    async fn ask(&self, left: u64) -> (Result<Status, Error>, Value) {
        let number = self.number().await;
        let now = number.settings.token().unwrap().expires_at.minus(Duration::from_secs(left));
        self.stage.forget_calls();
        let answer = self.call(&number, now).await;
        (answer, self.stage.calls())
    }

    async fn call(&self, number: &Number, now: UnixMs) -> Result<Status, Error> {
        let mut client = Client::of_number(&self.app, number).unwrap();
        client.call(now, deadline(), |access| status(&self.app.platform, access)).await
    }

    /// Fifty requests that one sandbox works on at once, their token at its end; with the calls that they made.
    async fn crowd(&self) -> (Vec<Result<Status, Error>>, Value) {
        let number = self.number().await;
        let now = number.settings.token().unwrap().expires_at;
        self.stage.end_waits(&self.line).await;
        self.stage.forget_calls();
        let answers = join_all((0..50).map(|_| self.call(&number, now))).await;
        (answers, self.stage.calls())
    }

    async fn serves(&self, left: u64, calls: Value) {
        let (answer, made) = self.ask(left).await;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(made, calls);
    }

    async fn refuses(&self, left: u64, code: &str, calls: Value) {
        let (answer, made) = self.ask(left).await;
        assert_eq!(answer.unwrap_err().public().code, code);
        assert_eq!(made, calls);
    }
}

#[tokio::test]
async fn the_whole_life_of_a_token() {
    let story = Story::begin().await;
    let (platform, first) = (&story.stage.world.platform, story.stored().await);

    // Fresh.
    story.serves(3600, json!({"status": 1})).await;

    // Soon, and the refresh fails: the request has been served, and nobody tries again so soon.
    platform.gate.inject("token", Fault::status(500));
    let tried = json!({"status": 1, "token": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_fail_refresh": 1});
    story.serves(100, tried.clone()).await;
    story.serves(61, json!({"status": 1})).await;
    story.stage.end_waits(&story.line).await;
    story.serves(61, tried).await;
    assert_eq!(story.stored().await, first);

    // Unusable: the platform is not even asked with it. That an early try has just failed says nothing, since it had
    // little time; whoever comes right after one that had its time hears of that.
    let failed = json!({"token": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_fail_refresh": 1});
    story.refuses(60, "platform_unavailable", failed).await;
    story.refuses(60, "platform_unavailable", json!({"rpc/wpp_claim_refresh": 1})).await;

    // Refreshed.
    platform.gate.clear();
    story.stage.end_waits(&story.line).await;
    let refreshed = json!({"token": 1, "status": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1});
    story.serves(60, refreshed).await;
    let second = story.stored().await;
    assert_ne!(second.jwt, first.jwt);
    story.serves(3600, json!({"status": 1})).await;

    // Rejected while it is fresh, and healed.
    platform.forget_tokens();
    let healed = json!({"token": 1, "status": 2, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1});
    story.serves(3600, healed).await;
    assert_ne!(story.stored().await.jwt, second.jwt);
    story.serves(3600, json!({"status": 1})).await;

    // The key is dead: its last token serves as long as the platform takes it.
    platform.revoke_key(&story.line.key);
    story.serves(3600, json!({"status": 1})).await;
    platform.forget_tokens();
    let dead = json!({"token": 1, "status": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_fail_refresh": 1});
    story.refuses(3600, "api_key_rejected", dead).await;
    story.refuses(3600, "api_key_rejected", json!({"status": 1, "rpc/wpp_claim_refresh": 1})).await;
}

#[tokio::test]
async fn the_requests_of_one_sandbox_fetch_one_token_and_ask_for_the_right_to_it_once() {
    let story = Story::begin().await;
    let (answers, calls) = story.crowd().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let once = json!({"status": 50, "token": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1});
    assert_eq!(calls, once);
}

/// What fails for one fails for those who wait with it: each has its reason, and nobody asks again.
#[tokio::test]
async fn the_requests_of_one_sandbox_share_a_failure() {
    let story = Story::begin().await;
    let gates = [&story.stage.world.platform.gate, &story.stage.world.supabase.gate];
    let failed = json!({"token": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_fail_refresh": 1});
    let served = json!({"status": 50, "token": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1,
        "rpc/wpp_fail_refresh": 1});
    for (gate, endpoint, fault, code, expected) in [
        (gates[0], "token", Fault::status(429), Some("platform_busy"), &failed),
        (gates[0], "token", Fault::status(403), Some("api_key_rejected"), &failed),
        (
            gates[1],
            "rpc/wpp_claim_refresh",
            Fault::status(401),
            Some("database_key_rejected"),
            &json!({"rpc/wpp_claim_refresh": 1}),
        ),
        (gates[1], "rpc/wpp_save_token", Fault::status(401), None, &served),
    ] {
        gate.inject(endpoint, fault);
        let (answers, calls) = story.crowd().await;
        for answer in answers {
            assert_eq!(answer.err().map(|error| error.public().code), code, "{endpoint}");
        }
        assert_eq!(calls, *expected, "{endpoint}");
        gate.clear();
    }
}

/// The client of the plan for whoever has no database: a script, a test.
#[tokio::test]
async fn without_a_database_every_new_token_is_told_once() {
    let story = Story::begin().await;
    let platform = &story.stage.world.platform;
    let stored = story.stored().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    let options = Options {
        base_url: platform.url().parse().unwrap(),
        api_key: Some(Secret::new(story.line.key.clone())),
        session: story.line.session.clone(),
        jwt_token: Some(stored.jwt.clone()),
        jwt_expires_at: Some(stored.expires_at),
        timeout: Duration::from_secs(5),
    };
    let mut client = Client::new(options, Upstream::new().unwrap(), move |token: &Token| {
        listener.lock().unwrap().push(token.clone());
    });
    let told = || told.lock().unwrap().clone();
    let ask = async |client: &mut Client, now| {
        client.call(now, deadline(), |access| status(&story.app.platform, access)).await.unwrap();
    };

    ask(&mut client, stored.expires_at.minus(Duration::from_secs(3600))).await;
    assert_eq!(told(), []);

    ask(&mut client, stored.expires_at).await;
    let [second] = told().try_into().unwrap();
    assert_ne!(second.jwt, stored.jwt);
    assert_eq!(client.get_token(stored.expires_at, deadline()).await.unwrap(), second.jwt);
    assert_eq!(told().len(), 1);

    platform.forget_tokens();
    ask(&mut client, stored.expires_at).await;
    assert_eq!(told().len(), 2);
    assert_eq!(platform.tokens_of(&story.line.session), [told()[1].jwt.expose().to_owned()]);
}

/// Without a key there is only the token at hand; without that, nothing.
#[tokio::test]
async fn without_a_key_the_token_at_hand_serves_until_its_end() {
    let story = Story::begin().await;
    let stored = story.stored().await;
    let options = Options {
        base_url: story.stage.world.platform.url().parse().unwrap(),
        api_key: None,
        session: story.line.session.clone(),
        jwt_token: Some(stored.jwt.clone()),
        jwt_expires_at: None,
        timeout: Duration::from_secs(5),
    };
    let mut client = Client::new(options, Upstream::new().unwrap(), |_: &Token| {});
    let exp = UnixMs(stored.expires_at.0);
    let before = exp.minus(Duration::from_secs(600));
    assert_eq!(client.get_token(before, deadline()).await.unwrap(), stored.jwt);
    assert!(matches!(client.get_token(exp, deadline()).await, Err(Error::ApiKeyRejected)));
}
