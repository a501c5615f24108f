//! TLS in front of a server on loopback, with a private certificate authority.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use tempfile::NamedTempFile;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::Result;
use crate::lambda::Sandbox;
use crate::test_app::TestApp;

/// A private certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes a new authority.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Returns its certificate in PEM, for clients that must trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Makes a TLS acceptor with a certificate for `127.0.0.1`.
    pub fn acceptor(&self) -> Result<TlsAcceptor> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        // With the authority's name, it would count as self-signed.
        params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
        let certificate = params.signed_by(&key, &self.0)?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Both upstreams of an app behind TLS.
#[derive(Debug)]
pub struct Https {
    platform: Front,
    supabase: Front,
    /// The authority.
    authority: NamedTempFile,
}

impl Https {
    /// Puts TLS in front of this app's upstreams.
    pub async fn before(app: &TestApp) -> Result<Self> {
        let (authority, mut file) = (Authority::new()?, NamedTempFile::new()?);
        file.write_all(authority.pem().as_bytes())?;
        Ok(Self {
            platform: Front::before(&app.platform.url(), &authority).await?,
            supabase: Front::before(&app.supabase.url(), &authority).await?,
            authority: file,
        })
    }

    /// Starts a process of a function that uses these upstreams, and trusts them.
    pub async fn process(&self, app: &TestApp, name: &str) -> Sandbox {
        self.process_that_trusts(&self.authority.path().to_string_lossy(), app, name).await
    }

    /// Starts a process that uses these upstreams, and trusts the authorities in this file. Without a file, it trusts only the
    /// public ones.
    pub async fn process_that_trusts(&self, file: &str, app: &TestApp, name: &str) -> Sandbox {
        let variables = [
            ("WPP_BASE_URL", &*self.platform.url()),
            ("SUPABASE_URL", &self.supabase.url()),
            ("UPSTREAM_CA_FILE", file),
            // A different webhook address would have to be registered with the platform.
            ("WEBHOOK_BASE_URL", &app.supabase.url()),
        ];
        app.process_with(name, &variables).await
    }

    /// Returns the number of connections so far whose client trusted the certificate.
    pub fn handshakes(&self) -> u64 {
        self.platform.handshakes() + self.supabase.handshakes()
    }
}

/// A TLS port that forwards to a plain port. Dropping it closes the port and every connection.
#[derive(Debug)]
struct Front {
    address: SocketAddr,
    handshakes: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Front {
    /// Puts TLS in front of `http://127.0.0.1:<port>`, on a free port.
    async fn before(url: &str, authority: &Authority) -> Result<Self> {
        let server = url.trim_start_matches("http://").to_owned();
        let (listener, tls) = (TcpListener::bind("127.0.0.1:0").await?, authority.acceptor()?);
        let (address, handshakes) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counted = handshakes.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (tls, server, counted) = (tls.clone(), server.clone(), counted.clone());
                connections.spawn(async move {
                    client.set_nodelay(true)?;
                    let mut client = tls.accept(client).await?;
                    counted.fetch_add(1, Ordering::Relaxed);
                    let mut server = TcpStream::connect(server).await?;
                    server.set_nodelay(true)?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Ok(Self { address, handshakes, accepting })
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
