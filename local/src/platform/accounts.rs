//! What the platform knows of its clients, keys, tokens and sessions; and its rules.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::behavior::{AcceptedTokens, Behavior, FieldValue, QrField, QrForm, RepeatedCreate, StartAnswer};
use super::key_factory::{KeyFactory, random_hex};
use super::session::Session;
use crate::clock::unix_ms;

/// A PNG of one white dot. Readers stop at its end, so a pairing text may follow and tell one QR from another.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\
    \0\0\0\nIDATx\xdac\xf8\x0f\0\x01\x01\x01\0\x1c\xb0\x8c\x99\0\0\0\0IEND\xaeB`\x82";

/// Why the platform does not do what it is asked: an HTTP status and its `error`.
pub(super) type Refused = (u16, &'static str);

const INVALID_KEY: Refused = (403, "Invalid API key");
const INVALID_TOKEN: Refused = (401, "Invalid token");
const NO_SESSION: Refused = (404, "Session not found");
const STRANGE_SESSION: Refused = (403, "The token is for another session");
const NOT_STARTED: Refused = (409, "The session is not started");
const NO_QR: Refused = (409, "The session shows no QR");

/// The platform's memory.
pub(super) struct Accounts {
    pub behavior: Behavior,
    /// Creates that were carried out.
    pub creates: u64,
    key_factory: KeyFactory,
    /// Milliseconds by which the platform's clock is ahead of the machine's.
    ahead_ms: i64,
    /// Takes what the key_factory could have made for what it made before a restart.
    remembers: bool,
    remembers_tokens: bool,
    sessions_by_organization: BTreeMap<String, String>,
    sessions: BTreeMap<String, Session>,
    keys: BTreeMap<String, Key>,
    tokens: Vec<Token>,
}

#[derive(Default)]
struct Key {
    session: String,
    refusals_left: u32,
    revoked: bool,
    tokens_issued: u64,
}

struct Token {
    text: String,
    key: String,
    session: String,
    expires_ms: i64,
}

impl Accounts {
    pub fn new(behavior: Behavior, key_factory: KeyFactory, remembers: bool) -> Self {
        Self {
            behavior,
            creates: 0,
            key_factory,
            ahead_ms: 0,
            remembers,
            remembers_tokens: remembers,
            sessions_by_organization: BTreeMap::new(),
            sessions: BTreeMap::new(),
            keys: BTreeMap::new(),
            tokens: Vec::new(),
        }
    }

    /// `POST /api/integrations/wpp/create`
    pub fn create(&mut self, organization_id: &str) -> Result<Value, Refused> {
        self.creates += 1;
        let id = self.key_factory.session(organization_id);
        self.sessions_by_organization.insert(organization_id.to_owned(), id.clone());
        match self.sessions.get(&id) {
            None => self.give_key(&id, 0, self.behavior.activate_after),
            Some(session) if self.needs_new_key(session) => {
                let (old, generation) = (session.key.clone(), session.generation.wrapping_add(1));
                self.revoke_key(&old);
                self.give_key(&id, generation, self.behavior.activate_after);
            }
            Some(_) => {}
        }
        let case = self.behavior.status_case;
        let session = self.sessions.get_mut(&id).ok_or(NO_SESSION)?;
        session.forgotten = false;
        let mut answer = json!({"apiKey": session.key, "session": id});
        let status = case.write(session.status());
        self.behavior.create_status.put(&mut answer, "status", status.into());
        Ok(answer)
    }

    fn needs_new_key(&self, session: &Session) -> bool {
        let revoked = self.keys.get(&session.key).is_some_and(|key| key.revoked);
        revoked || self.behavior.repeated_create == RepeatedCreate::NewKey
    }

    /// Makes a key for a session, and the session if need be.
    fn give_key(&mut self, id: &str, generation: u8, refusals_left: u32) {
        let text = self.key_factory.key(id, generation);
        let key = Key { session: id.to_owned(), refusals_left, ..Key::default() };
        self.keys.insert(text.clone(), key);
        self.sessions
            .entry(id.to_owned())
            .and_modify(|session| {
                session.key.clone_from(&text);
                session.generation = generation;
            })
            .or_insert_with(|| Session::offline(text, generation));
    }

    /// `POST /auth/token`
    pub fn issue_token(&mut self, api_key: &str) -> Result<Value, Refused> {
        self.recall_key(api_key);
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
            self.key_factory.token(&session, now_s, lifetime_s)
        };
        if self.behavior.accepted_tokens == AcceptedTokens::Newest {
            self.tokens.retain(|token| token.key != api_key);
        }
        let mut answer = json!({"token": text});
        self.behavior.expires_in.put(&mut answer, "expiresIn", lifetime_s.into());
        self.tokens.push(Token {
            text,
            key: api_key.to_owned(),
            session,
            expires_ms: (now_s + lifetime_s) * 1000,
        });
        Ok(answer)
    }

    /// `GET /api/accounts/{number}/status`
    pub fn look_at_status(&mut self, token: &str, id: &str) -> Result<Value, Refused> {
        let (case, now_ms) = (self.behavior.status_case, self.now_ms());
        let session = self.authorised(token, id)?;
        let status = case.write(session.status());
        session.looked(now_ms);
        Ok(json!({"status": status}))
    }

    /// `GET /api/accounts/{number}/qr`
    pub fn look_at_qr(&mut self, token: &str, id: &str) -> Result<Value, Refused> {
        let now_ms = self.now_ms();
        self.authorised(token, id)?;
        let mut answer = json!({});
        self.put_qr(&mut answer, id);
        self.authorised(token, id)?.looked(now_ms);
        Ok(answer)
    }

    /// `POST /api/accounts/start`
    pub fn start(&mut self, token: &str, id: &str) -> Result<Value, Refused> {
        let (looks_until_qr, now_ms) = (self.behavior.looks_until_qr, self.now_ms());
        let word = self.authorised(token, id)?.start(looks_until_qr, now_ms);
        let start_answer = self.behavior.start_answer;
        let word = match start_answer {
            StartAnswer::Word(other) if word == "starting" => other,
            _ => word,
        };
        let word = self.behavior.status_case.write(word);
        let mut answer = match start_answer {
            StartAnswer::State => json!({"state": word}),
            StartAnswer::QrAlone => json!({}),
            _ => json!({"status": word}),
        };
        if matches!(start_answer, StartAnswer::Qr | StartAnswer::QrAlone) {
            self.put_qr(&mut answer, id);
        }
        Ok(answer)
    }

    /// `POST /internal/session/{session}/webhook`
    pub fn set_webhook(&mut self, token: &str, id: &str, url: &str) -> Result<(), Refused> {
        let needs_start = self.behavior.webhook_needs_start;
        let session = self.authorised(token, id)?;
        if needs_start && session.is_offline() {
            return Err(NOT_STARTED);
        }
        session.webhook = Some(url.to_owned());
        Ok(())
    }

    /// `POST /internal/session/{session}/stop`
    pub fn stop(&mut self, token: &str, id: &str) -> Result<(), Refused> {
        self.authorised(token, id)?.stop();
        Ok(())
    }

    fn authorised(&mut self, token: &str, id: &str) -> Result<&mut Session, Refused> {
        let now_ms = self.now_ms();
        let known = self.tokens.iter().find(|known| known.text == token);
        let (session, expires_ms) = known
            .map(|known| (known.session.clone(), known.expires_ms))
            .or_else(|| self.recall_token(token))
            .ok_or(INVALID_TOKEN)?;
        if expires_ms <= now_ms {
            return Err(INVALID_TOKEN);
        }
        let wanted = self.session(id)?;
        if session == id { Ok(wanted) } else { Err(STRANGE_SESSION) }
    }

    fn session(&mut self, id: &str) -> Result<&mut Session, Refused> {
        let known = self.sessions.get_mut(id);
        known.filter(|session| !session.forgotten).ok_or(NO_SESSION)
    }

    /// Takes a key of before a restart for good. One older than the session's key was dead even then.
    fn recall_key(&mut self, api_key: &str) {
        let recalled = self.key_factory.read_key(api_key).filter(|_| self.remembers);
        let Some((id, generation)) = recalled.filter(|_| !self.keys.contains_key(api_key)) else {
            return;
        };
        self.recall_session(&id);
        if self.sessions.get(&id).is_some_and(|session| session.generation <= generation) {
            self.give_key(&id, generation, 0);
        }
    }

    /// The session and the expiry (Unix milliseconds) of a token of before a restart.
    fn recall_token(&mut self, token: &str) -> Option<(String, i64)> {
        let claims = self.key_factory.read_token(token).filter(|_| self.remembers_tokens)?;
        if self.key_factory.made_in_this_run(&claims) {
            return None;
        }
        self.recall_session(&claims.sub);
        Some((claims.sub, claims.exp * 1000))
    }

    /// Takes a session that was made before a restart as linked: whether it was, only the phone knows.
    fn recall_session(&mut self, id: &str) {
        if self.key_factory.made_session(id) && !self.sessions.contains_key(id) {
            self.give_key(id, 0, 0);
            self.sessions.entry(id.to_owned()).and_modify(Session::link);
        }
    }

    fn put_qr(&self, answer: &mut Value, id: &str) {
        let qr = self.qr_of(id);
        if qr.is_none() && self.behavior.omit_unready_qr {
            return;
        }
        match self.behavior.qr_field {
            QrField::Qr => answer["qr"] = json!(qr),
            QrField::CamelCode => answer["qrCode"] = json!(qr),
            QrField::LowerCode => answer["qrcode"] = json!(qr),
            QrField::Nested => answer["data"] = json!({"qr": qr}),
        }
    }
}

/// What only a test sees or does, or a person at the control plane.
impl Accounts {
    pub fn now_ms(&self) -> i64 {
        unix_ms() + self.ahead_ms
    }

    pub fn advance(&mut self, by: Duration) {
        self.ahead_ms += i64::try_from(by.as_millis()).unwrap_or_default();
    }

    pub fn scan(&mut self, id: &str) -> Result<(), Refused> {
        if self.session(id)?.scan() { Ok(()) } else { Err(NO_QR) }
    }

    pub fn set_status(&mut self, id: &str, word: &str) -> Result<(), Refused> {
        let now_ms = self.now_ms();
        self.session(id)?.set_status(word, now_ms);
        Ok(())
    }

    pub fn forget_session(&mut self, id: &str) {
        self.sessions.entry(id.to_owned()).and_modify(Session::forget);
    }

    pub fn forget_tokens(&mut self) {
        self.tokens.clear();
        self.remembers_tokens = false;
    }

    pub fn revoke_key(&mut self, api_key: &str) {
        self.recall_key(api_key);
        self.keys.entry(api_key.to_owned()).or_default().revoked = true;
    }

    pub fn clients(&self) -> usize {
        self.sessions_by_organization.len()
    }

    pub fn session_of(&self, organization_id: &str) -> Option<String> {
        self.sessions_by_organization.get(organization_id).cloned()
    }

    pub fn key_of(&self, organization_id: &str) -> Option<String> {
        let session = self.sessions_by_organization.get(organization_id)?;
        self.sessions.get(session).map(|session| session.key.clone())
    }

    pub fn status_of(&self, id: &str) -> Option<String> {
        let session = self.sessions.get(id).filter(|session| !session.forgotten)?;
        Some(session.status().to_owned())
    }

    pub fn qr_of(&self, id: &str) -> Option<String> {
        let turn = self.sessions.get(id)?.qr_turn(self.now_ms())?;
        let text = self.key_factory.pairing_text(id, turn);
        let png = || STANDARD.encode([PNG, text.as_bytes()].concat());
        Some(match self.behavior.qr_form {
            QrForm::Text => text,
            QrForm::DataUrl => format!("data:image/png;base64,{}", png()),
            QrForm::Base64 => png(),
        })
    }

    pub fn webhook_of(&self, id: &str) -> Option<String> {
        self.sessions.get(id)?.webhook.clone()
    }

    pub fn tokens_issued(&self, api_key: &str) -> u64 {
        self.keys.get(api_key).map_or(0, |key| key.tokens_issued)
    }

    pub fn tokens_of(&self, id: &str) -> Vec<String> {
        let now_ms = self.now_ms();
        let accepted = self.tokens.iter().filter(|token| token.session == id && token.expires_ms > now_ms);
        accepted.map(|token| token.text.clone()).collect()
    }
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
