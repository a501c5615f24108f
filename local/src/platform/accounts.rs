//! The fake platform's clients, API keys, tokens and sessions, and the rules by which it answers.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::behavior::{AcceptedTokens, Behavior, FieldValue, QrForm, RepeatedCreate};
use super::session::Session;
use crate::clock::unix_ms;
use crate::users::sign_hs256;

/// A PNG of one white dot. Decoders ignore what follows the image, so the pairing text is appended: it makes each QR unique.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\
    \0\0\0\nIDATx\xdac\xf8\x0f\0\x01\x01\x01\0\x1c\xb0\x8c\x99\0\0\0\0IEND\xaeB`\x82";

/// A refusal of the platform: the HTTP status, and the text of `error`.
pub type Refusal = (u16, &'static str);

const INVALID_KEY: Refusal = (403, "Invalid API key");
const INVALID_TOKEN: Refusal = (401, "Invalid token");
const NO_SESSION: Refusal = (404, "Session not found");
const WRONG_SESSION: Refusal = (403, "The token is for another session");
pub(super) const NO_QR: Refusal = (409, "The session shows no QR");

/// The platform's state. `make dev` keeps it in `platform.json`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Accounts {
    #[serde(skip)]
    pub behavior: Behavior,
    /// How many calls of `create` succeeded.
    pub creates: u64,
    /// How far the platform's clock is ahead of the machine's.
    pub clock_offset_ms: i64,
    /// Signs its tokens.
    jwt_secret: String,
    pub sessions_by_platform_id: BTreeMap<String, String>,
    pub sessions: BTreeMap<String, Session>,
    pub keys: BTreeMap<String, Key>,
    pub tokens: Vec<Token>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Key {
    session: String,
    refusals_left: u32,
    pub revoked: bool,
    pub tokens_issued: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Token {
    pub text: String,
    key: String,
    pub session: String,
    pub expires_ms: i64,
}

impl Accounts {
    /// Returns a platform without clients.
    pub fn new(behavior: Behavior) -> Self {
        Self { behavior, jwt_secret: random_hex(), ..Self::default() }
    }

    pub fn now_ms(&self) -> i64 {
        unix_ms() + self.clock_offset_ms
    }

    /// Answers `POST /api/integrations/wpp/create`.
    pub fn create(&mut self, platform_id: &str) -> Result<Value, Refusal> {
        self.creates += 1;
        let is_new_client = self.behavior.repeated_create == RepeatedCreate::NewClient;
        let suffix = if is_new_client { self.creates.to_string() } else { String::new() };
        let id = session_for(&format!("{platform_id}{suffix}"));
        self.sessions_by_platform_id.insert(platform_id.to_owned(), id.clone());
        let old = self.sessions.get(&id).map(|session| session.key.clone());
        if old.as_ref().is_none_or(|old| self.needs_new_key(old)) {
            old.iter().for_each(|old| self.revoke_key(old));
            let key = format!("wpp_key_{}", random_hex());
            let refusals_left = self.behavior.activate_after;
            self.keys.insert(key.clone(), Key { session: id.clone(), refusals_left, ..Key::default() });
            self.sessions.entry(id.clone()).or_default().key = key;
        }
        let session = self.sessions.get_mut(&id).ok_or(NO_SESSION)?;
        session.forgotten = false;
        let mut answer = json!({"apiKey": session.key, "session": id});
        let status = session.status();
        self.behavior.create_status.put(&mut answer, "status", status.into());
        Ok(answer)
    }

    fn needs_new_key(&self, key: &str) -> bool {
        self.behavior.repeated_create == RepeatedCreate::NewKey
            || self.keys.get(key).is_some_and(|key| key.revoked)
    }

    pub fn revoke_key(&mut self, key: &str) {
        self.keys.entry(key.to_owned()).or_default().revoked = true;
    }

    /// Revokes the session's API key and all its tokens.
    pub fn revoke_session(&mut self, id: &str) -> Result<(), Refusal> {
        let key = self.session(id)?.key.clone();
        self.tokens.retain(|token| token.key != key);
        self.revoke_key(&key);
        Ok(())
    }

    /// Answers `POST /auth/token`.
    pub fn issue_token(&mut self, api_key: &str) -> Result<Value, Refusal> {
        let key = self.keys.get_mut(api_key).filter(|key| !key.revoked).ok_or(INVALID_KEY)?;
        if key.refusals_left > 0 {
            key.refusals_left -= 1;
            return Err(INVALID_KEY);
        }
        key.tokens_issued += 1;
        let session = key.session.clone();
        let (now_s, lifetime_s) = (self.now_ms() / 1000, self.behavior.token_lifetime_s);
        let text = if self.behavior.opaque_tokens {
            random_hex()
        } else {
            let (iat, exp) = (now_s, now_s + lifetime_s);
            sign_hs256(
                &self.jwt_secret,
                &json!({"sub": session, "iat": iat, "exp": exp, "jti": random_hex()}),
            )
        };
        if self.behavior.accepted_tokens == AcceptedTokens::Newest {
            self.tokens.retain(|token| token.key != api_key);
        }
        let mut answer = json!({"token": text});
        self.behavior.expires_in.put(&mut answer, "expiresIn", lifetime_s.into());
        let expires_ms = (now_s + lifetime_s) * 1000;
        self.tokens.push(Token { text, key: api_key.to_owned(), session, expires_ms });
        Ok(answer)
    }

    /// Answers `GET /api/accounts/{number}/status`.
    pub fn status(&mut self, token: &str, id: &str) -> Result<Value, Refusal> {
        let now_ms = self.now_ms();
        let word = self.authorize(token, id)?.status().to_owned();
        self.authorize(token, id)?.count_poll(now_ms);
        Ok(json!({"status": word}))
    }

    /// Answers `GET /api/accounts/{number}/qr`.
    pub fn qr(&mut self, token: &str, id: &str) -> Result<Value, Refusal> {
        let now_ms = self.now_ms();
        self.authorize(token, id)?;
        let qr = self.qr_of(id);
        self.authorize(token, id)?.count_poll(now_ms);
        Ok(json!({"qr": qr}))
    }

    /// Answers `POST /api/accounts/start`.
    pub fn start(&mut self, token: &str, id: &str) -> Result<Value, Refusal> {
        let (polls_until_qr, ms_until_qr) = (self.behavior.polls_until_qr, self.behavior.ms_until_qr);
        let now_ms = self.now_ms();
        Ok(json!({"status": self.authorize(token, id)?.start(polls_until_qr, ms_until_qr, now_ms)}))
    }

    /// Answers `POST /internal/session/{session}/webhook`.
    pub fn set_webhook(&mut self, token: &str, id: &str, url: &str) -> Result<(), Refusal> {
        self.authorize(token, id)?.webhook = Some(url.to_owned());
        Ok(())
    }

    /// Answers `POST /internal/session/{session}/stop`.
    pub fn stop(&mut self, token: &str, id: &str) -> Result<(), Refusal> {
        self.authorize(token, id)?.stop();
        Ok(())
    }

    fn authorize(&mut self, token: &str, id: &str) -> Result<&mut Session, Refusal> {
        let now_ms = self.now_ms();
        let known = self.tokens.iter().find(|known| known.text == token && known.expires_ms > now_ms);
        let is_of_session = known.ok_or(INVALID_TOKEN)?.session == id;
        let session = self.session(id)?;
        session.show_qr_if_due(now_ms);
        if is_of_session { Ok(session) } else { Err(WRONG_SESSION) }
    }

    pub fn session(&mut self, id: &str) -> Result<&mut Session, Refusal> {
        let known = self.sessions.get_mut(id);
        known.filter(|session| !session.forgotten).ok_or(NO_SESSION)
    }

    /// Returns the QR that a session shows now.
    pub fn qr_of(&self, id: &str) -> Option<String> {
        let turn = self.sessions.get(id)?.qr_turn(self.now_ms())?;
        let part = |name| STANDARD.encode(digest(&SHA256, format!("{name}/{id}/{turn}").as_bytes()));
        let text = format!("2@{},{},{},1", part("reference"), part("noise key"), part("identity key"));
        let png = || STANDARD.encode([PNG, text.as_bytes()].concat());
        Some(match self.behavior.qr_form {
            QrForm::DataUrl => format!("data:image/png;base64,{}", png()),
            QrForm::Base64 => png(),
            QrForm::Text => text,
        })
    }
}

/// Returns the session that a platform id is given: thirteen digits, including leading zeros.
pub fn session_for(platform_id: &str) -> String {
    let hash = digest(&SHA256, platform_id.as_bytes());
    let number = hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    format!("00{:011}", number % 100_000_000_000)
}

/// Returns 32 random hexadecimal digits. They can be predicted, which is good enough for a fake platform.
fn random_hex() -> String {
    format!("{:032x}", fastrand::u128(..))
}

impl FieldValue {
    fn put(&self, answer: &mut Value, field: &str, truth: Value) {
        match self {
            Self::Truth => answer[field] = truth,
            Self::Nothing => {}
            Self::This(value) => answer[field] = value.clone(),
        }
    }
}
