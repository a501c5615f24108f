//! Serves the connect page of `local/page` to a browser: its files, and the sign-in of the seeded users.
//!
//! Like a real frontend, it has a separate address, so its calls of the functions, of Supabase and of the platform need CORS.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_postgres::Client;
use tower_http::compression::CompressionLayer;
use tower_http::services::{ServeDir, ServeFile};
use tower_http::set_header::SetResponseHeaderLayer;
use uuid::Uuid;

use crate::Result;
use crate::child::workspace;
use crate::clock::unix_ms;
use crate::server::Server;
use crate::stack::Stack;
use crate::users::Keys;

/// The grants and the policy that let signed-in users read their numbers. A product has its own; the migrations add none.
const MEMBERS_MAY_READ: &str = include_str!("page.sql");

/// The paths of the page's two libraries, and the places where npm installs them.
const LIBRARIES: [(&str, &str); 2] = [
    ("/lib/supabase.js", "@supabase/supabase-js/dist/umd/supabase.js"),
    ("/lib/lean-qr.mjs", "lean-qr/index.mjs"),
];

/// Sets the expiry of a session's saved token to one second ago.
const EXPIRE_TOKEN: &str = "update messenger_integrations
    set settings = jsonb_set(settings, '{wppJwtExpiresAt}', to_jsonb(wpp_internal.now_ms() - 1000))
    where settings ->> 'wppAccountNumber' = $1";

/// Makes a session an hour older: its API key and its token are no longer new.
const AGE: &str = "with number as (
        select id from messenger_integrations where settings ->> 'wppAccountNumber' = $1
    ), token as (
        update wpp_token_leases set saved_at = now() - interval '1 hour' where integration_id in (select id from number)
    )
    update wpp_numbers set credentials_saved_at = now() - interval '1 hour'
    where integration_id in (select id from number)";

/// Deletes a session's number, as the product's settings page does.
const REMOVE: &str = "delete from messenger_integrations where settings ->> 'wppAccountNumber' = $1";

/// A user who can sign in at the page without a password.
#[derive(Clone, Debug, Serialize)]
pub struct Person {
    /// `profiles.id`
    pub user: Uuid,
    /// The organization's name.
    pub organization: &'static str,
}

/// A running server of the page. Dropping it closes its port.
#[derive(Debug)]
pub struct Page {
    server: Server,
}

struct Site {
    keys: Keys,
    database: Client,
    people: Vec<Person>,
    config: Value,
}

#[derive(Deserialize)]
struct SignIn {
    user: Uuid,
    /// How long the sign-in lasts. It may have expired already, as if the page had been left open overnight.
    lifetime_s: i64,
}

impl Page {
    /// Serves the page on `127.0.0.1:port` to these users; `functions` is the address before `/functions/v1`.
    pub async fn start(port: u16, functions: &str, stack: &Stack, people: &[Person]) -> Result<Self> {
        let database = stack.sql().await?;
        database.batch_execute(MEMBERS_MAY_READ).await?;
        let (supabase, platform) = (stack.supabase.url(), stack.platform.url());
        let site = Site {
            keys: stack.keys.clone(),
            database,
            people: people.to_vec(),
            config: json!({
                "functions": functions,
                "supabase": supabase,
                "platform": platform,
                "key": stack.keys.publishable_key(),
                "people": people,
            }),
        };
        let workspace = workspace();
        let mut router = Router::new()
            .route("/config.json", get(async |State(site): State<Arc<Site>>| Json(site.config.clone())))
            .route("/sign-in", post(sign_in))
            .route("/expire-token", post(async |site, named| change(site, named, EXPIRE_TOKEN).await))
            .route("/age", post(async |site, named| change(site, named, AGE).await))
            .route("/remove", post(async |site, named| change(site, named, REMOVE).await))
            .with_state(Arc::new(site))
            .fallback_service(ServeDir::new(workspace.join("local/page")));
        for (path, file) in LIBRARIES {
            let file = workspace.join("local/browser/node_modules").join(file);
            if !file.exists() {
                return Err(format!("{} is missing: run `make dev`", file.display()).into());
            }
            router = router.route_service(path, ServeFile::new(file));
        }
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self' {functions} {supabase} {platform}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let headers = [
            (CONTENT_SECURITY_POLICY, policy.as_str()),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, "no-store"),
        ];
        for (name, value) in headers {
            router = router.layer(header(name, value)?);
        }
        // Compresses, as web hosts do: most of what a page loads is text.
        Ok(Self { server: Server::start(port, router.layer(CompressionLayer::new())).await? })
    }

    /// Returns its address.
    pub fn url(&self) -> String {
        format!("{}/", self.server.url())
    }
}

fn header(name: HeaderName, value: &str) -> Result<SetResponseHeaderLayer<HeaderValue>> {
    Ok(SetResponseHeaderLayer::overriding(name, HeaderValue::from_str(value)?))
}

async fn sign_in(
    State(site): State<Arc<Site>>,
    Json(SignIn { user, lifetime_s }): Json<SignIn>,
) -> std::result::Result<Json<Value>, StatusCode> {
    if site.people.iter().all(|person| person.user != user) {
        return Err(StatusCode::NOT_FOUND);
    }
    let token = site.keys.user_token_for(user, lifetime_s);
    Ok(Json(json!({"access_token": token, "expires_at": unix_ms() / 1000 + lifetime_s})))
}

#[derive(Deserialize)]
struct Named {
    session: String,
}

