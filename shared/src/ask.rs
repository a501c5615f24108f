//! The request as a handler sees it: checked at the door, before anything is done.

use lambda_http::http::{HeaderMap, Method, header};
use lambda_http::{Request, RequestExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::store::Wanted;

/// No request of ours is larger: a session, an id and two flags.
const BODY_LIMIT: usize = 16 * 1024;

/// The longest session; the platform's have 13 digits.
const SESSION_LIMIT: usize = 128;

/// The longest idempotency key, as elsewhere in the field.
const IDEMPOTENCY_KEY_LIMIT: usize = 255;

/// A request of a verified user.
#[derive(Debug)]
pub struct Ask {
    /// Who asks.
    pub user_id: Uuid,
    /// By when the answer must be there.
    pub deadline: Deadline,
    /// The body: a JSON object, empty where none was sent.
    pub body: Value,
    /// `?session=`, the first if there are several.
    pub query_session: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

impl Ask {
    /// Reads and checks a request of this user, before anything is done for it.
    ///
    /// # Errors
    /// A 4xx that says what is wrong.
    pub(crate) fn read(request: &Request, user_id: Uuid, deadline: Deadline) -> Result<Self, Error> {
        let body = if request.method() == Method::GET { empty() } else { body(request)? };
        Ok(Self {
            user_id,
            deadline,
            body,
            query_session: request.query_string_parameters().first("session").map(str::to_owned),
            idempotency_key: idempotency_key(request.headers())?,
        })
    }

    /// The body in the handler's own shape, whose fields are all optional.
    ///
    /// # Errors
    /// [`Error::BadRequest`] naming the field of a wrong type, and not its value: that may be a secret in the wrong place.
    pub fn body_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let wrong = |(name, value): (&String, &Value)| {
            let error = serde_json::from_value::<T>(json!({name: value})).err()?.to_string();
            let (_, expected) = error.rsplit_once("expected ")?;
            Some(format!("The field {name} must be {expected}."))
        };
        serde_json::from_value(self.body.clone()).map_err(|_| {
            let field = self.body.as_object().into_iter().flatten().find_map(wrong);
            Error::BadRequest(field.unwrap_or_else(|| "The request body is not as expected.".to_owned()))
        })
    }
}

/// Which of its numbers a request names, if any. The fields of a body; an empty one counts as absent.
#[derive(Debug, Deserialize)]
pub struct Named {
    session: Option<String>,
    session_name: Option<String>,
    integration_id: Option<String>,
}

impl Named {
    /// The number that is named.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub fn wanted(self) -> Result<Wanted, Error> {
        let given = |field: Option<String>| field.filter(|text| !text.is_empty());
        let integration_id = given(self.integration_id).map(|id| {
            id.parse().map_err(|_| Error::BadRequest("The integration_id is not a valid one.".to_owned()))
        });
        Ok(Wanted {
            session: given(self.session).or(given(self.session_name)).map(check_session).transpose()?,
            integration_id: integration_id.transpose()?,
        })
    }
}

/// A session as a person may send it: foreign text that goes into paths and queries.
///
/// # Errors
/// [`Error::BadRequest`].
pub fn check_session(session: String) -> Result<String, Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+@:".contains(c);
    if session.is_empty() {
        Err(Error::BadRequest("The session is missing.".to_owned()))
    } else if session.len() > SESSION_LIMIT || !session.chars().all(allowed) {
        Err(Error::BadRequest("The session is not a valid one.".to_owned()))
    } else {
        Ok(session)
    }
}

/// A JSON object, whatever the platform in between made of it. No body and `null` mean an empty one.
fn body(request: &Request) -> Result<Value, Error> {
    let bytes: &[u8] = request.body().as_ref();
    if bytes.len() > BODY_LIMIT {
        return Err(Error::BodyTooLarge);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(empty());
    }
    if !is_json(request.headers()) {
        return Err(Error::UnsupportedMediaType);
    }
    match serde_json::from_slice(bytes).map_err(Error::InvalidJson)? {
        Value::Null => Ok(empty()),
        object @ Value::Object(_) => Ok(object),
        _ => Err(Error::BadRequest("The request body must be a JSON object.".to_owned())),
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// JSON, or nothing said, or the `text/plain` that supabase-js gives a body that is already a string.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/plain") || essence.ends_with("+json")
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok(key) if (1..=IDEMPOTENCY_KEY_LIMIT).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Error::BadRequest("The Idempotency-Key must have 1 to 255 visible characters.".to_owned())),
    }
}
