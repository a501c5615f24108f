//! The `settings` of a `messenger_integrations` row, as far as they are ours.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::secret::Secret;
use crate::token::Token;

/// Our keys as they stand in the row. A value of a wrong type counts as absent: others write here too. They are never
/// written back whole; the database merges (see [`crate::store`]).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct Settings {
    /// `wppApiKey`.
    pub api_key: Option<Secret>,
    /// `wppAccountNumber`: the platform's session.
    pub session: Option<String>,
    /// `wppJwtToken` with `wppJwtExpiresAt` (milliseconds since 1970; below 10^11, seconds).
    pub token: Option<Token>,
}

impl From<Map<String, Value>> for Settings {
    fn from(settings: Map<String, Value>) -> Self {
        let text = |key| settings.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let token = |jwt| Token::stored(Secret::new(jwt), settings.get("wppJwtExpiresAt"));
        Self {
            api_key: text("wppApiKey").map(Secret::new),
            session: text("wppAccountNumber").map(str::to_owned),
            token: text("wppJwtToken").map(token),
        }
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
    fn our_keys_are_read_and_those_of_others_passed_over() {
        let settings = settings(json!({
            "wppApiKey": "k", "wppAccountNumber": "0000000000004", "wppSubOrgId": "o__wpp__1",
            "wppJwtToken": "t", "wppJwtExpiresAt": 1_795_000_000_000_i64, "greeting": {"de": "Hallo"}, "n": null,
        }));
        assert_eq!(settings.api_key, Some(Secret::new("k")));
        assert_eq!(settings.session.as_deref(), Some("0000000000004"));
        let token = settings.token.unwrap();
        assert_eq!((token.jwt, token.expires_at), (Secret::new("t"), UnixMs(1_795_000_000_000)));
    }

    #[test]
    fn values_of_wrong_types_count_as_absent() {
        for row in [
            json!({}),
            json!({"wppApiKey": 7, "wppAccountNumber": "", "wppJwtToken": ["t"]}),
            json!({"wppApiKey": "", "wppAccountNumber": 4, "wppJwtToken": "", "wppJwtExpiresAt": 1}),
        ] {
            assert_eq!(settings(row.clone()), Settings::default(), "{row}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let debug = format!("{:?}", settings(json!({"wppApiKey": "canary-1", "wppJwtToken": "canary-2"})));
        assert!(!debug.contains("canary"), "{debug}");
    }
}
