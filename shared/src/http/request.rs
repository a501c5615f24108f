//! What a handler gets: the user, the deadline, the wanted format, and the request as the handler's own type. Everything is checked
//! before the handler runs.

use std::collections::HashSet;
use std::fmt::Display;

use form_urlencoded::{Serializer, parse};
use http::Method;
use lambda_http::Request;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::accept::ImageFormat;
use crate::messages::{self as say, Language};
use crate::wpp::is_session;

/// The longest body, in bytes. A session, an id and two flags are far shorter.
const BODY_LIMIT: usize = 16 * 1024;

/// The longest name of an unknown field that an error quotes, in characters.
const FIELD_NAME_LIMIT: usize = 64;

/// The serde error for a text that is not a valid session.
const NOT_A_SESSION: &str = "not a session";

/// The user, the deadline, and the language and format of the answer.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext {
    /// The verified user.
    pub user_id: Uuid,
    /// When the answer must be ready.
    pub deadline: Deadline,
    /// The language of the answer's sentences.
    pub language: Language,
    /// The format in which the QR code is wanted. `None` means JSON.
    pub qr_image: Option<ImageFormat>,
}

/// The platform's name for a number, as a request sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId(String);

impl SessionId {
    /// Returns the session.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let session = String::deserialize(deserializer)?;
        if is_session(&session) { Ok(Self(session)) } else { Err(D::Error::custom(NOT_A_SESSION)) }
    }
}

/// The id of a number's row, as a request sends it.
pub type IntegrationId = Uuid;

/// Returns the session that a request sends under one or several of its three names, which must agree.
pub fn named_session(
    session: Option<SessionId>,
    session_name: Option<SessionId>,
    account_number: Option<SessionId>,
) -> Result<Option<String>, Error> {
    let names = [("session", session), ("session_name", session_name), ("account_number", account_number)];
    let mut sent = names.into_iter().filter_map(|(name, session)| Some((name, session?)));
    let Some((_, session)) = sent.next() else { return Ok(None) };
    match sent.find(|(_, other)| *other != session) {
        Some((name, _)) => Err(Error::bad_request(name, say::FIELD_CONTRADICTS)),
        None => Ok(Some(session.into_string())),
    }
}

/// Reads the JSON body. A GET and a request without a body are read from the query string. Null and `""` count as absent. An unknown
/// body field is an error, and an unknown query parameter is ignored.
pub(crate) fn read<R: DeserializeOwned>(request: &Request) -> Result<R, Error> {
    let bytes = request.body();
    if bytes.len() > BODY_LIMIT {
        return Err(Error::BodyTooLarge);
    }
    if request.method() == Method::GET || bytes.iter().all(u8::is_ascii_whitespace) {
        query(request.uri().query().unwrap_or_default())
    } else {
        body(bytes)
    }
}

/// Reads the query. If a parameter is repeated, its first value counts.
fn query<R: DeserializeOwned>(query: &str) -> Result<R, Error> {
    let (mut seen, mut sent) = (HashSet::new(), Serializer::new(String::new()));
    for (name, value) in parse(query.as_bytes()) {
        if !value.is_empty() && seen.insert(name.clone()) {
            sent.append_pair(&name, &value);
        }
    }
    let sent = sent.finish();
    let deserializer = serde_urlencoded::Deserializer::new(parse(sent.as_bytes()));
    serde_path_to_error::deserialize(deserializer).map_err(wrong)
}

fn body<R: DeserializeOwned>(bytes: &[u8]) -> Result<R, Error> {
    let mut fields = match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => Map::new(),
        Ok(_) => return Err(Error::bad_request("body", say::NOT_AN_OBJECT)),
        Err(error) => return Err(Error::InvalidJson(error.to_string())),
    };
    fields.retain(|_, value| !value.is_null() && value != "");
    let mut unknown: Option<String> = None;
    let mut note_unknown = |field: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| field.to_string());
    };
    let deserializer = serde_ignored::Deserializer::new(Value::Object(fields), &mut note_unknown);
    let request = serde_path_to_error::deserialize(deserializer).map_err(wrong)?;
    let Some(field) = unknown else { return Ok(request) };
    let field: String = field.chars().take(FIELD_NAME_LIMIT).collect();
    Err(Error::bad_request(field, say::FIELD_UNKNOWN))
}

/// Returns the wrong field and what is wrong with it. serde's own message may quote the value, which may be a secret in the wrong field.
fn wrong(error: serde_path_to_error::Error<impl Display>) -> Error {
    let problem = error.inner().to_string();
    let is = |end| problem.ends_with(end);
    let sentence = if is(NOT_A_SESSION) {
        say::FIELD_NOT_A_SESSION
    } else if is("a boolean") || is("`true` or `false`") {
        say::FIELD_NOT_A_FLAG
    } else if is("a string") {
        say::FIELD_NOT_TEXT
    } else {
        say::FIELD_NOT_AN_ID
    };
    Error::bad_request(error.path().to_string(), sentence)
}

#[cfg(test)]
mod tests;
