//! Compares `openapi.yaml` with the real answers, in both directions: everything served is documented, and everything documented is
//! served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jsonschema::Registry;
use local::clock::unix_ms;
use local::events::Event;
use local::fault_injector::Fault;
use local::lambda::{Answer, Ended, Options, Sandbox, binary};
use local::platform::QrForm;
use local::secrets_manager::SecretsManager;
use local::test_app::{TestApp, environment};
use local::users::{Issuer, Keys, Signing, user_claims};
use serde_json::{Map, Value, json};
use uuid::Uuid;

static WRITTEN: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(include_str!("../../../openapi.yaml")).unwrap());

/// Headers that clients and browsers handle themselves.
const PLUMBING: [&str; 4] =
    ["content-type", "vary", "access-control-allow-origin", "access-control-expose-headers"];

/// Fields that differ in every answer.
const VOLATILE: [&str; 9] = [
    "session",
    "account_number",
    "apiKey",
    "qr",
    "qrcode",
    "last_qr_at",
    "qr_good_until",
    "seen_at",
    "request_id",
];

/// The frontend's other names for `session`. A query may have them, too, but they are documented only for bodies.
const OTHER_NAMES: [&str; 2] = ["session_name", "account_number"];

/// What is documented but has no scene.
const UNSERVED: [&str; 1] = [
    // A bug in the functions, which no scene can cause.
    "500 internal_error false",
];

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Returns each documented function and method, with its documentation.
fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    fields(&WRITTEN["paths"]).flat_map(|(path, methods)| {
        fields(methods).map(|(method, operation)| (&path[1..], method.as_str(), operation))
    })
}

/// Returns what a `$ref` points to, or the value itself if it is not a reference.
fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => resolved(WRITTEN.pointer(&reference[1..]).unwrap()),
        None => value,
    }
}

/// Returns what is wrong with a value, according to the schema at this place in the document. An undocumented field is also wrong.
fn violations(place: &str, value: &Value) -> Vec<String> {
    let registry = Registry::new().add("urn:written", &*WRITTEN).unwrap().prepare().unwrap();
    let schema = json!({"$ref": format!("urn:written#{place}"), "unevaluatedProperties": false});
    let options = jsonschema::options().should_validate_formats(true).with_registry(&registry);
    options.build(&schema).unwrap().iter_errors(value).map(|error| error.to_string()).collect()
}

/// Returns the place of an answer's schema.
fn body_of(response: &str) -> String {
    format!("/components/responses/{response}/content/application~1json/schema")
}

/// Asserts that an answer matches the documentation of its function, method and status, with every header and field. Returns the
/// name of its documentation.
pub fn assert_as_written(function: &str, method: &str, answer: &Answer) -> &'static str {
    // An unsupported method is not documented. Its answer is documented with the supported methods.
    let is_asked = |(path, known, _): &(&str, &str, &Value)| {
        *path == function && (*known == method || answer.status == 405)
    };
    let (_, _, operation) = operations().find(is_asked).unwrap();
    let reference = operation["responses"][answer.status.to_string()]["$ref"].as_str();
    let name = reference.and_then(|reference| reference.strip_prefix("#/components/responses/"));
    let name = name.unwrap_or_else(|| panic!("{method} {function}: not written: {answer:?}"));

    let headers = fields(&WRITTEN["components"]["responses"][name]["headers"]);
    let headers: BTreeMap<_, _> = headers.map(|(header, place)| (header.to_lowercase(), place)).collect();
    for (header, place) in &headers {
        let is_served = answer.headers.contains_key(header);
        assert!(is_served || resolved(place)["required"] != true, "{name} lacks {header}: {answer:?}");
    }
    for (header, value) in &answer.headers {
        if PLUMBING.contains(&header.as_str()) {
            continue;
        }
        let place =
            headers.get(header).unwrap_or_else(|| panic!("{name}: not written: {header}: {answer:?}"));
        let place = format!("{}/schema", &place["$ref"].as_str().unwrap()[1..]);
        assert_eq!(violations(&place, &json!(value)), [""; 0], "{name}, {header}: {answer:?}");
    }
    let media_type = media_type(answer);
    assert!(
        WRITTEN["components"]["responses"][name]["content"][media_type].is_object(),
        "{name}: {answer:?}"
    );
    let is_json = media_type == "application/json";
    assert_eq!(answer.headers.contains_key("content-language"), is_json, "{name}: {answer:?}");
    if is_json {
        assert_eq!(violations(&body_of(name), &answer.json), [""; 0], "{name}: {answer:?}");
    }
    name
}

