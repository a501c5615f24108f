//! Every sentence that a user may see, in each supported language.
//!
//! School staff read these sentences. They only see a list of numbers and a QR code, so the sentences contain no technical terms,
//! except those about a request that cannot be read: a developer reads them. Programs read `code` instead.

use http::{HeaderMap, header};

/// A language of the sentences. The first is the default.
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

    /// Returns the language that a request's `Accept-Language` prefers.
    pub(crate) fn wanted_by(headers: &HeaderMap) -> Self {
        let wanted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        wanted.map(Self::preferred).unwrap_or_default()
    }

    /// Returns the best language for an `Accept-Language` such as `ru-RU, en;q=0.8, *;q=0.1`; among equals, the first that is listed.
    fn preferred(list: &str) -> Self {
        let mut ranges: Vec<_> = list.split(',').filter_map(range).collect();
        ranges.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let place_of = |name: &str| ranges.iter().position(|(range, _)| range.eq_ignore_ascii_case(name));
        let place = |language: &Self| {
            let named = place_of(language.tag()).or_else(|| place_of("*"));
            named.filter(|&place| ranges[place].1 > 0.0).unwrap_or(usize::MAX)
        };
        Self::ALL.into_iter().min_by_key(place).unwrap_or_default()
    }

    /// Returns its tag for `Content-Language`.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Russian => "ru",
        }
    }
}

/// Returns the language of `ru-RU;q=0.8` and its weight, or `None` if it cannot be read.
fn range(range: &str) -> Option<(&str, f32)> {
    let (tag, weight) = range.split_once(';').unwrap_or((range, "q=1"));
    let (name, quality) = weight.split_once('=')?;
    let quality = quality.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
    let language = tag.split('-').next()?.trim();
    name.trim().eq_ignore_ascii_case("q").then_some((language, quality))
}

/// A sentence in each language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    english: &'static str,
    russian: &'static str,
}

impl Sentence {
    /// Returns the sentence in a language.
    pub fn text(self, language: Language) -> &'static str {
        match language {
            Language::English => self.english,
            Language::Russian => self.russian,
        }
    }

    /// Returns the sentence about a field of a request. The field's name replaces `{field}`.
    pub fn about(self, field: &str, language: Language) -> String {
        self.text(language).replace("{field}", field)
    }
}

/// Declares the sentences. Each constant's English text is also its doc comment.
macro_rules! catalog {
    ($($name:ident: $english:literal, $russian:literal;)+) => {
        $(
            #[doc = $english]
            pub const $name: Sentence = Sentence { english: $english, russian: $russian };
        )+

        #[cfg(test)]
        const ALL: &[Sentence] = &[$($name),+];
    };
}

