//! The configuration, read once from the environment at start.

use std::time::Duration;

use reqwest::Url;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::secret::Secret;

/// The timeout of one attempt at a call to the platform or the database.
pub(crate) const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(8);

/// The budget of a whole request: below the 30 s after which an API gateway ends it.
pub(crate) const REQUEST_BUDGET: Duration = Duration::from_secs(25);

/// How long `wpp-create` waits for a QR once the session was started: each wait holds a sandbox, and a new account has ten.
const QR_WAIT: Duration = Duration::from_secs(3);

/// The functions' configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `WPP_BASE_URL`: the platform.
    pub wpp_base_url: Url,
    /// `SUPABASE_URL`: the project.
    pub supabase_url: Url,
    /// `SUPABASE_JWT_ISSUER`: the only issuers whose user tokens are accepted. If it is empty, any issuer is accepted, because many
    /// projects name none.
    pub jwt_issuers: Vec<String>,
    /// `WEBHOOK_BASE_URL`, or `SUPABASE_URL` if that is not set: the address that the platform reports to.
    pub webhook_base_url: Url,
    /// `CORS_ALLOWED_ORIGINS`: which pages may call.
    pub origins: Origins,
    /// `UPSTREAM_TIMEOUT_MS`, default 8000.
    pub upstream_timeout: Duration,
    /// `UPSTREAM_CA_FILE`: the authorities whose certificates are trusted in addition to the public ones.
    pub extra_roots: Vec<TrustAnchor<'static>>,
    /// `REQUEST_BUDGET_MS`, default 25000.
    pub request_budget: Duration,
    /// `QR_WAIT_MS`, default 3000.
    pub qr_wait: Duration,
}

/// A missing or invalid variable. The error names it, but never shows its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct ConfigError {
    pub(crate) variable: &'static str,
    pub(crate) problem: &'static str,
}

impl Config {
    /// Reads the variables, except those of the secrets, which [`SecretSource`](crate::secrets::SecretSource) reads.
    pub fn read(source: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name: &str| trimmed(source(name));
        let supabase_url = project_url("SUPABASE_URL", required("SUPABASE_URL", get)?)?;
        Ok(Self {
            wpp_base_url: base_url("WPP_BASE_URL", required("WPP_BASE_URL", get)?)?,
            jwt_issuers: get("SUPABASE_JWT_ISSUER")
                .map(|list| issuers(&list))
                .transpose()?
                .unwrap_or_default(),
            webhook_base_url: match get("WEBHOOK_BASE_URL") {
                Some(value) => base_url("WEBHOOK_BASE_URL", value)?,
                None => supabase_url.clone(),
            },
            origins: Origins::parse(&get("CORS_ALLOWED_ORIGINS").unwrap_or_default())?,
            upstream_timeout: time("UPSTREAM_TIMEOUT_MS", get, UPSTREAM_TIMEOUT)?,
            extra_roots: get("UPSTREAM_CA_FILE")
                .map(|file| authorities("UPSTREAM_CA_FILE", &file))
                .transpose()?
                .unwrap_or_default(),
            request_budget: time("REQUEST_BUDGET_MS", get, REQUEST_BUDGET)?,
            qr_wait: time("QR_WAIT_MS", get, QR_WAIT)?,
            supabase_url,
        })
    }

    /// Returns the address that the platform reports to: another function, `wpp-webhook`.
    pub fn webhook_url(&self) -> String {
        format!("{}/functions/v1/wpp-webhook", self.webhook_base_url.as_str().trim_end_matches('/'))
    }
}

/// The pages that may call from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// `*`.
    Any,
    /// These origins. If the variable is not set, no page may call.
    Only(Vec<String>),
}

