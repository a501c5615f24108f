//! The product's other functions, reduced to the rows that they share with ours. Each request is a transaction of its own, with
//! the service key, through the project's gateway. Requests keep the order of the real functions, with their gaps between reading
//! and writing.
//!
//! For tests alone: what cannot be reached here panics. A refusal is an ordinary answer.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails where it stands")]

use reqwest::{Client, Method};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::unix_ms;
use crate::http;
use crate::stack::Stack;

const NUMBERS: &str = "messenger_integrations";
const SESSIONS: &str = "whatsapp_sessions";

/// What is left of a saved token when it is no longer used, in milliseconds.
const MARGIN_MS: i64 = 60_000;

/// How a request of another function failed: its own status, or the status that it was answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

/// The answer of another function.
pub type Outcome<T = ()> = Result<T, Refusal>;

/// What the platform tells of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A phone is linked.
    Connected,
    /// No phone is.
    Disconnected,
}

/// A message half sent: the number was read, and its token renewed if that was due.
#[derive(Clone, Debug)]
pub struct Sending {
    number: Uuid,
    settings: Value,
    renewed: bool,
}

/// The other functions in one stack.
#[derive(Clone, Debug)]
pub struct OtherFunctions {
    client: Client,
    supabase: String,
    service_key: String,
    platform: String,
}

impl OtherFunctions {
    /// Returns the other functions of this stack.
    pub fn of(stack: &Stack) -> Self {
        Self {
            client: http::client().unwrap(),
            supabase: stack.supabase.url(),
            service_key: stack.keys.secret_key().to_owned(),
            platform: stack.platform.url(),
        }
    }

    /// Does what `wpp-disconnect` does: stops the session, deletes the row, notes the session as disconnected. Hides errors of the
    /// platform and of the deletion.
    pub async fn disconnect(&self, organization: Uuid, number: Uuid) -> Outcome {
        let row = self.number(organization, number).await?;
        let account = text(&row["settings"]["wppAccountNumber"]).to_owned();
        if let Some((token, _)) = self.token(&row["settings"]).await {
            let _ = self.post(&format!("/internal/session/{account}/stop"), &token, Value::Null).await;
        }
        let _ = self.delete_row(number).await;
        self.upsert_session(organization, &account, json!({"status": "disconnected"})).await
    }

    /// Does what `messenger-integrations` does to add a row: primary if it is the first of its messenger, by a count of rows.
    pub async fn add(&self, organization: Uuid, provider: &str, settings: Value) -> Outcome<Uuid> {
        let others = self.whatsapp_of(organization, "").await?;
        let row = json!({
            "organization_id": organization, "messenger_type": "whatsapp", "provider": provider, "name": provider,
            "is_active": true, "is_enabled": true, "is_primary": others.is_empty(), "priority": others.len(),
            "webhook_key": Uuid::new_v4(), "settings": settings,
        });
        let made = self.rest(Method::POST, NUMBERS, row).await?;
        Ok(id(&made[0]))
    }

    /// Does what `messenger-integrations` does to delete a row: if it was primary, the oldest remaining row of the messenger becomes
    /// primary.
    pub async fn delete(&self, organization: Uuid, number: Uuid) -> Outcome {
        let row = self.number(organization, number).await?;
        self.delete_row(number).await?;
        if row["is_primary"] == true
            && let Some(oldest) = self.whatsapp_of(organization, "&limit=1").await?.first()
        {
            self.patch(id(oldest), json!({"is_primary": true})).await?;
        }
        Ok(())
    }

    /// Does what `messenger-integrations` does to make a number primary: clears `is_primary` in all rows of the messenger, then sets it
    /// in one.
    pub async fn set_primary(&self, organization: Uuid, number: Uuid) -> Outcome {
        let all = format!("{NUMBERS}?organization_id=eq.{organization}&messenger_type=eq.whatsapp");
        self.rest(Method::PATCH, &all, json!({"is_primary": false})).await?;
        self.patch(number, json!({"is_primary": true})).await
    }

    /// Does what `wpp-send`, `wpp-delete` and `wpp-download` do: they find the primary number, make sure of its token, and use it.
    pub async fn send(&self, organization: Uuid) -> Outcome {
        let sending = self.begin_sending(organization).await?;
        self.finish_sending(sending).await
    }

    /// Does the reading half of [`OtherFunctions::send`]. Fails with 400 if no enabled number is primary, or if that number has no
    /// credentials.
    pub async fn begin_sending(&self, organization: Uuid) -> Outcome<Sending> {
        let rows = self.whatsapp_of(organization, "&is_primary=eq.true&is_enabled=eq.true&limit=1").await?;
        let row = rows.first().ok_or_else(|| refusal(400, "no primary number"))?;
        let mut settings = row["settings"].clone();
        if text(&settings["wppApiKey"]).is_empty() || text(&settings["wppAccountNumber"]).is_empty() {
            return Err(refusal(400, "the primary number has no credentials"));
        }
        let (token, end) = self.token(&settings).await.ok_or_else(|| refusal(502, "no token"))?;
        let renewed = settings["wppJwtToken"] != token;
        if renewed {
            settings["wppJwtToken"] = token.into();
            settings["wppJwtExpiresAt"] = end.into();
        }
        Ok(Sending { number: id(row), settings, renewed })
    }

