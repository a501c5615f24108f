use serde_json::{Value, json};

use super::AuthError;
use super::testing::{APIKEY, NOW, Project, SECRET, Signer, USER, base64, config, secrets, verifier};
use crate::clock::UnixMs;
use crate::config::Config;
use crate::secret::Secret;
use crate::secrets::{SecretValues, ServiceKey};

fn secs() -> i64 {
    NOW.0 / 1000
}

/// Verifies an ES256 token of the project's user with these `changes` to its claims.
async fn verdict(changes: Value) -> Result<String, AuthError> {
    let project = Project::start().await;
    let token = project.es.token(&project.claims(changes));
    project.verify(&token, NOW).await.map(|caller| caller.user_id.to_string())
}

#[tokio::test]
async fn each_of_three_algorithms_is_accepted() {
    let project = Project::start().await;
    for signer in [&project.es, &project.rs, &project.hs] {
        let token = signer.token(&project.claims(json!({})));
        let caller = project.verify(&token, NOW).await;
        assert_eq!(caller.map(|caller| caller.user_id.to_string()).as_deref(), Ok(USER));
    }
}

#[tokio::test]
async fn the_scheme_may_be_in_any_case_with_any_number_of_spaces() {
    let project = Project::start().await;
    let token = project.hs.token(&project.claims(json!({})));
    for header in [format!("Bearer {token}"), format!("bearer {token}"), format!("  BEARER \t   {token}  ")] {
        assert!(project.verifier.verify(Some(&header), NOW).await.is_ok(), "{header}");
    }
}

#[tokio::test]
async fn absent_or_blank_header_is_missing() {
    let project = Project::start().await;
    for header in [None, Some(""), Some("   ")] {
        assert_eq!(project.verifier.verify(header, NOW).await, Err(AuthError::Missing));
    }
}

#[tokio::test]
async fn header_without_one_bearer_jwt_is_malformed() {
    let project = Project::start().await;
    let token = project.es.token(&project.claims(json!({})));
    let (header, rest) = token.split_once('.').unwrap();
    for header in [
        "Bearer".to_owned(),
        token.clone(),
        format!("Basic {token}"),
        format!("Bearer {token} {token}"),
        format!("Bearer {token},{token}"),
        format!("Bearer {token}."),
        format!("Bearer .{token}"),
        format!("Bearer {header}.{token}"),
        format!("Bearer {header}=.{rest}"),
        "Bearer a".to_owned(),
        "Bearer a.b.c".to_owned(),
        "Bearer ...".to_owned(),
        "Bearer ..".to_owned(),
        "Bearer ключ.ключ.ключ".to_owned(),
        "Bearer sb_secret_0123456789".to_owned(),
        format!("Bearer {}.{}.{}", base64("{}"), base64("{}"), base64("x")),
        format!("Bearer {}.e30.", base64("[".repeat(3000))),
    ] {
        let verdict = project.verifier.verify(Some(&header), NOW).await;
        assert_eq!(verdict, Err(AuthError::Malformed), "{header}");
    }
    assert_eq!(project.server.fetches(), 0);
}

#[tokio::test]
async fn a_header_longer_than_16_kib_is_too_long() {
    let project = Project::start().await;
    let token = project.hs.token(&project.claims(json!({"pad": "x".repeat(11_000)})));
    for (length, expected) in [(16_384, None), (16_385, Some(AuthError::TooLong))] {
        let header = format!("Bearer {token:>width$}", width = length - "Bearer ".len());
        assert_eq!(project.verifier.verify(Some(&header), NOW).await.err(), expected, "{length}");
    }
}

#[tokio::test]
async fn expiry_has_30_s_of_leeway() {
    assert!(verdict(json!({"exp": secs() - 29})).await.is_ok());
    assert!(verdict(json!({"exp": secs() as f64 - 29.9})).await.is_ok());
    assert_eq!(verdict(json!({"exp": secs() - 30})).await, Err(AuthError::Expired));
    assert_eq!(verdict(json!({"exp": secs() - 31})).await, Err(AuthError::Expired));
    assert_eq!(verdict(json!({"exp": 0})).await, Err(AuthError::Expired));
    assert_eq!(verdict(json!({"exp": -1e300})).await, Err(AuthError::Expired));
}

