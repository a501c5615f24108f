//! The prefetch: the sandbox asks the platform with what it remembers, while the database looks up the row. Only the row decides.

use local::fault_injector::{Fault, Point};
use local::other_functions::{Event, OtherFunctions};
use local::platform::RepeatedCreate;
use local::test_app::{Number, TestApp, until};
use serde_json::json;
use tokio::join;
use uuid::Uuid;

/// The panel's two requests, which ask the platform in any case.
const POLLS: [&str; 2] = ["wpp-qr", "wpp-status"];

/// Starts an app with a number that each sandbox has been asked about. Nothing is counted yet.
async fn asked_before() -> (TestApp, Number) {
    let (app, number) = TestApp::start_with_number().await;
    app.settle_keys().await;
    for name in POLLS {
        assert_eq!(app.ask(name, &number.session).await.status, 200);
    }
    app.forget_calls();
    (app, number)
}

#[tokio::test]
async fn second_poll_prefetches_from_the_platform() {
    let (app, number) = asked_before().await;
    for (name, calls) in [
        ("wpp-qr", json!({"rpc/wpp_find_number": 1, "qr": 1})),
        ("wpp-status", json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1})),
    ] {
        let hold = app.hold("rpc/wpp_find_number", Point::Before);
        let platform_is_asked = async {
            hold.reached(1).await;
            until(async || app.count("qr") == 1).await;
            hold.release();
        };
        let (answer, ()) = join!(app.ask(name, &number.session), platform_is_asked);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(app.calls(), calls);
        app.forget_calls();
    }
}

#[tokio::test]
async fn a_connected_number_is_asked_for_its_status_alone() {
    let (app, number) = asked_before().await;
    app.link(&number).await;
    app.ask("wpp-status", &number.session).await.expect(200, "connected");
    app.forget_calls();
    app.ask("wpp-status", &number.session).await.expect(200, "connected");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "status": 1}));
}

#[tokio::test]
async fn recent_snapshot_makes_no_platform_call() {
    let (app, number) = asked_before().await;
    let request = json!({"session": number.session});
    app.post("wpp-status", request).await.expect(200, "qr_issued");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1}));
}

/// Each sandbox knows a number, which changes before the next poll.
#[tokio::test]
async fn number_of_a_former_organization_is_not_found() {
    for change in ["another organization", "switched off", "deleted"] {
        let (app, number) = asked_before().await;
        match change {
            "another organization" => move_to(&app, app.organization("another").await.unwrap().id).await,
            "switched off" => {
                let off = "update messenger_integrations set is_active = false where id = $1";
                app.sql.execute(off, &[&number.id]).await.unwrap();
            }
            _ => OtherFunctions::of(&app.stack).delete(app.school.id, number.id).await.unwrap(),
        }
        for name in POLLS {
            app.ask(name, &number.session).await.expect(404, "number_not_found");
            app.forget_calls();
            app.ask(name, &number.session).await.expect(404, "number_not_found");
            assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1}), "{change}");
        }
    }
}

async fn move_to(app: &TestApp, organization: Uuid) {
    let moved = "update profiles set organization_id = $2 where id = $1";
    app.sql.execute(moved, &[&app.school.user, &organization]).await.unwrap();
}

#[tokio::test]
async fn user_in_a_new_organization_sees_its_number() {
    let app = TestApp::start().await;
    let here = app.create(json!({})).await.json;
    let other = app.organization("other").await.unwrap();
    let there = app.post_as(&other, "wpp-create", json!({})).await.json;
    let ask = async || app.post("wpp-status", json!({"force": true})).await.json;
    assert_eq!(ask().await["qrcode"], here["qrcode"]);
    for (organization, number) in [(other.id, &there), (app.school.id, &here), (other.id, &there)] {
        move_to(&app, organization).await;
        let answer = ask().await;
        assert_eq!(
            (&answer["account_number"], &answer["qrcode"]),
            (&number["session"], &number["qrcode"]),
            "{answer}"
        );
    }
}

/// The prefetch uses a token that the platform no longer accepts. The row has a token that another sandbox fetched.
#[tokio::test]
async fn token_replaced_during_a_prefetch_is_reread() {
    let (app, number) = asked_before().await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    for recreates in [false, true] {
        app.platform.forget_tokens();
        if recreates {
            app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
        } else {
            let other = app.process("wpp-status").await;
            let event = app.school.post("wpp-status", &json!({"force": true}));
            other.invoke(event.http_api()).await.answered().unwrap().expect(200, "qr_issued");
        }
        app.forget_calls();
        for name in POLLS {
            let answer = app.ask(name, &number.session).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(app.count("token"), 0, "{}", app.calls());
        }
    }
}

#[tokio::test]
async fn failed_prefetch_is_reported_like_any_call() {
    let (app, number) = asked_before().await;
    for name in POLLS {
        app.inject("qr", Fault::status(500));
        app.ask(name, &number.session).await.expect(502, "platform_unavailable");
        app.clear_faults();
        app.ask(name, &number.session).await;
        // The rejected token of the prefetch is the one in the row, so it is replaced once.
        app.settle_tokens().await;
        app.platform.forget_tokens();
        app.forget_calls();
        let answer = app.ask(name, &number.session).await;
        assert_eq!((answer.status, app.count("token")), (200, 1), "{}", answer.body);
    }
}

#[tokio::test]
async fn failed_look_up_is_the_answer() {
    let (app, number) = asked_before().await;
    app.inject("rpc/wpp_find_number", Fault::status(500));
    for name in POLLS {
        app.ask(name, &number.session).await.expect(503, "database_unavailable");
    }
}

/// The platform answered before the phone was linked, and the webhook reported the link before the row was read.
#[tokio::test]
async fn webhook_report_wins_over_an_older_prefetch() {
    let (app, number) = asked_before().await;
    let hold = app.hold("rpc/wpp_find_number", Point::Before);
    let told = async {
        hold.reached(1).await;
        until(async || app.count("status") == 1 && app.count("qr") == 1).await;
        app.platform.scan(&number.session).unwrap();
        OtherFunctions::of(&app.stack).report(&number.session, Event::Connected).await.unwrap();
        hold.release();
    };
    let (answer, ()) = join!(app.ask("wpp-status", &number.session), told);
    answer.expect(200, "connected");
    assert_eq!(app.snapshot_row(&number.session).await["status"], "connected");
}
