use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::error::Error;
use crate::request_log::noted;
use crate::store::{Number, StoreResult, lease_outcome};
use crate::wpp::LeaseOutcome;
use crate::wpp::token::tests::stored_number::{StoreCall, TestStore};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// A database that gives every call the same answer.
#[derive(Clone)]
struct Stubborn {
    answer: fn(u32) -> Value,
    calls: Arc<Mutex<u32>>,
}

impl TokenSource for Stubborn {
    async fn fetch_token(&self, _: &Secret, now: UnixMs, _: Deadline) -> PlatformResult<Token> {
        Ok(Token::issued(Secret::new("fetched"), None, now))
    }
}

impl TestStore for Stubborn {
    async fn ask(&self, _: Uuid, _: StoreCall<'_>, _: Deadline) -> StoreResult<LeaseOutcome> {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        Ok(lease_outcome((self.answer)(*calls)))
    }
}

/// Makes a row with a token that has expired.
fn number(nth: u32) -> Value {
    json!({
        "integration_id": Uuid::nil(), "organization_id": Uuid::nil(), "newly_connected": false, "is_readable": true, "ignored": [],
        "settings": {"wppApiKey": "k", "wppAccountNumber": "4", "wppJwtToken": format!("t{nth}"), "wppJwtExpiresAt": 1},
    })
}

fn changed(nth: u32) -> Value {
    json!({"now_ms": NOW, "outcome": "changed", "number": number(nth)})
}

fn busy(_: u32) -> Value {
    json!({"now_ms": NOW, "outcome": "busy", "wait_ms": 0})
}

fn granted_in_vain(nth: u32) -> Value {
    if nth % 2 == 1 { json!({"now_ms": NOW, "outcome": "granted"}) } else { changed(nth) }
}

#[tokio::test(start_paused = true)]
async fn refresh_ends_for_any_database_answer() {
    for (answer, expected) in [(changed as fn(u32) -> Value, 20), (busy, 20), (granted_in_vain, 13)] {
        let store = Stubborn { answer, calls: Arc::default() };
        let row: Number = serde_json::from_value(number(0)).unwrap();
        let options = row.client_options(NOW).unwrap();
        let mut client = WppMsgClient::new(store.clone(), store, Arc::default(), options);
        let deadline = Deadline::within(Duration::from_secs(25));
        let (ended, notes) = noted(client.get_token(deadline)).await;
        let error = Error::from(ended.unwrap_err());
        assert_eq!(notes.refresh_failure.as_deref(), Some("the token refresh did not end"));
        let public = error.response();
        assert_eq!((public.code, public.retryable), ("database_error", true));
        let calls = *client.store.calls.lock().unwrap();
        assert_eq!(calls, expected);
        assert!(deadline.remaining() > Duration::from_secs(20), "{:?}", deadline.remaining());
    }
}
