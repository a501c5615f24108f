//! Text that must stay out of logs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A key, a token or a password. `Debug` does not show it, and there is no `Display`: use [`expose`](Self::expose).
/// `Serialize` writes it in full, for request bodies.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself, to be sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns what a person may see of an API key: its first 6 and last 4 characters, with six dots between them. A key
    /// shorter than 12 characters becomes `***`: those ends would be nearly all of it.
    pub fn masked(&self) -> String {
        let chars: Vec<char> = self.0.chars().collect();
        if chars.len() < 12 {
            return "***".to_owned();
        }
        let (head, tail) = (&chars[..6], &chars[chars.len() - 4..]);
        head.iter().chain(&['•'; 6]).chain(tail).collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(••••••)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_its_ends_only() {
        assert_eq!(Secret::new("wpp_key_00000150").masked(), "wpp_ke••••••0150");
        assert_eq!(Secret::new("123456789012").masked(), "123456••••••9012");
    }

    #[test]
    fn a_short_key_shows_nothing() {
        assert_eq!(Secret::new("12345678901").masked(), "***");
        assert_eq!(Secret::new("").masked(), "***");
    }

    #[test]
    fn debug_shows_dots_only() {
        assert_eq!(format!("{:?}", Some(Secret::new("canary"))), "Some(Secret(••••••))");
    }
}
