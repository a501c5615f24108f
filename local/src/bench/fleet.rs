//! Calls of `/auth/token` when a token has expired and several sandboxes need one at once.

use futures_util::future::{join_all, try_join_all};

use super::figure::{Figure, Unit};
use crate::Result;
use crate::events::Event;
use crate::fault_injector::Point;
use crate::test_app::TestApp;

const SANDBOXES: [usize; 3] = [1, 10, 100];

/// A hundred processes take their time on a small machine, and time must not decide.
const PATIENCE: [(&str, &str); 2] = [("REQUEST_BUDGET_MS", "60000"), ("UPSTREAM_TIMEOUT_MS", "60000")];

/// Measures one expiry for each size of the fleet.
pub async fn measure() -> Result<Vec<Figure>> {
    let (app, number) = TestApp::start_with_number().await;
    let mut figures = Vec::new();
    for count in SANDBOXES {
        let sandboxes = join_all((0..count).map(|_| app.process_with("wpp-qr", &PATIENCE))).await;
        try_join_all(sandboxes.iter().map(|sandbox| sandbox.ready())).await?;
        app.set_token_end(&number, -3600).await;
        app.end_waits().await;
        app.forget_calls();
        // All have read the row with the old token before any of them continues.
        let hold = app.hold("rpc/wpp_find_number", Point::After);
        let event = Event::get("wpp-qr").bearer(&app.school.token).query("session", &number.session).v2();
        let crowd = join_all(sandboxes.iter().map(|sandbox| sandbox.invoke(event.clone())));
        let together = async {
            hold.reached(count).await;
            hold.release();
        };
        let (ended, ()) = tokio::join!(crowd, together);
        for ended in ended {
            ended.answered()?.expect(200, "qr_issued");
        }
        let what = format!("/auth/token over an expiry, sandboxes at once: {count}");
        figures.push(Figure::new(what, Unit::Count, app.count("token") as f64).at_most(1.0));
    }
    Ok(figures)
}
