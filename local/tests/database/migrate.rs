//! `make migrate`: what it applies, what it records, and what it says.

use std::fs;

use local::migrate::apply;
use local::postgres::{Postgres, Privileges, Storage, migrations};
use tokio_postgres::Client;

/// A project that has none of our migrations.
async fn project() -> (Postgres, Client) {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    postgres.replace(Privileges::Nothing, "").await.unwrap();
    let sql = postgres.connect().await.unwrap();
    (postgres, sql)
}

/// What was said, and how it ended.
async fn migrate(postgres: &Postgres, directory: &std::path::Path) -> (Vec<String>, Result<(), String>) {
    let mut said = Vec::new();
    let outcome = apply(&postgres.url("postgres"), directory, |line| said.push(line.to_owned())).await;
    (said, outcome.map_err(|error| error.to_string()))
}

async fn count(sql: &Client, query: &str) -> i64 {
    sql.query_one(query, &[]).await.unwrap().get(0)
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
    assert_eq!(files.len(), 4);
    assert!(said[0].ends_with(": 4 of 4 files to apply"), "{said:?}");
    assert_eq!(said[1..5], files.iter().map(|file| format!("  {file}")).collect::<Vec<_>>());
    assert_eq!(said[5..], files.iter().map(|file| format!("applied {file}")).collect::<Vec<_>>());
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
    let error = apply(&address, &migrations(), |line| panic!("{line}")).await.unwrap_err().to_string();
    assert!(error.ends_with("server does not support TLS"), "{error}");
}

#[tokio::test]
async fn no_error_shows_the_password() {
    let nobody = "postgresql://postgres:canary@127.0.0.1:1/postgres";
    let unknown_option = "postgresql://postgres:canary@127.0.0.1/postgres?canary=canary";
    let without_a_scheme = "postgres:canary=@127.0.0.1/postgres";
    for address in ["", nobody, unknown_option, without_a_scheme] {
        let error = apply(address, &migrations(), |line| panic!("{line}")).await.unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
        assert!(error.contains("DATABASE_URL") || error.starts_with("127.0.0.1:1/postgres: "), "{error}");
    }
}
