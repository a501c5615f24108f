//! `migrations/optional/hide_settings_from_browsers.sql`: who can reach `settings` after it.

use local::postgres::{Postgres, Privileges, Storage, migrations};
use tokio_postgres::Client;

/// Starts a deployed project whose browsers' roles have these rights, and no others, on the table.
async fn project_with(grants: &str) -> (Postgres, Client) {
    let postgres = Postgres::start(0, &Storage::Temporary).await.unwrap();
    postgres.replace(Privileges::Granted, include_str!("deployed.sql")).await.unwrap();
    let sql = postgres.connect().await.unwrap();
    let rights = format!("revoke all on messenger_integrations from anon, authenticated; {grants}");
    sql.batch_execute(&rights).await.unwrap();
    (postgres, sql)
}

/// Applies the file. Returns the server's complaint if it fails.
async fn hide(sql: &Client) -> Result<(), String> {
    let file = migrations().join("optional/hide_settings_from_browsers.sql");
    let applied = sql.batch_execute(&std::fs::read_to_string(file).unwrap()).await;
    applied.map_err(|error| error.as_db_error().unwrap().message().to_owned())
}

/// Returns the ways in which the browsers' roles can reach the column, such as `anon select`.
async fn ways_to(column: &str, sql: &Client) -> Vec<String> {
    let ways = "select role || ' ' || rights.name
        from unnest(array['anon', 'authenticated']) roles (role), unnest(array['select', 'insert', 'update']) rights (name)
        where has_column_privilege(role, 'messenger_integrations', $1, rights.name) order by 1";
    sql.query(ways, &[&column]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn grant_on_the_column_itself_is_revoked() {
    let (_postgres, sql) = project_with(
        "grant select (id, settings) on messenger_integrations to anon;
         grant select, update (settings) on messenger_integrations to authenticated",
    )
    .await;
    assert_eq!(hide(&sql).await, Ok(()));
    assert_eq!(ways_to("settings", &sql).await, [""; 0]);
    assert_eq!(ways_to("id", &sql).await, ["anon select", "authenticated select"]);
}

/// A role does not lose what PUBLIC has, whatever is revoked from it.
#[tokio::test]
async fn grant_to_public_fails_the_whole_file() {
    for (grants, way) in [
        ("grant select on messenger_integrations to public", "anon may still select"),
        ("grant select (settings) on messenger_integrations to public", "anon may still select"),
        ("grant update (settings) on messenger_integrations to public", "anon may still update"),
    ] {
        let (_postgres, sql) =
            project_with(&format!("grant insert on messenger_integrations to anon; {grants}")).await;
        let before = [ways_to("settings", &sql).await, ways_to("id", &sql).await];
        let complaint = hide(&sql).await.unwrap_err();
        assert!(
            complaint.starts_with(&format!("{way} messenger_integrations.settings")),
            "{grants}: {complaint}"
        );
        assert_eq!([ways_to("settings", &sql).await, ways_to("id", &sql).await], before, "{grants}");
    }
}
