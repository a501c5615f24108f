//! The names and proofs that the platform gives out, all made from one secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;

const KEY_PREFIX: &str = "wpp_key_";

/// Digits of a session, the leading zeros included.
const SESSION_DIGITS: usize = 13;

/// Hexadecimal digits of a key that prove it ours.
const PROOF_DIGITS: usize = 17;

/// A JWT's header is the same for all: `{"alg":"HS256","typ":"JWT"}`.
const JWT_HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Makes sessions, API keys, tokens and pairing texts, and recognises its own without having kept them.
pub(super) struct KeyFactory {
    root: hmac::Key,
    /// Begins the `jti` of the tokens of this run.
    run: String,
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The session.
    pub sub: String,
    /// Unix time in seconds.
    pub iat: i64,
    /// Unix time in seconds.
    pub exp: i64,
    /// Different in every token.
    pub jti: String,
}

impl KeyFactory {
    /// A key_factory that makes the same things from the same secret.
    pub fn from_secret(secret: &str) -> Self {
        let root = digest(&SHA256, secret.as_bytes());
        Self { root: hmac::Key::new(hmac::HMAC_SHA256, root.as_ref()), run: random_hex() }
    }

    /// A key_factory like no other.
    pub fn random() -> Self {
        Self::from_secret(&random_hex())
    }

    /// The organisation's session: leading zeros, nine digits of its own, two that prove them ours.
    pub fn session(&self, organization_id: &str) -> String {
        let number = self.number("session", organization_id) % 1_000_000_000;
        format!("00{number:09}{}", self.check_digits(number))
    }

    /// Whether this factory made the session.
    pub fn made_session(&self, session: &str) -> bool {
        let digits = session.len() == SESSION_DIGITS && session.bytes().all(|byte| byte.is_ascii_digit());
        let Some((number, check)) = session.split_at_checked(SESSION_DIGITS - 2) else {
            return false;
        };
        digits && number.parse().is_ok_and(|number| self.check_digits(number) == check)
    }

    /// The session's key number `generation`.
    pub fn key(&self, session: &str, generation: u8) -> String {
        let proof = hex(self.sign("key", &format!("{session}/{generation}")).as_ref());
        format!("{KEY_PREFIX}{session}{generation:02x}{}", &proof[..PROOF_DIGITS])
    }

    /// The session and the generation of a key that this factory made.
    pub fn read_key(&self, key: &str) -> Option<(String, u8)> {
        let (session, rest) = key.strip_prefix(KEY_PREFIX)?.split_at_checked(SESSION_DIGITS)?;
        let generation = u8::from_str_radix(rest.get(..2)?, 16).ok()?;
        (self.key(session, generation) == key && self.made_session(session))
            .then(|| (session.to_owned(), generation))
    }

    /// A JWT for the session, good from `now_s` for so many seconds.
    pub fn token(&self, session: &str, now_s: i64, lifetime_s: i64) -> String {
        let claims = json!(Claims {
            sub: session.to_owned(),
            iat: now_s,
            exp: now_s + lifetime_s,
            jti: format!("{}-{}", self.run, random_hex()),
        });
        let signed = format!("{JWT_HEADER}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.sign("jwt", &signed));
        format!("{signed}.{signature}")
    }

    /// What a token that this key_factory signed says.
    pub fn read_token(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, claims) = signed.split_once('.')?;
        if URL_SAFE_NO_PAD.encode(self.sign("jwt", signed)) != signature {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// Whether the token was made since the last restart.
    pub fn made_in_this_run(&self, claims: &Claims) -> bool {
        claims.jti.starts_with(&self.run)
    }

    /// The pairing text of a session's QR number `turn`, as a phone reads it.
    pub fn pairing_text(&self, session: &str, turn: i64) -> String {
        let part = |name| STANDARD.encode(self.sign(name, &format!("{session}/{turn}")));
        format!("2@{},{},{},1", part("reference"), part("noise key"), part("identity key"))
    }

    fn sign(&self, purpose: &str, text: &str) -> hmac::Tag {
        hmac::sign(&self.root, format!("{purpose}/{text}").as_bytes())
    }

    fn number(&self, purpose: &str, text: &str) -> u64 {
        let tag = self.sign(purpose, text);
        tag.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn check_digits(&self, number: u64) -> String {
        format!("{:02}", self.number("check", &number.to_string()) % 100)
    }
}

/// 32 hexadecimal digits that nobody could foresee.
pub(super) fn random_hex() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_makes_the_same_names_and_knows_them_again() {
        let (key_factory, again) = (KeyFactory::from_secret("s"), KeyFactory::from_secret("s"));
        let session = key_factory.session("org");
        assert_eq!(session, again.session("org"));
        assert_eq!(session.len(), SESSION_DIGITS);
        assert!(session.starts_with("00"));
        assert!(again.made_session(&session));
        let key = key_factory.key(&session, 3);
        assert_eq!(key.len(), KEY_PREFIX.len() + 32);
        assert_eq!(again.read_key(&key), Some((session, 3)));
    }

    #[test]
    fn another_mints_names_are_strange() {
        let (key_factory, other) = (KeyFactory::random(), KeyFactory::random());
        let session = key_factory.session("org");
        assert_ne!(session, other.session("org"));
        assert_eq!(other.read_key(&key_factory.key(&session, 1)), None);
        assert!(other.read_token(&key_factory.token(&session, 0, 60)).is_none());
    }

    #[test]
    fn malformed_names_are_strange() {
        let key_factory = KeyFactory::random();
        for name in ["", "wpp_key_", "wpp_key_é", "0000000000004", "00000000é000", "a.b.c", "....", "٠٠٠"]
        {
            assert!(!key_factory.made_session(name) || name == "0000000000004", "{name}");
            assert_eq!(key_factory.read_key(name), None, "{name}");
            assert!(key_factory.read_token(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_token_is_a_jwt_like_no_other() {
        let key_factory = KeyFactory::random();
        let token = key_factory.token("0000000000004", 100, 60);
        assert_ne!(token, key_factory.token("0000000000004", 100, 60));
        let claims = key_factory.read_token(&token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.iat, claims.exp), ("0000000000004", 100, 160));
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        assert_eq!(header, br#"{"alg":"HS256","typ":"JWT"}"#);
        assert!(key_factory.read_token(&token[..token.len() - 1]).is_none());
    }
}
