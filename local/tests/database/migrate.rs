//! `make migrate`: what the Supabase CLI makes of our migrations, and what it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use local::postgres::{Postgres, Privileges, Storage, migrations};
use local::schema_variants::{BASE, refused};
use local::tls::Authority;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_postgres::Client;
use tokio_postgres::types::Json;

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const DEPLOYED: &str = include_str!("deployed.sql");
const DUMP: &str = include_str!("dump.sql");

/// Starts a project with these tables and none of our migrations.
async fn project(privileges: Privileges, tables: &str) -> (Postgres, Client) {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    postgres.replace(privileges, tables).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    (postgres, sql)
}

/// Returns the address of a project, whose server has no TLS.
fn address(postgres: &Postgres) -> String {
    format!("{}?sslmode=disable", postgres.url("postgres"))
}

/// Runs a program in the workspace; what it has written, and whether it succeeded.
async fn run(command: &mut Command) -> (bool, String) {
    // Make would take this process for a part of itself.
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let output = command.current_dir(WORKSPACE).kill_on_drop(true).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Runs `make migrate`, with these variables in addition to the address.
async fn migrate_with(address: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let mut make = Command::new("make");
    run(make.arg("migrate").env("DATABASE_URL", address).envs(variables.iter().copied())).await
}

async fn migrate(address: &str) -> (bool, String) {
    migrate_with(address, &[]).await
}

/// Runs a command of the Supabase CLI about a database.
async fn supabase(postgres: &Postgres, arguments: &[&str]) -> (bool, String) {
    let path = format!("{WORKSPACE}/.tools/node/bin:{}", std::env::var("PATH").unwrap());
    let empty = tempfile::tempdir().unwrap();
    let mut cli = Command::new(format!("{WORKSPACE}/local/migrate/node_modules/.bin/supabase"));
    cli.args(arguments).args(["--db-url", &address(postgres), "--workdir"]).arg(empty.path());
    run(cli.env("PATH", path).env("SUPABASE_TELEMETRY_DISABLED", "1")).await
}

/// Returns the names of the migrations.
fn files() -> Vec<String> {
    let names =
        fs::read_dir(migrations()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with(char::is_numeric) && name.ends_with(".sql")).collect();
    names.sort_unstable();
    names
}

/// Returns the files that the database has a record of.
async fn recorded(sql: &Client) -> Vec<String> {
    let records =
        "select version || '_' || name || '.sql' from supabase_migrations.schema_migrations order by 1";
    sql.query(records, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn value(sql: &Client, query: &str) -> Value {
    sql.query_one(query, &[]).await.unwrap().get::<_, Json<Value>>(0).0
}

/// Pushes to this project, twice, and has the result linted.
async fn assert_pushed((postgres, sql): &(Postgres, Client)) {
    let (succeeded, said) = migrate(&address(postgres)).await;
    assert!(succeeded, "{said}");
    assert_eq!(recorded(sql).await, files());
    let after = value(sql, DUMP).await;

    let (succeeded, said) = migrate(&address(postgres)).await;
    assert!(succeeded && said.contains("up to date"), "{said}");
    assert_eq!(value(sql, DUMP).await, after);

    let (clean, said) =
        supabase(postgres, &["db", "lint", "--level", "warning", "--fail-on", "warning"]).await;
    assert!(clean && said.contains("No schema errors found"), "{said}");
}

#[tokio::test]
async fn second_push_to_an_empty_project_does_nothing() {
    let project = project(Privileges::Nothing, "").await;
    assert_pushed(&project).await;

    // The advisor speaks of nothing but what the README explains.
    let (_, said) = supabase(&project.0, &["db", "advisors", "--type", "security", "--level", "info"]).await;
    let (from, to) = (said.find("[\n").unwrap(), said.rfind(']').unwrap());
    let warnings: Vec<Value> = serde_json::from_str(&said[from..=to]).unwrap();
    let mut kinds: Vec<_> = warnings.iter().map(|warning| warning["name"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["function_search_path_mutable", "rls_enabled_no_policy"]);
}

#[tokio::test]
async fn second_push_to_the_deployed_tables_does_nothing() {
    assert_pushed(&project(Privileges::Granted, BASE).await).await;
}

#[tokio::test]
async fn existing_rows_survive_a_push() {
    let rows = "select jsonb_build_array((select jsonb_agg(t order by id) from messenger_integrations t),
        (select jsonb_agg(t order by id) from whatsapp_sessions t), (select jsonb_agg(t order by id) from profiles t))";
    let project = project(Privileges::Granted, DEPLOYED).await;
    let before = value(&project.1, rows).await;
    assert_pushed(&project).await;
    assert_eq!(value(&project.1, rows).await, before);
}

/// The advisor warns of helpers without a `search_path`. Only functions that set one may call them.
#[tokio::test]
async fn served_functions_set_their_search_path() {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    let unset = "select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'public'::regnamespace
          and not coalesce(p.proconfig, '{}') @> array['search_path=\"\"']";
    let unset: Vec<String> = sql.query(unset, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(unset, [""; 0]);
}

#[tokio::test]
async fn cli_shows_why_a_table_cannot_be_used() {
    let shape = &refused()[0];
    // Without an organization the files have no row to try.
    let tables = format!("{}; insert into organizations default values", shape.sql);
    let (postgres, sql) = project(Privileges::Nothing, &tables).await;
    let before = value(&sql, DUMP).await;
    let (succeeded, said) = migrate(&address(&postgres)).await;
    assert!(!succeeded, "{said}");
    let sentence = said.lines().find(|line| line.starts_with("ERROR: ")).unwrap();
    assert!(shape.name.split(' ').all(|word| sentence.contains(word)), "{sentence}");
    assert_eq!(value(&sql, DUMP).await, before);
    assert_eq!(recorded(&sql).await, [""; 0]);
}

/// Without more, the CLI refuses a record that has no file, and a file older than a record.
#[tokio::test]
async fn migration_records_of_another_repository_stay() {
    let (postgres, sql) = project(Privileges::Nothing, "").await;
    sql.batch_execute(
        "create schema supabase_migrations;
         create table supabase_migrations.schema_migrations
           (version text not null primary key, statements text[], name text);
         insert into supabase_migrations.schema_migrations values
           ('20200101000000', '{create table theirs ()}', 'before_us'), ('20990101000000', null, 'after_us')",
    )
    .await
    .unwrap();
    let (succeeded, said) = migrate(&address(&postgres)).await;
    assert!(succeeded, "{said}");
    let theirs = ["20200101000000_before_us.sql".to_owned(), "20990101000000_after_us.sql".to_owned()];
    let all = [&theirs[..1], &files(), &theirs[1..]].concat();
    assert_eq!(recorded(&sql).await, all);
    let theirs = "select to_jsonb(count(*)) from pg_tables where tablename = 'theirs'";
    assert_eq!(value(&sql, theirs).await, 0);
}

#[tokio::test]
async fn removed_migrations_can_be_pushed_again() {
    let (postgres, sql) = project(Privileges::Nothing, "").await;
    assert!(migrate(&address(&postgres)).await.0);
    sql.batch_execute(&fs::read_to_string(migrations().join("optional/remove.sql")).unwrap()).await.unwrap();
    assert_eq!(recorded(&sql).await, [""; 0]);
    let (succeeded, said) = migrate(&address(&postgres)).await;
    assert!(succeeded, "{said}");
    assert_eq!(recorded(&sql).await, files());
}

#[tokio::test]
async fn bad_database_url_is_refused() {
    for (address, word) in [
        ("", "is empty"),
        ("host=127.0.0.1 password=canary", "no address"),
        ("https://postgres:canary@127.0.0.1:5432/postgres", "no address"),
        ("postgresql://postgres:canary%@127.0.0.1:5432/postgres", "%25"),
        ("postgresql://postgres:canary@127.0.0.1:6543/postgres", "port 5432"),
        ("postgresql://postgres:canary@127.0.0.1/postgres?port=6543", "port 5432"),
    ] {
        let (succeeded, said) = migrate(address).await;
        assert!(!succeeded && said.contains("DATABASE_URL") && said.contains(word), "{address}: {said}");
        assert!(!said.contains("canary") && !said.contains("Connecting"), "{address}: {said}");
    }
}

/// Makes a folder with a program that writes its arguments and variables, each line after its name.
fn recorder(name: &str, then: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    fs::write(&program, format!("#!/bin/sh\necho \"{name}: $*\"\nenv | sed 's/^/{name}: /'\n{then}\n"))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Returns the lines that such a program has written.
fn told<'a>(said: &'a str, name: &str) -> Vec<&'a str> {
    said.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

#[tokio::test]
async fn password_is_passed_in_a_variable() {
    let cli = recorder("cli", "");
    let program = cli.path().join("cli").display().to_string();
    let address = "postgresql://postgres:canary%2F%25@127.0.0.1:5432/postgres";
    let (succeeded, said) = migrate_with(address, &[("SUPABASE_CLI_BINARY_OVERRIDE", &program)]).await;
    assert!(succeeded, "{said}");
    let lines = told(&said, "cli");
    let pushes = |line: &&str| line.starts_with("db push ");
    let push = lines.iter().copied().find(pushes).unwrap();
    assert!(push.contains("postgresql://postgres@127.0.0.1:5432/postgres?sslmode=verify-full"), "{push}");
    let canaries: Vec<_> = lines.iter().filter(|line| line.contains("canary")).collect();
    assert_eq!(canaries, [&"PGPASSWORD=canary/%"]);
    assert!(lines.contains(&"SUPABASE_TELEMETRY_DISABLED=1"), "{said}");
}

#[tokio::test]
async fn sslmode_in_the_url_is_kept() {
    let cli = recorder("cli", "");
    let program = cli.path().join("cli").display().to_string();
    for (options, all) in [
        ("sslmode=require", "sslmode=require"),
        ("sslmode=&sslrootcert=a%2Fb.crt", "sslmode=verify-full&sslmode=&sslrootcert=a%2Fb.crt"),
    ] {
        let address = format!("postgresql://postgres@127.0.0.1/postgres?{options}");
        let (_, said) = migrate_with(&address, &[("SUPABASE_CLI_BINARY_OVERRIDE", &program)]).await;
        assert!(said.contains(&format!("postgresql://postgres@127.0.0.1/postgres?{all}\n")), "{said}");
    }
}

/// `sh local/tools.sh` runs npm.
#[tokio::test]
async fn npm_does_not_get_the_database_url() {
    let shell = recorder("sh", "exec /bin/sh \"$@\"");
    let path = format!("{}:{}", shell.path().display(), std::env::var("PATH").unwrap());
    let address = "postgresql://postgres:canary@127.0.0.1:1/postgres";
    let (_, said) = migrate_with(address, &[("PATH", &path)]).await;
    let lines = told(&said, "sh");
    assert_eq!(lines.iter().filter(|line| line.starts_with("local/tools.sh")).count(), 2, "{said}");
    assert!(!lines.concat().contains("canary"), "{said}");
}

/// Stands before a server as one with TLS whose certificate only `authority` has signed; its address.
async fn with_tls(postgres: &Postgres, authority: &Authority) -> String {
    let tls = authority.acceptor().unwrap();
    let url = postgres.url("postgres");
    let (server, database) = url.rsplit_once('@').unwrap().1.split_once('/').unwrap();
    let server = server.to_owned();
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

/// Supabase's own servers show certificates of Supabase's authority.
#[tokio::test]
async fn certificate_of_another_authority_needs_sslrootcert() {
    let (postgres, sql) = project(Privileges::Nothing, "").await;
    let authority = Authority::new().unwrap();
    let address = with_tls(&postgres, &authority).await;
    let (succeeded, said) = migrate(&address).await;
    assert!(!succeeded && said.contains("certificate"), "{said}");

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), authority.pem()).unwrap();
    let named = format!("{address}?sslrootcert={}", file.path().display());
    let (succeeded, said) = migrate(&named).await;
    assert!(succeeded, "{said}");
    assert_eq!(recorded(&sql).await, files());
    let (succeeded, said) = migrate_with(&address, &[("PGSSLROOTCERT", file.path().to_str().unwrap())]).await;
    assert!(succeeded && said.contains("up to date"), "{said}");
}
