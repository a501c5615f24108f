//! A Supabase project for tests: signing keys, and a server that publishes them.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256};
use ring::{hmac, rsa};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{AuthError, Caller, Verifier};
use crate::clock::UnixMs;
use crate::config::Config;
use crate::secret::Secret;
use crate::secrets::{SecretValues, ServiceKey};
use crate::upstream::Upstream;

pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);
pub(crate) const USER: &str = "7d9f3b52-0c7e-4f0a-9a51-2f6f0f3c8b11";
pub(crate) const SECRET: &str = "a legacy secret of at least thirty-two bytes";

/// The service key, without which the project's gateway does not serve the JWKS.
pub(crate) const APIKEY: &str = "sb_secret_of_the_project";

/// Returns a minimal configuration of a function for the project at `url`.
pub(crate) fn config(url: &str) -> Config {
    let variable = |name: &str| match name {
        "WPP_BASE_URL" | "SUPABASE_URL" => Some(url.to_owned()),
        _ => None,
    };
    Config::read(variable).unwrap()
}

/// Returns the secrets of a function for the project, without the legacy one.
pub(crate) fn secrets() -> SecretValues {
    let service_key = ServiceKey::New(Secret::new(APIKEY));
    SecretValues { wpp_secret: None, service_key, jwt_secret: None }
}

/// Returns the verifier of a function with this configuration and these secrets.
pub(crate) fn verifier(config: &Config, secrets: &SecretValues) -> Verifier {
    Verifier::new(config, secrets, Upstream::new(std::time::Duration::from_secs(8), &[]).unwrap())
}

/// A project with an ES256 key `es`, an RS256 key `rs` and a legacy secret.
pub(crate) struct Project {
    pub(crate) server: KeyServer,
    pub(crate) es: Signer,
    pub(crate) rs: Signer,
    pub(crate) hs: Signer,
    pub(crate) config: Config,
    pub(crate) secrets: SecretValues,
    pub(crate) verifier: Verifier,
}

impl Project {
    pub(crate) async fn start() -> Self {
        let (es, rs) = (Signer::es256("es"), Signer::rs256("rs"));
        let server = KeyServer::start(&[es.jwk(), rs.jwk()]).await;
        let config = config(&server.url);
        let secrets = SecretValues { jwt_secret: Some(Secret::new(SECRET)), ..secrets() };
        let verifier = verifier(&config, &secrets);
        Self { server, es, rs, hs: Signer::hs256(SECRET.as_bytes()), config, secrets, verifier }
    }

    /// Returns the claims of a signed-in user as GoTrue makes them if no issuer is configured, with `changes`. A null removes a claim.
    pub(crate) fn claims(&self, changes: Value) -> Value {
        let mut claims = json!({
            "aud": "authenticated",
            "role": "authenticated",
            "sub": USER,
            "iat": NOW.0 / 1000,
            "exp": NOW.0 / 1000 + 3600,
            "email": "someone@example.org",
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "session_id": "11111111-2222-3333-4444-555555555555",
            "is_anonymous": false,
        });
        let claim = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            claim.insert(name.clone(), value.clone());
        }
        claim.retain(|_, value| !value.is_null());
        claims
    }

    pub(crate) async fn verify(&self, token: &str, now: UnixMs) -> Result<Caller, AuthError> {
        self.verifier.verify(Some(&format!("Bearer {token}")), now).await
    }
}

/// A private key, with the key id and the algorithm in its tokens.
pub(crate) struct Signer {
    alg: &'static str,
    kid: Option<&'static str>,
    key: SigningKey,
}

enum SigningKey {
    Hs256(hmac::Key),
    Es256(EcdsaKeyPair),
    Rs256(rsa::KeyPair),
}

