//! The HTTP client for the loopback address.

use std::sync::Arc;

use reqwest::Client;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

use crate::Result;

/// Makes a client that speaks plain HTTP only: it follows no redirect, uses no proxy and trusts no certificate.
pub fn client() -> Result<Client> {
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent("local")
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    Ok(client.build()?)
}
