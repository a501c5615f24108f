//! A fake AWS Secrets Manager with the one call that a function makes: `GetSecretValue`, with a checked signature.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde_json::{Value, json};

use crate::Result;
use crate::fault_injector::FaultInjector;
use crate::server::Server;

/// The credentials of an account whose functions may read all secrets.
const ACCESS_KEY_ID: &str = "AKIALOCALEXAMPLE";
const SECRET_ACCESS_KEY: &str = "local-secret-access-key";
const SESSION_TOKEN: &str = "local-session-token";

const REGION: &str = "eu-central-1";
const SERVICE: &str = "secretsmanager";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The headers of a call; all of them are signed, in this order.
const SIGNED: [&str; 5] = ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"];

/// A running Secrets Manager. Dropping it closes its port and every connection.
pub struct SecretsManager {
    /// The faults of all calls, by the name of the secret.
    pub faults: FaultInjector,
    /// The server, which can close and refuse connections.
    pub server: Server,
    secrets: Secrets,
}

/// The texts by their ARNs.
type Secrets = Arc<Mutex<BTreeMap<String, String>>>;

impl SecretsManager {
    /// Starts a server without secrets, on a free port of 127.0.0.1.
    pub async fn start() -> Result<Self> {
        let (faults, secrets) = (FaultInjector::default(), Secrets::default());
        let router =
            Router::new().route("/", post(get_secret_value)).with_state((faults.clone(), secrets.clone()));
        Ok(Self { faults, server: Server::start(0, router).await?, secrets })
    }

    /// Replaces the value of a secret. Returns its ARN.
    pub fn put(&self, name: &str, value: &Value) -> String {
        let arn = format!("arn:aws:{SERVICE}:{REGION}:123456789012:secret:{name}");
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(arn.clone(), value.to_string());
        arn
    }

    /// Returns the variables that Lambda gives a function with the right to read the secrets, and the address of this server.
    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.server.url()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("AWS_SESSION_TOKEN", SESSION_TOKEN.to_owned()),
        ]
    }
}

async fn get_secret_value(
    State((faults, secrets)): State<(FaultInjector, Secrets)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let arn = request["SecretId"].as_str().unwrap_or_default().to_owned();
    let name = arn.rsplit(':').next().unwrap_or_default().to_owned();
    let work = async move {
        if let Err(refusal) = admit(&headers, &body) {
            return refused(refusal);
        }
        let secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
        match secrets.get(&arn) {
            Some(text) => axum::Json(json!({"ARN": arn, "SecretString": text})).into_response(),
            None => refused("ResourceNotFoundException"),
        }
    };
    faults.pass(&name, work).await
}

fn refused(word: &str) -> Response<Body> {
    let body = json!({"__type": word, "Message": "the ARN of a role"});
    (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
}

/// Checks a call like AWS. Returns the name of the error if it is wrong.
fn admit(headers: &HeaderMap, body: &[u8]) -> std::result::Result<(), &'static str> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header("x-amz-target") != "secretsmanager.GetSecretValue"
        || header("content-type") != "application/x-amz-json-1.1"
    {
        return Err("UnknownOperationException");
    }
    if header("x-amz-security-token") != SESSION_TOKEN {
        return Err("UnrecognizedClientException");
    }
    let date = header("x-amz-date");
    let day = date.split('T').next().unwrap_or_default();
    let scope = format!("{day}/{REGION}/{SERVICE}/aws4_request");
    let signed = SIGNED.join(";");
    let lines: String = SIGNED.iter().map(|name| format!("{name}:{}\n", header(name))).collect();
    let canonical = format!("POST\n/\n\n{lines}\n{signed}\n{}", hex(digest(&SHA256, body).as_ref()));
    let to_sign =
        format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let secret = format!("AWS4{SECRET_ACCESS_KEY}").into_bytes();
    let key = [day, REGION, SERVICE, "aws4_request"].iter().fold(secret, |key, part| hmac_sha256(&key, part));
    let signature = hex(&hmac_sha256(&key, &to_sign));
    let expected = format!(
        "{ALGORITHM} Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={signed}, Signature={signature}"
    );
    if header("authorization") == expected { Ok(()) } else { Err("InvalidSignatureException") }
}

fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