/// Returns the media type without parameters such as `charset`.
fn media_type(answer: &Answer) -> &str {
    answer.headers["content-type"].split(';').next().unwrap()
}

/// The answers, each under the name of its example, if it has one.
struct Scene {
    name: &'static str,
    response: &'static str,
    answer: Answer,
}

/// A stack that produces every kind of answer.
struct Stage {
    app: TestApp,
    scenes: Vec<Scene>,
}

impl Stage {
    async fn take(&mut self, name: &'static str, event: Event) -> Value {
        self.take_within(30_000, name, event).await
    }

    /// Records an answer for which the function has this many milliseconds.
    async fn take_within(&mut self, time_ms: i64, name: &'static str, event: Event) -> Value {
        let event = event.http_api();
        let answer =
            self.app.sandbox(function_of(&event)).invoke_by(event.clone(), unix_ms() + time_ms).await;
        self.keep(name, &event, answer)
    }

    fn keep(&mut self, name: &'static str, event: &Value, answer: Ended) -> Value {
        let answer = answer.answered().unwrap();
        let method = event["requestContext"]["http"]["method"].as_str().unwrap().to_lowercase();
        let response = assert_as_written(function_of(event), &method, &answer);
        self.scenes.push(Scene { name, response, answer });
        self.scenes.last().unwrap().answer.json.clone()
    }

    /// Records an answer with this fault at an endpoint of the platform or the database.
    async fn take_with(&mut self, endpoint: &str, fault: Fault, name: &'static str, event: Event) {
        let stack = &self.app.stack;
        let faults = if endpoint.contains("wpp_") { &stack.supabase.faults } else { &stack.platform.faults };
        let faults = faults.clone();
        faults.inject(endpoint, fault);
        self.take(name, event).await;
        faults.clear();
    }

    fn post(&self, function: &str, body: Value) -> Event {
        Event::post(function).bearer(&self.app.school.token).json(&body)
    }

    fn create(&self) -> Event {
        self.post("wpp-create", json!({}))
    }

    fn status(&self) -> Event {
        self.post("wpp-status", json!({"force": true}))
    }

    fn set_status(&self, session: &str, word: &str) {
        self.app.stack.platform.set_status(session, word).unwrap();
    }

    fn show(&self, form: QrForm) {
        self.app.stack.platform.behave(|behavior| behavior.qr_form = form);
    }

    async fn sql(&self, statement: &str) {
        self.app.sql.batch_execute(statement).await.unwrap();
    }

    /// Records the answers in a number's life, from no number to a lost session.
    async fn live(&mut self) {
        self.take("no_number", self.status()).await;
        let created = self.take("created", self.create()).await;
        let session = created["session"].as_str().unwrap().to_owned();
        let poll = Event::get("wpp-qr").bearer(&self.app.school.token).query("session", &session);
        let drawing = |accept| poll.clone().header("Accept", accept);
        self.take("qr_issued", poll.clone()).await;
        for accept in ["image/svg+xml", "image/png", "text/plain"] {
            self.take("drawn", drawing(accept)).await;
        }
        self.take("qr_issued", self.status()).await;
        self.take("recent", self.post("wpp-status", json!({}))).await;
        self.show(QrForm::Base64);
        for event in [poll.clone(), self.status(), self.create()] {
            self.take("picture", event).await;
        }
        self.take("qr_is_picture", drawing("text/plain")).await;
        self.show(QrForm::Text);
        self.sql(
            "update wpp_numbers set credentials_saved_at = credentials_saved_at - interval '11 minutes'",
        )
        .await;
        self.take("qr_not_scanned", self.status()).await;
        self.take("qr_not_scanned", self.create()).await;
        self.take("qr_not_scanned", poll.clone()).await;

        self.set_status(&session, "starting");
        self.take("qr_pending", poll.clone()).await;
        self.take("qr_not_ready", drawing("image/*")).await;
        self.take("qr_pending", self.status()).await;
        self.take("starting", self.create()).await;
        self.app.age_snapshot(130).await;
        self.take("start_stuck", self.status()).await;
        self.take("start_stuck", self.create()).await;
        self.take("start_stuck", poll.clone()).await;
        self.set_status(&session, "passkey_required");
        for event in [self.status(), self.create(), poll.clone()] {
            self.take("passkey_beside_qr", event).await;
        }
        for event in [self.status(), self.create(), poll.clone()] {
            self.take_with("qr", Fault::status(404), "passkey_required", event).await;
        }

        self.sql("update wpp_numbers set webhook_url = null").await;
        self.set_status(&session, "connected");
        for event in [self.status(), self.create(), poll.clone()] {
            self.take_with("webhook", Fault::status(500), "webhook_pending", event).await;
        }
        self.sql("update wpp_numbers set webhook_tried_at = null").await;
        self.take("connected", self.status()).await;
        self.take("connected", self.create()).await;
        self.take("connected", poll.clone()).await;
        self.take("already_connected", drawing("image/png")).await;
        self.app.age_snapshot(60).await;
        self.take_with("*", Fault::Drop, "stale", self.post("wpp-status", json!({}))).await;
        self.set_status(&session, "offline");
        self.take("disconnected", self.status()).await;
        self.take("disconnected", poll.clone()).await;
        let start = Fault::Body(json!({"status": "offline"}).to_string());
        self.take_with("start", start, "disconnected", self.create()).await;
        self.app.stack.platform.forget_session(&session);
        self.take("session_lost", self.status()).await;
        self.take("session_lost", poll).await;
    }