    /// Does the writing half: writes all of the settings, as they were read, with a new token in them. Then the message is sent: a look
    /// at the session stands for that here.
    pub async fn finish_sending(&self, sending: Sending) -> Outcome {
        let Sending { number, settings, renewed } = sending;
        if renewed {
            self.patch(number, json!({"settings": settings})).await?;
        }
        let path = format!("/api/accounts/{}/status", text(&settings["wppAccountNumber"]));
        let answer = self.platform(Method::GET, &path, text(&settings["wppJwtToken"]), Value::Null).await?;
        if answer["status"] == "connected" { Ok(()) } else { Err(refusal(502, "not connected")) }
    }

    /// Does what `wpp-webhook` does: finds the row by its session alone, of whatever organization, and notes what the platform reports.
    pub async fn report(&self, session: &str, event: Event) -> Outcome {
        let found = format!("{NUMBERS}?settings->>wppAccountNumber=eq.{session}&is_active=eq.true&limit=1");
        let rows = self.rest(Method::GET, &found, Value::Null).await?;
        let row = rows.get(0).ok_or_else(|| refusal(404, "no such session"))?;
        let organization = text(&row["organization_id"]).parse().unwrap();
        match event {
            Event::Connected => {
                self.upsert_session(organization, session, json!({"status": "connected"})).await
            }
            Event::Disconnected => {
                let row = format!("{SESSIONS}?session_name=eq.wpp_{session}");
                let gone = json!({"status": "disconnected", "updated_at": "now"});
                self.rest(Method::PATCH, &row, gone).await.map(drop)
            }
        }
    }

    /// Returns what the settings page lists: all rows of the messenger, active or not, the oldest first.
    pub async fn listed(&self, organization: Uuid) -> Outcome<Vec<Value>> {
        self.whatsapp_of(organization, "").await
    }

    /// Returns the primary ones of them.
    pub async fn primaries(&self, organization: Uuid) -> Vec<Uuid> {
        let rows = self.listed(organization).await.unwrap();
        rows.iter().filter(|row| row["is_primary"] == true).map(id).collect()
    }

    async fn whatsapp_of(&self, organization: Uuid, filter: &str) -> Outcome<Vec<Value>> {
        let all = "messenger_type=eq.whatsapp&order=created_at.asc";
        let found = format!("{NUMBERS}?organization_id=eq.{organization}&{all}{filter}");
        let rows = self.rest(Method::GET, &found, Value::Null).await?;
        Ok(rows.as_array().cloned().unwrap_or_default())
    }

    async fn number(&self, organization: Uuid, number: Uuid) -> Outcome<Value> {
        let mut rows = self.whatsapp_of(organization, &format!("&id=eq.{number}")).await?;
        rows.pop().ok_or_else(|| refusal(404, "no such number"))
    }

    async fn patch(&self, number: Uuid, change: Value) -> Outcome {
        self.rest(Method::PATCH, &format!("{NUMBERS}?id=eq.{number}"), change).await.map(drop)
    }

    async fn delete_row(&self, number: Uuid) -> Outcome {
        self.rest(Method::DELETE, &format!("{NUMBERS}?id=eq.{number}"), Value::Null).await.map(drop)
    }

    async fn upsert_session(&self, organization: Uuid, session: &str, state: Value) -> Outcome {
        let mut row = json!({
            "organization_id": organization, "session_name": format!("wpp_{session}"), "updated_at": "now",
        });
        row.as_object_mut().unwrap().extend(state.as_object().cloned().unwrap_or_default());
        self.rest(Method::POST, &format!("{SESSIONS}?on_conflict=session_name"), row).await.map(drop)
    }

    /// Returns the saved token if it is valid for more than [`MARGIN_MS`], otherwise a new one; with its end.
    async fn token(&self, settings: &Value) -> Option<(String, i64)> {
        let (saved, end) =
            (text(&settings["wppJwtToken"]), settings["wppJwtExpiresAt"].as_i64().unwrap_or(0));
        if !saved.is_empty() && end - MARGIN_MS > unix_ms() {
            return Some((saved.to_owned(), end));
        }
        let answer = self.post("/auth/token", "", json!({"apiKey": settings["wppApiKey"]})).await.ok()?;
        let lifetime_s = answer["expiresIn"].as_i64().unwrap_or(3600);
        Some((answer["token"].as_str()?.to_owned(), unix_ms() + lifetime_s * 1000))
    }

    async fn rest(&self, method: Method, path: &str, body: Value) -> Outcome<Value> {
        let request = self.client.request(method, format!("{}/rest/v1/{path}", self.supabase));
        let prefer = "return=representation,resolution=merge-duplicates";
        answer(request.header("apikey", &self.service_key).header("prefer", prefer), body).await
    }

    async fn post(&self, path: &str, bearer: &str, body: Value) -> Outcome<Value> {
        self.platform(Method::POST, path, bearer, body).await
    }

    async fn platform(&self, method: Method, path: &str, bearer: &str, body: Value) -> Outcome<Value> {
        let request = self.client.request(method, format!("{}{path}", self.platform));
        answer(request.bearer_auth(bearer), body).await
    }
}

async fn answer(request: reqwest::RequestBuilder, body: Value) -> Outcome<Value> {
    let request = match body {
        Value::Null => request,
        body => request.header("content-type", "application/json").body(body.to_string()),
    };
    // A connection that breaks is told as a gateway tells it.
    let Ok(response) = request.send().await else { return Err(refusal(502, "no connection")) };
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() { Ok(body) } else { Err(Refusal { status: status.as_u16(), body }) }
}

fn refusal(status: u16, error: &str) -> Refusal {
    Refusal { status, body: json!({"error": error}) }
}

fn id(row: &Value) -> Uuid {
    text(&row["id"]).parse().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
