//! The request as a handler sees it: checked at the door, before anything is done.

use std::collections::HashMap;

use http::{HeaderMap, Method, header};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::accept::Drawing;
use crate::http::event::HttpEvent;
use crate::platform::is_session;
use crate::sentence::{self as say, Language, Sentence};
use crate::store::NumberSelector;

/// No request of ours is larger: a session, an id and two flags.
const BODY_LIMIT: usize = 16 * 1024;

/// A request of a verified user.
#[derive(Debug)]
pub struct ApiRequest {
    /// Who asks.
    pub user_id: Uuid,
    /// By when the answer must be there.
    pub deadline: Deadline,
    /// The language of the answer's sentences.
    pub language: Language,
    /// What the QR is to be answered as; nothing means JSON.
    pub drawing: Option<Drawing>,
    /// The body: a JSON object, empty where none was sent.
    pub body: Value,
    /// What the body does not say may stand in the query.
    pub query: HashMap<String, String>,
}

impl ApiRequest {
    /// Reads and checks a request of this user, before anything is done for it.
    pub(crate) fn read(event: &HttpEvent, user_id: Uuid, deadline: Deadline) -> Result<Self, Error> {
        Ok(Self {
            user_id,
            deadline,
            language: Language::wanted_by(&event.headers),
            drawing: Drawing::wanted_by(&event.headers),
            body: if event.method == Some(Method::GET) { empty() } else { body(event)? },
            query: event.query.clone(),
        })
    }

    /// A field's text; an empty one counts as absent.
    pub fn text(&self, field: &'static str) -> Result<Option<&str>, Error> {
        let text = match &self.body[field] {
            Value::Null => "",
            Value::String(text) => text,
            _ => return Err(wrong(field, say::FIELD_NOT_TEXT)),
        };
        let texts = [Some(text), self.in_query(field)];
        Ok(texts.into_iter().flatten().find(|text| !text.is_empty()))
    }

    /// Whether a field is set.
    pub fn flag(&self, field: &'static str) -> Result<bool, Error> {
        match (&self.body[field], self.in_query(field).unwrap_or_default()) {
            (Value::Bool(flag), _) => Ok(*flag),
            (Value::Null, "true" | "1") => Ok(true),
            (Value::Null, "" | "false" | "0") => Ok(false),
            _ => Err(wrong(field, say::FIELD_NOT_A_FLAG)),
        }
    }

    fn in_query(&self, field: &str) -> Option<&str> {
        self.query.get(field).map(String::as_str)
    }

    /// The session that is named, as `session` or as `session_name`.
    pub fn session(&self) -> Result<Option<String>, Error> {
        let named = |field| Ok::<_, Error>(self.text(field)?.map(|text| checked_session(field, text)));
        let (session, session_name) = (named("session")?, named("session_name")?);
        session.or(session_name).transpose()
    }

    /// Which of its numbers a request names, if any.
    pub fn selector(&self) -> Result<NumberSelector, Error> {
        let id = self.text("integration_id")?.map(str::parse).transpose();
        let integration_id = id.map_err(|_| wrong("integration_id", say::FIELD_NOT_AN_ID))?;
        Ok(NumberSelector { session: self.session()?, integration_id })
    }
}

fn wrong(field: &'static str, wrong: Sentence) -> Error {
    Error::BadRequest { field, wrong }
}

/// A session as anybody may send it: foreign text that goes into paths and queries.
pub(crate) fn checked_session(field: &'static str, session: &str) -> Result<String, Error> {
    is_session(session).then(|| session.to_owned()).ok_or_else(|| wrong(field, say::FIELD_NOT_A_NAME))
}