    /// Records the answers to invalid requests.
    async fn refuse(&mut self) {
        let keys = self.app.stack.keys.clone();
        let user = self.app.school.user;
        let bare = Event::post("wpp-status");
        let signed = bare.clone().bearer(&self.app.school.token);
        self.take("invalid_request", self.post("wpp-qr", json!({}))).await;
        self.take("invalid_json", signed.clone().body("{")).await;
        self.take("unauthorized", bare.clone()).await;
        let stranger = Keys::generate().unwrap().token(&user_claims(user, Issuer::Absent), Signing::Es256);
        self.take("unknown_key", Event::post("wpp-qr").bearer(&stranger)).await;
        self.take("token_too_long", bare.clone().bearer(&"x".repeat(16 * 1024))).await;
        self.take("sign_in_expired", bare.clone().bearer(&keys.user_token_for(user, -60))).await;
        for function in ["wpp-qr", "wpp-status"] {
            self.take("number_not_found", self.post(function, json!({"session": "0000000000000"}))).await;
        }
        self.take("organization_not_found", bare.clone().bearer(&keys.user_token(Uuid::new_v4()))).await;
        self.take("method_not_allowed", Event::get("wpp-create").bearer(&self.app.school.token)).await;
        self.take("body_too_large", signed.body(&"{".repeat(16 * 1024 + 1))).await;
        let by_key_set = bare.bearer(&keys.token(&user_claims(user, Issuer::Absent), Signing::Es256));
        let faults = self.app.stack.supabase.faults.clone();
        faults.inject("jwks", Fault::Drop);
        self.take("auth_unavailable", by_key_set.clone()).await;
        faults.inject("jwks", Fault::NoHeaders);
        let hurried = environment(&self.app.stack, &[("REQUEST_BUDGET_MS", "1")]);
        let hurried = Sandbox::start(&binary("wpp-status").unwrap(), &hurried).await.unwrap();
        let event = by_key_set.http_api();
        let answer = hurried.invoke(event.clone()).await;
        self.keep("deadline_exceeded", &event, answer);
        faults.clear();
    }

