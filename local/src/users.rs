//! The keys of the local Supabase project, and the tokens of its users.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Result;
use crate::clock::unix_ms;

/// How long a token of [`Keys::user_token`] is valid, in seconds: Supabase's default.
const USER_TOKEN_LIFETIME_S: i64 = 3600;

/// When the project's own keys were issued and when they expire, in seconds since 1970. Fixed, so that a key never changes; far
/// apart, like Supabase's.
const PROJECT_KEY_ISSUED_S: i64 = 1_700_000_000;
const PROJECT_KEY_EXPIRES_S: i64 = 4_100_000_000;

/// The number of bytes of an EC point before its coordinates, and of each coordinate.
const POINT_TAG: usize = 1;
const COORDINATE: usize = 32;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// With the project's shared secret, as older projects do.
    Hs256,
    /// With the project's key pair, whose public half is in its JWKS.
    Es256,
    /// Not signed (`"alg": "none"`): no server should accept it.
    None,
}

/// What a project puts into `iss` in its users' tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// Nothing: a self-hosted project, by default.
    Absent,
    /// An empty text: a self-hosted project whose variable is set but empty.
    Empty,
    /// A configured value of a self-hosted project.
    Configured,
    /// A hosted project's first address, even if it has a custom domain.
    Hosted,
}

impl Issuer {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Absent, Self::Empty, Self::Configured, Self::Hosted];

    /// Returns the claim, or `None` if it is left out.
    pub fn claim(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::Empty => Some(""),
            Self::Configured => Some("http://localhost:8000/auth/v1"),
            Self::Hosted => Some("https://abcdefghijklmnopqrst.supabase.co/auth/v1"),
        }
    }
}

/// The secrets of a Supabase project. Clones share them.
#[derive(Clone, Debug)]
pub struct Keys {
    jwt_secret: String,
    secret_key: String,
    publishable_key: String,
    key_id: String,
    pair: Arc<EcdsaKeyPair>,
}

