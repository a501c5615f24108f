//! The whole journey of a person who links a number: `local dev`, the functions under `cargo lambda watch`, and plain HTTP.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use local::child::{Child, Output, Signal, supervised};
use local::{http, service};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_postgres::NoTls;

/// The time that `local dev` may take to start: the functions are already built, so it only starts a dozen processes.
const START_TIMEOUT: Duration = Duration::from_secs(240);

/// A running `local dev` with its own ports and data directory.
struct Dev {
    process: Child,
    data: PathBuf,
    functions: u16,
    platform: u16,
    postgres: u16,
    token: String,
    http: Client,
}

impl Dev {
    async fn start(data: PathBuf) -> Self {
        let [functions, page, platform, supabase, postgres, postgrest] =
            [(); 6].map(|()| service::free_port().unwrap());
        let mut command = supervised(env!("CARGO_BIN_EXE_local"), Signal::TERM);
        command.arg("dev").env("WPP_LOCAL_DATA", &data).env("NO_COLOR", "1");
        for (name, port) in [
            ("WPP_LOCAL_PORT", functions),
            ("WPP_LOCAL_PAGE_PORT", page),
            ("WPP_LOCAL_PLATFORM_PORT", platform),
            ("WPP_LOCAL_SUPABASE_PORT", supabase),
            ("WPP_LOCAL_POSTGRES_PORT", postgres),
            ("WPP_LOCAL_POSTGREST_PORT", postgrest),
        ] {
            command.env(name, port.to_string());
        }
        let mut process = Child::spawn("local dev", command, &Output::Captured).unwrap();
        let ready = async {
            while !process.logs().contains("Press Ctrl-C to stop everything") {
                assert!(process.ended().is_none(), "{}", process.logs());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = tokio::time::timeout(START_TIMEOUT, ready).await;
        assert!(ready.is_ok(), "{}", process.logs());
        let logs = process.logs();
        let token = logs.lines().find_map(|line| line.strip_prefix("TOKEN=")).unwrap().to_owned();
        Self { process, data, functions, platform, postgres, token, http: http::client().unwrap() }
    }

    async fn post(&self, name: &str, body: Value) -> Value {
        self.send(format!("http://127.0.0.1:{}/functions/v1/{name}", self.functions), body).await
    }

    async fn scan(&self, session: &str) {
        self.send(format!("http://127.0.0.1:{}/_sim/scan", self.platform), json!({"session": session})).await;
    }

    async fn send(&self, url: String, body: Value) -> Value {
        let request = self.http.post(url).bearer_auth(&self.token).header("content-type", "application/json");
        let bytes = request.body(body.to_string()).send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    async fn platform_calls(&self, endpoint: &str) -> u64 {
        let url = format!("http://127.0.0.1:{}/_sim/counts", self.platform);
        let bytes = self.http.get(url).send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()[endpoint].as_u64().unwrap_or(0)
    }

    async fn expire_token(&self) {
        let address = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.postgres);
        let (sql, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let expire = "update messenger_integrations set settings = settings || '{\"wppJwtExpiresAt\": 1}'";
        assert_eq!(sql.execute(expire, &[]).await.unwrap(), 1);
        drop(sql);
        connection.await.unwrap().unwrap();
    }

    async fn invoke(&self, function: &str, event: &str) -> Value {
        let pinned =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/cargo-lambda/bin/cargo-lambda"));
        let program = std::env::var_os("CARGO_LAMBDA").map(PathBuf::from);
        let program =
            program.or(Some(pinned).filter(|pinned| pinned.exists())).unwrap_or("cargo-lambda".into());
        let event = self.data.join("events").join(event);
        let arguments =
            format!("lambda invoke {function} --invoke-address 127.0.0.1 --invoke-port {}", self.functions);
        let mut invoke = Command::new(program);
        invoke.args(arguments.split(' ')).arg("--data-file").arg(event);
        let output = invoke.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
    }

    /// Runs `make link`'s script, which finds the running functions by the data folder.
    async fn link(&self) -> String {
        let mut link = Command::new("python3");
        link.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/link.py")).env("WPP_LOCAL_DATA", &self.data);
        let linked = link.env_remove("WPP_URL").env("LC_ALL", "C").output().await.unwrap();
        assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
        String::from_utf8(linked.stdout).unwrap()
    }

    /// Sends SIGINT, waits for the exit, and checks that every port is free.
    async fn interrupt(mut self) -> Option<i32> {
        self.process.signal(Signal::INT).unwrap();
        let status = self.process.wait().await.unwrap();
        for port in [self.functions, self.platform, self.postgres] {
            assert!(service::is_free(port), "port {port} is still in use");
        }
        status.code()
    }
}

#[tokio::test]
async fn a_number_stays_connected_through_expiry_and_restart() {
    // The `postgres` user must be able to traverse the data directory.
    let traversable = Permissions::from_mode(0o711);
    let data = tempfile::Builder::new().permissions(traversable).tempdir().unwrap();
    let dev = Dev::start(data.path().to_owned()).await;

    let created = dev.post("wpp-create", json!({})).await;
    assert_eq!(created["status"], "qr_issued", "{created}");
    let session = created["session"].as_str().unwrap().to_owned();
    let polled = dev.invoke("wpp-qr", "qr.json").await;
    assert_eq!(polled["qr"], created["qrcode"]);

    dev.scan(&session).await;
    let connected = json!({
        "success": true, "status": "connected", "state": "connected", "platform_status": "connected",
        "session": session, "account_number": session, "name": "WhatsApp (WPP)", "webhook": "registered",
    });
    let without_seen_at = |mut answer: Value| {
        assert!(answer.as_object_mut().unwrap().remove("seen_at").is_some(), "{answer}");
        answer
    };
    assert_eq!(without_seen_at(dev.post("wpp-status", json!({"force": true})).await), connected);
    assert!(dev.link().await.ends_with(&format!("{session} is connected.\n")));
    assert_eq!(dev.platform_calls("token").await, 1);

    dev.expire_token().await;
    assert_eq!(without_seen_at(dev.invoke("wpp-status", "status.json").await), connected);
    assert_eq!(without_seen_at(dev.post("wpp-status", json!({"force": true})).await), connected);
    assert_eq!(dev.platform_calls("token").await, 2);
    assert_eq!(dev.interrupt().await, Some(0));

    let dev = Dev::start(data.path().to_owned()).await;
    assert_eq!(without_seen_at(dev.post("wpp-status", json!({"force": true})).await), connected);
    assert_eq!(dev.interrupt().await, Some(0));
}
