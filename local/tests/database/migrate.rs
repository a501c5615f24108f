//! `make migrate`: what it applies, what it records, and what it says.

use std::fs;
use std::path::Path;

use local::migrate::apply;
use local::postgres::{Postgres, Privileges, Storage, migrations};
use local::tls::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

/// A project that has none of our migrations.
async fn project() -> (Postgres, Client) {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    postgres.replace(Privileges::Nothing, "").await.unwrap();
    let sql = postgres.connect().await.unwrap();
    (postgres, sql)
}

/// What was said, and how it ended.
async fn migrate(postgres: &Postgres, directory: &Path) -> (Vec<String>, Result<(), String>) {
    let mut said = Vec::new();
    let outcome = apply(&postgres.url("postgres"), None, directory, |line| said.push(line.to_owned())).await;
    (said, outcome.map_err(|error| error.to_string()))
}

async fn count(sql: &Client, query: &str) -> i64 {
    sql.query_one(query, &[]).await.unwrap().get(0)
}

/// The migrations that there are.
fn there() -> Vec<String> {
    let names =
        fs::read_dir(migrations()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with(char::is_numeric) && name.ends_with(".sql")).collect();
    names.sort_unstable();
    names
}

fn all_to_apply() -> String {
    let count = there().len();
    format!(": {count} of {count} files to apply")
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, sql) in files {
        fs::write(directory.path().join(name), sql).unwrap();
    }
    directory
}

#[tokio::test]
async fn each_file_is_announced_applied_and_recorded_as_the_supabase_cli_does() {
    let (postgres, sql) = project().await;
    let (said, outcome) = migrate(&postgres, &migrations()).await;
    assert_eq!(outcome, Ok(()));
    let rows = sql
        .query("select version, name, statements from supabase_migrations.schema_migrations order by 1", &[])
        .await
        .unwrap();
    let mut files = Vec::new();
    for row in &rows {
        let (version, name, statements): (String, String, Vec<String>) = (row.get(0), row.get(1), row.get(2));
        let file = format!("{version}_{name}.sql");
        assert_eq!(statements, [fs::read_to_string(migrations().join(&file)).unwrap()]);
        files.push(file);
    }
    assert_eq!(files, there());
    assert!(said[0].ends_with(&all_to_apply()), "{said:?}");
    assert_eq!(said[1..=files.len()], files.iter().map(|file| format!("  {file}")).collect::<Vec<_>>());
    assert_eq!(
        said[files.len() + 1..],
        files.iter().map(|file| format!("applied {file}")).collect::<Vec<_>>()
    );
    assert_eq!(count(&sql, "select count(*) from wpp_numbers").await, 0);
}

#[tokio::test]
async fn a_second_run_applies_nothing_and_a_version_that_the_cli_has_recorded_is_left_out() {
    let (postgres, sql) = project().await;
    sql.batch_execute(
        "create schema supabase_migrations;
         create table supabase_migrations.schema_migrations (version text not null primary key);
         insert into supabase_migrations.schema_migrations values ('1')",
    )
    .await
    .unwrap();
    let files = directory(&[
        ("1_theirs.sql", "create table theirs ()"),
        ("2_ours.sql", "create table ours ()"),
        ("README.md", "not SQL"),
        ("notes_about.sql", "not a migration"),
    ]);
    let (said, outcome) = migrate(&postgres, files.path()).await;
    assert_eq!((said.last().unwrap().as_str(), outcome), ("applied 2_ours.sql", Ok(())));
    let theirs = "select count(*) from pg_tables where tablename = 'theirs'";
    assert_eq!(count(&sql, theirs).await, 0);
    let (said, outcome) = migrate(&postgres, files.path()).await;
    assert_eq!(outcome, Ok(()));
    assert!(said.len() == 1 && said[0].ends_with("nothing to apply, all 2 files are recorded"), "{said:?}");
}

