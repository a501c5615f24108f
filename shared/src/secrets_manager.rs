//! The function's keys as AWS Secrets Manager keeps them: one signed call for each secret, without the AWS SDK.

use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use futures_util::future::try_join_all;
use http::Method;
use reqwest::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::UnixMs;
use crate::config::{ConfigError, KeptKeys, KeptSecret, Keys, SomeKeys};
use crate::deadline::Deadline;
use crate::upstream::{Failure, Reply, Upstream};

/// The call, and how its body is written.
const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];

/// Before the one repetition of a call that was refused for a passing reason.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest name of an error that is passed on.
const WORD_LIMIT: usize = 40;

/// Why the keys that are kept in a secret cannot be had. Names its variable, and holds no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read now.
    #[error("the secret that {variable} names cannot be read: {why}")]
    Unavailable {
        /// Whose secret it is.
        variable: &'static str,
        /// What became of the call.
        why: ReadError,
    },
    /// It was read, and what is in it will not do.
    #[error("the secret that {variable} names cannot be used: {problem}")]
    Unusable {
        /// Whose secret it is.
        variable: &'static str,
        /// Which key, and what is wrong with it.
        problem: ConfigError,
    },
}

/// Why Secrets Manager brought no secret. Carries no text of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no whole answer.
    #[error("{0}")]
    Call(#[from] Failure),
    /// It refuses.
    #[error("refused with status {status}, {word}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its name for the error, such as `AccessDeniedException`: letters and digits.
        word: String,
    },
    /// An answer that is none of its own.
    #[error("unreadable answer")]
    BadAnswer,
}

/// All keys, as the secrets and the environment have them at `now`.
pub(crate) async fn read(
    kept: &KeptKeys,
    upstream: &Upstream,
    now: UnixMs,
    deadline: Deadline,
) -> Result<Keys, SecretError> {
    let found = kept.secrets.iter().map(|secret| async move {
        let variable = secret.variable;
        let text = text(kept, secret, upstream, now, deadline).await;
        let text = text.map_err(|why| SecretError::Unavailable { variable, why })?;
        keys_in(&text).map_err(|problem| SecretError::Unusable { variable, problem })
    });
    kept.complete(try_join_all(found).await?)
        .map_err(|(variable, problem)| SecretError::Unusable { variable, problem })
}

/// What a secret says of our keys.
fn keys_in(text: &str) -> Result<SomeKeys, ConfigError> {
    let json: Map<String, Value> = serde_json::from_str(text).map_err(|_| ConfigError::not_json())?;
    SomeKeys::read(|name| json.get(name)?.as_str().map(str::to_owned))
}

/// `GetSecretValue`: the text of a secret.
async fn text(
    kept: &KeptKeys,
    secret: &KeptSecret,
    upstream: &Upstream,
    now: UnixMs,
    deadline: Deadline,
) -> Result<String, ReadError> {
    #[derive(Deserialize)]
    struct Given {
        #[serde(rename = "SecretString")]
        text: String,
    }
    let ask = async || {
        let request = request(kept, secret, now).ok_or(ReadError::BadAnswer)?;
        let reply = upstream.send("GetSecretValue", request, deadline).await?;
        if reply.status.is_success() { Ok(reply) } else { Err(refusal(&reply)) }
    };
    let reply = match ask().await {
        Err(error) if error.may_pass() && deadline.sleep(PAUSE).await => ask().await?,
        answered => answered?,
    };
    let given: Given = serde_json::from_slice(&reply.body).map_err(|_| ReadError::BadAnswer)?;
    Ok(given.text)
}

impl ReadError {
    /// Whether Secrets Manager means that it may go better in a moment.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Refused { status, word } if *status >= 500 || word == "ThrottlingException")
    }
}

/// A call that is signed at `now`.
fn request(kept: &KeptKeys, secret: &KeptSecret, now: UnixMs) -> Option<Request> {
    let body = json!({"SecretId": secret.arn}).to_string();
    let url = secret.endpoint.as_str();
    let identity = kept.credentials.clone().into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(&secret.region)
        .name("secretsmanager")
        .time(UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).ok()?))
        .settings(SigningSettings::default())
        .build()
        .ok()?
        .into();
    let signable = SignableBody::Bytes(body.as_bytes());
    let signable = SignableRequest::new("POST", url, HEADERS.into_iter(), signable).ok()?;
    let (signature, _) = sign(signable, &params).ok()?.into_parts();
    let mut request = http::Request::builder().method(Method::POST).uri(url);
    for (name, value) in HEADERS {
        request = request.header(name, value);
    }
    let mut request = request.body(body).ok()?;
    signature.apply_to_request_http1x(&mut request);
    request.try_into().ok()
}

/// The part of an error's name behind what may stand before it: `com.amazon.coral.service#AccessDeniedException`.
fn refusal(reply: &Reply) -> ReadError {
    #[derive(Default, Deserialize)]
    struct Refusal {
        #[serde(rename = "__type", default)]
        word: String,
    }
    let Refusal { word } = serde_json::from_slice(&reply.body).unwrap_or_default();
    let word = word.rsplit('#').next().unwrap_or_default();
    let word = word.chars().filter(char::is_ascii_alphanumeric).take(WORD_LIMIT).collect();
    ReadError::Refused { status: reply.status.as_u16(), word }
}

#[cfg(test)]
mod tests;
