//! `wpp-qr`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quircs::Quirc;
use serde_json::json;

use local::events::Event;
use local::fault_injector::Point;
use local::lambda::Answer;
use local::platform::{QrForm, RepeatedCreate};
use local::test_app::TestApp;

/// The TypeScript version overwrote the new key and session with the old ones.
#[tokio::test]
async fn a_refresh_that_ends_after_a_recreation_keeps_new_credentials() {
    for old_token in [json!({"wppJwtExpiresAt": 1000}), json!({"wppJwtToken": null})] {
        let (app, number) = TestApp::start_with_number().await;
        app.merge(&number, old_token).await;
        app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
        let fetched = app.hold("token", Point::After);
        let recreate = async {
            fetched.reached(1).await;
            let claim = app.hold("rpc/wpp_claim_refresh", Point::Before);
            let recreate = app.create(json!({"force_recreate": true}));
            let meanwhile = async {
                // The new key is in the row, but its token has not been requested yet.
                claim.reached(1).await;
                let saved = app.hold("rpc/wpp_save_token", Point::After);
                fetched.release();
                saved.reached(1).await;
                saved.release();
                claim.release();
            };
            tokio::join!(recreate, meanwhile).0.expect(200, "qr_issued");
        };
        tokio::join!(app.poll_qr(&number.session), recreate);
        let settings = app.settings(&number).await;
        let sub_org_id = settings["wppSubOrgId"].as_str().unwrap();
        let key = app.platform.key_of(sub_org_id).unwrap();
        assert_eq!(settings["wppApiKey"], json!(key));
        assert_eq!(app.platform.tokens_issued(&key), 1, "the old key's token is not kept for the new one");
        assert_eq!(settings["wppAccountNumber"], json!(app.platform.session_of(sub_org_id).unwrap()));
        assert_eq!(app.poll_qr(&number.session).await.status, 200);
    }
}

async fn drawn(app: &TestApp, session: &str, accept: &str) -> Answer {
    let event =
        Event::get("wpp-qr").bearer(&app.school.token).query("session", session).header("Accept", accept);
    app.invoke("wpp-qr", event.http_api()).await
}

/// Returns the answer's bytes, and whether they were sent in base64.
fn bytes(answer: &Answer) -> (Vec<u8>, bool) {
    let (body, is_base64) = (answer.raw["body"].as_str().unwrap(), answer.raw["isBase64Encoded"] == true);
    (if is_base64 { STANDARD.decode(body).unwrap() } else { body.into() }, is_base64)
}

/// Decodes rows of light and dark pixels, as a scanner does.
fn scanned(rows: &[Vec<bool>]) -> String {
    let gray: Vec<_> = rows.iter().flatten().map(|is_lit| if *is_lit { 255 } else { 0 }).collect();
    let mut scanner = Quirc::default();
    let mut codes = scanner.identify(rows[0].len(), rows.len(), &gray);
    let code = codes.next().unwrap().unwrap();
    assert!(codes.next().is_none());
    String::from_utf8(code.decode().unwrap().payload).unwrap()
}

/// Returns each module as several pixels, because a scanner needs more than one.
fn enlarged(rows: &[Vec<bool>], times: usize) -> Vec<Vec<bool>> {
    let wide = rows.iter().map(|row| row.iter().flat_map(|pixel| vec![*pixel; times]).collect::<Vec<_>>());
    wide.flat_map(|row| vec![row; times]).collect()
}

/// Reads the pixels of a PNG with one bit per pixel.
fn rows_of_png(bytes: &[u8]) -> Vec<Vec<bool>> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Grayscale, png::BitDepth::One));
    let bits =
        |row: &[u8]| row.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    pixels.chunks(info.line_size).map(bits).collect()
}

/// Reads the modules of an SVG that draws each run of dark ones as a line: `M4 4.5h7`.
fn rows_of_svg(svg: &str) -> Vec<Vec<bool>> {
    let between = |text: &str, start: &str, end: &str| {
        text.split_once(start).unwrap().1.split_once(end).unwrap().0.to_owned()
    };
    let side: usize = between(svg, "viewBox=\"0 0 ", " ").parse().unwrap();
    let mut rows = vec![vec![true; side]; side];
    for line in between(svg, "stroke=\"#000\" d=\"M", "\"").split('M') {
        let (x, rest) = line.split_once(' ').unwrap();
        let (y, run) = rest.split_once(".5h").unwrap();
        let (x, y, run): (usize, usize, usize) =
            (x.parse().unwrap(), y.parse().unwrap(), run.parse().unwrap());
        rows[y][x..x + run].fill(false);
    }
    rows
}

fn rows_of_half_blocks(text: &str) -> Vec<Vec<bool>> {
    let half = |lit: [char; 2]| move |line: &str| line.chars().map(|block| lit.contains(&block)).collect();
    text.lines().flat_map(|line| [half(['█', '▀'])(line), half(['█', '▄'])(line)]).collect()
}

#[tokio::test]
async fn a_drawn_qr_is_scanned_as_the_platforms_text() {
    let (app, number) = TestApp::start_with_number().await;
    let shown = app.shown_qr(&number.session);
    for (accept, content_type) in [
        ("image/svg+xml", "image/svg+xml"),
        ("image/png, */*;q=0.5", "image/png"),
        ("text/plain", "text/plain; charset=utf-8"),
    ] {
        app.forget_calls();
        let answer = drawn(&app, &number.session, accept).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, content_type));
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["vary"], "origin, accept, accept-language");
        assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));
        let (body, is_base64) = bytes(&answer);
        assert_eq!(is_base64, content_type == "image/png");
        let rows = match content_type {
            "image/png" => rows_of_png(&body),
            "image/svg+xml" => enlarged(&rows_of_svg(&answer.body), 4),
            _ => enlarged(&rows_of_half_blocks(&answer.body), 4),
        };
        assert_eq!(scanned(&rows), shown, "{accept}");
    }
}

#[tokio::test]
async fn platform_image_is_passed_on_unchanged() {
    let (app, number) = TestApp::start_with_number().await;
    for form in [QrForm::DataUrl, QrForm::Base64] {
        app.platform.behave(|behavior| behavior.qr_form = form);
        let shown = app.shown_qr(&number.session);
        let base64 = shown.as_str().unwrap().rsplit(',').next().unwrap();
        let answer = app.poll_qr(&number.session).await.expect(200, "qr_issued");
        assert_eq!((&answer.json["format"], &answer.json["qr"]), (&json!("image"), &shown));
        assert_eq!(app.check().await.json["format"], "image");
        let png = drawn(&app, &number.session, "image/png").await;
        assert_eq!(bytes(&png), (STANDARD.decode(base64).unwrap(), true), "{form:?}");
        let svg = drawn(&app, &number.session, "image/svg+xml").await;
        assert!(svg.body.contains(&format!("href=\"data:image/png;base64,{base64}\"")), "{svg:?}");
        drawn(&app, &number.session, "text/plain").await.expect(406, "qr_is_picture");
    }
}