#[tokio::test]
async fn a_file_that_fails_leaves_nothing_says_why_and_ends_the_run() {
    let (postgres, sql) = project().await;
    let broken = "create table half (); insert into nowhere values (1)";
    let files = directory(&[
        ("1_good.sql", "create table good ()"),
        ("2_bad.sql", broken),
        ("3_later.sql", "create table later ()"),
    ]);
    let (said, outcome) = migrate(&postgres, files.path()).await;
    assert_eq!(
        outcome.unwrap_err(),
        "2_bad.sql: ERROR: relation \"nowhere\" does not exist. Nothing of this file is left."
    );
    assert_eq!(said.last().unwrap(), "applied 1_good.sql");
    let made = "select count(*) from pg_tables where tablename in ('good', 'half', 'later')";
    assert_eq!(count(&sql, made).await, 1);
    assert_eq!(count(&sql, "select count(*) from supabase_migrations.schema_migrations").await, 1);

    fs::write(files.path().join("2_bad.sql"), "create table half ()").unwrap();
    assert_eq!(migrate(&postgres, files.path()).await.1, Ok(()));
    assert_eq!(count(&sql, made).await, 3);
}

#[tokio::test]
async fn the_first_file_that_fails_leaves_no_record_either() {
    let (postgres, sql) = project().await;
    let files = directory(&[("1_bad.sql", "create tabel bad ()")]);
    migrate(&postgres, files.path()).await.1.unwrap_err();
    assert_eq!(
        count(&sql, "select count(*) from pg_namespace where nspname = 'supabase_migrations'").await,
        0
    );
}

#[tokio::test]
async fn what_a_file_sets_holds_for_that_file_alone() {
    let (postgres, sql) = project().await;
    let files = directory(&[
        ("1_sets.sql", "set lock_timeout = '5s'"),
        ("2_asks.sql", "create table seen as select current_setting('lock_timeout') as it"),
    ]);
    assert_eq!(migrate(&postgres, files.path()).await.1, Ok(()));
    assert_eq!(sql.query_one("select it from seen", &[]).await.unwrap().get::<_, String>(0), "0");
}

#[tokio::test]
async fn two_runs_at_once_apply_each_file_once() {
    let (postgres, sql) = project().await;
    let files =
        directory(&[("1_counted.sql", "create table counted ()"), ("2_more.sql", "create table more ()")]);
    let runs = futures_util::future::join_all((0..4).map(|_| migrate(&postgres, files.path()))).await;
    for (_, outcome) in &runs {
        assert_eq!(*outcome, Ok(()));
    }
    let applied = runs.iter().flat_map(|(said, _)| said).filter(|line| line.starts_with("applied")).count();
    assert_eq!(applied, 2);
    assert_eq!(count(&sql, "select count(*) from supabase_migrations.schema_migrations").await, 2);
}

#[tokio::test]
async fn postgrest_is_told_to_look_again() {
    let (postgres, sql) = project().await;
    sql.batch_execute("create table heard (channel text)").await.unwrap();
    let (listener, mut connection) =
        tokio_postgres::connect(&postgres.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    let heard = async {
        loop {
            let message = std::future::poll_fn(|context| connection.poll_message(context)).await;
            if let tokio_postgres::AsyncMessage::Notification(it) = message.unwrap().unwrap() {
                return (it.channel().to_owned(), it.payload().to_owned());
            }
        }
    };
    let files = directory(&[("1_any.sql", "create table any_table ()")]);
    let work = async {
        listener.batch_execute("listen pgrst").await.unwrap();
        assert_eq!(migrate(&postgres, files.path()).await.1, Ok(()));
        // The connection is driven by `heard`, which has not ended yet.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        heard = heard => assert_eq!(heard, ("pgrst".to_owned(), "reload schema".to_owned())),
        () = work => unreachable!(),
    }
}

#[tokio::test]
async fn an_address_that_asks_for_tls_is_not_served_without_it() {
    let (postgres, _) = project().await;
    let address = format!("{}?sslmode=require", postgres.url("postgres"));
    let error = apply(&address, None, &migrations(), |line| panic!("{line}")).await.unwrap_err().to_string();
    assert!(error.ends_with("server does not support TLS"), "{error}");
}

#[tokio::test]
async fn no_error_shows_the_password() {
    let nobody = "postgresql://postgres:canary@127.0.0.1:1/postgres";
    let unknown_option = "postgresql://postgres:canary@127.0.0.1/postgres?canary=canary";
    let without_a_scheme = "postgres:canary=@127.0.0.1/postgres";
    for address in ["", nobody, unknown_option, without_a_scheme] {
        let error =
            apply(address, None, &migrations(), |line| panic!("{line}")).await.unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
        assert!(error.contains("DATABASE_URL") || error.starts_with("127.0.0.1:1/postgres: "), "{error}");
    }
}

/// Stands before a server as one with TLS whose certificate nobody but `authority` has signed; where it listens.
async fn with_tls(postgres: &Postgres, authority: &Authority) -> String {
    let tls = authority.acceptor().unwrap();
    let (_, server) =
        postgres.url("postgres").split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (server, database) = server.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (tls, server) = (tls.clone(), server.clone());
            tokio::spawn(async move {
                let mut question = [0; 8];
                client.read_exact(&mut question).await?;
                client.write_all(b"S").await?;
                let mut server = TcpStream::connect(server).await?;
                copy_bidirectional(&mut tls.accept(client).await?, &mut server).await
            });
        }
    });
    format!("postgresql://postgres@{address}/{database}")
}

