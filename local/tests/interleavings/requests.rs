//! Simultaneous requests with the functions' own client. At random moments, the other functions write, tokens expire, keys are
//! replaced, and the platform and the database fail or lose their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use local::fault_injector::Fault;
use local::platform::{AcceptedTokens, RepeatedCreate};
use local::stack::Organization;
use local::test_app::{Number, TestApp, environment};
use proptest::prelude::*;
use serde_json::json;
use shared::clock::UnixMs;
use shared::deadline::Deadline;
use shared::error::Error;
use shared::number::creation::ensure_credentials;
use shared::number::session::NumberSession;
use shared::secrets::NeededSecrets;
use shared::store::{CreateMode, NumberSelector};
use shared::wpp::Status;
use shared::{App, Function};
use tokio::runtime::Runtime;

use crate::replayable;

/// Fewer than the requests, so that some requests share a sandbox.
const SANDBOXES: usize = 3;

#[derive(Clone, Debug)]
struct Case {
    newest_token_only: bool,
    waves: Vec<Wave>,
}

/// What happens at the same time.
#[derive(Clone, Debug)]
struct Wave {
    token: TokenIs,
    requests: usize,
    writes: usize,
    recreate: bool,
    mishaps: Vec<(&'static str, Fault, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenIs {
    Good,
    Due,
    Expired,
    Forgotten,
    Gone,
}

fn waves() -> impl Strategy<Value = Case> {
    let token = prop::sample::select(vec![
        TokenIs::Good,
        TokenIs::Due,
        TokenIs::Expired,
        TokenIs::Forgotten,
        TokenIs::Gone,
    ]);
    let endpoint = prop::sample::select(vec![
        "token",
        "status",
        "rpc/wpp_claim_refresh",
        "rpc/wpp_save_token",
        "rpc/wpp_release_refresh",
    ]);
    let fault = prop::sample::select(vec![
        Fault::status(500),
        Fault::status(401),
        Fault::Html,
        Fault::Drop,
        Fault::LostAnswer,
    ]);
    let mishaps = prop::collection::vec((endpoint, fault, 1..4_u32), 0..3);
    let wave = (token, 1..6_usize, 0..4_usize, prop::bool::weighted(0.15), mishaps).prop_map(
        |(token, requests, writes, recreate, mishaps)| Wave { token, requests, writes, recreate, mishaps },
    );
    (any::<bool>(), prop::collection::vec(wave, 1..4))
        .prop_map(|(newest_token_only, waves)| Case { newest_token_only, waves })
}

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(25))
}

/// An organization with its own number.
struct Tenant<'a> {
    app: &'a TestApp,
    sandboxes: &'a [Arc<App>],
    school: Organization,
    number: Number,
    newest_token_only: bool,
    written: usize,
}

