//! Renders the platform's QR code as SVG, PNG or text. The platform sends either the pairing text or a PNG.

use std::fmt::Write;

use png::{BitDepth, ColorType, Encoder, EncodingError};
use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, EcLevel, QrCode};
use shared::error::Error;
use shared::http::accept::ImageFormat;
use shared::http::response::Image;
use shared::number::qr::{self, Format};
use shared::upstream::CallError;
use shared::wpp::PlatformError;

/// The width of the light border, in modules. Scanners may not find a code without it.
const QUIET_ZONE: usize = 4;

/// A module's side in pixels. At one bit per pixel, a module is exactly one byte wide in a PNG.
const MODULE_SIZE: usize = 8;

/// Renders the platform's QR code in the requested format.
pub fn draw(qr: &str, format: ImageFormat) -> Result<Image, Error> {
    let body = match (Format::of(qr), format) {
        (Format::Text, _) => encode(qr).and_then(|code| match format {
            ImageFormat::Svg => Some(svg_of_text(&modules(&code)).into()),
            ImageFormat::Png => png(&modules(&code)).ok(),
            ImageFormat::HalfBlocks => Some(half_blocks(&code).into()),
        }),
        (Format::Image, ImageFormat::Svg) => qr::png(qr).map(|_| svg_of_image(qr).into()),
        (Format::Image, ImageFormat::Png) => qr::png(qr),
        (Format::Image, ImageFormat::HalfBlocks) => return Err(Error::QrIsPicture),
    };
    let media_type = match format {
        ImageFormat::Svg => "image/svg+xml",
        ImageFormat::Png => "image/png",
        ImageFormat::HalfBlocks => "text/plain; charset=utf-8",
    };
    let body = body.ok_or(CallError { call: "qr", why: PlatformError::BadAnswer })?;
    Ok(Image { media_type, body })
}

/// Returns `None` if the text is too long for a QR code. Uses the lowest error correction: a screen does not get damaged, and fewer
/// modules can be drawn larger.
fn encode(text: &str) -> Option<QrCode> {
    QrCode::with_error_correction_level(text, EcLevel::L).ok()
}

/// Draws the code for a terminal: two rows of modules per line of text. Light modules are the lit ones, because most
/// terminals have a dark background.
fn half_blocks(code: &QrCode) -> String {
    code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build() + "\n"
}

/// Returns which modules are dark, row by row and with the quiet zone.
fn modules(code: &QrCode) -> Vec<Vec<bool>> {
    let side = code.width() + 2 * QUIET_ZONE;
    let mut modules = vec![vec![false; side]; side];
    for (y, row) in code.to_colors().chunks(code.width()).enumerate() {
        for (x, color) in row.iter().enumerate() {
            modules[y + QUIET_ZONE][x + QUIET_ZONE] = *color == Color::Dark;
        }
    }
    modules
}

/// Draws an SVG with one path segment for each run of dark modules.
fn svg_of_text(modules: &[Vec<bool>]) -> String {
    let (side, mut path) = (modules.len(), String::new());
    for (y, row) in modules.iter().enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] {
                // Writing to a String cannot fail.
                let _ = write!(path, "M{x} {y}.5h{}", run.len());
            }
            x += run.len();
        }
    }
    let size = side * MODULE_SIZE;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {side} {side}" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{side}v{side}H0z"/><path stroke="#000" d="{path}"/></svg>"##
    )
}

/// Wraps the platform's PNG in an SVG.
fn svg_of_image(qr: &str) -> String {
    let base64 = qr.rsplit(',').next().unwrap_or_default().trim_end();
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><image width="1" height="1" href="data:image/png;base64,{base64}"/></svg>"#
    )
}

fn png(modules: &[Vec<bool>]) -> Result<Vec<u8>, EncodingError> {
    let rows = modules.iter().flat_map(|row| std::iter::repeat_n(row, MODULE_SIZE)).flatten();
    let pixels: Vec<_> = rows.map(|is_dark| if *is_dark { 0x00 } else { 0xff }).collect();
    let mut png = Vec::new();
    let side = u32::try_from(modules.len() * MODULE_SIZE).map_err(|_| EncodingError::LimitsExceeded)?;
    let mut encoder = Encoder::new(&mut png, side, side);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXEL: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

    fn text(qr: &str, format: ImageFormat) -> String {
        String::from_utf8(draw(qr, format).unwrap().body).unwrap()
    }

    #[test]
    fn undrawable_qr_is_a_bad_answer() {
        let too_long = "2".repeat(8000);
        for (qr, format, code) in [
            (&*too_long, ImageFormat::Svg, "platform_bad_answer"),
            (&*too_long, ImageFormat::HalfBlocks, "platform_bad_answer"),
            ("data:image/jpeg;base64,/9j/4AAQ", ImageFormat::Png, "platform_bad_answer"),
            ("data:image/png;base64,\"><script/>", ImageFormat::Svg, "platform_bad_answer"),
            (PIXEL, ImageFormat::HalfBlocks, "qr_is_picture"),
        ] {
            assert_eq!(draw(qr, format).err().unwrap().response().code, code);
        }
    }

    #[test]
    fn an_image_is_passed_on_unchanged() {
        for qr in [PIXEL.to_owned(), format!("data:image/png;base64,{PIXEL}"), format!("{PIXEL}\n")] {
            assert_eq!(draw(&qr, ImageFormat::Png).unwrap().body, qr::png(PIXEL).unwrap());
            let svg = text(&qr, ImageFormat::Svg);
            assert!(svg.contains(&format!(r#"href="data:image/png;base64,{PIXEL}""#)), "{svg}");
        }
    }

    /// The smallest code has 21 modules, 7 of them dark in the first row of a finder.
    #[test]
    fn quiet_zone_is_four_modules_wide() {
        assert_eq!(modules(&encode("2@").unwrap()).len(), 29);
        let blocks = text("2@", ImageFormat::HalfBlocks);
        let lines: Vec<_> = blocks.lines().collect();
        assert_eq!(lines.len(), 15);
        assert!(lines.iter().all(|line| line.chars().count() == 29), "{blocks}");
        assert_eq!(lines[0], "█".repeat(29));
        assert_eq!(lines[0], lines[1]);
        assert!(lines[2].starts_with("████ ▄▄▄▄▄ █"), "{blocks}");
        assert!(text("2@", ImageFormat::Svg).contains(r##"stroke="#000" d="M4 4.5h7"##));
    }

    #[test]
    fn module_is_eight_pixels_wide() {
        let svg = text("2@", ImageFormat::Svg);
        assert!(svg.contains(r#"width="232" height="232" viewBox="0 0 29 29""#), "{svg}");

        let png = draw("2@", ImageFormat::Png).unwrap().body;
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let (mut pixels, row) = (vec![0; reader.output_buffer_size().unwrap()], 232 / 8);
        let size = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((size.width, size.height), (232, 232));
        let modules = modules(&encode("2@").unwrap());
        for (y, pixels) in pixels.chunks(row).enumerate() {
            let drawn: Vec<_> = pixels.iter().map(|byte| *byte == 0).collect();
            assert_eq!(drawn, modules[y / 8], "row {y} of pixels");
        }
    }
}
