//! One public key: which algorithm it may verify, and whether it is strong enough.

use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

/// The smallest RSA modulus accepted (RFC 7518, section 3.3).
const RSA_MIN_BITS: usize = 2048;

/// The bytes of a P-256 point written as a marker and both coordinates (SEC 1).
const UNCOMPRESSED_P256: usize = 65;

pub(super) struct Key {
    pub(super) kid: Option<String>,
    /// The only algorithm this key verifies.
    pub(super) algorithm: Algorithm,
    pub(super) decoding: Arc<DecodingKey>,
}

impl Key {
    /// Reads the key of `jwk` with the one algorithm that it may verify. Returns `None` if it is not supported or not strong enough.
    pub(super) fn from_jwk(jwk: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
            (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES256))
                if ec.curve == EllipticCurve::P256 =>
            {
                Algorithm::ES256
            }
            (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
            _ => return None,
        };
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        (verifies(&jwk) && is_strong(&decoding)).then(|| Self {
            kid: jwk.common.key_id,
            algorithm,
            decoding: Arc::new(decoding),
        })
    }
}

fn verifies(jwk: &Jwk) -> bool {
    let by_use = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations = jwk.common.key_operations.as_deref();
    by_use && operations.is_none_or(|allowed| allowed.contains(&KeyOperations::Verify))
}

fn is_strong(key: &DecodingKey) -> bool {
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => bits(n) >= RSA_MIN_BITS,
        DecodingKeyKind::SecretOrDer(point) => point.len() == UNCOMPRESSED_P256,
    }
}

/// Returns the length of a big-endian number. Leading zero bytes are not expected: `ring` refuses such a modulus.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::error::AuthError;
    use crate::http::auth::testing::{NOW, Project, Signer, USER, base64};

    /// Verifies a user's token while the served key has these `changes`, among unusable keys.
    async fn with_key(signer: &Signer, changes: Value) -> Result<String, AuthError> {
        let project = Project::start().await;
        let mut jwk = signer.jwk();
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        project.server.show(&[json!(null), json!("key"), json!({}), json!({"kty": "EC"}), jwk]);
        let verdict = project.verify(&signer.token(&project.claims(json!({}))), NOW).await;
        verdict.map(|caller| caller.user_id.to_string())
    }

    #[tokio::test]
    async fn keys_that_may_verify_are_used() {
        let es = Signer::es256("es");
        for changes in [
            json!({}),
            json!({"use": null}),
            json!({"key_ops": null}),
            json!({"key_ops": ["sign", "verify"]}),
            json!({"alg": null}),
            json!({"ext": true, "x5c": ["..."]}),
        ] {
            assert_eq!(with_key(&es, changes.clone()).await.as_deref(), Ok(USER), "{changes}");
        }
        assert_eq!(with_key(&Signer::rs256("rs"), json!({"alg": null})).await.as_deref(), Ok(USER));
    }

    #[tokio::test]
    async fn keys_for_other_ends_and_weak_keys_are_not_used() {
        let es = Signer::es256("es");
        let coordinate = |length: usize| base64(vec![7; length]);
        for changes in [
            json!({"use": "enc"}),
            json!({"use": "something"}),
            json!({"key_ops": ["sign"]}),
            json!({"key_ops": []}),
            json!({"alg": "ES384"}),
            json!({"alg": "RS256"}),
            json!({"alg": "HS256"}),
            json!({"alg": 5}),
            json!({"crv": "P-384"}),
            json!({"crv": "secp256k1"}),
            json!({"kty": "oct", "k": coordinate(32)}),
            json!({"kty": "OKP"}),
            json!({"x": coordinate(31)}),
            json!({"y": "not base64!"}),
        ] {
            let verdict = with_key(&es, changes.clone()).await;
            assert_eq!(verdict, Err(AuthError::UnknownKey), "{changes}");
        }
        let rs = Signer::rs256("rs");
        for modulus in [vec![], vec![0xff; 128], [&[0x7f], &[0xff; 255][..]].concat()] {
            let verdict = with_key(&rs, json!({"n": base64(&modulus)})).await;
            assert_eq!(verdict, Err(AuthError::UnknownKey), "{} bytes", modulus.len());
        }
        assert_eq!(with_key(&rs, json!({"alg": "PS256"})).await, Err(AuthError::UnknownKey));
        assert_eq!(with_key(&rs, json!({"n": base64([0xff; 256])})).await, Err(AuthError::BadSignature));
    }
}
