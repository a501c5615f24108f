//! Answers: JSON in one envelope, or the image of a QR code.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use lambda_http::Body;
use serde::Serialize;

use crate::error::Error;
use crate::http::accept::QrImage;
use crate::messages::Language;
use crate::number::snapshot::State;

/// What a handler returns: the fields of a 200's JSON.
pub trait ApiResponse: Serialize {
    /// Returns the number's state, for the log.
    fn state(&self) -> State;

    /// Returns the body that replaces the JSON of a 200, for a request that prefers an image.
    fn image(&self, _form: QrImage) -> Option<Result<Image, Error>> {
        None
    }
}

/// A body that is not JSON.
#[derive(Debug)]
pub struct Image {
    /// Its media type.
    pub media_type: &'static str,
    /// Its bytes.
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
    let public = error.response();
    let (code, retryable) = (public.code, public.retryable);
    let body = ErrorBody { success: false, error: public.error(language), code, retryable, request_id };
    let status = StatusCode::from_u16(public.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &body, language);
    let headers = response.headers_mut();
    if let Some(after) = public.retry_after {
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