#[tokio::test]
async fn non_finite_expiry_is_malformed() {
    for exp in [json!(null), json!("9999999999"), json!([]), json!({}), json!(true)] {
        assert_eq!(verdict(json!({"exp": exp})).await, Err(AuthError::Malformed));
    }
    let project = Project::start().await;
    let claims = base64(r#"{"exp": 1e999}"#);
    let token = project.hs.token(&json!({}));
    let (header, _) = token.split_once('.').unwrap();
    let infinite = format!("{header}.{claims}");
    let signed = project.hs.signed(&infinite);
    assert_eq!(project.verify(&signed, NOW).await, Err(AuthError::Malformed));
}

#[tokio::test]
async fn nbf_has_30_s_of_leeway() {
    assert!(verdict(json!({"nbf": secs() + 29})).await.is_ok());
    assert_eq!(verdict(json!({"nbf": secs() + 31})).await, Err(AuthError::NotYetValid));
    assert_eq!(verdict(json!({"nbf": 1e300})).await, Err(AuthError::NotYetValid));
    assert_eq!(verdict(json!({"nbf": "soon"})).await, Err(AuthError::Malformed));
}

#[tokio::test]
async fn audience_may_be_a_string_or_a_list() {
    assert!(verdict(json!({"aud": ["other", "authenticated"]})).await.is_ok());
    for aud in [json!("other"), json!(["other"]), json!([]), json!(""), json!(null), json!(5), json!([5])] {
        assert_eq!(verdict(json!({"aud": aud})).await, Err(AuthError::WrongAudience), "{aud}");
    }
}

/// Returns values that a project may put into `iss`: none (self-hosted), its own address, the address behind a custom domain, or
/// anything else.
fn issuers(url: &str) -> [Value; 9] {
    [
        json!(null),
        json!(""),
        json!("supabase"),
        json!("https://abcdefghijklmnopqrst.supabase.co/auth/v1"),
        json!(format!("{url}/auth/v1")),
        json!(format!("{url}/auth/v1/")),
        json!(url),
        json!([format!("{url}/auth/v1")]),
        json!(7),
    ]
}

#[tokio::test]
async fn any_issuer_is_accepted_by_default() {
    let project = Project::start().await;
    for iss in issuers(&project.server.url) {
        for signer in [&project.es, &project.rs, &project.hs] {
            let token = signer.token(&project.claims(json!({"iss": iss})));
            assert!(project.verify(&token, NOW).await.is_ok(), "{iss}");
        }
    }
    let mut claims = project.claims(json!({}));
    claims["iss"] = json!(null);
    assert!(project.verify(&project.hs.token(&claims), NOW).await.is_ok());
}

#[tokio::test]
async fn configured_issuers_are_required() {
    let project = Project::start().await;
    let url = &project.server.url;
    let named = [format!("{url}/auth/v1"), "https://sso.example".to_owned()];
    let strict =
        verifier(&Config { jwt_issuers: named.to_vec(), ..project.config.clone() }, &project.secrets);
    let verify = async |iss: Value| {
        let token = project.hs.token(&project.claims(json!({"iss": iss})));
        strict.verify(Some(&format!("Bearer {token}")), NOW).await
    };
    for iss in &named {
        assert!(verify(json!(iss)).await.is_ok(), "{iss}");
    }
    for iss in issuers(url).into_iter().filter(|iss| *iss != named[0]) {
        assert_eq!(verify(iss.clone()).await, Err(AuthError::WrongIssuer), "{iss}");
    }
}

#[tokio::test]
async fn an_anonymous_sign_in_is_a_user() {
    let claims = json!({"is_anonymous": true, "email": "", "amr": [{"method": "anonymous"}]});
    assert_eq!(verdict(claims).await.as_deref(), Ok(USER));
}

#[tokio::test]
async fn a_trailing_slash_of_the_project_url_changes_nothing() {
    let project = Project::start().await;
    let token = project.es.token(&project.claims(json!({})));
    for url in [format!("{}/", project.server.url), format!("{}//", project.server.url)] {
        let verdict =
            verifier(&config(&url), &project.secrets).verify(Some(&format!("Bearer {token}")), NOW).await;
        assert!(verdict.is_ok(), "{url}");
    }
}

#[tokio::test]
async fn jwks_request_sends_either_kind_of_service_key() {
    let project = Project::start().await;
    let header = format!("Bearer {}", project.es.token(&project.claims(json!({}))));
    for (key, expected) in [
        (ServiceKey::New(Secret::new(APIKEY)), None),
        (ServiceKey::Legacy(Secret::new(APIKEY)), None),
        (ServiceKey::New(Secret::new("sb_secret_of_another")), Some(AuthError::KeysUnavailable)),
    ] {
        let verifier =
            verifier(&project.config, &SecretValues { service_key: key.clone(), ..project.secrets.clone() });
        assert_eq!(verifier.verify(Some(&header), NOW).await.err(), expected, "{key:?}");
    }
}

#[tokio::test]
async fn service_and_anon_keys_are_refused() {
    let project = Project::start().await;
    for role in ["service_role", "anon", "postgres", "", "Authenticated"] {
        assert_eq!(verdict(json!({"role": role})).await, Err(AuthError::WrongRole), "{role}");
        let legacy = json!({
            "iss": "supabase", "ref": "abcdefgh", "role": role,
            "iat": secs(), "exp": secs() + 315_360_000,
        });
        let verdict = project.verify(&project.hs.token(&legacy), NOW).await;
        // A legacy key has no `aud`.
        assert_eq!(verdict, Err(AuthError::WrongAudience), "{role}");
    }
    assert_eq!(verdict(json!({"role": null})).await, Err(AuthError::WrongRole));
}

#[tokio::test]
async fn subject_must_be_a_uuid() {
    assert_eq!(verdict(json!({"sub": USER.to_uppercase()})).await.as_deref(), Ok(USER));
    for sub in [
        json!(null),
        json!(""),
        json!("admin"),
        json!(USER.replace('-', "")),
        json!(format!("{{{USER}}}")),
        json!(format!("{USER}0")),
        json!(USER.replace('7', "g")),
        json!(USER.replace('7', "é")),
        json!("7d9f3b520-c7e-4f0a-9a51-2f6f0f3c8b11"),
    ] {
        assert_eq!(verdict(json!({"sub": sub})).await, Err(AuthError::WrongSubject), "{sub}");
    }
}

#[tokio::test]
async fn an_unsigned_token_is_refused() {
    let project = Project::start().await;
    let claims = base64(project.claims(json!({})).to_string());
    for alg in ["none", "None", "nOnE", ""] {
        for kid in [json!(null), json!("es")] {
            let header = base64(json!({"alg": alg, "typ": "JWT", "kid": kid}).to_string());
            let verdict = project.verify(&format!("{header}.{claims}."), NOW).await;
            assert_eq!(verdict, Err(AuthError::Malformed), "{alg}");
        }
    }
    for signer in [&project.es, &project.rs, &project.hs] {
        let token = signer.token(&project.claims(json!({})));
        let (message, _) = token.rsplit_once('.').unwrap();
        let verdict = project.verify(&format!("{message}."), NOW).await;
        assert_eq!(verdict, Err(AuthError::BadSignature));
    }
}

#[tokio::test]
async fn public_key_is_not_accepted_as_hmac_secret() {
    let project = Project::start().await;
    let forger = Signer::hs256(project.es.public_point()).named(Some("es"));
    let token = forger.token(&project.claims(json!({})));
    assert_eq!(project.verify(&token, NOW).await, Err(AuthError::BadSignature));

    let without_secret = verifier(&project.config, &secrets());
    let verdict = without_secret.verify(Some(&format!("Bearer {token}")), NOW).await;
    assert_eq!(verdict, Err(AuthError::UnknownKey));
}

#[tokio::test]
async fn legacy_tokens_need_a_secret_that_is_not_empty() {
    let project = Project::start().await;
    for secret in [None, Some(""), Some("  ")] {
        let jwt_secret = secret.map(Secret::new);
        let verifier = verifier(&project.config, &SecretValues { jwt_secret, ..project.secrets.clone() });
        let forger = Signer::hs256(secret.unwrap_or(SECRET).as_bytes());
        let header = format!("Bearer {}", forger.token(&project.claims(json!({}))));
        let verdict = verifier.verify(Some(&header), NOW).await;
        assert_eq!(verdict, Err(AuthError::UnknownKey));
    }
}

#[tokio::test]
async fn token_cannot_choose_the_algorithm() {
    let project = Project::start().await;
    let claims = project.claims(json!({}));
    let crossed = [
        Signer::es256("es").named(Some("rs")),
        Signer::rs256("rs").named(Some("es")),
        Signer::es256("es").claiming("RS256"),
        Signer::rs256("rs").claiming("ES256"),
        Signer::rs256("rs").claiming("PS256"),
        Signer::rs256("rs").claiming("RS512"),
        Signer::es256("es").claiming("ES384"),
        Signer::es256("es").claiming("EdDSA"),
        Signer::hs256(SECRET.as_bytes()).claiming("HS512"),
    ];
    for signer in &crossed {
        let verdict = project.verify(&signer.token(&claims), NOW).await;
        assert_eq!(verdict, Err(AuthError::WrongAlgorithm));
    }
}

#[tokio::test]
async fn a_changed_payload_header_or_signature_is_refused() {
    let project = Project::start().await;
    let other = base64(project.claims(json!({"sub": USER.replace('7', "8")})).to_string());
    for signer in [&project.es, &project.rs, &project.hs] {
        let token = signer.token(&project.claims(json!({})));
        let parts: Vec<&str> = token.split('.').collect();
        let payload = format!("{}.{other}.{}", parts[0], parts[2]);
        assert_eq!(project.verify(&payload, NOW).await, Err(AuthError::BadSignature));

        let changed = if parts[2].starts_with('A') { "B" } else { "A" };
        let signature = format!("{}.{}.{changed}{}", parts[0], parts[1], &parts[2][1..]);
        assert_eq!(project.verify(&signature, NOW).await, Err(AuthError::BadSignature));
    }
    let stranger = Signer::es256("es").token(&project.claims(json!({})));
    assert_eq!(project.verify(&stranger, NOW).await, Err(AuthError::BadSignature));
}

#[tokio::test]
async fn signature_is_checked_before_the_claims() {
    let project = Project::start().await;
    let forged = Signer::es256("es").token(&project.claims(json!({"exp": 0, "role": "anon"})));
    assert_eq!(project.verify(&forged, NOW).await, Err(AuthError::BadSignature));
}

#[tokio::test]
async fn crit_header_is_refused() {
    let project = Project::start().await;
    let header = json!({"alg": "ES256", "kid": "es", "crit": ["exp"]});
    let token = project.es.token_with(&header, &project.claims(json!({})));
    assert_eq!(project.verify(&token, NOW).await, Err(AuthError::Malformed));
}

#[tokio::test]
async fn jwk_and_jku_headers_are_ignored() {
    let project = Project::start().await;
    let intruder = Signer::es256("intruder");
    let header = json!({
        "alg": "ES256", "kid": "es", "jwk": intruder.jwk(), "jku": "http://127.0.0.1:1/keys",
    });
    let token = intruder.token_with(&header, &project.claims(json!({})));
    assert_eq!(project.verify(&token, NOW).await, Err(AuthError::BadSignature));
}

#[tokio::test]
async fn extreme_times_do_not_panic() {
    let project = Project::start().await;
    let token = project.es.token(&project.claims(json!({"exp": 1e300, "nbf": -1e300})));
    for now in [UnixMs(i64::MIN), UnixMs(0), NOW, UnixMs(i64::MAX - 1)] {
        assert!(project.verify(&token, now).await.is_ok(), "{now:?}");
    }
}

#[tokio::test]
async fn the_secret_is_not_printed() {
    let project = Project::start().await;
    let printed = format!("{:?} {:#?}", project.verifier, project.verifier);
    assert!(printed.contains("hs256: true") && !printed.contains(SECRET), "{printed}");
    assert!(!printed.contains(APIKEY), "{printed}");
}