impl Keys {
    /// Makes new secrets.
    pub fn generate() -> Result<Self> {
        Self::with_jwt_secret(&format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }

    /// Makes keys that depend only on the JWT secret, except for the key pair. The secret has at least 32 bytes.
    pub fn with_jwt_secret(jwt_secret: &str) -> Result<Self> {
        let pair = key_pair().ok_or("the system gives no randomness")?;
        let derived =
            |what: &str| URL_SAFE_NO_PAD.encode(&hmac_sha256(jwt_secret, what.as_bytes()).as_ref()[..15]);
        Ok(Self {
            jwt_secret: jwt_secret.to_owned(),
            secret_key: format!("sb_secret_local{}", derived("secret")),
            publishable_key: format!("sb_publishable_local{}", derived("publishable")),
            key_id: Uuid::new_v4().to_string(),
            pair: Arc::new(pair),
        })
    }

    /// Returns the HS256 secret, which PostgREST also uses.
    pub fn jwt_secret(&self) -> &str {
        &self.jwt_secret
    }

    /// Returns the legacy service key: a JWT with all rights.
    pub fn service_role_key(&self) -> String {
        self.project_key("service_role")
    }

    /// Returns the legacy key of browsers: a JWT with the rights of `anon`.
    pub fn anon_key(&self) -> String {
        self.project_key("anon")
    }

    /// Returns the service key of the new kind, `sb_secret_...`.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Returns the key of browsers of the new kind, `sb_publishable_...`.
    pub fn publishable_key(&self) -> &str {
        &self.publishable_key
    }

    /// Returns the public keys, as the project publishes them.
    pub fn jwks(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[POINT_TAG..].split_at(COORDINATE);
        json!({"keys": [{
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "key_ops": ["verify"],
            "ext": true,
            "kid": self.key_id,
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    /// Returns the token that Supabase gives this user at sign-in, valid for an hour.
    pub fn user_token(&self, user: Uuid) -> String {
        self.user_token_for(user, USER_TOKEN_LIFETIME_S)
    }

    /// Returns a token like [`Keys::user_token`], valid for this many seconds from now.
    pub fn user_token_for(&self, user: Uuid, lifetime_s: i64) -> String {
        let mut claims = user_claims(user, Issuer::Absent);
        claims["exp"] = json!(unix_ms() / 1000 + lifetime_s);
        self.token(&claims, Signing::Hs256)
    }

    /// Signs a token with exactly these claims.
    pub fn token(&self, claims: &Value, signing: Signing) -> String {
        let header = match signing {
            Signing::Hs256 => return sign_hs256(&self.jwt_secret, claims),
            Signing::Es256 => json!({"alg": "ES256", "typ": "JWT", "kid": self.key_id}),
            Signing::None => json!({"alg": "none", "typ": "JWT"}),
        };
        jwt(&header, claims, |message| {
            if signing == Signing::None {
                return Vec::new();
            }
            let signature = self.pair.sign(&SystemRandom::new(), message);
            #[allow(clippy::expect_used, reason = "fails only where the system has no randomness to give")]
            signature.expect("the system gives randomness").as_ref().to_vec()
        })
    }

    fn project_key(&self, role: &str) -> String {
        let claims = json!({
            "iss": "supabase",
            "ref": "local",
            "role": role,
            "iat": PROJECT_KEY_ISSUED_S,
            "exp": PROJECT_KEY_EXPIRES_S,
        });
        self.token(&claims, Signing::Hs256)
    }
}

/// Returns the claims of a user right after a sign-in with a password, in a project with this issuer.
pub fn user_claims(user: Uuid, issuer: Issuer) -> Value {
    let now = unix_ms() / 1000;
    let mut claims = json!({
        "aud": "authenticated",
        "role": "authenticated",
        "sub": user.to_string(),
        "iat": now,
        "exp": now + USER_TOKEN_LIFETIME_S,
        "email": "somebody@school.example",
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {},
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": now}],
        "session_id": Uuid::new_v4().to_string(),
        "is_anonymous": false,
    });
    if let Some(issuer) = issuer.claim() {
        claims["iss"] = json!(issuer);
    }
    claims
}

/// Returns the claims of an anonymous sign-in.
pub fn anonymous_claims(user: Uuid) -> Value {
    let mut claims = user_claims(user, Issuer::Absent);
    claims["email"] = json!("");
    claims["app_metadata"] = json!({});
    claims["amr"][0]["method"] = json!("anonymous");
    claims["is_anonymous"] = json!(true);
    claims
}

/// Signs a JWT with these claims and a secret.
pub(crate) fn sign_hs256(secret: &str, claims: &Value) -> String {
    let header = json!({"alg": "HS256", "typ": "JWT"});
    jwt(&header, claims, |message| hmac_sha256(secret, message).as_ref().to_vec())
}

fn jwt(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn key_pair() -> Option<EcdsaKeyPair> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok()?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).ok()
}

fn hmac_sha256(secret: &str, message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    fn decoded(part: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(part).unwrap()
    }

    fn claims(token: &str) -> Value {
        serde_json::from_slice(&decoded(token.split('.').nth(1).unwrap())).unwrap()
    }

    #[test]
    fn the_jwks_verifies_es256_tokens() {
        let keys = Keys::generate().unwrap();
        let token = keys.token(&json!({"sub": "a"}), Signing::Es256);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let coordinate = |name: &str| decoded(keys.jwks()["keys"][0][name].as_str().unwrap());
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &decoded(signature))
            .unwrap();
    }

    #[test]
    fn an_hs256_token_is_signed_with_the_jwt_secret() {
        let keys = Keys::generate().unwrap();
        let token = keys.service_role_key();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, keys.jwt_secret().as_bytes());
        hmac::verify(&key, signed.as_bytes(), &decoded(signature)).unwrap();
        assert_eq!(claims(&token)["role"], "service_role");
    }

    #[test]
    fn a_user_token_has_supabases_claims() {
        let keys = Keys::generate().unwrap();
        let user = Uuid::new_v4();
        let claims = claims(&keys.user_token(user));
        assert_eq!(claims["aud"], "authenticated");
        assert_eq!(claims["sub"], user.to_string());
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
        assert_eq!(claims.get("iss"), None);
        assert_eq!(user_claims(user, Issuer::Empty)["iss"], "");
    }

    #[test]
    fn an_unsigned_token_ends_with_a_dot() {
        assert!(Keys::generate().unwrap().token(&json!({}), Signing::None).ends_with('.'));
    }
}
