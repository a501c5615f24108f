//! The HTTP gateway of the Supabase project. It checks API keys, forwards to the REST API and serves the JWKS.

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING,
};
use axum::http::{Method, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use axum::{Json, http};
use reqwest::Client;
use serde_json::{Value, json};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

use crate::Result;
use crate::fault_injector::FaultInjector;
use crate::postgrest::Postgrest;
use crate::server::{Server, behind_firewall};
use crate::users::Keys;

/// The path of the REST API, below the project's address.
const REST: &str = "/rest/v1";

/// Headers that are not forwarded, because the HTTP client and server set their own.
const NOT_FORWARDED: [http::HeaderName; 4] = [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING];

/// A running gateway. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Supabase {
    /// The faults of all requests, by `rpc/<function>`, `rest/<table>` or `jwks`.
    pub faults: FaultInjector,
    /// The server, which can close and refuse connections.
    pub server: Server,
    gateway: Arc<Gateway>,
}

#[derive(Debug)]
struct Gateway {
    faults: FaultInjector,
    client: Client,
    project: RwLock<Project>,
}

/// What may change while the gateway is running.
#[derive(Clone, Debug)]
struct Project {
    keys: Keys,
    rest: String,
}

impl Supabase {
    /// Starts the gateway of `postgrest` on `127.0.0.1:port`, 0 for a free one.
    pub async fn start(port: u16, keys: &Keys, postgrest: &Postgrest) -> Result<Self> {
        let faults = FaultInjector::default();
        let project = RwLock::new(Project { keys: keys.clone(), rest: postgrest.url() });
        let gateway = Arc::new(Gateway { faults: faults.clone(), client: crate::http::client()?, project });
        let router = Router::new()
            .route("/auth/v1/.well-known/jwks.json", get(jwks))
            .route("/rest/v1/{*path}", any(rest))
            // Supabase allows pages of any origin.
            .layer(
                CorsLayer::new()
                    .allow_origin(Any)
                    .allow_methods(Any)
                    .allow_headers(AllowHeaders::mirror_request()),
            )
            .with_state(gateway.clone());
        let server = Server::start(port, behind_firewall(router)).await?;
        Ok(Self { faults, server, gateway })
    }

    /// Replaces the project's keys: from now on only these are accepted, and requests go to `postgrest`.
    pub fn replace_keys(&self, keys: &Keys, postgrest: &Postgrest) {
        let project = Project { keys: keys.clone(), rest: postgrest.url() };
        *self.gateway.project.write().unwrap_or_else(PoisonError::into_inner) = project;
    }

    /// Returns the project's address, `SUPABASE_URL`.
    pub fn url(&self) -> String {
        self.server.url()
    }
}

/// Serves the public keys. A self-hosted gateway may require an `apikey` even for these.
async fn jwks(State(gateway): State<Arc<Gateway>>, mut headers: HeaderMap) -> Response<Body> {
    let answer = async {
        match gateway.admit(&mut headers) {
            Ok(project) => Json(project.keys.jwks()).into_response(),
            Err(reason) => refusal(StatusCode::UNAUTHORIZED, reason),
        }
    };
    gateway.faults.pass("jwks", answer).await
}

async fn rest(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let endpoint = endpoint(request.method(), request.uri().path());
    gateway.faults.pass(&endpoint, gateway.forward(request)).await
}

/// Returns the [`FaultInjector`]'s name for a request: `rpc/<function>` for a call, otherwise `rest/<table>`.
fn endpoint(method: &Method, path: &str) -> String {
    let below = path.trim_start_matches(REST).trim_matches('/');
    match below.strip_prefix("rpc/") {
        Some(function) if method == Method::POST => format!("rpc/{function}"),
        _ => format!("rest/{below}"),
    }
}

impl Gateway {
    async fn forward(&self, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        let project = match self.admit(&mut headers) {
            Ok(project) => project,
            Err(reason) => return refusal(StatusCode::UNAUTHORIZED, reason),
        };
        NOT_FORWARDED.iter().for_each(|name| drop(headers.remove(name)));
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return refusal(StatusCode::BAD_REQUEST, json!({"message": "the request body is incomplete"}));
        };
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let url = format!("{}{}", project.rest, target.trim_start_matches(REST));
        match self.client.request(parts.method, url).headers(headers).body(body).send().await {
            Ok(response) => relay(response).await,
            Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, json!({"message": "name resolution failed"})),
        }
    }

    /// Checks `apikey` as Supabase's gateway does. Sets `Authorization` for the new keys (`sb_secret_...`, `sb_publishable_...`).
    fn admit(&self, headers: &mut HeaderMap) -> std::result::Result<Project, Value> {
        let Some(key) = headers.get("apikey") else {
            return Err(json!({
                "message": "No API key found in request",
                "hint": "No `apikey` request header or url param was found.",
            }));
        };
        let key = key.to_str().unwrap_or_default();
        let project = self.project.read().unwrap_or_else(PoisonError::into_inner).clone();
        let keys = &project.keys;
        // A legacy key in `apikey` does not set the role. PostgREST takes the role from `Authorization`; without that header, the
        // caller is `anon`.
        let role_token = match key {
            _ if key == keys.secret_key() => Some(keys.service_role_key()),
            _ if key == keys.publishable_key() => Some(keys.anon_key()),
            _ if key == keys.service_role_key() || key == keys.anon_key() => None,
            _ => return Err(json!({"message": "Invalid API key"})),
        };
        if let Some(token) = role_token.filter(|_| !headers.contains_key(AUTHORIZATION)) {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            headers.insert(AUTHORIZATION, bearer.map_err(|_| json!({"message": "Invalid API key"}))?);
        }
        Ok(project)
    }
}

