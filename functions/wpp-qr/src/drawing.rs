//! The QR itself, drawn from the platform's text or taken from its picture.

use std::fmt::Write;

use png::{BitDepth, ColorType, Encoder, EncodingError};
use qrcode::{Color, EcLevel, QrCode};
use shared::error::Error;
use shared::http::accept::Drawing;
use shared::http::run::Drawn;
use shared::number::qr::{self, Format};
use shared::platform::PlatformError;
use shared::upstream::CallError;

/// As many light modules all around, or a scanner may not find the code.
const QUIET_ZONE: usize = 4;

/// A module's side in pixels. In a PNG of one bit for each, a module is a byte wide.
const MODULE: usize = 8;

/// The QR that the platform has sent, in the form that is wanted.
pub fn draw(qr: &str, drawing: Drawing) -> Result<Drawn, Error> {
    let body = match (Format::of(qr), drawing) {
        (Format::Text, _) => modules(qr).and_then(|modules| match drawing {
            Drawing::Svg => Some(svg(&modules).into()),
            Drawing::Png => png(&modules).ok(),
            Drawing::HalfBlocks => Some(half_blocks(&modules).into()),
        }),
        (Format::Image, Drawing::Svg) => qr::png(qr).map(|_| wrapped(qr).into()),
        (Format::Image, Drawing::Png) => qr::png(qr),
        (Format::Image, Drawing::HalfBlocks) => return Err(Error::QrIsPicture),
    };
    let media_type = match drawing {
        Drawing::Svg => "image/svg+xml",
        Drawing::Png => "image/png",
        Drawing::HalfBlocks => "text/plain; charset=utf-8",
    };
    let body = body.ok_or(CallError { call: "qr", why: PlatformError::BadAnswer })?;
    Ok(Drawn { media_type, body })
}

/// Which modules are dark, row by row and with the quiet zone; nothing where the text is too long for any code. The screen
/// damages nothing, so the least correction serves: the modules are larger.
fn modules(text: &str) -> Option<Vec<Vec<bool>>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let side = code.width() + 2 * QUIET_ZONE;
    let mut modules = vec![vec![false; side]; side];
    for (y, row) in code.to_colors().chunks(code.width()).enumerate() {
        for (x, color) in row.iter().enumerate() {
            modules[y + QUIET_ZONE][x + QUIET_ZONE] = *color == Color::Dark;
        }
    }
    Some(modules)
}

/// One line for each run of dark modules.
fn svg(modules: &[Vec<bool>]) -> String {
    let (side, mut path) = (modules.len(), String::new());
    for (y, row) in modules.iter().enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] {
                // To write to a String cannot fail.
                let _ = write!(path, "M{x} {y}.5h{}", run.len());
            }
            x += run.len();
        }
    }
    let size = side * MODULE;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {side} {side}" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{side}v{side}H0z"/><path stroke="#000" d="{path}"/></svg>"##
    )
}

/// A PNG within an SVG: whoever asked for an SVG can show it as one.
fn wrapped(qr: &str) -> String {
    let base64 = qr.rsplit(',').next().unwrap_or_default().trim_end();
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><image width="1" height="1" href="data:image/png;base64,{base64}"/></svg>"#
    )
}

fn png(modules: &[Vec<bool>]) -> Result<Vec<u8>, EncodingError> {
    let rows = modules.iter().flat_map(|row| std::iter::repeat_n(row, MODULE)).flatten();
    let pixels: Vec<_> = rows.map(|is_dark| if *is_dark { 0x00 } else { 0xff }).collect();
    let mut png = Vec::new();
    let side = u32::try_from(modules.len() * MODULE).map_err(|_| EncodingError::LimitsExceeded)?;
    let mut encoder = Encoder::new(&mut png, side, side);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(png)
}

/// Two rows a line. What is light is lit, for the dark ground that terminals have.
fn half_blocks(modules: &[Vec<bool>]) -> String {
    let mut text = String::new();
    for rows in modules.chunks(2) {
        text.extend((0..modules.len()).map(|x| match (rows[0][x], rows.get(1).is_some_and(|row| row[x])) {
            (false, false) => '█',
            (false, true) => '▀',
            (true, false) => '▄',
            (true, true) => ' ',
        }));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXEL: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

    fn text(qr: &str, drawing: Drawing) -> String {
        String::from_utf8(draw(qr, drawing).unwrap().body).unwrap()
    }

    #[test]
    fn what_cannot_be_drawn_is_the_platforms_bad_answer_and_a_picture_is_no_text() {
        let too_long = "2".repeat(8000);
        for (qr, drawing, code) in [
            (&*too_long, Drawing::Svg, "platform_bad_answer"),
            (&*too_long, Drawing::HalfBlocks, "platform_bad_answer"),
            ("data:image/jpeg;base64,/9j/4AAQ", Drawing::Png, "platform_bad_answer"),
            ("data:image/png;base64,\"><script/>", Drawing::Svg, "platform_bad_answer"),
            (PIXEL, Drawing::HalfBlocks, "qr_is_picture"),
        ] {
            assert_eq!(draw(qr, drawing).err().unwrap().response().code, code);
        }
    }

    #[test]
    fn a_picture_stays_the_picture_that_it_is() {
        for qr in [PIXEL.to_owned(), format!("data:image/png;base64,{PIXEL}"), format!("{PIXEL}\n")] {
            assert_eq!(draw(&qr, Drawing::Png).unwrap().body, qr::png(PIXEL).unwrap());
            let svg = text(&qr, Drawing::Svg);
            assert!(svg.contains(&format!(r#"href="data:image/png;base64,{PIXEL}""#)), "{svg}");
        }
    }

    /// The smallest code has 21 modules, 7 of them dark in the first row of a finder.
    #[test]
    fn a_code_stands_in_a_quiet_zone_of_four_modules() {
        assert_eq!(modules("2@").unwrap().len(), 29);
        let blocks = text("2@", Drawing::HalfBlocks);
        let lines: Vec<_> = blocks.lines().collect();
        assert_eq!(lines.len(), 15);
        assert!(lines.iter().all(|line| line.chars().count() == 29), "{blocks}");
        assert_eq!(lines[0], "█".repeat(29));
        assert_eq!(lines[0], lines[1]);
        assert!(lines[2].starts_with("████ ▄▄▄▄▄ █"), "{blocks}");
        assert!(text("2@", Drawing::Svg).contains(r##"stroke="#000" d="M4 4.5h7"##));
    }
}
