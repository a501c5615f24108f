//! The upstream requests of one linking: a number is made, its panel asks for a minute, a phone scans the code, the panel sees it.
//! The minute passes at once: what the systems remember is moved into the past instead.

use std::time::Duration;

use serde_json::{Value, json};

use super::figure::{Figure, Unit};
use crate::Result;
use crate::events::Event;
use crate::lambda::Answer;
use crate::stack::Organization;
use crate::test_app::TestApp;

const SCANNED_AFTER_S: u64 = 60;
const OLD_PAUSE_S: u64 = 2;

/// What the original takes of the same panel, by its measured requests. It makes the number with 9. Then, every 2 s, it takes 4 for the
/// QR and 7 for the status. The last look takes 6, when the number is connected.
const ORIGINAL: u64 = 9 + SCANNED_AFTER_S / OLD_PAUSE_S * (4 + 7) + (4 + 6);

/// More looks than any panel takes.
const MANY_LOOKS: usize = 100;

/// The kind of page that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// As the original's frontend: both functions every 2 s, until the number is connected.
    Old,
    /// Like `local/page`: asks for the status only if it matters for the code, and asks again when the answer says.
    Advised,
}

/// What a linking took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linking {
    /// Requests to our functions, the creation's included.
    pub requests: u64,
    /// What these asked of the platform and the database.
    pub upstream_requests: u64,
}

/// Measures a linking by either panel.
pub async fn measure() -> Result<Vec<Figure>> {
    let app = TestApp::start().await;
    let mut figures = Vec::new();
    for (panel, name) in
        [(Panel::Old, "the old panel, every 2 s"), (Panel::Advised, "a client that takes advice")]
    {
        let linking = link(&app, panel).await?;
        let note = format!("{} requests to the functions; {ORIGINAL} of the original", linking.requests);
        let what = format!("upstream requests of one linking, {name}");
        let figure = Figure::new(what, Unit::Count, linking.upstream_requests as f64);
        figures.push(figure.at_most(ORIGINAL as f64 / 2.0).note(note));
    }
    Ok(figures)
}

/// Links a number of a new organization, until the panel has seen that it is.
pub async fn link(app: &TestApp, panel: Panel) -> Result<Linking> {
    let school = app.organization("a new school").await?;
    app.forget_calls();
    let created = app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
    let session = created.text("session").to_owned();
    let mut open = Open { app, school, session, panel, known: Value::Null, requests: 1 };
    let mut passed_s = 0;
    for _ in 0..MANY_LOOKS {
        if passed_s >= SCANNED_AFTER_S {
            app.platform.scan(&open.session).map_err(|(status, why)| format!("scan: {status} {why}"))?;
        }
        match open.look().await {
            Look::Connected => {
                return Ok(Linking { requests: open.requests, upstream_requests: app.all_calls() });
            }
            Look::AgainIn(seconds) => {
                pass(app, seconds).await?;
                passed_s += seconds;
            }
        }
    }
    Err("the panel never sees that the number is connected".into())
}

/// What a panel makes of its answers.
enum Look {
    Connected,
    AgainIn(u64),
}

/// An open panel.
struct Open<'a> {
    app: &'a TestApp,
    school: Organization,
    session: String,
    panel: Panel,
    /// The code that the status has told of.
    known: Value,
    requests: u64,
}

impl Open<'_> {
    async fn look(&mut self) -> Look {
        match self.panel {
            Panel::Old => {
                let (_, status) = tokio::join!(self.qr(), self.status());
                self.requests += 2;
                read(&status, OLD_PAUSE_S)
            }
            Panel::Advised => {
                let qr = self.qr().await;
                self.requests += 1;
                if qr.json["qr"] == self.known && !self.known.is_null() {
                    return read(&qr, advised_pause_s(&qr));
                }
                let status = self.status().await;
                self.requests += 1;
                self.known = status.json["qrcode"].clone();
                read(&status, advised_pause_s(&status))
            }
        }
    }

    async fn qr(&self) -> Answer {
        let event = Event::get("wpp-qr").bearer(&self.school.token).query("session", &self.session);
        self.app.invoke("wpp-qr", event.v2()).await
    }

    async fn status(&self) -> Answer {
        self.app
            .post_as(&self.school, "wpp-status", json!({"session_name": self.session, "force": true}))
            .await
    }
}

fn read(answer: &Answer, pause_s: u64) -> Look {
    if answer.told().1 == "connected" { Look::Connected } else { Look::AgainIn(pause_s) }
}

/// Returns when to ask again, as the answer says it.
fn advised_pause_s(answer: &Answer) -> u64 {
    answer.json["poll_after_ms"].as_u64().map_or(OLD_PAUSE_S, |ms| ms.div_ceil(1000))
}

/// Lets so much time go by for the platform and for what the database has noted.
async fn pass(app: &TestApp, seconds: u64) -> Result<()> {
    app.platform.advance(Duration::from_secs(seconds));
    let seconds = i32::try_from(seconds)?;
    app.age_mirror(seconds).await;
    let age = "update wpp_numbers set
        credentials_saved_at = credentials_saved_at - $1 * interval '1 second',
        first_connected_at = first_connected_at - $1 * interval '1 second',
        webhook_tried_at = webhook_tried_at - $1 * interval '1 second'";
    app.sql.execute(age, &[&f64::from(seconds)]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_advice_needs_fewer_calls() {
        let app = TestApp::start().await;
        let old = link(&app, Panel::Old).await.unwrap();
        // A creation, thirty looks at the code and one at the connected number, by two functions each.
        assert_eq!(old.requests, 1 + 2 * 31);
        assert!(old.upstream_requests <= ORIGINAL / 2, "{old:?}");
        let advised = link(&app, Panel::Advised).await.unwrap();
        assert!(advised.upstream_requests * 3 < old.upstream_requests * 2, "{advised:?} {old:?}");
    }
}