/// A JSON object, whatever the platform in between made of it. No body and `null` mean an empty one.
fn body(event: &HttpEvent) -> Result<Value, Error> {
    let bytes = &event.body;
    if bytes.len() > BODY_LIMIT {
        return Err(Error::BodyTooLarge);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(empty());
    }
    if !is_json(&event.headers) {
        return Err(Error::UnsupportedMediaType);
    }
    match serde_json::from_slice(bytes).map_err(|error| Error::InvalidJson(error.to_string()))? {
        Value::Null => Ok(empty()),
        object @ Value::Object(_) => Ok(object),
        _ => Err(wrong("body", say::NOT_AN_OBJECT)),
    }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// JSON, or nothing said, or the `text/plain` that supabase-js gives a body that is already a string.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/plain") || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(body: Value, query: &[(&str, &str)]) -> ApiRequest {
        ApiRequest {
            user_id: Uuid::nil(),
            deadline: Deadline::within(std::time::Duration::ZERO),
            language: Language::English,
            drawing: None,
            body,
            query: query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }

    /// What a field is found to be, or which sentence refuses it.
    fn read<T>(read: Result<T, Error>) -> Result<T, (&'static str, Sentence)> {
        read.map_err(|error| match error {
            Error::BadRequest { field, wrong } => (field, wrong),
            other => panic!("{other}"),
        })
    }

    #[test]
    fn a_session_has_two_names_and_may_stand_in_the_query() {
        let some = |session: &str| Ok(Some(session.to_owned()));
        for (body, query, expected) in [
            (json!({}), &[][..], Ok(None)),
            (json!({"session": "a"}), &[], some("a")),
            (json!({"session_name": "b"}), &[], some("b")),
            (json!({"session": "a", "session_name": "b"}), &[], some("a")),
            (json!({"session": "", "session_name": "b"}), &[], some("b")),
            (json!({}), &[("session", "c")], some("c")),
            (json!({}), &[("session_name", "d"), ("session", "")], some("d")),
            (json!({"session": null}), &[("session", "c")], some("c")),
            (json!({"session": "a"}), &[("session", "c")], some("a")),
            (json!({"session": 1}), &[("session", "c")], Err(("session", say::FIELD_NOT_TEXT))),
            (json!({"session": "a", "session_name": []}), &[], Err(("session_name", say::FIELD_NOT_TEXT))),
            (json!({"session_name": "a b"}), &[], Err(("session_name", say::FIELD_NOT_A_NAME))),
            (json!({}), &[("session", "a/b")], Err(("session", say::FIELD_NOT_A_NAME))),
        ] {
            assert_eq!(read(request(body.clone(), query).session()), expected, "{body} {query:?}");
        }
    }

    #[test]
    fn a_flag_is_a_boolean_and_in_a_query_a_word_for_one() {
        let refused = Err(("force", say::FIELD_NOT_A_FLAG));
        for (body, query, expected) in [
            (json!({}), None, Ok(false)),
            (json!({"force": true}), None, Ok(true)),
            (json!({"force": false}), Some("true"), Ok(false)),
            (json!({"force": null}), Some("1"), Ok(true)),
            (json!({}), Some("true"), Ok(true)),
            (json!({}), Some("false"), Ok(false)),
            (json!({}), Some("0"), Ok(false)),
            (json!({}), Some(""), Ok(false)),
            (json!({}), Some("yes"), refused),
            (json!({"force": "true"}), None, refused),
            (json!({"force": 1}), Some("1"), refused),
        ] {
            let query: Vec<_> = query.map(|value| ("force", value)).into_iter().collect();
            assert_eq!(read(request(body.clone(), &query).flag("force")), expected, "{body} {query:?}");
        }
    }

    #[test]
    fn an_integration_id_is_a_uuid_wherever_it_stands() {
        let id = "00000000-0000-4000-8000-000000000007";
        let selector = request(json!({}), &[("integration_id", id)]).selector().unwrap();
        assert_eq!(selector.integration_id.map(|id| id.to_string()).as_deref(), Some(id));
        assert!(!request(json!({"integration_id": ""}), &[]).selector().unwrap().is_named());
        let refused = read(request(json!({"integration_id": "7"}), &[]).selector().map(drop));
        assert_eq!(refused, Err(("integration_id", say::FIELD_NOT_AN_ID)));
    }

    fn read_body(content_type: Option<&str>, body: &str) -> Result<Value, &'static str> {
        let content_type = content_type.map(|value| (header::CONTENT_TYPE, value.parse().unwrap()));
        let headers = HeaderMap::from_iter(content_type);
        let event =
            HttpEvent { method: Some(Method::POST), headers, body: body.into(), ..HttpEvent::default() };
        let read = ApiRequest::read(&event, Uuid::nil(), Deadline::within(std::time::Duration::ZERO));
        read.map(|request| request.body).map_err(|error| error.response().code)
    }

    #[test]
    fn a_body_is_a_json_object_of_16_kib_at_most_or_nothing() {
        let padded = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
        for (content_type, body, expected) in [
            (None, r#"{"a":1}"#.to_owned(), Ok(json!({"a": 1}))),
            (Some("application/json; charset=utf-8"), "null".to_owned(), Ok(json!({}))),
            (Some("Text/Plain"), "{}".to_owned(), Ok(json!({}))),
            (Some("application/vnd.api+json"), "{}".to_owned(), Ok(json!({}))),
            (Some("text/html"), " \n".to_owned(), Ok(json!({}))),
            (Some("text/html"), "{}".to_owned(), Err("unsupported_media_type")),
            (None, "{".to_owned(), Err("invalid_json")),
            (None, "[]".to_owned(), Err("invalid_request")),
            (None, padded(16 * 1024), Ok(json!({}))),
            (None, padded(16 * 1024 + 1), Err("body_too_large")),
        ] {
            assert_eq!(read_body(content_type, &body), expected, "{content_type:?} {}", body.len());
        }
    }

    #[test]
    fn a_get_has_no_body_whatever_it_carries() {
        let event = HttpEvent { method: Some(Method::GET), body: b"{".into(), ..HttpEvent::default() };
        let read = ApiRequest::read(&event, Uuid::nil(), Deadline::within(std::time::Duration::ZERO));
        assert_eq!(read.unwrap().body, json!({}));
    }

    #[test]
    fn a_session_has_1_to_128_plain_characters() {
        for session in ["4", "0000000000004", "a.b_c-d+e@f:g", "...", ".a", &"9".repeat(128)] {
            assert_eq!(checked_session("session", session).ok().as_deref(), Some(session));
        }
        for refused in ["", &"9".repeat(129), "a b", "a/b", "\u{e9}", ".", ".."] {
            assert!(checked_session("session", refused).is_err(), "{refused}");
        }
    }
}