impl Origins {
    fn parse(list: &str) -> Result<Self, ConfigError> {
        let origins: Vec<_> = listed(list).map(|origin| origin.trim_end_matches('/').to_owned()).collect();
        if origins == ["*"] {
            return Ok(Self::Any);
        }
        // A pattern would be well-formed too, and match no page.
        let well_formed = |origin: &String| {
            !origin.contains('*')
                && Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin)
        };
        if !origins.iter().all(well_formed) {
            let problem = "must be * or a comma-separated list of origins such as https://app.example";
            return refuse("CORS_ALLOWED_ORIGINS", problem);
        }
        Ok(Self::Only(origins))
    }

    /// Returns the `Access-Control-Allow-Origin` for a page of `origin`.
    pub fn allow<'a>(&self, origin: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Any => Some("*"),
            Self::Only(list) => origin.filter(|origin| list.iter().any(|allowed| allowed == origin)),
        }
    }
}

/// Splits a comma-separated list.
fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|text| !text.is_empty())
}

/// Refuses an empty list, because then any issuer would be accepted, and an issuer with a space, because no token would match it.
fn issuers(list: &str) -> Result<Vec<String>, ConfigError> {
    let issuers: Vec<_> = listed(list).map(str::to_owned).collect();
    if issuers.is_empty() || issuers.iter().any(|issuer| issuer.contains(char::is_whitespace)) {
        let problem = "must be a comma-separated list of issuers such as https://project.example/auth/v1";
        return refuse("SUPABASE_JWT_ISSUER", problem);
    }
    Ok(issuers)
}

/// Trims a value. Returns `None` if nothing is left.
pub(crate) fn trimmed(value: Option<String>) -> Option<String> {
    value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

pub(crate) const NOT_SET: &str = "is not set";

pub(crate) fn required(
    variable: &'static str,
    get: impl Fn(&str) -> Option<String>,
) -> Result<String, ConfigError> {
    get(variable).ok_or(ConfigError { variable, problem: NOT_SET })
}

pub(crate) fn refuse<T>(variable: &'static str, problem: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError { variable, problem })
}

/// Returns a base URL, to which paths are appended. A query would end up in the middle, and a password in a log.
pub(crate) fn base_url(variable: &'static str, value: String) -> Result<Url, ConfigError> {
    let url =
        Url::parse(&value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else { return refuse(variable, "is not an http or https address") };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(variable, "must not contain a user name or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(variable, "must end before any ? or #");
    }
    Ok(url)
}

/// Returns the project's address, to which the paths of its services are appended.
fn project_url(variable: &'static str, value: String) -> Result<Url, ConfigError> {
    let url = base_url(variable, value)?;
    let service = ["/rest/v1", "/auth/v1", "/functions/v1"];
    if service.iter().any(|path| url.path().contains(path)) {
        return refuse(variable, "is the address of one service, not of the project");
    }
    Ok(url)
}

/// Returns a value for a header. An invalid one would be left out, and every call would be refused.
pub(crate) fn header_text(variable: &'static str, value: String) -> Result<Secret, ConfigError> {
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse(variable, "contains a blank or a character that no key has");
    }
    Ok(Secret::new(value))
}

/// Returns the certificate authorities in a PEM file. One bad certificate makes the whole file invalid, so that the error shows at
/// start and not at the first call.
fn authorities(variable: &'static str, file: &str) -> Result<Vec<TrustAnchor<'static>>, ConfigError> {
    let Ok(text) = std::fs::read(file) else { return refuse(variable, "names a file that cannot be read") };
    let read = || {
        let mut found = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            found.add(certificate.ok()?).ok()?;
        }
        (!found.is_empty()).then_some(found.roots)
    };
    read().ok_or(ConfigError { variable, problem: "must name a file of certificates in PEM" })
}

fn time(
    variable: &'static str,
    get: impl Fn(&str) -> Option<String>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let Some(value) = get(variable) else { return Ok(default) };
    match value.parse() {
        Ok(ms @ 1..=600_000) => Ok(Duration::from_millis(ms)),
        _ => refuse(variable, "must be a number of milliseconds from 1 to 600000"),
    }
}

#[cfg(test)]
mod tests;