/// As Supabase's, whose servers show certificates of its own authority.
#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_once_its_certificate_is_named() {
    let (postgres, sql) = project().await;
    let authority = Authority::new().unwrap();
    let files = directory(&[
        ("authority.crt", &authority.pem()),
        ("nothing.crt", "no PEM"),
        ("1_first.sql", "create table first ()"),
    ]);
    let file = |name: &str| files.path().join(name);
    let address = with_tls(&postgres, &authority).await;

    let silent = |line: &str| panic!("{line}");
    for (address, named, word) in [
        (address.clone(), None, "DATABASE_CA_FILE"),
        (format!("{address}?sslmode=verify-full"), None, "DATABASE_CA_FILE"),
        (address.clone(), Some(file("nothing.crt")), "no certificate in PEM"),
        (address.clone(), Some(file("missing.crt")), "missing.crt: "),
    ] {
        let error = apply(&address, named.as_deref(), files.path(), silent).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let count_first = "select count(*) from pg_tables where tablename = 'first'";
    assert_eq!(count(&sql, count_first).await, 0);

    apply(&address, Some(&file("authority.crt")), files.path(), |_| {}).await.unwrap();
    assert_eq!(count(&sql, count_first).await, 1);
    let named = file("authority.crt").display().to_string().replace('/', "%2F");
    for options in ["", "sslmode=verify-full&", "application_name=x&sslmode=verify-ca&"] {
        let address = format!("{address}?{options}sslrootcert={named}");
        let mut said = Vec::new();
        apply(&address, None, files.path(), |line| said.push(line.to_owned())).await.unwrap();
        assert!(said[0].ends_with("nothing to apply, all 1 files are recorded"), "{said:?}");
    }
}

#[tokio::test]
async fn the_transaction_pooler_is_refused_before_it_is_asked() {
    let address = "postgresql://postgres.ref:canary@pooler.invalid:6543/postgres";
    let error = apply(address, None, &migrations(), |line| panic!("{line}")).await.unwrap_err().to_string();
    assert!(error.contains("session pooler") && !error.contains("canary"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("{}/postgres", listener.local_addr().unwrap());
    let address = format!("postgresql://postgres@{place}?connect_timeout=1");
    let error = apply(&address, None, &migrations(), |line| panic!("{line}")).await.unwrap_err().to_string();
    assert_eq!(error, format!("{place}: no answer within 1 s"));
}

#[tokio::test]
async fn what_was_removed_can_be_applied_again() {
    let (postgres, sql) = project().await;
    migrate(&postgres, &migrations()).await.1.unwrap();
    sql.batch_execute(
        "insert into supabase_migrations.schema_migrations (version) values ('20250101000000')",
    )
    .await
    .unwrap();
    sql.batch_execute(&fs::read_to_string(migrations().join("optional/remove.sql")).unwrap()).await.unwrap();
    let recorded = "select count(*) from supabase_migrations.schema_migrations";
    assert_eq!(count(&sql, recorded).await, 1);
    let (said, outcome) = migrate(&postgres, &migrations()).await;
    assert_eq!(outcome, Ok(()));
    assert!(said[0].ends_with(&all_to_apply()), "{said:?}");
    assert_eq!(count(&sql, "select count(*) from wpp_numbers").await, 0);
}