    /// Records the answers to upstream failures, for a separate school.
    async fn fail(&mut self) {
        self.app.school = self.app.stack.organization("unlucky").await.unwrap();
        let refusal = |status, error| Fault::Status {
            status,
            body: json!({"error": error}).to_string(),
            retry_after_s: None,
        };
        let coded =
            |status, code| Fault::status_with(status, &json!({"code": code, "message": "no"}).to_string());
        let busy = Fault::Status { status: 429, body: String::new(), retry_after_s: Some(2) };
        self.take_with("create", refusal(401, "Invalid secret"), "platform_secret_rejected", self.create())
            .await;
        self.take_with("create", refusal(400, "no"), "platform_refused", self.create()).await;
        self.sql(
            "update wpp_creations set holder = gen_random_uuid(), held_until = now() + interval '30 seconds'",
        )
        .await;
        self.take_within(3_000, "creation_in_progress", self.create()).await;
        self.sql("update wpp_creations set held_until = null").await;

        self.take("created_again", self.create()).await;
        let fill = "insert into wpp_platform_ids (platform_id, organization_id)
            select gen_random_uuid(), id from organizations, generate_series(1, 30)";
        self.sql(fill).await;
        self.sql("update wpp_numbers set first_connected_at = now()").await;
        self.take("too_many_numbers", self.post("wpp-create", json!({"add_new": true}))).await;
        self.sql("update wpp_numbers set first_connected_at = null").await;
        let settings = "alter table messenger_integrations add kept jsonb;
            update messenger_integrations set kept = settings, settings = '[]'";
        self.sql(settings).await;
        self.take("settings_unreadable", self.status()).await;
        self.sql("update messenger_integrations set settings = kept").await;

        let end_token = "update messenger_integrations set settings = settings || '{\"wppJwtExpiresAt\": 1}';
            delete from wpp_token_leases";
        self.sql(end_token).await;
        self.take_with("token", refusal(403, "Invalid API key"), "api_key_not_active", self.status()).await;
        self.app.settle_keys().await;
        self.sql(end_token).await;
        self.take_with("token", refusal(403, "Invalid API key"), "api_key_rejected", self.status()).await;
        self.sql("delete from wpp_token_leases").await;

        for (fault, name) in [
            (refusal(401, "Invalid token"), "token_rejected"),
            (refusal(400, "no"), "number_refused"),
            (busy, "platform_busy"),
            (Fault::Drop, "platform_unavailable"),
            (Fault::Html, "platform_bad_answer"),
            (Fault::NoHeaders, "platform_timeout"),
        ] {
            self.take_with("status", fault, name, self.status()).await;
        }
        for (fault, name) in [
            (coded(409, "23505"), "database_conflict"),
            (coded(400, "P0001"), "database_error"),
            (coded(401, "PGRST301"), "database_key_rejected"),
            (coded(404, "PGRST202"), "database_not_migrated"),
            (Fault::status(404), "database_unavailable"),
            (Fault::NoHeaders, "database_timeout"),
        ] {
            self.take_with("rpc/wpp_find_number", fault, name, self.status()).await;
        }
    }

    /// Records the answers if the secret with the keys cannot be read, and if it has no keys.
    async fn lose_keys(&mut self) {
        let secrets = SecretsManager::start().await.unwrap();
        let arn = secrets.put("supabase", &json!({}));
        let mut variables = secrets.env().to_vec();
        variables.extend([("SUPABASE_SECRET_ARN", arn), ("SUPABASE_SERVICE_ROLE_KEY", String::new())]);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let env = environment(&self.app.stack, &variables);
        for (fault, name) in [(Some(Fault::status(500)), "secret_unavailable"), (None, "secret_unusable")] {
            secrets.faults.clear();
            if let Some(fault) = fault {
                secrets.faults.inject("supabase", fault);
            }
            let function = Sandbox::start(&binary("wpp-status").unwrap(), &env).await.unwrap();
            let event = self.status().http_api();
            let answer = function.invoke(event.clone()).await;
            self.keep(name, &event, answer);
        }
    }
}

/// Returns the function that an event is for.
fn function_of(event: &Value) -> &str {
    event["rawPath"].as_str().unwrap().rsplit('/').next().unwrap()
}

/// Returns the parts that an answer can have: its types, its fields and the words that a field may have. For an error, returns the
/// status, the code and whether retrying can help.
fn written_parts(response: &str, status: &str) -> Vec<String> {
    let content = &WRITTEN["components"]["responses"][response]["content"];
    let schema = resolved(&content["application/json"]["schema"]);
    if status != "200" {
        let kinds = &schema["allOf"][1];
        let kinds = kinds["oneOf"].as_array().map_or_else(|| vec![kinds], |kinds| kinds.iter().collect());
        let kinds = kinds.into_iter().map(|kind| &kind["properties"]);
        return kinds
            .flat_map(|kind| {
                words(&kind["code"])
                    .into_iter()
                    .map(move |code| error_part(status, code, &kind["retryable"]["const"]))
            })
            .collect();
    }
    let parts = properties(schema).into_iter().flat_map(|(field, schema)| {
        let words = words(resolved(schema)).into_iter().map(move |word| format!("{response}.{field} {word}"));
        words.chain([format!("{response}.{field}")])
    });
    parts.chain(fields(content).map(|(media_type, _)| format!("{response} {media_type}"))).collect()
}

