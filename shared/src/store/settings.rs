//! The fields that the functions use in the `settings` of a `messenger_integrations` row.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock::UnixMs;
use crate::secret::Secret;
use crate::wpp::token::expiry;

/// The functions' fields, as they are in the row. A value of a wrong type counts as absent, because others write here, too. The
/// whole object is never written back; the database merges single fields (see [`crate::store`]).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct Settings {
    /// `wppApiKey`.
    pub api_key: Option<Secret>,
    /// `wppAccountNumber`: the platform's session.
    pub session: Option<String>,
    /// `wppJwtToken`.
    pub jwt_token: Option<Secret>,
    /// `wppJwtExpiresAt`: milliseconds since 1970. A value below 10^11 is read as seconds.
    pub jwt_expires_at: Option<UnixMs>,
}

impl From<Map<String, Value>> for Settings {
    fn from(settings: Map<String, Value>) -> Self {
        let text = |key| settings.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        Self {
            api_key: text("wppApiKey").map(Secret::new),
            session: text("wppAccountNumber").map(str::to_owned),
            jwt_token: text("wppJwtToken").map(Secret::new),
            jwt_expires_at: settings.get("wppJwtExpiresAt").and_then(expiry),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_known_settings_are_read() {
        let settings = settings(json!({
            "wppApiKey": "k", "wppAccountNumber": "0000000000004", "wppSubOrgId": "o__wpp__1",
            "wppJwtToken": "t", "wppJwtExpiresAt": 1_795_000_000_000_i64, "greeting": {"de": "Hallo"}, "n": null,
        }));
        assert_eq!(settings.api_key, Some(Secret::new("k")));
        assert_eq!(settings.session.as_deref(), Some("0000000000004"));
        assert_eq!(settings.jwt_token, Some(Secret::new("t")));
        assert_eq!(settings.jwt_expires_at, Some(UnixMs(1_795_000_000_000)));
    }

    #[test]
    fn values_of_wrong_types_count_as_absent() {
        for row in [
            json!({}),
            json!({"wppApiKey": 7, "wppAccountNumber": "", "wppJwtToken": ["t"]}),
            json!({"wppApiKey": "", "wppAccountNumber": 4, "wppJwtToken": "", "wppJwtExpiresAt": {}}),
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
