use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const NOW_S: i64 = 1_800_000_000;
/// The row whose tokens are replaced as early as any.
const FIRST: Spread = Spread(u16::MAX);
/// The row whose tokens are replaced as late as any.
const LAST: Spread = Spread(0);

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

/// The life in seconds that a token gets when it is issued.
fn issued_life(jwt: Secret, expires_in: Value) -> u64 {
    let token = Token::issued(jwt, Some(&expires_in), NOW);
    assert_eq!(NOW.until(token.expires_at), token.life);
    token.life.as_secs()
}

#[test]
fn the_earlier_of_expires_in_and_exp_counts() {
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 600})), json!(3600)), 600);
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 7200})), json!(3600)), 3600);
}

#[test]
fn without_expires_in_the_claim_counts_and_without_both_an_hour() {
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 7200})), json!(null)), 7200);
    assert_eq!(issued_life(opaque(), json!(null)), 3600);
    assert_eq!(Token::issued(opaque(), None, NOW).life, secs(3600));
}

#[test]
fn a_stated_life_that_makes_no_sense_is_bounded() {
    for nonsense in [json!(0), json!(-5), json!("soon"), json!([]), json!(true), json!(""), json!("-1")] {
        assert_eq!(issued_life(opaque(), nonsense.clone()), 300, "{nonsense}");
        assert_eq!(issued_life(jwt(&json!({"exp": NOW_S + 900})), nonsense.clone()), 900, "{nonsense}");
    }
    assert_eq!(issued_life(opaque(), json!("1800")), 1800);
    assert_eq!(issued_life(opaque(), json!(1800.9)), 1800);
    assert_eq!(issued_life(opaque(), json!(3_600_000)), 3600, "milliseconds");
    assert_eq!(issued_life(opaque(), json!(400_000)), 24 * 3600, "longer than any token is believed");
    assert_eq!(issued_life(opaque(), json!(1e300)), 24 * 3600);
}

#[test]
fn a_claim_that_makes_no_sense_is_bounded() {
    let claims = json!({"exp": (NOW_S + 900) * 1000});
    assert_eq!(issued_life(jwt(&claims), json!(3600)), 900, "milliseconds");
    assert_eq!(issued_life(jwt(&json!({"exp": "x"})), json!(1200)), 1200);
    assert_eq!(issued_life(jwt(&json!({"exp": 1e300})), json!(null)), 24 * 3600);
    assert_eq!(issued_life(jwt(&json!({"exp": -1})), json!(null)), 3600);
}

#[test]
fn an_end_before_the_beginning_is_another_clocks_and_the_length_counts() {
    let behind = json!({"iat": NOW_S - 7200, "exp": NOW_S - 3600});
    assert_eq!(issued_life(jwt(&behind), json!(5000)), 3600);
    assert_eq!(issued_life(jwt(&json!({"exp": NOW_S - 10})), json!(5000)), 300);
}

#[test]
fn a_stored_expiry_below_10_to_the_11_is_in_seconds() {
    let end = |stored: Value| Token::stored(opaque(), Some(&stored)).expires_at;
    assert_eq!(end(json!(1_800_000_000_500_i64)), UnixMs(1_800_000_000_500));
    assert_eq!(end(json!(1_800_000_000)), NOW);
    assert_eq!(end(json!("1800000000000")), NOW);
    assert_eq!(end(json!(99_999_999_999_i64)), UnixMs(99_999_999_999_000));
    assert_eq!(end(json!(100_000_000_000_i64)), UnixMs(100_000_000_000));
}

#[test]
fn a_missing_expiry_is_the_tokens_own_and_without_that_the_token_has_ended() {
    assert_eq!(Token::stored(jwt(&json!({"exp": NOW_S})), None).expires_at, NOW);
    assert_eq!(Token::stored(jwt(&json!({"exp": NOW_S})), Some(&json!("?"))).expires_at, NOW);
    for expiry in [None, Some(json!(0)), Some(json!(-3)), Some(json!({}))] {
        let token = Token::stored(opaque(), expiry.as_ref());
        assert_eq!(token.freshness(NOW, LAST), Freshness::Unusable, "{expiry:?}");
    }
}

#[test]
fn at_exactly_sixty_seconds_left_a_token_is_not_used() {
    let token = Token::issued(opaque(), Some(&json!(3600)), NOW);
    let left = |left: Duration| token.freshness(token.expires_at.minus(left), LAST);
    assert_eq!(left(secs(60)), Freshness::Unusable);
    assert_eq!(left(secs(60) + Duration::from_millis(1)), Freshness::Soon);
    assert_eq!(left(secs(0)), Freshness::Unusable);
    assert_eq!(token.freshness(token.expires_at.plus(secs(9)), LAST), Freshness::Unusable);
}

#[test]
fn the_early_part_begins_at_one_to_five_minutes_before_the_margin_by_row() {
    let token = Token::issued(opaque(), Some(&json!(3600)), NOW);
    let at = |left: u64, row| token.freshness(token.expires_at.minus(secs(left)), row);
    assert_eq!((at(361, FIRST), at(360, FIRST)), (Freshness::Fresh, Freshness::Soon));
    assert_eq!((at(121, LAST), at(120, LAST)), (Freshness::Fresh, Freshness::Soon));
}

#[test]
fn a_thousand_rows_saved_in_one_minute_are_not_replaced_in_one_minute() {
    let token = Token::issued(opaque(), Some(&json!(3600)), NOW);
    let mut per_minute = [0; 6];
    for row in 0..1000_u128 {
        let row = Spread::of(&uuid::Uuid::from_u128(row));
        let soon = |left: &u64| token.freshness(token.expires_at.minus(secs(*left)), row) == Freshness::Soon;
        let begins = (60..=360).rev().find(soon).unwrap();
        per_minute[usize::try_from((begins - 60) / 60).unwrap()] += 1;
    }
    assert!(per_minute.iter().all(|rows| *rows < 350), "{per_minute:?}");
}

#[test]
fn a_short_life_is_used_for_most_of_it() {
    let token = Token::issued(jwt(&json!({"iat": NOW_S, "exp": NOW_S + 50})), Some(&json!(50)), NOW);
    let after = |passed: u64| token.freshness(NOW.plus(secs(passed)), FIRST);
    assert_eq!(after(0), Freshness::Fresh);
    assert_eq!(after(36), Freshness::Soon);
    assert_eq!(after(40), Freshness::Unusable);
    let read_back = Token::stored(token.jwt.clone(), Some(&json!(token.expires_at.0)));
    assert_eq!(read_back, token);
}

#[test]
fn a_stored_expiry_farther_off_than_any_token_lives_is_replaced_when_there_is_time() {
    let token = Token::stored(opaque(), Some(&json!(9e17)));
    assert_eq!(token.freshness(NOW, LAST), Freshness::Soon);
}
