//! How long the database takes to look a number up, among few and among many. Its own clock measures that.

use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use super::figure::{Figure, Sample, Unit};
use crate::Result;
use crate::postgres::{Postgres, Storage};

const FEW: usize = 10_000;
const MANY: usize = 1_000_000;

const WARM_UP: usize = 500;
const LOOK_UPS: usize = 3_000;

/// Adds the organizations that `fresh` numbers, each with a user and a number that shows its QR. Foreign keys are not checked, which
/// halves the time.
const FILL: &str = "
    set session_replication_role = replica;
    insert into organizations (id) select md5('organization' || n)::uuid from fresh;
    insert into profiles (id, organization_id)
      select md5('user' || n)::uuid, md5('organization' || n)::uuid from fresh;
    insert into messenger_integrations (id, organization_id, messenger_type, provider, name, is_primary, settings)
      select md5('number' || n)::uuid, md5('organization' || n)::uuid, 'whatsapp', 'wpp', 'WhatsApp (WPP)', true,
        jsonb_build_object('wppApiKey', 'wpp_key_' || md5('key' || n), 'wppAccountNumber', md5(n::text),
          'wppJwtToken', repeat(md5('token' || n), 8), 'wppJwtExpiresAt', 1900000000000)
      from fresh;
    insert into whatsapp_sessions (organization_id, session_name, status, last_qr_b64, last_qr_at)
      select md5('organization' || n)::uuid, 'wpp_' || md5(n::text), 'qr_issued', repeat(md5('qr' || n), 7), now() from fresh;
    insert into wpp_numbers (integration_id, organization_id, session, platform_id, credentials_saved_at)
      select md5('number' || n)::uuid, md5('organization' || n)::uuid, md5(n::text), md5('organization' || n)::uuid::text,
        now() from fresh;
    drop table fresh;";

/// Measures `wpp_find_number` for users drawn at random.
pub async fn measure() -> Result<Vec<Figure>> {
    let postgres = Postgres::start(0, &Storage::Temporary).await?;
    let sql = postgres.connect().await?;
    sql.batch_execute("prepare look_up (uuid, text) as select wpp_find_number($1, $2)").await?;
    let few = grown(&sql, 1, FEW).await?;
    let many = grown(&sql, FEW + 1, MANY).await?;
    let note = format!("{many:.3} ms; {LOOK_UPS} look-ups of different users");
    let growth = format!("{many:.3} ms against {few:.3} ms");
    Ok(vec![
        Figure::new("look-up among 1,000,000 numbers", Unit::Ms, many.median()).at_most(0.35).note(note),
        Figure::new("the same against 10,000 numbers", Unit::Ratio, many.median() / few.median())
            .note(growth),
    ])
}

/// Adds the numbers from the first to the last, and looks some up among them and all earlier ones.
async fn grown(sql: &Client, first: usize, last: usize) -> Result<Sample> {
    let fresh = format!("reset role; create table fresh as select generate_series({first}, {last}) as n");
    sql.batch_execute(&fresh).await?;
    sql.batch_execute(FILL).await?;
    sql.batch_execute("vacuum analyze").await?;
    sql.batch_execute("set role service_role").await?;
    let Json(found): Json<Value> = sql.query_one(&execute(last), &[]).await?.get(0);
    if found["number"].is_null() {
        return Err(format!("no number: {found}").into());
    }
    let mut look_ups = Sample::default();
    for round in 0..WARM_UP + LOOK_UPS {
        let n = fastrand::usize(1..=last);
        let took_ms = look_up(sql, n).await?;
        if round >= WARM_UP {
            look_ups.push(took_ms);
        }
    }
    Ok(look_ups)
}

/// Returns how long a user's look-up takes, in milliseconds.
async fn look_up(sql: &Client, n: usize) -> Result<f64> {
    let explain = format!("explain (analyze, timing off, format json) {}", execute(n));
    let Json(plan): Json<Value> = sql.query_one(&explain, &[]).await?.get(0);
    plan[0]["Execution Time"].as_f64().ok_or_else(|| format!("no execution time: {plan}").into())
}

fn execute(n: usize) -> String {
    format!("execute look_up (md5('user{n}')::uuid, md5('{n}'))")
}