/// Returns the fields that a schema names, in all its parts.
fn properties(schema: &'static Value) -> Vec<(&'static String, &'static Value)> {
    let schema = resolved(schema);
    let parts = ["allOf", "oneOf"].into_iter().filter_map(|parts| schema[parts].as_array()).flatten();
    fields(&schema["properties"]).chain(parts.flat_map(properties)).collect()
}

fn error_part(status: impl std::fmt::Display, code: &Value, retryable: &Value) -> String {
    format!("{status} {} {retryable}", code.as_str().unwrap())
}

/// Returns the words that a schema lists.
fn words(schema: &Value) -> Vec<&Value> {
    schema["enum"].as_array().into_iter().flatten().chain(schema.get("const")).collect()
}

/// Returns the same for the real answers.
fn served_parts(Scene { response, answer, .. }: &Scene) -> Vec<String> {
    if answer.status != 200 {
        return vec![error_part(answer.status, &answer.json["code"], &answer.json["retryable"])];
    }
    let parts = fields(&answer.json);
    parts
        .flat_map(|(field, value)| [format!("{response}.{field}"), format!("{response}.{field} {value}")])
        .chain([format!("{response} {}", media_type(answer))])
        .collect()
}

fn without_what_varies(body: &Value) -> Value {
    let kept = fields(body).map(|(field, value)| match value {
        Value::String(_) if VOLATILE.contains(&field.as_str()) => (field.clone(), "...".into()),
        _ => (field.clone(), value.clone()),
    });
    Value::Object(kept.collect::<Map<_, _>>())
}

fn statuses() -> BTreeMap<&'static str, &'static str> {
    operations()
        .flat_map(|(_, _, operation)| fields(&operation["responses"]))
        .map(|(status, response)| {
            (response["$ref"].as_str().unwrap().rsplit('/').next().unwrap(), status.as_str())
        })
        .collect()
}

#[tokio::test]
async fn openapi_matches_the_real_answers() {
    let times = [("UPSTREAM_TIMEOUT_MS", "2500"), ("QR_WAIT_MS", "1500")];
    let app = TestApp::start_with(&times, Options::default()).await;
    let mut stage = Stage { app, scenes: Vec::new() };
    stage.live().await;
    stage.refuse().await;
    stage.fail().await;
    stage.lose_keys().await;

    let mut shown = BTreeSet::new();
    for Scene { name, response, answer } in &stage.scenes {
        let example =
            &WRITTEN["components"]["responses"][response]["content"]["application/json"]["examples"][name];
        if std::env::var("EXAMPLES").is_ok_and(|what| what == "print") {
            println!("{}", json!([response, name, answer.json]));
        } else if example.is_object() {
            shown.insert((*response, (*name).to_owned()));
            assert_eq!(violations(&body_of(response), &example["value"]), [""; 0], "{response}.{name}");
            assert_eq!(
                without_what_varies(&example["value"]),
                without_what_varies(&answer.json),
                "{response}.{name}"
            );
        }
    }
    let served: BTreeSet<_> = stage.scenes.iter().flat_map(served_parts).collect();
    let written = statuses().into_iter().flat_map(|(response, status)| written_parts(response, status));
    let unserved: Vec<_> = written.filter(|part| !served.contains(part)).collect();
    assert_eq!(unserved, UNSERVED);

    let examples = fields(&WRITTEN["components"]["responses"]).flat_map(|(response, written)| {
        let examples = fields(&written["content"]["application/json"]["examples"]);
        examples.map(|(name, _)| (response.as_str(), name.clone()))
    });
    assert_eq!(examples.collect::<BTreeSet<_>>(), shown, "an example without a scene");
}

#[test]
fn missing_or_extra_field_is_found() {
    for (response, _) in statuses() {
        let examples =
            &WRITTEN["components"]["responses"][response]["content"]["application/json"]["examples"];
        for (name, example) in fields(examples) {
            let violations = |change: &dyn Fn(&mut Map<String, Value>)| {
                let mut body = example["value"].as_object().unwrap().clone();
                change(&mut body);
                violations(&body_of(response), &json!(body)).len()
            };
            assert_eq!(violations(&|_| {}), 0, "{response}.{name}");
            assert_ne!(
                violations(&|body| drop(body.insert("unwritten".to_owned(), json!(1)))),
                0,
                "{response}.{name}"
            );
            assert_ne!(violations(&|body| drop(body.remove("success"))), 0, "{response}.{name}");
        }
    }
}

