//! `local migrate`: brings a database's schema up to date where the Supabase CLI is not at hand. It keeps the same record, so
//! that `supabase db push` finds nothing left to do.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Result;
use crate::postgres::migrations;

/// The Supabase CLI's record, as it makes it.
const RECORD: &str = "
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
    alter table supabase_migrations.schema_migrations add column if not exists statements text[];
    alter table supabase_migrations.schema_migrations add column if not exists name text";

/// Two runs at once take turns by this lock.
const TURN: &str = "select pg_advisory_xact_lock(hashtext('supabase_migrations.schema_migrations'))";

/// Unless the address has a `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Supabase's pooler by transactions.
const TRANSACTION_POOLER: u16 = 6543;

const NOT_AN_ADDRESS: &str = "DATABASE_URL is not the address of a database, such as postgresql://postgres:...@db.example.com:5432/postgres";

const UNKNOWN_AUTHORITY: &str = "an authority that this machine does not know has signed the server's certificate. \
    Name a file with the authority's certificate in DATABASE_CA_FILE; \
    Supabase offers its own in the Dashboard, under Database, Settings, SSL Configuration";

/// A file of the directory, `<version>_<name>.sql`.
#[derive(Debug, PartialEq, Eq)]
struct Migration {
    version: String,
    name: String,
    sql: String,
}

/// Applies our migrations to the database that `DATABASE_URL` names, and says on the terminal what it does.
pub async fn run() -> Result<()> {
    let address = env::var("DATABASE_URL").unwrap_or_default();
    let authority = env::var_os("DATABASE_CA_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
    apply(&address, authority.as_deref(), &migrations(), |line| println!("{line}")).await
}

/// Applies the files of `directory` that the database has no record of, each in a transaction of its own with its record.
/// A server that shows a certificate must have it from `authority`, a file of certificates, or else from one that this machine
/// knows. What is done is told to `say`, line by line; the password of `address` is in none of them, nor in an error.
pub async fn apply(
    address: &str,
    authority: Option<&Path>,
    directory: &Path,
    mut say: impl FnMut(&str),
) -> Result<()> {
    let (mut client, place) = connect(address, authority).await?;
    let all = read(directory)?;
    let recorded = recorded(&client).await?;
    let missing: Vec<_> = all.iter().filter(|file| !recorded.contains(&file.version)).collect();
    if missing.is_empty() {
        say(&format!("{place}: nothing to apply, all {} files are recorded", all.len()));
        return Ok(());
    }
    say(&format!("{place}: {} of {} files to apply", missing.len(), all.len()));
    for Migration { version, name, .. } in &missing {
        say(&format!("  {version}_{name}.sql"));
    }
    for file in missing {
        let Migration { version, name, .. } = file;
        match apply_one(&mut client, file).await {
            Ok(true) => say(&format!("applied {version}_{name}.sql")),
            Ok(false) => say(&format!("{version}_{name}.sql was applied by somebody else meanwhile")),
            Err(error) => {
                let why = reason(&error);
                return Err(format!("{version}_{name}.sql: {why}. Nothing of this file is left.").into());
            }
        }
    }
    client.batch_execute("notify pgrst, 'reload schema'").await.map_err(|error| reason(&error))?;
    Ok(())
}

/// The file and its record, or neither; false if the record is there already.
async fn apply_one(
    client: &mut Client,
    file: &Migration,
) -> std::result::Result<bool, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.query_one(TURN, &[]).await?;
    transaction.batch_execute(RECORD).await?;
    let record = "insert into supabase_migrations.schema_migrations (version, name, statements)
        values ($1, $2, array[$3]) on conflict do nothing";
    let is_new = transaction.execute(record, &[&file.version, &file.name, &file.sql]).await? == 1;
    if is_new {
        transaction.batch_execute(&file.sql).await?;
    }
    transaction.commit().await?;
    // What the file has set holds for itself alone.
    client.batch_execute("reset all").await?;
    Ok(is_new)
}

