//! A PostgREST-compatible server: PostgREST itself if it is installed, otherwise `postrust` in its compatibility mode.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use reqwest::Client;
use tokio::process::Command;

use crate::Result;
use crate::child::{Output, Signal, named_by, on_path, supervised, workspace};
use crate::http;
use crate::service::{Program, Service};
use crate::users::Keys;

/// A running PostgREST-compatible server. Dropping it ends it.
pub type Postgrest = Service<Server>;

/// How it is run.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    database_url: String,
    keys: Keys,
    client: Client,
    /// The exposed schemas, the default one first.
    schemas: Mutex<&'static str>,
}

impl Postgrest {
    /// Starts one on `127.0.0.1:port` (0 takes a free one) for the database at `database_url`, whose role is the authenticator. It reads
    /// the schema now; afterwards `notify pgrst, 'reload schema'` makes it read it again.
    pub async fn start(port: u16, database_url: &str, keys: &Keys, output: Output) -> Result<Self> {
        let server = Server {
            program: find()?,
            database_url: database_url.to_owned(),
            keys: keys.clone(),
            client: http::client()?,
            schemas: Mutex::new("public"),
        };
        Self::run(server, port, output).await
    }

    /// Exposes these schemas from now on, the default one first.
    pub async fn expose(&self, schemas: &'static str) -> Result<()> {
        *self.program().schemas.lock().unwrap_or_else(PoisonError::into_inner) = schemas;
        self.restart().await
    }

    /// Returns `http://127.0.0.1:<port>`: the tables are below it, without `/rest/v1`.
    pub fn url(&self) -> String {
        url(self.port())
    }
}

impl Program for Server {
    const NAME: &str = "PostgREST";

    fn command(&self, port: u16) -> Command {
        let mut command = supervised(&self.program, Signal::TERM);
        command.env_clear().envs([
            ("PGRST_DB_URI", self.database_url.as_str()),
            ("PGRST_DB_SCHEMAS", *self.schemas.lock().unwrap_or_else(PoisonError::into_inner)),
            ("PGRST_DB_ANON_ROLE", "anon"),
            ("PGRST_DB_POOL", "10"),
            ("PGRST_DB_CHANNEL_ENABLED", "true"),
            ("PGRST_JWT_SECRET", self.keys.jwt_secret()),
            ("PGRST_SERVER_HOST", "127.0.0.1"),
            ("PGRST_SERVER_PORT", &port.to_string()),
            ("PGRST_LOG_LEVEL", "warn"),
            // Only for postrust; PostgREST ignores it.
            ("PGRST_COMPAT_MODE", "true"),
        ]);
        command
    }

    /// Returns whether this server answers. Another server would refuse the key.
    async fn answers(&self, port: u16) -> bool {
        let request = self.client.get(url(port)).bearer_auth(self.keys.service_role_key());
        request.send().await.is_ok_and(|response| response.status().is_success())
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Finds `POSTGREST_BIN` or `postgrest` on the `PATH`. Otherwise finds `POSTRUST_BIN`, or `postrust` in the workspace's own tools or on
/// the `PATH`.
fn find() -> Result<PathBuf> {
    let choices = [
        named_by("POSTGREST_BIN")?,
        on_path("postgrest"),
        named_by("POSTRUST_BIN")?,
        Some(workspace().join(".tools/bin/postrust")).filter(|file| file.exists()),
        on_path("postrust"),
    ];
    choices.into_iter().flatten().next().ok_or_else(|| {
        "there is no PostgREST-compatible server: run `make dev`, or name one in POSTGREST_BIN or POSTRUST_BIN".into()
    })
}
