//! AWS Secrets Manager, without the AWS SDK: one signed call for each secret.

use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use http::Method;
use reqwest::{Request, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::SecretError;
use crate::clock::UnixMs;
use crate::config::{ConfigError, base_url, header_text, refuse, required};
use crate::deadline::Deadline;
use crate::upstream::{Failure, Reply, Upstream};

/// The call, and how its body is written.
const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];

/// The timeout of one attempt.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// The pause before the one retry of a call that Secrets Manager refuses for a temporary reason.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest error name that goes into the log, in characters.
const WORD_LIMIT: usize = 40;

const NOT_AN_ARN: &str = "is not the ARN of a secret in Secrets Manager";

/// A secret in Secrets Manager.
#[derive(Clone, Debug)]
pub(super) struct SecretRef {
    /// The variable that names it.
    pub(super) variable: &'static str,
    /// The keys that the function uses.
    pub(super) keys: Vec<&'static str>,
    arn: String,
    pub(super) region: String,
    pub(super) endpoint: Url,
    /// The credentials that Lambda gives every function.
    credentials: Credentials,
}

/// Why Secrets Manager returned no secret. Never contains its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no complete answer.
    #[error("{0}")]
    Call(#[from] Failure),
    /// It refused the call.
    #[error("refused with status {status}, {word}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error's name, such as `AccessDeniedException`: only letters and digits.
        word: String,
    },
    /// The answer does not look like one of Secrets Manager.
    #[error("unreadable answer")]
    BadAnswer,
}

impl SecretRef {
    /// Reads the ARN in `variable`, and the environment's settings for the call.
    pub(super) fn read(
        variable: &'static str,
        keys: Vec<&'static str>,
        arn: String,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let parts: Vec<_> = arn.splitn(7, ':').collect();
        let ["arn", partition, "secretsmanager", region, _, "secret", name] = parts[..] else {
            return refuse(variable, NOT_AN_ARN);
        };
        let region = match region {
            "" => required("AWS_REGION", &get)?,
            region => region.to_owned(),
        };
        let is_region = region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_region || name.is_empty() {
            return refuse(variable, NOT_AN_ARN);
        }
        let domain = match partition {
            "aws-cn" => "amazonaws.com.cn",
            "aws-eusc" => "amazonaws.eu",
            _ => "amazonaws.com",
        };
        let endpoint = ["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"]
            .into_iter()
            .find_map(|variable| Some((variable, get(variable)?)));
        let (of, endpoint) =
            endpoint.unwrap_or_else(|| (variable, format!("https://secretsmanager.{region}.{domain}")));
        let key = |name| required(name, &get).and_then(|value| header_text(name, value));
        let (id, secret) = (key("AWS_ACCESS_KEY_ID")?, key("AWS_SECRET_ACCESS_KEY")?);
        let token = get("AWS_SESSION_TOKEN").map(|value| header_text("AWS_SESSION_TOKEN", value));
        let token = token.transpose()?.map(|token| token.expose().to_owned());
        let credentials = Credentials::new(id.expose(), secret.expose(), token, None, "environment");
        Ok(Self { variable, keys, endpoint: base_url(of, endpoint)?, region, credentials, arn })
    }

    /// Reads the secret's JSON.
    pub(super) async fn json(
        &self,
        upstream: &Upstream,
        now: UnixMs,
        deadline: Deadline,
    ) -> Result<Map<String, Value>, SecretError> {
        let variable = self.variable;
        let text = self.text(upstream, now, deadline).await;
        let text = text.map_err(|why| SecretError::Unavailable { variable, why })?;
        let problem = ConfigError { variable: "SecretString", problem: "is not a JSON object" };
        serde_json::from_str(&text).map_err(|_| SecretError::Unusable { variable, problem })
    }

    /// Calls `GetSecretValue` and returns the secret's text.
    async fn text(&self, upstream: &Upstream, now: UnixMs, deadline: Deadline) -> Result<String, ReadError> {
        #[derive(Deserialize)]
        struct Given {
            #[serde(rename = "SecretString")]
            text: String,
        }
        let ask = async || {
            let request = self.request(now).ok_or(ReadError::BadAnswer)?;
            let reply = upstream.send("GetSecretValue", request, CALL_TIMEOUT, deadline).await?;
            if reply.status.is_success() { Ok(reply) } else { Err(refusal(&reply)) }
        };
        let reply = match ask().await {
            Err(error) if error.may_pass() && deadline.sleep(RETRY_PAUSE).await => ask().await?,
            answered => answered?,
        };
        let given: Given = serde_json::from_slice(&reply.body).map_err(|_| ReadError::BadAnswer)?;
        Ok(given.text)
    }

    /// Returns the call, signed at `now`.
    pub(super) fn request(&self, now: UnixMs) -> Option<Request> {
        let body = json!({"SecretId": self.arn}).to_string();
        let url = self.endpoint.as_str();
        let identity = self.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
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
}

impl ReadError {
    /// Whether the error means that the call may succeed in a moment.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Refused { status, word } if *status >= 500 || word == "ThrottlingException")
    }
}

/// Reads the error's name. A namespace may stand in front of it: `com.amazon.coral.service#AccessDeniedException`.
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