catalog! {
    // What a person can do.

    SIGN_IN:
        "Please sign in.",
        "Пожалуйста, войдите.";
    SIGN_IN_AGAIN:
        "Please sign in again.",
        "Войдите снова.";
    TRY_AGAIN:
        "Please try again in a moment.",
        "Пожалуйста, попробуйте ещё раз чуть позже.";
    TRY_AGAIN_LATER:
        "Please try again later.",
        "Попробуйте позже.";
    RELOAD:
        "Please reload the page and try again; if that does not help, contact support.",
        "Обновите страницу и попробуйте ещё раз; если не поможет, напишите в поддержку.";
    CONTACT_SUPPORT:
        "Please contact your administrator or support.",
        "Пожалуйста, сообщите об этом администратору или в поддержку.";
    CONTACT_SUPPORT_AND_KEEP:
        "Please contact support, and do not delete the number: it may still be connected.",
        "Напишите в поддержку и не удаляйте номер: возможно, он ещё подключён.";
    CONNECT:
        "Please reload the page; if the number is not in the list, connect it.",
        "Обновите страницу; если номера нет в списке, подключите его.";
    CONNECT_FIRST:
        "Please connect it first.",
        "Сначала подключите его.";
    RECONNECT:
        "Please delete the number in the list and connect it again.",
        "Удалите номер в списке и подключите его заново.";
    SCAN:
        "On the phone, open WhatsApp, go to Linked devices, tap Link a device, and scan the code on the screen.",
        "Откройте WhatsApp на телефоне, перейдите в раздел «Связанные устройства», нажмите «Привязка устройства» и \
            отсканируйте код на экране.";
    SCAN_IN_BROWSER:
        "Please open it in a browser and scan it there.",
        "Откройте его в браузере и отсканируйте.";
    NOTHING_TO_SCAN:
        "There is nothing left to scan.",
        "Сканировать больше ничего не нужно.";
    CONFIRM_PASSKEY:
        "Open WhatsApp on the phone, confirm the passkey there, then come back here.",
        "Откройте WhatsApp на телефоне, подтвердите ключ доступа и вернитесь сюда.";
    WAIT_OR_CONTACT_SUPPORT:
        "We will keep trying automatically; if it still does not work, please contact support.",
        "Мы пробуем снова автоматически; если не заработает, напишите в поддержку.";

    // The request.

    NOT_SIGNED_IN:
        "You are not signed in.",
        "Вы не вошли в систему.";
    SIGN_IN_EXPIRED:
        "Your sign-in has expired.",
        "Сеанс истёк.";
    SIGN_IN_REFUSED:
        "Your sign-in was not accepted.",
        "Не удалось подтвердить вход в систему.";
    SIGN_IN_UNCHECKED:
        "Your sign-in cannot be checked right now.",
        "Сейчас не удаётся подтвердить вход в систему.";
    PROFILE_TOO_LARGE:
        "Your sign-in cannot be checked: your profile contains too much data.",
        "Войти не получается: в вашем профиле слишком много данных.";
    MALFORMED:
        "The request cannot be read: there is an error in its {field}.",
        "Не удалось прочитать запрос: в нём ошибка ({field}).";
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
    FIELD_NOT_A_SESSION:
        "The field \"{field}\" may contain only Latin letters, digits and . _ - + @ : (at most 128 characters).",
        "Поле «{field}» может содержать только латинские буквы, цифры и знаки . _ - + @ : (не более 128 знаков).";
    FIELD_CONTRADICTS:
        "The field \"{field}\" names a different number than the other fields.",
        "Поле «{field}» указывает не на тот же номер, что и остальные поля.";
    FIELD_UNKNOWN:
        "There is no field \"{field}\".",
        "Поля «{field}» не существует.";
    FIELD_NOT_ALONE:
        "The field \"{field}\" cannot be combined with other fields.",
        "Поле «{field}» нельзя отправлять вместе с другими.";

    // Numbers.

    NO_ORGANIZATION:
        "Your account does not belong to an organization.",
        "Ваша учётная запись не относится ни к одной организации.";
    NO_SUCH_NUMBER:
        "Your organization has no such WhatsApp number.",
        "У вашей организации нет такого номера WhatsApp.";
    NO_NUMBER_YET:
        "Your organization has no WhatsApp number yet. Please connect one.",
        "У вашей организации пока нет номера WhatsApp. Подключите его.";
    NOT_CONNECTED_YET:
        "This WhatsApp number has not been connected yet.",
        "Этот номер WhatsApp ещё не подключён.";
    TOO_MANY_NUMBERS:
        "Your organization has added too many WhatsApp numbers in the last hour.",
        "За последний час добавлено слишком много номеров WhatsApp.";
    SETTINGS_UNREADABLE:
        "The stored data of this number cannot be read.",
        "Не удаётся прочитать сохранённые данные этого номера.";
    STILL_CREATING:
        "Another request is still creating this number.",
        "Этот номер уже создают в другом окне.";
    NOT_ACTIVE_YET:
        "WhatsApp is still activating this number.",
        "WhatsApp ещё активирует этот номер.";
    API_KEY_REJECTED:
        "WhatsApp no longer allows access to this number.",
        "WhatsApp закрыл доступ к этому номеру.";
    SESSION_LOST:
        "This number is no longer connected to WhatsApp.",
        "Этот номер больше не подключён к WhatsApp.";
    DISCONNECTED:
        "This number is disconnected from WhatsApp.",
        "Этот номер отключён от WhatsApp.";
    QR_COMING:
        "The QR code is being prepared.",
        "QR-код готовится.";
    QR_MISSING:
        "There is no QR code right now.",
        "Сейчас QR-кода нет.";
    QR_NOT_TEXT:
        "This QR code is a picture and cannot be shown as text.",
        "Этот QR-код — картинка, его нельзя показать текстом.";
    CONNECTED:
        "This number is already connected to WhatsApp.",
        "Этот номер уже подключён к WhatsApp.";
    QR_WAITING:
        "The QR code has not been scanned yet.",
        "QR-код ещё не отсканирован.";
    PASSKEY_WANTED:
        "WhatsApp is asking for a passkey.",
        "WhatsApp запрашивает ключ доступа.";
    STARTING_LONG:
        "This number has been trying to connect for several minutes.",
        "Номер уже несколько минут не может подключиться.";
    MESSAGES_MISSING:
        "The number is connected, but incoming messages do not arrive yet.",
        "Номер подключён, но входящие сообщения пока не приходят.";
    LAST_KNOWN:
        "WhatsApp cannot be reached right now; this is the last known state.",
        "Сейчас не удаётся связаться с WhatsApp; показаны последние данные.";

    // WhatsApp and our service.

    TOKEN_REJECTED:
        "WhatsApp is denying access to this number right now.",
        "WhatsApp сейчас не даёт доступ к этому номеру.";
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
        "WhatsApp прислал непонятный ответ.";
    WHATSAPP_REFUSED:
        "WhatsApp refused the request.",
        "WhatsApp отклонил запрос.";
    SERVICE_REFUSED:
        "WhatsApp is not accepting requests from our service.",
        "WhatsApp не принимает запросы нашего сервиса.";
    SERVICE_MISCONFIGURED:
        "Our service is not configured correctly.",
        "Наш сервис настроен неправильно.";
    SERVICE_DOWN:
        "Our service is not available right now.",
        "Наш сервис сейчас недоступен.";
    TOO_SLOW:
        "This took too long.",
        "Ответ не пришёл вовремя.";
    WENT_WRONG:
        "Something went wrong on our side.",
        "На нашей стороне что-то пошло не так.";
}

#[cfg(test)]
mod tests;
