//! The values of the secrets, and which values a function refuses.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::dangerous::insecure_decode;
use reqwest::Url;
use ring::hmac;
use serde::Deserialize;

use super::{JWT_SECRET, SERVICE_KEY, Values, WPP_SECRET};
use crate::config::{ConfigError, header_text, refuse};
use crate::secret::Secret;

/// The shortest secret for HS256, in bytes. PostgREST refuses a shorter one too.
const JWT_SECRET_LENGTH: usize = 32;

const SHORT: &str = "has fewer than 32 bytes, so others can guess it: the project's own is in the Dashboard (Project \
    Settings, JWT Keys), or JWT_SECRET of a self-hosted project";

/// Values that Supabase publishes for a new self-hosted project, and for `supabase start`.
pub(super) const DEMO_JWT_SECRETS: [&str; 2] = [
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "super-secret-jwt-token-with-at-least-32-characters-long",
];
pub(super) const DEMO_SERVICE_KEY: &str = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz";

const DEMO: &str = "is a demo value that Supabase publishes: take the project's own from the Dashboard (Project Settings, \
    API Keys or JWT Keys), or make one for a self-hosted project with utils/generate-keys.sh";

/// The values of the secrets.
#[derive(Clone, Debug)]
pub struct SecretValues {
    /// `WPP_SECRET`
    pub wpp_secret: Option<Secret>,
    /// `SUPABASE_SERVICE_ROLE_KEY`
    pub service_key: ServiceKey,
    /// `SUPABASE_JWT_SECRET`
    pub jwt_secret: Option<Secret>,
}

impl SecretValues {
    pub(super) fn of(values: &Values) -> Self {
        // No read succeeds without it.
        let key = values[SERVICE_KEY].clone();
        let is_new = key.expose().starts_with("sb_secret_");
        Self {
            wpp_secret: values.get(WPP_SECRET).cloned(),
            service_key: if is_new { ServiceKey::New(key) } else { ServiceKey::Legacy(key) },
            jwt_secret: values.get(JWT_SECRET).cloned(),
        }
    }
}

/// The service key, legacy or new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKey {
    /// A JWT, for `apikey` and `Authorization`.
    Legacy(Secret),
    /// `sb_secret_...`, only for `apikey`, because it is no JWT.
    New(Secret),
}

impl ServiceKey {
    /// Returns the key itself, for `apikey`.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Legacy(key) | Self::New(key) => key,
        }
    }

    /// Returns the key as a bearer token, if it can be one.
    pub fn bearer(&self) -> Option<&Secret> {
        match self {
            Self::Legacy(key) => Some(key),
            Self::New(_) => None,
        }
    }
}

/// Refuses a secret that cannot work, and one that is public or can be guessed.
pub(super) fn checked(name: &'static str, text: String, is_private: bool) -> Result<Secret, ConfigError> {
    match name {
        WPP_SECRET => header_text(name, text),
        JWT_SECRET if text.len() < JWT_SECRET_LENGTH => refuse(name, SHORT),
        _ if !is_private && is_demo(&text) => refuse(name, DEMO),
        JWT_SECRET => Ok(Secret::new(text)),
        _ => service_key(text),
    }
}

fn service_key(text: String) -> Result<Secret, ConfigError> {
    #[derive(Deserialize)]
    struct Claims {
        role: Option<String>,
    }
    let key = header_text(SERVICE_KEY, text)?;
    if key.expose().starts_with("sb_secret_") {
        return Ok(key);
    }
    if key.expose().starts_with("sb_publishable_") {
        return refuse(SERVICE_KEY, "is a publishable key; the service role's is needed");
    }
    match insecure_decode::<Claims>(key.expose()).map(|token| token.claims.role) {
        Ok(Some(role)) if role == "service_role" => Ok(key),
        Ok(_) => refuse(SERVICE_KEY, "is a key for a role other than service_role"),
        Err(_) => refuse(SERVICE_KEY, "is neither a JWT nor an sb_secret_ key"),
    }
}

/// Whether Supabase publishes this secret, or the secret that signed it.
fn is_demo(text: &str) -> bool {
    let jwt = text.rsplit_once('.');
    let jwt = jwt.and_then(|(signed, signature)| Some((signed, URL_SAFE_NO_PAD.decode(signature).ok()?)));
    let has_signed = |secret: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        jwt.as_ref()
            .is_some_and(|(signed, signature)| hmac::verify(&key, signed.as_bytes(), signature).is_ok())
    };
    text == DEMO_SERVICE_KEY || DEMO_JWT_SECRETS.iter().any(|secret| text == *secret || has_signed(secret))
}

/// Whether the address is reachable only from this machine or its network.
pub(super) fn is_private(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        Err(_) => {
            !host.contains('.') || [".local", ".internal", ".localhost"].iter().any(|end| host.ends_with(end))
        }
    }
}
