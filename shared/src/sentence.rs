//! Every sentence that a person may read, in each language that we speak.
//!
//! They are for the people of a school, who see a list of numbers and a QR code: no word of ours belongs in them. A program
//! reads `code`.

use http::{HeaderMap, header};

/// A language of the sentences. Whoever asks for none of them is spoken to in the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Russian.
    Russian,
}

impl Language {
    const ALL: [Self; 2] = [Self::English, Self::Russian];

    /// The language that a request's `Accept-Language` likes best.
    pub(crate) fn wanted_by(headers: &HeaderMap) -> Self {
        let wanted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        wanted.map(Self::preferred).unwrap_or_default()
    }

    /// The best for a list such as `ru-RU, en;q=0.8, *;q=0.1`; among equals, the first that is listed.
    fn preferred(list: &str) -> Self {
        let mut ranges: Vec<_> = list.split(',').filter_map(range).collect();
        ranges.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let is_named =
            |language: &Self| ranges.iter().any(|(name, _)| name.eq_ignore_ascii_case(language.tag()));
        let meant = |(name, quality): &(&str, f32)| match *name {
            _ if *quality == 0.0 => None,
            // Whatever is not named beside it.
            "*" => Self::ALL.into_iter().find(|language| !is_named(language)),
            name => Self::ALL.into_iter().find(|language| name.eq_ignore_ascii_case(language.tag())),
        };
        ranges.iter().find_map(meant).unwrap_or_default()
    }

    /// Its tag, as `Content-Language` has it.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Russian => "ru",
        }
    }
}

/// The language of `ru-RU;q=0.8`, and how much it is liked. One that cannot be read is passed over.
fn range(range: &str) -> Option<(&str, f32)> {
    let (tag, weight) = range.split_once(';').unwrap_or((range, "q=1"));
    let (name, quality) = weight.split_once('=')?;
    let quality = quality.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
    let language = tag.split('-').next()?.trim();
    name.trim().eq_ignore_ascii_case("q").then_some((language, quality))
}

/// Something to say, in each language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    english: &'static str,
    russian: &'static str,
}

impl Sentence {
    /// The sentence in a language.
    pub fn text(self, language: Language) -> &'static str {
        match language {
            Language::English => self.english,
            Language::Russian => self.russian,
        }
    }

    /// The sentence about a field of a request, which is named where it says `{field}`.
    pub fn about(self, field: &str, language: Language) -> String {
        self.text(language).replace("{field}", field)
    }
}

/// Each is its own documentation.
macro_rules! catalogue {
    ($($name:ident: $english:literal, $russian:literal;)+) => {
        $(
            #[doc = $english]
            pub const $name: Sentence = Sentence { english: $english, russian: $russian };
        )+

        #[cfg(test)]
        const ALL: &[Sentence] = &[$($name),+];
    };
}

