//! Who is calling: the Supabase user behind an `Authorization` header.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::config::Config;
use crate::http::jwks::Jwks;
use crate::http::jwt_ring;
use crate::secret::Secret;
use crate::secrets::SecretValues;
use crate::upstream::Upstream;

pub use crate::error::AuthError;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// How far the issuer's clock and this one may differ; PostgREST allows the same.
const LEEWAY: Duration = Duration::from_secs(30);

/// The longest `Authorization` header that is read, in bytes. Tokens contain the user's metadata; some have 10 KiB.
const HEADER_LIMIT: usize = 16 * 1024;

/// The audience and the role of a signed-in user. Service keys and anon keys have other ones.
const AUTHENTICATED: &str = "authenticated";

/// A signed-in user. Only [`Verifier::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's id.
    pub user_id: Uuid,
}

/// Verifies the access tokens of one Supabase project.
pub struct Verifier {
    issuers: Vec<String>,
    secret: Option<DecodingKey>,
    jwks: Jwks,
}

impl Verifier {
    /// Makes a verifier for the configuration's project. HS256 tokens are accepted only if its secret is known. For all others,
    /// `upstream` fetches the public keys.
    pub fn new(config: &Config, secrets: &SecretValues, upstream: Upstream) -> Self {
        jwt_ring::install();
        let secret = secrets.jwt_secret.as_ref().map(Secret::expose);
        Self {
            jwks: Jwks::new(&config.supabase_url, secrets.service_key.secret().clone(), upstream),
            // With an empty secret, anyone could sign.
            secret: secret
                .filter(|secret| !secret.trim().is_empty())
                .map(|secret| DecodingKey::from_secret(secret.as_bytes())),
            issuers: config.jwt_issuers.clone(),
        }
    }

    /// Returns the user of the token in the `Authorization` header, if the token is valid at `now`.
    ///
    /// Uses the network only if a key is unknown or the cached keys are too old.
    pub async fn verify(&self, authorization: Option<&str>, now: UnixMs) -> Result<Caller, AuthError> {
        let token = bearer(authorization.unwrap_or_default())?;
        let header = decode_header(token).map_err(|_| AuthError::Malformed)?;
        // `crit` lists extensions that must be understood; none is supported.
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let claims = match header.alg {
            Algorithm::HS256 => {
                let key = self.secret.as_ref().ok_or(AuthError::UnknownKey)?;
                read(token, key, Algorithm::HS256)?
            }
            algorithm @ (Algorithm::ES256 | Algorithm::RS256) => {
                let key = self.jwks.find(header.kid.as_deref(), algorithm, now).await?;
                read(token, &key, algorithm)?
            }
            _ => return Err(AuthError::WrongAlgorithm),
        };
        self.admit(claims, now)
    }

    fn admit(&self, claims: Claims, now: UnixMs) -> Result<Caller, AuthError> {
        if !self.issuers.is_empty() && !self.issuers.iter().any(|issuer| claims.iss == issuer.as_str()) {
            return Err(AuthError::WrongIssuer);
        }
        if claims.role.as_deref() != Some(AUTHENTICATED) {
            return Err(AuthError::WrongRole);
        }
        if at(claims.exp).plus(LEEWAY) <= now {
            return Err(AuthError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| at(nbf).minus(LEEWAY) > now) {
            return Err(AuthError::NotYetValid);
        }
        let user_id = claims.sub.as_deref().and_then(hyphenated).ok_or(AuthError::WrongSubject)?;
        Ok(Caller { user_id })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("issuers", &self.issuers)
            .field("hs256", &self.secret.is_some())
            .finish_non_exhaustive()
    }
}

/// The claims that are checked here; the library checks `aud`.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    /// Of any type, because it matters only if issuers are compared.
    #[serde(default)]
    iss: Value,
    role: Option<String>,
    sub: Option<String>,
}

/// Returns the one token of a `Bearer` header.
fn bearer(authorization: &str) -> Result<&str, AuthError> {
    if authorization.len() > HEADER_LIMIT {
        return Err(AuthError::TooLong);
    }
    let mut words = authorization.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => Err(AuthError::Missing),
        (Some(scheme), Some(token), None) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err(AuthError::Malformed),
    }
}

/// Reads the claims of a token signed by `key` with `algorithm`. Does not check their times.
fn read(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, AuthError> {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[AUTHENTICATED]);
    validation.set_required_spec_claims(&["aud"]);
    // The library would use the machine's clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    decode(token, key, &validation).map(|data| data.claims).map_err(|error| refusal(&error))
}

fn refusal(error: &Error) -> AuthError {
    match error.kind() {
        ErrorKind::InvalidSignature => AuthError::BadSignature,
        ErrorKind::InvalidAudience | ErrorKind::MissingRequiredClaim(_) => AuthError::WrongAudience,
        _ => AuthError::Malformed,
    }
}

/// Returns the time of a numeric claim, which is in seconds and may have a fraction; saturates.
fn at(secs: f64) -> UnixMs {
    UnixMs((secs * 1000.0) as i64)
}

/// Reads a UUID in the form that Supabase writes; the library would accept other forms, too.
fn hyphenated(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok().filter(|_| text.len() == 36)
}
