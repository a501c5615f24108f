//! Properties of the platform's and PostgREST's answers, over real HTTP.

use reqwest::Url;
use uuid::Uuid;

use super::*;
use crate::clock::UnixMs;
use crate::secret::Secret;
use crate::secrets::ServiceKey;
use crate::store::{Attempt, CreateMode, CreateRequest, NumberSelector, State, Store, TokenRow};
use crate::testing::Server;
use crate::upstream::Upstream;
use crate::wpp::{PlatformError, SessionAuth, SessionState, Token, TokenStore, WppApi, is_session};

/// Generates an answer with this status and any body: bytes, JSON, or an object with the fields that the functions read.
fn answer(names: &'static [&'static str]) -> impl Strategy<Value = (u16, Vec<u8>)> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        value().prop_map(|value| value.to_string().into_bytes()),
        object(names).prop_map(|object| json!(object).to_string().into_bytes()),
    ];
    (prop_oneof![4 => Just(200_u16), 1 => 200_u16..502, 1 => 505_u16..600], body)
}

fn http((status, body): &(u16, Vec<u8>)) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

fn is_kept(text: &str, limit: usize) -> bool {
    (1..=limit).contains(&text.len()) && !text.contains(char::is_control)
}

#[test]
fn fuzz_answers_of_the_platform() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start(""));
    let url = Url::parse(&server.url).unwrap();
    let platform = WppApi::new(url, Upstream::new(Duration::from_secs(20), &[]).unwrap());
    let names =
        &["apiKey", "session", "token", "expiresIn", "status", "state", "qr", "qrCode", "qrcode", "data"];
    check(answer(names), |answer| {
        server.says(http(&answer));
        let (secret, now) = (Secret::new("s"), UnixMs(1_800_000_000_000));
        let auth = || SessionAuth { session: "1".to_owned(), jwt: secret.clone() };
        let good = (200..300).contains(&answer.0);
        runtime.block_on(async {
            if let Ok(given) = platform.create_client(&secret, "id", deadline()).await {
                prop_assert!(good && is_session(&given.session) && is_kept(given.api_key.expose(), 512));
            }
            if let Ok(token) = platform.get_initial_token(&secret, now, deadline()).await {
                prop_assert!(good && is_kept(token.jwt.expose(), 8192) && token.expires_at >= now);
            }
            if let Ok(status) = platform.status(auth(), deadline()).await {
                prop_assert!(good && status.word.chars().count() <= 64);
                let known = matches!(status.word.as_str(), "connected" | "ready");
                prop_assert_eq!(status.state == SessionState::Connected, known);
            }
            let qr = platform.qr(auth(), deadline()).await;
            prop_assert!(qr.is_err() || good || answer.0 == 404 && qr == Ok(None));
            let started = platform.start(auth(), deadline()).await;
            let may_run_already = matches!(answer.0, 400 | 403 | 409 | 422 | 500);
            prop_assert!(started.is_err() || good || may_run_already && started == Ok((None, None)));
            for qr in [qr, started.map(|(_, qr)| qr)].into_iter().flatten().flatten() {
                prop_assert!(is_kept(&qr, 65_536));
            }
            if let Err(error) = platform.set_webhook(auth(), "u", deadline()).await {
                let is_page = str::from_utf8(&answer.1).map_or(true, |text| text.contains('<'));
                let is_bad = !good && error.why != PlatformError::TimedOut || answer.0 == 408;
                prop_assert!(is_bad || is_page && error.why == PlatformError::BadAnswer, "{error}");
            }
            Ok(())
        })
    });
}

#[test]
fn fuzz_answers_of_the_database() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start(""));
    let key = ServiceKey::New(Secret::new("sb_secret_x"));
    let upstream = Upstream::new(Duration::from_secs(20), &[]).unwrap();
    let store = Store::new(&server.url, &key, upstream);
    let row = TokenRow { store: store.clone(), organization_id: Uuid::nil(), integration_id: Uuid::nil() };
    let names = &[
        "now_ms",
        "outcome",
        "number",
        "code",
        "message",
        "organization_id",
        "creation",
        "platform_id",
        "wait_ms",
    ];
    let number = json!({"integration_id": Uuid::nil(), "organization_id": Uuid::nil(), "settings": {"wppApiKey": "k"},
        "newly_connected": false, "is_readable": true, "ignored": [],
        "snapshot": {"status": "qr_issued", "qr": "2@", "qr_at_ms": 1, "at_ms": 1}});
    let good = json!({"now_ms": 1, "organization_id": Uuid::nil(), "number": number, "outcome": "granted"});
    let mutated = mutated(good).prop_map(|value| (200, value.to_string().into_bytes()));
    check(prop_oneof![answer(names), mutated], |answer| {
        server.says(http(&answer));
        let (secret, token) = (Secret::new("s"), Token::stored(Secret::new("t"), None));
        let attempt = Attempt {
            user_id: Uuid::nil(),
            request: CreateRequest {
                mode: CreateMode::Ensure,
                selector: NumberSelector::default(),
                rejected_key: None,
            },
            holder: Uuid::nil(),
            lease_ms: 0,
            waited_for: None,
        };
        runtime.block_on(async {
            let errors = [
                store.find(Uuid::nil(), &NumberSelector::default(), deadline()).await.err(),
                row.claim(Uuid::nil(), None, false, Duration::ZERO, deadline()).await.err(),
                row.save(Uuid::nil(), &token, Some(&secret), None, deadline()).await.err(),
                row.release(Uuid::nil(), "platform", Duration::ZERO, deadline()).await.err(),
                store
                    .save_snapshot(Uuid::nil(), "1", State::QrPending, None, true, UnixMs(1), deadline())
                    .await
                    .err(),
                store.begin_creation(&attempt, deadline()).await.err(),
            ];
            // PostgREST's text may quote a row, so only its short code is kept.
            for error in errors.into_iter().flatten() {
                prop_assert!(error.why.to_string().len() < 60, "{error}");
            }
            Ok(())
        })
    });
}
