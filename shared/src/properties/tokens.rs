//! Properties of stored settings, of platform tokens and of users' tokens.

use super::*;
use crate::clock::UnixMs;
use crate::http::auth::testing::{
    Answer, KeyServer, NOW, Project, Signer, USER, base64, config, secrets, verifier,
};
use crate::secret::Secret;
use crate::store::settings::Settings;
use crate::wpp::token::Token;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Generates a platform token: an opaque string, or a JWT with arbitrary claims.
fn jwt() -> impl Strategy<Value = String> {
    prop_oneof![
        text(),
        object(&["exp", "iat", "sub"]).prop_map(|claims| {
            let part = |value: &Value| base64(value.to_string());
            format!("{}.{}.{}", part(&json!({"alg": "HS256"})), part(&json!(claims)), base64("signature"))
        }),
    ]
}

#[test]
fn fuzz_settings() {
    const FIELDS: [&str; 5] =
        ["wppApiKey", "wppAccountNumber", "wppJwtToken", "wppJwtExpiresAt", "wppSubOrgId"];
    check((object(&FIELDS), any::<i64>()), |(row, now)| {
        let settings: Settings = serde_json::from_value(json!(row)).unwrap();
        let text = |key: &str| row.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        prop_assert_eq!(settings.session.as_deref(), text("wppAccountNumber"));
        prop_assert_eq!(settings.api_key, text("wppApiKey").map(Secret::new));
        prop_assert_eq!(settings.jwt_token.clone(), text("wppJwtToken").map(Secret::new));
        if let Some(jwt) = settings.jwt_token {
            let token = Token::stored(jwt, settings.jwt_expires_at);
            let _ = token.age(UnixMs(now));
            let _ = token.expires_at.to_rfc3339();
        }
        Ok(())
    });
}

#[test]
fn fuzz_issued_tokens() {
    check((jwt(), prop::option::of(value()), 0..4_102_444_800_000_i64), |(jwt, expires_in, now)| {
        let token = Token::issued(Secret::new(jwt), expires_in.as_ref(), UnixMs(now));
        let left = UnixMs(now).until(token.expires_at);
        prop_assert!(left <= DAY && token.life <= DAY, "{token:?}");
        prop_assert!(token.expires_at >= UnixMs(now), "{token:?}");
        let _ = token.age(UnixMs(now));
        Ok(())
    });
}

#[test]
fn fuzz_masks() {
    check(any::<String>(), |key| {
        let (masked, chars) = (Secret::new(key.clone()).masked(), key.chars().collect::<Vec<_>>());
        if chars.len() < 12 {
            prop_assert_eq!(masked, "***");
        } else {
            let end = |chars: &[char]| chars.iter().collect::<String>();
            prop_assert_eq!(masked, format!("{}••••••{}", end(&chars[..6]), end(&chars[chars.len() - 4..])));
        }
        Ok(())
    });
}

/// Generates an invalid token: a random one, or a valid one with one character changed.
fn forged(valid: Vec<String>) -> impl Strategy<Value = String> {
    let header = object(&["alg", "kid", "typ", "crit", "jku", "jwk", "x5c"]);
    let claims = object(&["iss", "aud", "role", "sub", "exp", "nbf", "iat"]);
    let part = |object: Map<String, Value>| base64(json!(object).to_string());
    let changed = (prop::sample::select(valid), any::<prop::sample::Index>(), any::<char>());
    prop_oneof![
        text(),
        (header, claims, text()).prop_map(move |(header, claims, signature)| {
            format!("{}.{}.{signature}", part(header), part(claims))
        }),
        changed.prop_map(|(token, at, char)| {
            let mut chars: Vec<_> = token.chars().collect();
            let at = at.index(chars.len());
            chars[at] = char;
            chars.into_iter().collect()
        }),
    ]
}

#[test]
fn fuzz_user_tokens() {
    let runtime = runtime();
    let project = runtime.block_on(Project::start());
    let valid =
        [&project.es, &project.rs, &project.hs].map(|key| key.token(&project.claims(json!({})))).to_vec();
    for token in &valid {
        assert!(runtime.block_on(project.verify(token, NOW)).is_ok());
    }
    check(forged(valid.clone()), |token| {
        let verdict = runtime.block_on(project.verify(&token, NOW));
        prop_assert!(verdict.is_err() || valid.iter().any(|valid| valid == token.trim()), "{token}");
        Ok(())
    });
    // However many unknown key ids there were, the JWKS was fetched at most twice.
    assert!(project.server.fetches() <= 2);
}

/// Checks any key set that a server may return. An unreadable key does not disable the others, and no key accepts a token that
/// another signer signed.
#[test]
fn fuzz_key_sets() {
    let (runtime, signers) = (runtime(), [Signer::es256("es"), Signer::rs256("rs")]);
    let good = json!({"keys": [signers[0].jwk(), signers[1].jwk()]});
    let set = prop_oneof![
        4 => mutated(good.clone()).prop_map(|set| set.to_string()),
        1 => text(),
        1 => mutated(good).prop_map(|set| set["keys"].to_string()),
    ];
    let server = runtime.block_on(KeyServer::start(&[]));
    let stranger = Signer::es256("es");
    check(set, |set| {
        server.answer(Answer::Reply(200, set.clone()));
        let config = config(&server.url);
        let verifier = verifier(&config, &secrets());
        let claims =
            json!({"aud": "authenticated", "role": "authenticated", "sub": USER, "exp": NOW.0 / 1000 + 60});
        let verify = |signer: &Signer| {
            let header = format!("Bearer {}", signer.token(&claims));
            runtime.block_on(verifier.verify(Some(&header), NOW))
        };
        prop_assert!(verify(&stranger).is_err(), "{set}");
        for signer in &signers {
            let whole = serde_json::from_str::<Value>(&set).ok();
            let is_there = whole.is_some_and(|set| {
                set["keys"].as_array().is_some_and(|keys| {
                    let named = keys.iter().filter(|key| key["kid"] == signer.jwk()["kid"]);
                    keys.contains(&signer.jwk()) && named.count() == 1
                })
            });
            prop_assert!(verify(signer).is_ok() || !is_there, "{set}");
        }
        Ok(())
    });
}