/// A connection, encrypted where the server can, and what the database is called in front of people.
async fn connect(address: &str, authority: Option<&Path>) -> Result<(Client, String)> {
    let (address, named) = without_libpq_tls(address);
    // The parser's own complaint may quote what it stumbles over.
    let config: Config = address.parse().map_err(|_| NOT_AN_ADDRESS)?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => return Err("DATABASE_URL names no host".into()),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    if port == TRANSACTION_POOLER {
        return Err("DATABASE_URL names the transaction pooler, which cannot migrate: \
            take the session pooler's address, with port 5432"
            .into());
    }
    let place = format!("{host}:{port}/{}", config.get_dbname().unwrap_or("postgres"));
    // The library's own covers no more than TCP.
    let patience = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let tls = trusting(authority.or(named.as_deref()))?;
    let connected = tokio::time::timeout(patience, config.connect(tls)).await;
    let connected = connected.map_err(|_| format!("{place}: no answer within {} s", patience.as_secs()))?;
    let (client, connection) = connected.map_err(|error| {
        let why = if is_unknown_authority(&error) { UNKNOWN_AUTHORITY.to_owned() } else { reason(&error) };
        format!("{place}: {why}")
    })?;
    // It ends with the client; a failure shows in the client's own calls.
    tokio::spawn(async { drop(connection.await) });
    Ok((client, place))
}

/// The address without what only libpq knows in it, and the file of certificates that it names. `require` verifies here as `verify-full`
/// does there.
fn without_libpq_tls(address: &str) -> (String, Option<PathBuf>) {
    let Some((place, options)) = address.rsplit_once('?') else { return (address.to_owned(), None) };
    let (mut kept, mut authority) = (Vec::new(), None);
    for option in options.split('&') {
        match option.split_once('=') {
            Some(("sslmode", "verify-ca" | "verify-full")) => kept.push("sslmode=require"),
            Some(("sslrootcert", "system")) => {}
            Some(("sslrootcert", file)) => {
                authority = Some(PathBuf::from(&*percent_decode_str(file).decode_utf8_lossy()));
            }
            _ => kept.push(option),
        }
    }
    (format!("{place}?{}", kept.join("&")), authority)
}

/// TLS with servers whose certificate comes from an authority in this file, or else from one that this machine knows.
fn trusting(authority: Option<&Path>) -> Result<MakeRustlsConnect> {
    let Some(file) = authority else {
        let (tls, _) = MakeRustlsConnect::with_native_certs().map_err(
            |_| "this machine has no root certificates: install them, or name a file of them in DATABASE_CA_FILE",
        )?;
        return Ok(tls);
    };
    let roots = roots_in(file).map_err(|error| format!("DATABASE_CA_FILE: {}: {error}", file.display()))?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn roots_in(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("no certificate in PEM is in it".into());
    }
    Ok(roots)
}

fn is_unknown_authority(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let cause = cause.and_then(io::Error::get_ref).and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

/// The files in the order of their versions.
fn read(directory: &Path) -> Result<Vec<Migration>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The Supabase CLI leaves out what is not called so.
        let Some((version, name)) = file.strip_suffix(".sql").and_then(|stem| stem.split_once('_')) else {
            continue;
        };
        if !version.is_empty() && version.bytes().all(|digit| digit.is_ascii_digit()) {
            let (version, name) = (version.to_owned(), name.to_owned());
            all.push(Migration { version, name, sql: fs::read_to_string(&path)? });
        }
    }
    all.sort_by(|one, other| one.version.cmp(&other.version));
    Ok(all)
}

async fn recorded(client: &Client) -> Result<Vec<String>> {
    let is_there = "select to_regclass('supabase_migrations.schema_migrations') is not null";
    if !client.query_one(is_there, &[]).await?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client.query("select version from supabase_migrations.schema_migrations", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The server's own words, which the error's text hides; else the error's, with its cause.
fn reason(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(complaint), _) => complaint.to_string(),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}
