mod simulation;
pub(crate) mod stored_number;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const NOW_S: i64 = 1_800_000_000;

fn jwt(claims: &Value) -> Secret {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    Secret::new(format!("{}.{}.c2ln", part(&json!({"alg": "HS256"})), part(claims)))
}

fn opaque() -> Secret {
    Secret::new("opaque")
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Returns the TTL in seconds that a token gets when it is issued.
fn issued_life(jwt: Secret, expires_in: Value) -> u64 {
    let token = Token::issued(jwt, Some(&expires_in), NOW);
    assert_eq!(NOW.until(token.expires_at), token.life);
    token.life.as_secs()
}

#[test]
fn earlier_of_expires_in_and_exp_counts() {
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 600})), json!(3600)), 600);
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 7200})), json!(3600)), 3600);
}

#[test]
fn expiry_falls_back_to_the_claim_then_an_hour() {
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 7200})), json!(null)), 7200);
    assert_eq!(issued_life(opaque(), json!(null)), 3600);
    assert_eq!(Token::issued(opaque(), None, NOW).life, secs(3600));
}

#[test]
fn absurd_expires_in_is_bounded() {
    for nonsense in [json!(0), json!(-5), json!("soon"), json!([]), json!(true), json!(""), json!("-1")] {
        assert_eq!(issued_life(opaque(), nonsense.clone()), 300, "{nonsense}");
        assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 900})), nonsense.clone()), 900, "{nonsense}");
    }
    assert_eq!(issued_life(opaque(), json!("1800")), 1800);
    assert_eq!(issued_life(opaque(), json!(1800.9)), 1800);
    assert_eq!(issued_life(opaque(), json!(3_600_000)), 3600, "milliseconds");
    assert_eq!(issued_life(opaque(), json!(604_800)), 24 * 3600, "still seconds");
    assert_eq!(issued_life(opaque(), json!(400_000)), 24 * 3600, "longer than any token is believed");
    assert_eq!(issued_life(opaque(), json!(1e300)), 24 * 3600);
}

#[test]
fn absurd_exp_claim_is_bounded() {
    let claims = json!({"exp": (NOW_S + 900) * 1000});
    assert_eq!(issued_life(jwt(&claims), json!(3600)), 900, "milliseconds");
    assert_eq!(issued_life(jwt(&json!({"exp": "x"})), json!(1200)), 1200);
    assert_eq!(issued_life(jwt(&json!({"exp": 1e300})), json!(null)), 24 * 3600);
    assert_eq!(issued_life(jwt(&json!({"exp": -1})), json!(null)), 3600);
}

#[test]
fn exp_in_the_past_counts_by_its_length() {
    let behind = json!({"iat": NOW_S - 7200, "exp": NOW_S - 3600});
    assert_eq!(issued_life(jwt(&behind), json!(5000)), 3600);
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S - 10})), json!(5000)), 300);
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S})), json!(5000)), 300);
}

#[test]
fn a_stored_expiry_below_10_to_the_11_is_in_seconds() {
    let end = |stored: Value| expiry(&stored).unwrap();
    assert_eq!(end(json!(1_800_000_000_500_i64)), UnixMs(1_800_000_000_500));
    assert_eq!(end(json!(1_800_000_000)), NOW);
    assert_eq!(end(json!("1800000000000")), NOW);
    assert_eq!(end(json!(99_999_999_999_i64)), UnixMs(99_999_999_999_000));
    assert_eq!(end(json!(100_000_000_000_i64)), UnixMs(100_000_000_000));
}

#[test]
fn a_token_without_any_expiry_has_expired() {
    assert_eq!(Token::stored(jwt(&json!({"exp": NOW_S})), None).expires_at, NOW);
    assert_eq!(Token::stored(opaque(), None).age(NOW), Age::Expired);
    for none in [json!("?"), json!(0), json!(-3), json!({})] {
        assert_eq!(expiry(&none), None, "{none}");
    }
}

#[test]
fn a_token_is_due_for_a_minute_before_it_expires() {
    let token = Token::issued(opaque(), Some(&json!(3600)), NOW);
    let left = |left: Duration| token.age(token.expires_at.minus(left));
    let a_moment = Duration::from_millis(1);
    assert_eq!((left(secs(3600)), left(secs(60) + a_moment)), (Age::Fresh, Age::Fresh));
    assert_eq!((left(secs(60)), left(secs(5) + a_moment)), (Age::Due, Age::Due));
    assert_eq!((left(secs(5)), left(secs(0))), (Age::Expired, Age::Expired));
    assert_eq!(token.age(token.expires_at.plus(secs(9))), Age::Expired);
}

#[test]
fn last_fifth_of_a_short_life_is_due() {
    for (life, due, expired) in [(300, 60, 5), (299, 59, 5), (50, 10, 5), (25, 5, 5), (10, 2, 2)] {
        let token = Token::issued(jwt(&json!({"iat": NOW_S, "exp": NOW_S + life})), None, NOW);
        let left = |left: u64| token.age(token.expires_at.minus(secs(left)));
        assert_eq!((left(due + 1), left(expired)), (Age::Fresh, Age::Expired), "{life}");
        assert_eq!(left(due), if due > expired { Age::Due } else { Age::Expired }, "{life}");
        let read_back = Token::stored(token.jwt.clone(), Some(token.expires_at));
        assert_eq!(read_back, token);
    }
}

#[test]
fn stored_expiry_beyond_a_day_is_due() {
    let day = Token::stored(opaque(), Some(NOW.plus(secs(24 * 3600))));
    assert_eq!((day.age(NOW), day.age(NOW.minus(secs(1)))), (Age::Fresh, Age::Due));
    assert_eq!(Token::stored(opaque(), expiry(&json!(9e17))).age(NOW), Age::Due);
}

/// A thousand numbers whose tokens were all issued within one second, as after a restart of the platform. Each number is polled
/// about every five minutes, at random times. The first poll in a token's last minute or later replaces it.
#[test]
fn tokens_that_began_together_drift_apart() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut refreshes: [Vec<u64>; 6] = Default::default();
    for _ in 0..1000 {
        let mut polled_at = NOW.plus(Duration::from_millis(random.u64(..1000)));
        let mut token = Token::issued(opaque(), None, polled_at);
        for refreshes in &mut refreshes {
            while token.age(polled_at) == Age::Fresh {
                polled_at = polled_at.plus(secs(300).mul_f64(-random.f64().ln()));
            }
            refreshes.push(NOW.until(polled_at).as_secs() / 10);
            token = Token::issued(opaque(), None, polled_at);
        }
    }
    // The most refreshes in ten seconds become fewer with every round.
    let most = refreshes.map(|mut refreshes| {
        refreshes.sort_unstable();
        refreshes.chunk_by(|one, other| one == other).map(<[_]>::len).max().unwrap()
    });
    assert!(most[0] < 100 && most[5] < 50, "{most:?}");
}
