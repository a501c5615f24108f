use serde_json::json;

use super::*;
use crate::messages::Sentence;

#[derive(Debug, PartialEq, Deserialize)]
struct Wanted {
    session: Option<SessionId>,
    integration_id: Option<Uuid>,
    #[serde(default)]
    force: bool,
}

fn wanted(session: Option<&str>, force: bool) -> Wanted {
    Wanted { session: session.map(|session| SessionId(session.to_owned())), integration_id: None, force }
}

fn post(body: impl Into<Vec<u8>>) -> Result<Wanted, Error> {
    let request = http::Request::post("/wpp-status?session=5").body(body.into().into()).unwrap();
    read(&request)
}

fn get(query: &str) -> Result<Wanted, Error> {
    read(
        &http::Request::get(format!("/wpp-status?{query}")).body(b"{\"session\":7}".to_vec().into()).unwrap(),
    )
}

fn problem(read: Result<Wanted, Error>) -> (String, Sentence) {
    match read {
        Err(Error::BadRequest { field, wrong }) => (field.into_owned(), wrong),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_body_is_read_as_json_without_a_content_type() {
    assert_eq!(post(r#"{"session": "4", "force": true}"#), Ok(wanted(Some("4"), true)));
}

#[test]
fn null_or_empty_text_counts_as_absent() {
    assert_eq!(post(r#"{"session": "", "integration_id": null, "force": null}"#), Ok(wanted(None, false)));
    assert_eq!(get("session=&integration_id=&force="), Ok(wanted(None, false)));
    assert_eq!(post("null"), Ok(wanted(None, false)));
}

#[test]
fn a_request_without_a_body_is_read_from_its_query() {
    assert_eq!(post(""), Ok(wanted(Some("5"), false)));
    assert_eq!(post(" \n"), Ok(wanted(Some("5"), false)));
    assert_eq!(post("{}"), Ok(wanted(None, false)));
}

#[test]
fn a_get_is_read_from_its_query_alone() {
    assert_eq!(get("session=a%2Bb&force=true&_=1"), Ok(wanted(Some("a+b"), true)));
    assert_eq!(get("session=4&session=5"), Ok(wanted(Some("4"), false)));
}

#[test]
fn a_wrong_field_is_named_with_what_it_must_be() {
    for (body, field, sentence) in [
        (json!({"session": 4}), "session", say::FIELD_NOT_TEXT),
        (json!({"session": {"a boolean": 1}}), "session", say::FIELD_NOT_TEXT),
        (json!({"session": "a/b"}), "session", say::FIELD_NOT_A_SESSION),
        (json!({"session": "x".repeat(129)}), "session", say::FIELD_NOT_A_SESSION),
        (json!({"force": "true"}), "force", say::FIELD_NOT_A_FLAG),
        (json!({"force": 1}), "force", say::FIELD_NOT_A_FLAG),
        (json!({"integration_id": "7"}), "integration_id", say::FIELD_NOT_AN_ID),
        (json!({"integration_id": 7}), "integration_id", say::FIELD_NOT_AN_ID),
    ] {
        assert_eq!(problem(post(body.to_string())), (field.to_owned(), sentence), "{body}");
    }
    for (query, field, sentence) in [
        ("session=a%2Fb", "session", say::FIELD_NOT_A_SESSION),
        ("force=maybe", "force", say::FIELD_NOT_A_FLAG),
        ("force=1", "force", say::FIELD_NOT_A_FLAG),
        ("integration_id=7", "integration_id", say::FIELD_NOT_AN_ID),
    ] {
        assert_eq!(problem(get(query)), (field.to_owned(), sentence), "{query}");
    }
}

#[test]
fn an_unknown_body_field_is_named_up_to_64_characters() {
    assert_eq!(problem(post(r#"{"sesion": "4"}"#)), ("sesion".to_owned(), say::FIELD_UNKNOWN));
    let long = "x".repeat(100);
    let body = format!(r#"{{"{long}": 1}}"#);
    assert_eq!(problem(post(body)), ("x".repeat(64), say::FIELD_UNKNOWN));
}

#[test]
fn a_body_that_is_not_an_object_is_refused() {
    for body in ["[]", "7", "\"x\""] {
        assert_eq!(problem(post(body)), ("body".to_owned(), say::NOT_AN_OBJECT), "{body}");
    }
    assert!(matches!(post("{"), Err(Error::InvalidJson(_))));
    assert!(matches!(post(b"\xff".to_vec()), Err(Error::InvalidJson(_))));
}

#[test]
fn a_body_over_16_kib_is_refused() {
    let body = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    assert_eq!(post(body(16 * 1024)), Ok(wanted(None, false)));
    assert_eq!(post(body(16 * 1024 + 1)), Err(Error::BodyTooLarge));
    assert_eq!(post(" ".repeat(16 * 1024 + 1)), Err(Error::BodyTooLarge));
}

#[test]
fn several_names_of_one_session_must_agree() {
    let id = |session: &str| Some(SessionId(session.to_owned()));
    assert_eq!(named_session(None, None, None), Ok(None));
    assert_eq!(named_session(id("4"), id("4"), id("4")), Ok(Some("4".to_owned())));
    assert_eq!(named_session(None, None, id("5")), Ok(Some("5".to_owned())));
    let differ = named_session(id("4"), id("4"), id("5"));
    assert_eq!(differ, Err(Error::bad_request("account_number", say::FIELD_CONTRADICTS)));
    let differ = named_session(id("4"), id("5"), None);
    assert_eq!(differ, Err(Error::bad_request("session_name", say::FIELD_CONTRADICTS)));
}