/// Runs `sql` on the number with this session, to do what time or the product would.
async fn change(
    State(site): State<Arc<Site>>,
    Json(Named { session }): Json<Named>,
    sql: &str,
) -> StatusCode {
    match site.database.execute(sql, &[&session]).await {
        Ok(1) => StatusCode::NO_CONTENT,
        Ok(_) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::{Method, Response};

    use super::*;

    const FUNCTIONS: &str = "http://127.0.0.1:9";

    async fn page(stack: &Stack) -> (Page, Uuid, Uuid) {
        let one = stack.organization("one").await.unwrap();
        let other = stack.organization("other").await.unwrap();
        for (id, organization) in [("a", &one), ("b", &other)] {
            let insert = "insert into messenger_integrations
                (organization_id, messenger_type, provider, name, settings)
                values ($1, 'whatsapp', 'wpp', $2, '{\"wppApiKey\": \"secret\"}')";
            stack.sql().await.unwrap().execute(insert, &[&organization.id, &id]).await.unwrap();
        }
        let people = [Person { user: one.user, organization: "one" }];
        (Page::start(0, FUNCTIONS, stack, &people).await.unwrap(), one.user, other.user)
    }

    async fn call(page: &Page, method: Method, path: &str, body: Value) -> Response {
        let url = format!("{}{path}", page.url());
        let request = crate::http::client().unwrap().request(method, url);
        let request = request.header("content-type", "application/json");
        request.body(body.to_string()).send().await.unwrap()
    }

    async fn json(response: Response) -> Value {
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn every_file_has_a_content_security_policy() {
        let stack = Stack::start().await.unwrap();
        let (page, ..) = page(&stack).await;
        for path in ["", "app.js", "lib/supabase.js", "lib/lean-qr.mjs", "config.json", "not-there"] {
            let answer = call(&page, Method::GET, path, Value::Null).await;
            assert_eq!(answer.status().is_success(), path != "not-there", "{path}");
            let policy = answer.headers()["content-security-policy"].to_str().unwrap();
            let calls = format!("connect-src 'self' {FUNCTIONS} {} ", stack.supabase.url());
            assert!(policy.contains(&calls) && !policy.contains("unsafe"), "{path}: {policy}");
        }
    }

    #[tokio::test]
    async fn only_a_seeded_user_can_sign_in() {
        let stack = Stack::start().await.unwrap();
        let (page, user, stranger) = page(&stack).await;
        let sign_in =
            async |user| call(&page, Method::POST, "sign-in", json!({"user": user, "lifetime_s": 60})).await;
        assert_eq!(sign_in(stranger).await.status(), 404);
        let token = json(sign_in(user).await).await["access_token"].as_str().unwrap().to_owned();
        let read = async |columns: &str| {
            let url = format!("{}/rest/v1/messenger_integrations?select={columns}", stack.supabase.url());
            let request = crate::http::client().unwrap().get(url).bearer_auth(&token);
            request.header("apikey", stack.keys.publishable_key()).send().await.unwrap()
        };
        assert_eq!(json(read("name").await).await, json!([{"name": "a"}]));
        assert!(!read("settings").await.status().is_success());
    }

    /// Gives the number `a` the session `0001`.
    async fn named(stack: &Stack) -> Client {
        let sql = stack.sql().await.unwrap();
        let named = "update messenger_integrations set settings = '{\"wppAccountNumber\": \"0001\"}' where name = 'a'";
        sql.execute(named, &[]).await.unwrap();
        sql
    }

    async fn change(page: &Page, path: &str, session: &str) -> StatusCode {
        call(page, Method::POST, path, json!({"session": session})).await.status()
    }

    #[tokio::test]
    async fn expire_token_ends_the_saved_token_of_a_session() {
        let stack = Stack::start().await.unwrap();
        let (page, ..) = page(&stack).await;
        let sql = named(&stack).await;
        assert_eq!(change(&page, "expire-token", "0002").await, 404);
        assert_eq!(change(&page, "expire-token", "0001").await, 204);
        let ends =
            "select (settings ->> 'wppJwtExpiresAt')::bigint from messenger_integrations where name = 'a'";
        let ends: i64 = sql.query_one(ends, &[]).await.unwrap().get(0);
        assert!(ends < unix_ms() && ends > unix_ms() - 60_000);
    }

    #[tokio::test]
    async fn age_backdates_a_sessions_key() {
        let stack = Stack::start().await.unwrap();
        let (page, ..) = page(&stack).await;
        let sql = named(&stack).await;
        let saved = "insert into wpp_numbers (integration_id, organization_id, credentials_saved_at)
            select id, organization_id, now() from messenger_integrations where name = 'a'";
        sql.execute(saved, &[]).await.unwrap();
        assert_eq!(change(&page, "age", "0002").await, 404);
        assert_eq!(change(&page, "age", "0001").await, 204);
        let is_old = "select credentials_saved_at < now() - interval '59 minutes' from wpp_numbers
            where integration_id = (select id from messenger_integrations where name = 'a')";
        let is_old: bool = sql.query_one(is_old, &[]).await.unwrap().get(0);
        assert!(is_old);
    }

    #[tokio::test]
    async fn remove_deletes_the_number_of_a_session() {
        let stack = Stack::start().await.unwrap();
        let (page, ..) = page(&stack).await;
        let sql = named(&stack).await;
        assert_eq!(change(&page, "remove", "0002").await, 404);
        assert_eq!(change(&page, "remove", "0001").await, 204);
        let left = sql.query("select name from messenger_integrations", &[]).await.unwrap();
        let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
        assert_eq!(left, ["b"]);
    }
}
