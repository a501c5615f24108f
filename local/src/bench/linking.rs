//! The upstream requests of one linking: a number is made, its page asks for a minute, a phone scans the code, the page sees it. The
//! minute passes at once: what the systems remember is moved into the past instead.

use std::time::Duration;

use serde_json::{Value, json};

use super::figure::{Figure, Unit};
use crate::Result;
use crate::events::Event;
use crate::lambda::Answer;
use crate::test_app::TestApp;

const SCANNED_AFTER_S: u64 = 60;

/// More polls than any client needs.
const MANY_POLLS: usize = 100;

/// Measures a client that takes our advice, as `local/page` does. It asks for the status only if the code has changed, and asks again
/// when the answer says.
pub async fn measure(app: &TestApp) -> Result<Figure> {
    let school = app.organization("a new school").await?;
    app.forget_calls();
    let created = app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
    let session = created.text("session");
    let event = Event::get("wpp-qr").bearer(&school.token).query("session", session).http_api();
    let (mut known, mut passed_s) = (Value::Null, 0);
    for _ in 0..MANY_POLLS {
        if passed_s >= SCANNED_AFTER_S {
            app.platform.scan(session).map_err(|(status, why)| format!("scan: {status} {why}"))?;
        }
        let mut answer = app.invoke("wpp-qr", event.clone()).await;
        if known.is_null() || answer.json["qr"] != known {
            answer = app.post_as(&school, "wpp-status", json!({"session": session, "force": true})).await;
            known = answer.json["qrcode"].clone();
        }
        if answer.told() == (200, "connected") {
            let requests = app.all_calls() as f64;
            return Ok(Figure::new("one linking, upstream requests", Unit::Requests, requests).at_most(90.0));
        }
        let pause_s = advised_pause_ms(&answer)?.div_ceil(1000);
        pass(app, pause_s).await?;
        passed_s += pause_s;
    }
    Err("the page never sees that the number is connected".into())
}

/// Returns when to ask again, as the answer says it.
pub fn advised_pause_ms(answer: &Answer) -> Result<u64> {
    let advice = answer.json["poll_after_ms"].as_u64();
    advice.ok_or_else(|| format!("no poll_after_ms: {}", answer.body).into())
}

/// Lets so much time go by for the platform and for what the database has saved.
async fn pass(app: &TestApp, seconds: u64) -> Result<()> {
    app.platform.advance(Duration::from_secs(seconds));
    let seconds = i32::try_from(seconds)?;
    app.age_snapshot(seconds).await;
    let age = "update wpp_numbers set
        credentials_saved_at = credentials_saved_at - $1 * interval '1 second',
        first_connected_at = first_connected_at - $1 * interval '1 second',
        webhook_tried_at = webhook_tried_at - $1 * interval '1 second'";
    app.sql.execute(age, &[&f64::from(seconds)]).await?;
    Ok(())
}