catalogue! {
    // What a person can do.

    SIGN_IN:
        "Please sign in.",
        "Пожалуйста, войдите.";
    SIGN_IN_AGAIN:
        "Please sign in again.",
        "Пожалуйста, войдите заново.";
    TRY_AGAIN:
        "Please try again in a moment.",
        "Пожалуйста, попробуйте ещё раз чуть позже.";
    RELOAD:
        "Please reload the page and try again; if that does not help, tell support.",
        "Обновите страницу и попробуйте ещё раз; если не поможет, сообщите в поддержку.";
    TELL:
        "Please tell your administrator or support.",
        "Пожалуйста, сообщите об этом администратору или в поддержку.";
    CONNECT:
        "Please reload the page; if the number is not in the list, connect it.",
        "Обновите страницу; если номера нет в списке, подключите его.";
    RECONNECT:
        "Please delete the number in the list and connect it again.",
        "Удалите номер в списке и подключите его заново.";
    SCAN:
        "On the phone, open WhatsApp, go to Linked devices, tap Link a device, and scan the code that is shown now.",
        "Откройте WhatsApp на телефоне, перейдите в «Связанные устройства», нажмите «Привязка устройства» и \
            отсканируйте код, который показан сейчас.";
    CONFIRM_PASSKEY:
        "Open WhatsApp on the phone, confirm the passkey there, then come back here.",
        "Откройте WhatsApp на телефоне, подтвердите ключ доступа и вернитесь сюда.";
    WAIT_OR_TELL:
        "We keep trying by ourselves; if this stays so, please tell support.",
        "Мы продолжаем попытки сами; если это не пройдёт, сообщите в поддержку.";

    // The request.

    NOT_SIGNED_IN:
        "You are not signed in.",
        "Вы не вошли в систему.";
    SIGN_IN_EXPIRED:
        "Your sign-in has expired.",
        "Срок действия вашего входа истёк.";
    SIGN_IN_REFUSED:
        "Your sign-in was not accepted.",
        "Не удалось подтвердить ваш вход.";
    SIGN_IN_UNCHECKED:
        "Your sign-in cannot be checked right now.",
        "Сейчас не удаётся проверить ваш вход.";
    NOT_HTTP:
        "The request cannot be read: it is not an HTTP request.",
        "Не удалось прочитать запрос: это не HTTP-запрос.";
    NOT_JSON:
        "The request cannot be read: its body must be sent as JSON.",
        "Не удалось прочитать запрос: данные должны быть отправлены в формате JSON.";
    BROKEN_JSON:
        "The request cannot be read: its body is not valid JSON.",
        "Не удалось прочитать запрос: данные в формате JSON содержат ошибку.";
    NOT_AN_OBJECT:
        "The request cannot be read: its body must be a JSON object.",
        "Не удалось прочитать запрос: данные должны быть объектом JSON.";
    TOO_LARGE:
        "The request is too large.",
        "Запрос слишком большой.";
    NOT_AVAILABLE:
        "This action is not available here.",
        "Это действие здесь недоступно.";
    USED_DIFFERENTLY:
        "This request was sent before with other contents.",
        "Этот запрос уже отправляли с другими данными.";
    FIELD_MISSING:
        "The field \"{field}\" is missing.",
        "Не указано поле «{field}».";
    FIELD_NOT_TEXT:
        "The field \"{field}\" must be a string.",
        "Поле «{field}» должно быть строкой.";
    FIELD_NOT_A_FLAG:
        "The field \"{field}\" must be true or false.",
        "Поле «{field}» должно быть true или false.";
    FIELD_NOT_AN_ID:
        "The field \"{field}\" must be a UUID.",
        "Поле «{field}» должно быть в формате UUID.";
    FIELD_NOT_A_NAME:
        "The field \"{field}\" may have up to 128 Latin letters, digits and characters of . _ - + @ : only.",
        "Поле «{field}» может содержать не более 128 латинских букв, цифр и знаков . _ - + @ : и ничего другого.";
    FIELD_NOT_ALONE:
        "The field \"{field}\" cannot be sent together with the others.",
        "Поле «{field}» нельзя отправлять вместе с другими.";
    HEADER_NOT_A_KEY:
        "The header \"{field}\" must have 1 to 255 visible characters.",
        "Заголовок «{field}» должен содержать от 1 до 255 видимых символов.";

    // Numbers.

    NO_ORGANIZATION:
        "Your account does not belong to an organisation.",
        "Ваша учётная запись не относится ни к одной организации.";
    NO_SUCH_NUMBER:
        "Your organisation has no such WhatsApp number.",
        "У вашей организации нет такого номера WhatsApp.";
    NO_NUMBER_YET:
        "Your organisation has no WhatsApp number yet. Please connect one.",
        "У вашей организации пока нет номера WhatsApp. Подключите его.";
    NOT_CONNECTED_YET:
        "This WhatsApp number has not been connected yet. Please connect it first.",
        "Этот номер WhatsApp ещё не подключён. Сначала подключите его.";
    STILL_CREATING:
        "Another request is still creating this number.",
        "Этот номер уже создаётся по другому запросу.";
    NOT_ACTIVE_YET:
        "WhatsApp is still activating this number.",
        "WhatsApp ещё активирует этот номер.";
    ACCESS_LOST:
        "WhatsApp no longer gives access to this number.",
        "WhatsApp больше не даёт доступа к этому номеру.";
    LINK_LOST:
        "This number is no longer connected to WhatsApp.",
        "Этот номер больше не подключён к WhatsApp.";
    DISCONNECTED:
        "WhatsApp is disconnected on this number.",
        "WhatsApp на этом номере отключён.";
    QR_COMING:
        "The QR code is being prepared.",
        "QR-код готовится.";
    QR_WAITING:
        "The QR code has not been scanned yet.",
        "QR-код ещё не отсканирован.";
    PASSKEY_WANTED:
        "WhatsApp asks for a passkey.",
        "WhatsApp запрашивает ключ доступа.";
    STARTING_LONG:
        "The number has been starting for several minutes.",
        "Номер запускается уже несколько минут.";
    MESSAGES_MISSING:
        "The number is connected, but incoming messages do not arrive yet.",
        "Номер подключён, но входящие сообщения пока не приходят.";
    LAST_KNOWN:
        "WhatsApp cannot be reached right now; this is the last known state.",
        "Сейчас не удаётся связаться с WhatsApp; показано последнее известное состояние.";

    // WhatsApp and we.

    ACCESS_REFUSED:
        "WhatsApp does not give access to this number right now.",
        "WhatsApp сейчас не даёт доступа к этому номеру.";
    WHATSAPP_BUSY:
        "WhatsApp is busy right now.",
        "WhatsApp сейчас перегружен.";
    WHATSAPP_UNREACHABLE:
        "WhatsApp cannot be reached right now.",
        "Сейчас не удаётся связаться с WhatsApp.";
    WHATSAPP_SLOW:
        "WhatsApp did not answer in time.",
        "WhatsApp не ответил вовремя.";
    WHATSAPP_UNREADABLE:
        "WhatsApp sent an answer that cannot be read.",
        "WhatsApp прислал ответ, который не удалось прочитать.";
    WHATSAPP_REFUSED:
        "WhatsApp refused the request.",
        "WhatsApp отклонил запрос.";
    SERVICE_REFUSED:
        "WhatsApp does not accept our service.",
        "WhatsApp не принимает запросы нашего сервиса.";
    SERVICE_MISCONFIGURED:
        "Our service is not configured correctly.",
        "Наш сервис настроен неправильно.";
    SERVICE_DOWN:
        "Our service is not available right now.",
        "Наш сервис сейчас недоступен.";
    TOO_SLOW:
        "This took too long.",
        "Это заняло слишком много времени.";
    WENT_WRONG:
        "Something went wrong on our side.",
        "На нашей стороне что-то пошло не так.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_one_that_is_liked_best() {
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
    fn a_header_that_is_absent_or_no_text_means_english() {
        let mut headers = HeaderMap::new();
        assert_eq!(Language::wanted_by(&headers), Language::English);
        headers.insert(header::ACCEPT_LANGUAGE, "ru".parse().unwrap());
        assert_eq!(Language::wanted_by(&headers), Language::Russian);
        headers.insert(header::ACCEPT_LANGUAGE, "ru, \u{e9}".parse().unwrap());
        assert_eq!(Language::wanted_by(&headers), Language::English);
    }

    /// What only those who work on the product know.
    const OURS: [&str; 22] = [
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
        "сеанс",
        "токен",
        "ключ",
        "баз",
        "платформ",
        "метод",
        "адрес",
    ];

    #[test]
    fn each_sentence_is_one_in_its_language_and_has_no_word_of_ours() {
        for sentence in ALL {
            let (english, russian) = (sentence.english, sentence.russian);
            assert!(english.is_ascii(), "{english}");
            assert!(russian.contains(|c: char| ('а'..='я').contains(&c)), "{russian}");
            assert_eq!(english.contains("{field}"), russian.contains("{field}"), "{english}");
            for text in [english, russian] {
                assert!(text.ends_with('.') && !text.contains("  "), "{text}");
                // WhatsApp's own word for a passkey.
                let plain = text.to_lowercase().replace("ключ доступа", "");
                let mut words = plain.split(|c: char| !c.is_alphanumeric() && c != '_');
                let ours = words.find(|word| OURS.iter().any(|ours| word.starts_with(ours)));
                assert_eq!(ours, None, "{text}");
            }
        }
    }
}