impl Signer {
    pub(crate) fn hs256(secret: &[u8]) -> Self {
        let key = SigningKey::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret));
        Self { alg: "HS256", kid: None, key }
    }

    /// Makes a new key.
    pub(crate) fn es256(kid: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self { alg: "ES256", kid: Some(kid), key: SigningKey::Es256(pair) }
    }

    /// Returns the key of RFC 7515, appendix A.2.
    pub(crate) fn rs256(kid: &'static str) -> Self {
        let part = |name: &str| URL_SAFE_NO_PAD.decode(RFC_7515[name].as_str().unwrap()).unwrap();
        let components = rsa::KeyPairComponents {
            public_key: rsa::PublicKeyComponents { n: part("n"), e: part("e") },
            d: part("d"),
            p: part("p"),
            q: part("q"),
            dP: part("dp"),
            dQ: part("dq"),
            qInv: part("qi"),
        };
        let pair = rsa::KeyPair::from_components(&components).unwrap();
        Self { alg: "RS256", kid: Some(kid), key: SigningKey::Rs256(pair) }
    }

    /// Returns the same key with another key id, or without one, in its tokens.
    pub(crate) fn named(self, kid: Option<&'static str>) -> Self {
        Self { kid, ..self }
    }

    /// Returns the same key with another algorithm in its tokens.
    pub(crate) fn claiming(self, alg: &'static str) -> Self {
        Self { alg, ..self }
    }

    /// Returns the bytes of the public EC point.
    pub(crate) fn public_point(&self) -> &[u8] {
        match &self.key {
            SigningKey::Es256(pair) => pair.public_key().as_ref(),
            _ => panic!("not an EC key"),
        }
    }

    /// Returns the public key as the project serves it.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            SigningKey::Hs256(_) => panic!("a secret is not served"),
            SigningKey::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)})
            }
            SigningKey::Rs256(_) => {
                json!({"kty": "RSA", "n": RFC_7515["n"].clone(), "e": RFC_7515["e"].clone()})
            }
        };
        jwk["alg"] = json!(self.alg);
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["key_ops"] = json!(["verify"]);
        jwk
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.alg, "typ": "JWT"});
        if let Some(kid) = self.kid {
            header["kid"] = json!(kid);
        }
        self.token_with(&header, claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.signed(&format!("{}.{}", base64(header.to_string()), base64(claims.to_string())))
    }

    /// Returns `message`, an encoded header and payload, with its signature.
    pub(crate) fn signed(&self, message: &str) -> String {
        format!("{message}.{}", base64(self.sign(message.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            SigningKey::Hs256(key) => hmac::sign(key, message).as_ref().to_vec(),
            SigningKey::Es256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            SigningKey::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What the server does with a request.
#[derive(Clone)]
pub(crate) enum Answer {
    Reply(u16, String),
    /// Close the connection once, then serve these keys.
    HangUpOnce(Vec<Value>),
    Silence,
}

/// Serves a key set over HTTP to clients with the project's `apikey`, and counts the requests.
pub(crate) struct KeyServer {
    pub(crate) url: String,
    answer: Arc<Mutex<Answer>>,
    fetches: Arc<watch::Sender<usize>>,
}

impl KeyServer {
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(key_set(keys)));
        let fetches = Arc::new(watch::Sender::new(0));
        let (what, count) = (Arc::clone(&answer), Arc::clone(&fetches));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&what), Arc::clone(&count)));
            }
        });
        Self { url, answer, fetches }
    }

    pub(crate) fn show(&self, keys: &[Value]) {
        self.answer(key_set(keys));
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn fetches(&self) -> usize {
        *self.fetches.borrow()
    }

    /// Returns when the server has seen `count` requests.
    pub(crate) async fn has_seen(&self, count: usize) {
        self.fetches.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }
}

async fn serve(mut connection: TcpStream, answer: Arc<Mutex<Answer>>, fetches: Arc<watch::Sender<usize>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    assert!(request.starts_with(b"GET /auth/v1/.well-known/jwks.json HTTP/1.1\r\n"));
    fetches.send_modify(|count| *count += 1);
    let apikey = format!("\r\napikey: {APIKEY}\r\n");
    let is_known = String::from_utf8_lossy(&request).contains(&apikey);
    let now = if is_known { answer.lock().unwrap().clone() } else { no_apikey() };
    match now {
        Answer::Silence => std::future::pending().await,
        Answer::HangUpOnce(keys) => *answer.lock().unwrap() = key_set(&keys),
        Answer::Reply(status, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nlocation: /auth/v1/.well-known/jwks.json\r\n\
                 content-length: {length}\r\nconnection: close\r\n\r\n"
            );
            // A client may disconnect before it has read everything.
            let _ = connection.write_all(format!("{head}{body}").as_bytes()).await;
        }
    }
}

/// Returns a gateway's refusal.
fn no_apikey() -> Answer {
    Answer::Reply(401, json!({"message": "No API key found in request"}).to_string())
}

fn key_set(keys: &[Value]) -> Answer {
    Answer::Reply(200, json!({ "keys": keys }).to_string())
}

static RFC_7515: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
    json!({
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
        "d": "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
        "p": "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
        "q": "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
        "dp": "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
        "dq": "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
        "qi": "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
    })
});