impl Tenant<'_> {
    async fn play(&mut self, wave: &Wave) {
        self.prepare(wave).await;
        let calm = wave.mishaps.is_empty() && !wave.recreate;
        let requests = join_all((0..wave.requests).map(|nth| self.request(nth)));
        let writes = async {
            for write in self.written..self.written + wave.writes {
                self.app.merge(&self.number, json!({format!("write{write}"): write})).await;
            }
        };
        let recreation = async {
            if wave.recreate {
                self.recreate().await.unwrap();
            }
        };
        let work = async { tokio::join!(requests, writes, recreation).0 };
        let answers = tokio::select! {
            answers = work => answers,
            never = self.hurry(), if !calm => never,
        };
        self.written += wave.writes;

        let tokens = self.app.count("token");
        if calm {
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            assert!(tokens <= u64::from(wave.token != TokenIs::Good), "{tokens} refreshes");
        }
        self.app.clear_faults();
        self.app.clear_faults();
        self.assert_nothing_is_lost().await;
        self.settle().await;
        self.request(0).await.unwrap();
        self.assert_nothing_is_lost().await;
        let stored = self.app.settings(&self.number).await["wppJwtToken"].as_str().unwrap().to_owned();
        assert!(self.app.platform.tokens_of(&self.number.session).contains(&stored));
    }

    async fn prepare(&self, wave: &Wave) {
        let (app, number) = (self.app, &self.number);
        self.settle().await;
        match wave.token {
            TokenIs::Good => {}
            // Later than any token can expire.
            TokenIs::Due => app.set_token_end(number, 3 * 24 * 3600).await,
            TokenIs::Expired => app.set_token_end(number, -1).await,
            TokenIs::Forgotten => app.platform.forget_tokens(),
            TokenIs::Gone => app.merge(number, json!({"wppJwtToken": null})).await,
        }
        app.forget_calls();
        for (endpoint, fault, times) in &wave.mishaps {
            app.inject_times(endpoint, *times, fault.clone());
        }
    }

    /// Ends leases and cooldowns, and makes the stored token older.
    async fn settle(&self) {
        self.app.end_waits().await;
        let age =
            "update wpp_token_leases set saved_at = now() - interval '1 hour' where integration_id = $1";
        self.app.sql.execute(age, &[&self.number.id]).await.unwrap();
    }

    /// Sends a request through one of the sandboxes.
    async fn request(&self, nth: usize) -> Result<Status, Error> {
        let selector = NumberSelector { session: None, integration_id: Some(self.number.id) };
        let app = &self.sandboxes[nth % self.sandboxes.len()];
        let found = app.store.find(self.school.user, &selector, deadline()).await?;
        let number = found.number.ok_or(Error::NumberNotFound)?;
        NumberSession::open(app, number, found.now, deadline())?.fetch_status().await
    }

    async fn recreate(&self) -> Result<(), Error> {
        let (app, user, mode) = (&self.sandboxes[0], self.school.user, CreateMode::ForceRecreate);
        ensure_credentials(app, user, deadline(), mode, NumberSelector::default()).await.map(drop)
    }

    /// Ends unreleased leases after a fraction of a second instead of eight seconds.
    async fn hurry(&self) -> ! {
        let hurry = "update wpp_token_leases set held_until = held_until - interval '1 second'
                     where integration_id = $1";
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.app.sql.execute(hurry, &[&self.number.id]).await.unwrap();
        }
    }

    async fn assert_nothing_is_lost(&self) {
        let settings = self.app.settings(&self.number).await;
        for write in 0..self.written {
            assert_eq!(settings[format!("write{write}")], write);
        }
        let platform = &self.app.platform;
        let id = self.school.id.to_string();
        assert_eq!(settings["wppApiKey"], json!(platform.key_of(&id)), "the newest key stands");
        assert_eq!(settings["wppAccountNumber"], json!(platform.session_of(&id)));
        if self.newest_token_only {
            return;
        }
        let order = platform.tokens_of(&self.number.session);
        // A token that the platform has forgotten is older than all tokens that it knows.
        let history = "select token from token_history where integration_id = $1 order by at";
        let ages: Vec<_> = self
            .app
            .sql
            .query(history, &[&self.number.id])
            .await
            .unwrap()
            .iter()
            .map(|row| order.iter().position(|token| token == row.get::<_, &str>(0)))
            .collect();
        assert!(ages.is_sorted(), "{ages:?}");
    }
}

/// Records every token that a row ever has.
const HISTORY: &str = "
    create table token_history (at bigint generated always as identity, integration_id uuid, token text);
    create function note_token() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
      if new.settings ->> 'wppJwtToken' is distinct from old.settings ->> 'wppJwtToken'
        and new.settings ->> 'wppJwtToken' is not null then
        insert into public.token_history (integration_id, token) values (new.id, new.settings ->> 'wppJwtToken');
      end if;
      return null;
    end $$;
    create trigger note_token after update on messenger_integrations for each row execute function note_token()";

async fn tenant<'a>(app: &'a TestApp, sandboxes: &'a [Arc<App>], newest_token_only: bool) -> Tenant<'a> {
    app.clear_faults();
    app.platform.behave(|behavior| {
        behavior.accepted_tokens =
            if newest_token_only { AcceptedTokens::Newest } else { AcceptedTokens::Unexpired };
    });
    let school = app.organization("case").await.unwrap();
    let made = app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
    let number = app.number_of(made.text("session")).await;
    Tenant { app, sandboxes, school, number, newest_token_only, written: 0 }
}

#[test]
fn every_interleaving_keeps_the_promises() {
    let runtime = Runtime::new().unwrap();
    let (app, sandboxes) = runtime.block_on(async {
        let app = TestApp::start().await;
        app.sql.batch_execute(HISTORY).await.unwrap();
        app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
        let env: BTreeMap<_, _> = environment(&app.stack, &[]).into_iter().collect();
        let sandbox = async |_| {
            let function =
                Function::read(|name| env.get(name).cloned(), NeededSecrets::SupabaseAndWpp).unwrap();
            function.app(UnixMs(0), Deadline::within(Duration::ZERO)).await.unwrap()
        };
        (app, join_all((0..SANDBOXES).map(sandbox)).await)
    });
    replayable(64, waves(), |case| {
        runtime.block_on(async {
            let mut tenant = tenant(&app, &sandboxes, case.newest_token_only).await;
            for wave in &case.waves {
                tenant.play(wave).await;
            }
        });
    });
}
