//! A platform token: when it expires, and what its age means.

use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::clock::UnixMs;
use crate::secret::Secret;

/// A token with no more than this left is due: it can still be used, and one request replaces it.
///
/// There is no jitter. Refreshes are made by requests, so they are no more frequent than requests, and tokens that were issued
/// together drift apart with every refresh.
pub const REFRESH_MARGIN: Duration = Duration::from_secs(60);

/// A token with no more than this left has expired. The margin covers the duration of a call, and a wrong clock.
pub const EXPIRY_SKEW: Duration = Duration::from_secs(5);

/// The TTL of a token that states none, as the platform documents it.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// The TTL of a token whose stated TTL is not a positive number: long enough to be useful, short enough to be corrected soon.
const FALLBACK_TTL: Duration = Duration::from_secs(300);

/// The longest TTL that is accepted.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// A stated TTL above this is in milliseconds, below it in seconds.
const TTL_IN_MILLISECONDS_FROM: f64 = 7.0 * 24.0 * 3600.0;

/// A point in time below this is in seconds since 1970, above it in milliseconds.
const TIME_IN_MILLISECONDS_FROM: f64 = 1e11;

/// A platform token, and when it expires.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The JWT.
    pub jwt: Secret,
    /// Its expiry, in milliseconds since 1970.
    pub expires_at: UnixMs,
    /// Its TTL, after all limits. A token with a short TTL is due later than [`REFRESH_MARGIN`] before its end.
    pub life: Duration,
}

/// What a token's age means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Use it.
    Fresh,
    /// Use it, but first try once to replace it, without waiting for another request.
    Due,
    /// Do not use it.
    Expired,
}

impl Token {
    /// Makes a token that the platform issued. `asked_at` is the time before the request was sent, so that the network's delay
    /// shortens the TTL and never lengthens it. The earlier of `expiresIn` (seconds) and the JWT's `exp` counts. Absurd values are
    /// limited.
    pub fn issued(jwt: Secret, expires_in: Option<&Value>, asked_at: UnixMs) -> Self {
        let claims = Claims::of(&jwt);
        let stated = expires_in.filter(|value| !value.is_null()).map(stated_life);
        let by_statement = match (stated, claims.exp) {
            (Some(Some(stated)), _) => stated,
            (_, Some(_)) => MAX_TTL,
            (None, None) => DEFAULT_TTL,
            (Some(None), None) => FALLBACK_TTL,
        };
        let by_claim = claims.exp.map(|exp| {
            // An expiry before the token's issue comes from a wrong clock; the token's own length still counts.
            let length =
                if exp > asked_at { asked_at.until(exp) } else { claims.life().unwrap_or(FALLBACK_TTL) };
            length.min(MAX_TTL)
        });
        let life = by_claim.map_or(by_statement, |by_claim| by_claim.min(by_statement));
        Self { jwt, expires_at: asked_at.plus(life), life }
    }

    /// Makes a token stored in `settings`. If the expiry is missing, its `exp` counts; without either, it has expired.
    pub fn stored(jwt: Secret, expires_at: Option<UnixMs>) -> Self {
        let claims = Claims::of(&jwt);
        let expires_at = expires_at.or(claims.exp).unwrap_or(UnixMs(0));
        Self { jwt, expires_at, life: claims.life_until(expires_at).unwrap_or(DEFAULT_TTL) }
    }

    /// Returns what the token's age means at `now`. A token whose expiry is later than the longest TTL allows is due.
    pub fn age(&self, now: UnixMs) -> Age {
        // A token with a short TTL is due in its last fifth instead of its last minute.
        let margin = REFRESH_MARGIN.min(self.life / 5);
        let left = now.until(self.expires_at);
        if left <= EXPIRY_SKEW.min(margin) {
            Age::Expired
        } else if left <= margin || left > MAX_TTL {
            Age::Due
        } else {
            Age::Fresh
        }
    }
}

/// The times that a JWT states, read without verifying them.
#[derive(Default, Deserialize)]
struct Claims {
    #[serde(default, deserialize_with = "claim")]
    iat: Option<UnixMs>,
    #[serde(default, deserialize_with = "claim")]
    exp: Option<UnixMs>,
}

impl Claims {
    fn of(jwt: &Secret) -> Self {
        insecure_decode(jwt.expose()).map(|token| token.claims).unwrap_or_default()
    }

    fn life(&self) -> Option<Duration> {
        let life = self.iat?.until(self.exp?);
        (!life.is_zero()).then_some(life)
    }

    /// Returns the TTL up to `end`, and never more than from `iat` to `exp`.
    fn life_until(&self, end: UnixMs) -> Option<Duration> {
        let stated = self.life()?;
        let real = self.iat?.until(end);
        Some(if real.is_zero() { stated } else { stated.min(real) })
    }
}

/// Returns a claim's point in time, or `None` if it is not one.
fn claim<'de, D: Deserializer<'de>>(claim: D) -> Result<Option<UnixMs>, D::Error> {
    Ok(number(&Value::deserialize(claim)?).and_then(moment))
}

/// Returns the point in time that `wppJwtExpiresAt` names, in milliseconds or seconds since 1970.
pub(crate) fn expiry(value: &Value) -> Option<UnixMs> {
    number(value).and_then(moment)
}

/// Returns the TTL in `expiresIn`, or `None` if that is not a positive number.
fn stated_life(value: &Value) -> Option<Duration> {
    let stated = number(value).filter(|number| *number > 0.0)?;
    let seconds = if stated > TTL_IN_MILLISECONDS_FROM { stated / 1000.0 } else { stated };
    Some(Duration::from_secs_f64(seconds.min(MAX_TTL.as_secs_f64())))
}

/// Reads a number, which may be written as a string.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// Makes a point in time from seconds or milliseconds since 1970; saturates.
#[allow(clippy::cast_possible_truncation, reason = "float to integer casts saturate")]
fn moment(number: f64) -> Option<UnixMs> {
    let ms = if number < TIME_IN_MILLISECONDS_FROM { number * 1000.0 } else { number };
    (ms > 0.0).then_some(UnixMs(ms as i64))
}

#[cfg(test)]
pub(crate) mod tests;
