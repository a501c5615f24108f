//! The `settings` of a `messenger_integrations` row: five keys are ours, the rest belongs to others and is kept.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::secret::Secret;
use crate::token::Token;

/// `settings` as they stand in the row, read through typed accessors. A key of ours with a value of a wrong type counts
/// as absent: others write here too. They are never written back whole; the database merges (see [`crate::store`]).
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// `wppApiKey`.
    pub fn api_key(&self) -> Option<Secret> {
        self.text("wppApiKey").map(Secret::new)
    }

    /// `wppAccountNumber`: the platform's session.
    pub fn session(&self) -> Option<&str> {
        self.text("wppAccountNumber")
    }

    /// `wppJwtToken` with `wppJwtExpiresAt` (milliseconds since 1970; below 10^11, seconds).
    pub fn token(&self) -> Option<Token> {
        let jwt = Secret::new(self.text("wppJwtToken")?);
        Some(Token::stored(jwt, self.0.get("wppJwtExpiresAt")))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::UnixMs;

    fn settings(value: Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn our_keys_are_read_and_the_others_kept() {
        let row = json!({
            "wppApiKey": "k", "wppAccountNumber": "0000000000004", "wppSubOrgId": "o__wpp__1",
            "wppJwtToken": "t", "wppJwtExpiresAt": 1_795_000_000_000_i64, "greeting": {"de": "Hallo"}, "n": null,
        });
        let settings = settings(row.clone());
        assert_eq!(settings.api_key(), Some(Secret::new("k")));
        assert_eq!(settings.session(), Some("0000000000004"));
        assert_eq!(settings.token().unwrap().expires_at, UnixMs(1_795_000_000_000));
        assert_eq!(serde_json::to_value(&settings).unwrap(), row);
    }

    #[test]
    fn values_of_wrong_types_count_as_absent() {
        let settings = settings(json!({"wppApiKey": 7, "wppAccountNumber": "", "wppJwtToken": ["t"]}));
        assert_eq!((settings.api_key(), settings.session(), settings.token()), (None, None, None));
    }

    #[test]
    fn debug_shows_keys_and_no_values() {
        let debug = format!("{:?}", settings(json!({"wppApiKey": "canary-1", "other": "canary-2"})));
        assert!(debug.contains("wppApiKey") && !debug.contains("canary"), "{debug}");
    }
}
