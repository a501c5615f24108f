//! The cryptography of `jsonwebtoken`, based on `ring`, which TLS already needs.
//!
//! It verifies HS256, ES256 and RS256 and refuses everything else; nothing here signs.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: refuse_to_sign,
    verifier_factory: verifier,
    // Only used to turn signing keys into JWKs, which the functions do not do.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Installs `ring` as the provider of `jsonwebtoken`. Only the first call has an effect.
pub(crate) fn install() {
    // An error only means that a provider is already installed.
    let _ = PROVIDER.install_default();
}

enum RingVerifier {
    Hs256(hmac::Key),
    Es256(UnparsedPublicKey<Vec<u8>>),
    Rs256(RsaPublicKeyComponents<Vec<u8>>),
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        match self {
            Self::Hs256(key) => hmac::verify(key, message, signature),
            Self::Es256(key) => key.verify(message, signature),
            Self::Rs256(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        }
        .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hs256(_) => Algorithm::HS256,
            Self::Es256(_) => Algorithm::ES256,
            Self::Rs256(_) => Algorithm::RS256,
        }
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    use AlgorithmFamily::{Ec, Hmac, Rsa};
    use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};

    let verifier = match (algorithm, key.family(), key.kind()) {
        (Algorithm::HS256, Hmac, SecretOrDer(secret)) => {
            RingVerifier::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret))
        }
        (Algorithm::ES256, Ec, SecretOrDer(point)) => {
            RingVerifier::Es256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.clone()))
        }
        (Algorithm::RS256, Rsa, RsaModulusExponent { n, e }) => {
            RingVerifier::Rs256(RsaPublicKeyComponents { n: n.clone(), e: e.clone() })
        }
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    };
    Ok(Box::new(verifier))
}

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Header, crypto};

    use super::*;

    const PAYLOAD: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    /// Returns algorithm, key, encoded header and signature of appendices A.1 to A.3.
    fn rfc_7515() -> [(Algorithm, DecodingKey, &'static str, &'static str); 3] {
        [
            (
                Algorithm::HS256,
                DecodingKey::from_base64_secret("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T+1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==").unwrap(),
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            ),
            (
                Algorithm::RS256,
                DecodingKey::from_rsa_components("ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ", "AQAB").unwrap(),
                "eyJhbGciOiJSUzI1NiJ9",
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                Algorithm::ES256,
                DecodingKey::from_ec_components("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap(),
                "eyJhbGciOiJFUzI1NiJ9",
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
        ]
    }

    #[test]
    fn rfc_7515_examples_verify() {
        install();
        for (algorithm, key, header, signature) in rfc_7515() {
            let message = format!("{header}.{PAYLOAD}");
            let verdict = crypto::verify(signature, message.as_bytes(), &key, algorithm);
            assert_eq!(verdict, Ok(true), "{algorithm:?}");
            let changed = crypto::verify(signature, header.as_bytes(), &key, algorithm);
            assert_eq!(changed, Ok(false), "{algorithm:?}");
            let verdict = crypto::verify("AAAA", message.as_bytes(), &key, algorithm);
            assert_eq!(verdict, Ok(false), "{algorithm:?}");
        }
    }

    #[test]
    fn key_verifies_only_its_own_algorithm() {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, RS256, RS384, RS512};
        for (own, key, ..) in rfc_7515() {
            for other in [ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, RS256, RS384, RS512] {
                assert_eq!(verifier(&other, &key).is_ok(), other == own, "{own:?} {other:?}");
            }
        }
    }

    #[test]
    fn signing_is_not_supported() {
        install();
        let key = EncodingKey::from_secret(b"secret");
        assert!(jsonwebtoken::encode(&Header::default(), &"claims", &key).is_err());
    }
}
