use super::*;

#[test]
fn most_preferred_language_is_chosen() {
    use Language::{English, Russian};
    for (list, expected) in [
        ("ru", Russian),
        ("RU-ru", Russian),
        ("ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", Russian),
        ("en-US,en;q=0.9,ru;q=0.8", English),
        ("en;q=0.5, ru;q=0.51", Russian),
        ("en ; q=0.5 , ru ; Q=1.000", Russian),
        ("en, ru", English),
        ("ru, en", Russian),
        ("de, ru;q=0.2", Russian),
        ("de, fr;q=0.5", English),
        ("uk-UA, *", English),
        ("*", English),
        ("ru, *", Russian),
        ("*, ru;q=0.5", English),
        ("*;q=0.1, ru;q=0.5", Russian),
        ("en;q=0, *", Russian),
        ("ru;q=0, *;q=0.3", English),
        ("ru;q=0, en;q=0", English),
        ("rus, x-ru, be-ru", English),
        ("ru;q=2, en;q=0.1", English),
        ("ru;q=-1", English),
        ("ru;q=NaN", English),
        ("ru;q", English),
        ("ru;level=1", English),
        ("", English),
        (",;=,-,", English),
    ] {
        assert_eq!(Language::preferred(list), expected, "{list}");
    }
}

#[test]
fn absent_or_unreadable_header_means_english() {
    let mut headers = HeaderMap::new();
    assert_eq!(Language::wanted_by(&headers), Language::English);
    headers.insert(header::ACCEPT_LANGUAGE, "ru".parse().unwrap());
    assert_eq!(Language::wanted_by(&headers), Language::Russian);
    headers.insert(header::ACCEPT_LANGUAGE, "ru, \u{e9}".parse().unwrap());
    assert_eq!(Language::wanted_by(&headers), Language::English);
}

/// Technical words that users do not know.
const JARGON: [&str; 21] = [
    "force_recreate",
    "add_new",
    "session",
    "token",
    "jwt",
    "key",
    "api",
    "credentials",
    "database",
    "migration",
    "platform",
    "webhook",
    "method",
    "address",
    "сесси",
    "токен",
    "ключ",
    "баз",
    "платформ",
    "метод",
    "адрес",
];

#[test]
fn sentences_are_in_their_language() {
    for sentence in ALL {
        let (english, russian) = (sentence.english, sentence.russian);
        assert!(english.is_ascii(), "{english}");
        assert!(russian.contains(|c: char| ('а'..='я').contains(&c)), "{russian}");
        assert_eq!(english.contains("{field}"), russian.contains("{field}"), "{english}");
        for text in [english, russian] {
            assert!(text.ends_with('.') && !text.contains("  "), "{text}");
        }
    }
}

#[test]
fn sentences_have_no_jargon() {
    for sentence in ALL {
        for text in [sentence.english, sentence.russian] {
            // WhatsApp's own word for a passkey.
            let plain = text.to_lowercase().replace("ключ доступа", "");
            let mut words = plain.split(|c: char| !c.is_alphanumeric() && c != '_');
            let jargon = words.find(|word| JARGON.iter().any(|term| word.starts_with(term)));
            assert_eq!(jargon, None, "{text}");
        }
    }
}
