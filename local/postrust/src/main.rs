//! Serves PostgREST's HTTP API on machines that have no PostgREST. It is configured with the same `PGRST_*` variables.

use anyhow::Result;
use axum::serve;
use postrust_core::AppConfig;
use postrust_server::lenient_uri::LenientListener;
use postrust_server::{App, Host, build};
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).init();
    let config = AppConfig::try_from_env()?;
    let address = (config.server_host.clone(), config.server_port);
    let App { router, .. } = build(config, Host::SERVER).await?;
    let listener = TcpListener::bind(address).await?;
    // Accepts a URL with raw quotes, angle brackets or non-ASCII characters, as PostgREST does.
    serve(LenientListener(listener), router).await?;
    Ok(())
}
