//! A request for each upstream endpoint that needs just this one, with what it leaves in the database.

#![allow(dead_code, reason = "not every test needs all of it")]

use local::events::Event;
use local::gate::Gate;
use local::lambda::Answer;
use local::stage::Stage;
use local::world::Organisation;
use serde_json::{Value, json};
use tokio_postgres::types::Json;

/// The platform's endpoints, as its gate names them.
pub const PLATFORM: [&str; 6] = ["create", "token", "status", "qr", "start", "webhook"];

/// The database's: one that reads, and those that write.
pub const DATABASE: [&str; 6] = [
    "rpc/wpp_find_number",
    "rpc/wpp_claim_refresh",
    "rpc/wpp_save_token",
    "rpc/wpp_remember_session",
    "rpc/wpp_begin_creation",
    "rpc/wpp_save_credentials",
];

/// A school of its own, in a state in which its request needs the endpoint.
pub struct Scene<'a> {
    stage: &'a Stage,
    endpoint: &'static str,
    /// Whose request it is.
    pub school: Organisation,
    session: Value,
}

impl<'a> Scene<'a> {
    pub async fn set(stage: &'a Stage, endpoint: &'static str) -> Self {
        let school = stage.world.organisation(endpoint).await.unwrap();
        let mut scene = Self { stage, endpoint, school, session: Value::Null };
        if !matches!(endpoint, "create" | "rpc/wpp_begin_creation" | "rpc/wpp_save_credentials") {
            let made = stage.post_as(&scene.school, "wpp-create", json!({})).await;
            assert_eq!(made.json["status"], "qr_issued", "{endpoint}: {made:?}");
            scene.session = made.json["session"].clone();
            // A key this old is not one that may still become active.
            scene.sql("update wpp_creations set keyed_at = now() - interval '1 hour'").await;
        }
        match endpoint {
            "token" | "rpc/wpp_claim_refresh" | "rpc/wpp_save_token" => scene.end_token().await,
            "rpc/wpp_remember_session" => {
                scene.sql("update whatsapp_sessions set status = 'pairing', last_qr_b64 = null").await;
            }
            _ => {}
        }
        scene
    }

    /// The function that needs the endpoint.
    pub fn function(&self) -> &'static str {
        match self.endpoint {
            "qr" | "rpc/wpp_find_number" => "wpp-qr",
            "token" | "status" => "wpp-status",
            "rpc/wpp_claim_refresh" | "rpc/wpp_save_token" | "rpc/wpp_remember_session" => "wpp-status",
            _ => "wpp-create",
        }
    }

    /// The request, by the bearer of this token.
    pub fn event(&self, token: &str) -> Value {
        let body = match self.function() {
            "wpp-qr" => json!({"session": self.session}),
            "wpp-status" => json!({"force": true}),
            _ => json!({}),
        };
        Event::post(self.function()).bearer(token).json(&body).v2()
    }

    /// The request, on the stage.
    pub async fn act(&self) -> Answer {
        self.stage.invoke(self.function(), self.event(&self.school.token)).await
    }

    /// The gate that the endpoint is behind.
    pub fn gate(&self) -> &'a Gate {
        let world = &self.stage.world;
        if self.endpoint.starts_with("rpc/") { &world.supabase.gate } else { &world.platform.gate }
    }

    /// Until whoever was at it has given up and may be followed.
    pub async fn wait_out_leases(&self) {
        self.sql("update wpp_creations set held_until = null").await;
        let ended = "update wpp_token_leases set held_until = now(), retry_at = null
            where integration_id in (select id from messenger_integrations where organization_id = $1)";
        self.stage.sql.execute(ended, &[&self.school.id]).await.unwrap();
    }

    /// What the school's number is like in the database, in a few words.
    pub async fn state(&self) -> String {
        let rows = "select i.settings, s.status from messenger_integrations i
            left join whatsapp_sessions s on s.session_name = 'wpp_' || (i.settings ->> 'wppAccountNumber')
            where i.organization_id = $1";
        let rows = self.stage.sql.query(rows, &[&self.school.id]).await.unwrap();
        let [row] = rows.as_slice() else { return format!("{} numbers", rows.len()) };
        let Json(settings): Json<Value> = row.get(0);
        if settings["wppApiKey"].is_null() {
            return "1 number without a key".to_owned();
        }
        let token = match settings["wppJwtExpiresAt"].as_i64() {
            None => "no token",
            Some(end) if end < local::clock::unix_ms() => "ended token",
            Some(_) => "good token",
        };
        format!("{token}, {}", row.get::<_, Option<&str>>(1).unwrap_or("unseen"))
    }

    /// Asserts that the school has one number and that it is the one the platform knows.
    pub async fn assert_whole(&self) {
        let rows = "select settings ->> 'wppApiKey', settings ->> 'wppAccountNumber'
            from messenger_integrations where organization_id = $1";
        let rows = self.stage.sql.query(rows, &[&self.school.id]).await.unwrap();
        let found: Vec<(Option<String>, Option<String>)> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let (platform, id) = (&self.stage.world.platform, self.school.id.to_string());
        assert_eq!(found, [(platform.key_of(&id), platform.session_of(&id))], "{}", self.endpoint);
    }

    async fn end_token(&self) {
        self.sql(r#"update messenger_integrations set settings = settings || '{"wppJwtExpiresAt": 1000}'"#)
            .await;
    }

    /// Changes this school's rows.
    async fn sql(&self, update: &str) {
        let mine = format!("{update} where organization_id = $1");
        self.stage.sql.execute(&mine, &[&self.school.id]).await.unwrap();
    }
}