async fn relay(response: reqwest::Response) -> Response<Body> {
    let status = response.status();
    let mut headers = response.headers().clone();
    NOT_FORWARDED.iter().for_each(|name| drop(headers.remove(name)));
    match response.bytes().await {
        Ok(body) => (status, headers, body).into_response(),
        Err(_) => refusal(StatusCode::BAD_GATEWAY, json!({"message": "an invalid response was received"})),
    }
}

fn refusal(status: StatusCode, body: Value) -> Response<Body> {
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use reqwest::RequestBuilder;

    use super::*;
    use crate::stack::Stack;

    /// A stack with a table and a function, and a client for it.
    struct Fixture {
        stack: Stack,
        client: Client,
    }

    impl Fixture {
        async fn start() -> Self {
            let stack = Stack::start().await.unwrap();
            let sql = "create table notes (note text); insert into notes values ('kept');
                grant all on notes to service_role;
                create function greeting(name text) returns text language sql as 'select ''hello '' || name';
                grant execute on function greeting(text) to service_role;
                notify pgrst, 'reload schema'";
            stack.sql().await.unwrap().batch_execute(sql).await.unwrap();
            stack.postgrest.restart().await.unwrap();
            Self { stack, client: crate::http::client().unwrap() }
        }

        fn get(&self, path: &str) -> RequestBuilder {
            self.client.get(format!("{}{path}", self.stack.supabase.url()))
        }
    }

    async fn answer(request: RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    #[tokio::test]
    async fn gateway_handles_keys_like_supabase() {
        let fixture = Fixture::start().await;
        let keys = &fixture.stack.keys;
        let (service, secret) = (keys.service_role_key(), keys.secret_key());
        let (anon, publishable) = (keys.anon_key(), keys.publishable_key());
        for (apikey, bearer, status) in [
            (None, None, 401),
            (Some("sb_secret_wrong"), Some(&*service), 401),
            (Some(&*service), Some(&*service), 200),
            (Some(&*anon), Some(&*service), 200),
            (Some(secret), None, 200),
            (Some(secret), Some(secret), 401),
            (Some(&*service), None, 401),
            (Some(publishable), None, 401),
        ] {
            let notes = fixture.get("/rest/v1/notes?select=note");
            let notes = apikey.into_iter().fold(notes, |notes, key| notes.header("apikey", key));
            let notes = bearer.into_iter().fold(notes, |notes, token| notes.bearer_auth(token));
            let (given, body) = answer(notes).await;
            assert_eq!(given, status, "{apikey:?} {bearer:?}: {body}");
            if status == 200 {
                assert_eq!(body, json!([{"note": "kept"}]));
            }
            if apikey == Some("sb_secret_wrong") {
                assert_eq!(body, json!({"message": "Invalid API key"}));
            }
        }
    }

    #[tokio::test]
    async fn jwks_needs_an_apikey() {
        let fixture = Fixture::start().await;
        let keys = &fixture.stack.keys;
        let jwks = || fixture.get("/auth/v1/.well-known/jwks.json");
        for key in [keys.secret_key(), keys.publishable_key(), &keys.anon_key()] {
            assert_eq!(answer(jwks().header("apikey", key)).await, (200, keys.jwks()));
        }
        for (refused, message) in [
            (jwks(), "No API key found in request"),
            (jwks().bearer_auth(keys.service_role_key()), "No API key found in request"),
            (jwks().header("apikey", "sb_secret_wrong"), "Invalid API key"),
        ] {
            let (status, body) = answer(refused).await;
            assert_eq!((status, &body["message"]), (401, &json!(message)));
        }
        let call = fixture.client.post(format!("{}/rest/v1/rpc/greeting", fixture.stack.supabase.url()));
        let call = call.header("content-type", "application/json").body(r#"{"name": "you"}"#);
        assert_eq!(answer(call.header("apikey", keys.secret_key())).await, (200, json!("hello you")));
        let read = fixture.get("/rest/v1/notes").header("apikey", keys.secret_key());
        assert_eq!(answer(read).await.0, 200);
        let counts = fixture.stack.supabase.faults.counts();
        assert_eq!(json!(counts), json!({"jwks": 6, "rest/notes": 1, "rpc/greeting": 1}));
    }
}