/// The table of `docs/api.md` is compared with the code that makes the errors.
#[test]
fn openapi_errors_match_the_table() {
    let readme = include_str!("../../../docs/api.md")
        .lines()
        .skip_while(|line| !line.starts_with("| status | code |"));
    let rows = readme.skip(2).take_while(|line| line.starts_with('|'));
    let documented = rows.flat_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (status, retryable) = (cells[0], json!(cells[2] == "yes"));
        let codes = cells[1].split('`').skip(1).step_by(2);
        codes.map(move |code| error_part(status, &json!(code), &retryable)).collect::<Vec<_>>()
    });
    let written = statuses().into_iter().filter(|(_, status)| *status != "200");
    let written = written.flat_map(|(response, status)| written_parts(response, status));
    assert_eq!(written.collect::<BTreeSet<_>>(), documented.collect::<BTreeSet<_>>());
}

/// Returns the fields that a request's schema names, in all its forms.
fn request_fields(schema: &'static Value) -> BTreeSet<&'static str> {
    let schema = resolved(schema);
    let forms = ["oneOf", "anyOf"].into_iter().filter_map(|forms| schema[forms].as_array()).flatten();
    let own = fields(&schema["properties"]).map(|(field, _)| field.as_str());
    forms.flat_map(request_fields).chain(own).collect()
}

#[tokio::test]
async fn functions_accept_the_documented_fields() {
    let app = TestApp::start().await;
    let taken = |method: &str, operation: &'static Value| -> BTreeSet<_> {
        if method == "post" {
            return request_fields(&operation["requestBody"]["content"]["application/json"]["schema"]);
        }
        let parameters = operation["parameters"].as_array().unwrap().iter().map(resolved);
        let in_query = parameters.filter(|parameter| parameter["in"] == "query");
        in_query.map(|parameter| parameter["name"].as_str().unwrap()).collect()
    };
    let all: BTreeSet<_> = operations().flat_map(|(_, method, operation)| taken(method, operation)).collect();
    for (function, method, operation) in operations() {
        let mut taken = taken(method, operation);
        if taken.contains("session") {
            taken.extend(OTHER_NAMES);
        }
        for field in &all {
            // The fields are correct, but no school has this number.
            let event = Event::new(&method.to_uppercase(), function).bearer(&app.school.token);
            let event = match method {
                "post" => {
                    let mut body = json!({"session": "0"});
                    body[field] = json!([]);
                    event.json(&body)
                }
                _ if *field == "session" || OTHER_NAMES.contains(field) => event.query(field, "no such"),
                _ => event.query("session", "0").query(field, "no such"),
            };
            let answer = app.invoke(function, event.http_api()).await;
            let names_it = answer.json["error"].as_str().unwrap().contains(&format!("\"{field}\""));
            // An unknown body field is named, too.
            let is_named = method == "post" || taken.contains(field);
            let expected = if is_named { (400, true) } else { (404, false) };
            let is_unknown = answer.json["error"].as_str().unwrap().starts_with("There is no field");
            assert_eq!(
                is_unknown,
                method == "post" && !taken.contains(field),
                "{function} {field}: {answer:?}"
            );
            assert_eq!((answer.status, names_it), expected, "{method} {function} {field}: {answer:?}");
        }
    }
    for (path, methods) in fields(&WRITTEN["paths"]) {
        let answer = app.invoke(&path[1..], Event::new("DELETE", &path[1..]).http_api()).await;
        let methods = fields(methods).map(|(method, _)| method.to_uppercase()).chain(["OPTIONS".to_owned()]);
        assert_eq!(answer.headers["allow"], methods.collect::<Vec<_>>().join(", "));
    }
}

#[test]
fn request_examples_are_valid() {
    for (path, methods) in fields(&WRITTEN["paths"]) {
        let place = format!("/paths/{}/post/requestBody/content/application~1json", path.replace('/', "~1"));
        let examples: Vec<_> =
            fields(&methods["post"]["requestBody"]["content"]["application/json"]["examples"]).collect();
        assert!(!examples.is_empty(), "{path}");
        for (name, example) in examples {
            assert_eq!(violations(&format!("{place}/schema"), &example["value"]), [""; 0], "{path} {name}");
        }
    }
}
