//! Answers: JSON in one envelope, or the image of a QR code.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use lambda_http::Body;
use serde::Serialize;

use crate::error::Error;
use crate::http::accept::ImageFormat;
use crate::messages::Language;
use crate::number::snapshot::State;

/// A handler's successful result. It is serialized into the JSON of a 200.
pub trait ApiResponse: Serialize {
    /// Returns the number's state, for the log.
    fn state(&self) -> State;

    /// Returns the image to send instead of JSON if the request's `Accept` prefers one.
    fn image(&self, _format: ImageFormat) -> Option<Result<Image, Error>> {
        None
    }
}

/// A body that is not JSON.
#[derive(Debug)]
pub struct Image {
    /// The value of `Content-Type`.
    pub media_type: &'static str,
    /// The image's bytes, or the QR code drawn in text.
    pub body: Vec<u8>,
}

#[derive(Serialize)]
struct SuccessBody<'a, T> {
    success: bool,
    #[serde(flatten)]
    answer: &'a T,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    success: bool,
    error: String,
    code: &'static str,
    retryable: bool,
    request_id: &'a str,
}

pub(super) fn success(answer: &impl ApiResponse, language: Language) -> Response<Body> {
    json(StatusCode::OK, &SuccessBody { success: true, answer }, language)
}

pub(super) fn image(image: Image) -> Response<Body> {
    let mut response = Response::new(Body::Binary(image.body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(image.media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn failure(error: &Error, request_id: &str, language: Language) -> Response<Body> {
    let description = error.response();
    let (code, retryable) = (description.code, description.retryable);
    let body = ErrorBody { success: false, error: description.text(language), code, retryable, request_id };
    let status = StatusCode::from_u16(description.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &body, language);
    let headers = response.headers_mut();
    if let Some(after) = description.retry_after {
        headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
    }
    if let Error::MethodNotAllowed(methods) = error {
        let mut allowed: Vec<_> = methods.iter().map(ToString::to_string).collect();
        allowed.push("OPTIONS".to_owned());
        if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
            headers.insert(ALLOW, allowed);
        }
    }
    response
}

fn json(status: StatusCode, body: &impl Serialize, language: Language) -> Response<Body> {
    let body = serde_json::to_string(body).unwrap_or_else(|_| r#"{"success":false}"#.to_owned());
    let mut response = Response::new(Body::Text(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
