//! A QR code as the platform sends it: its text, or an image.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// The first bytes of every PNG.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The same in base64: older platforms send an image without a `data:` prefix.
const PNG_IN_BASE64: &str = "iVBORw0KGgo";

/// The format in which the platform sent a QR code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The text of the QR code, which must still be drawn.
    Text,
    /// An image: a `data:` URL, or a PNG in base64.
    Image,
}

impl Format {
    /// Returns the format of a QR code.
    pub fn of(qr: &str) -> Self {
        if qr.starts_with("data:") || qr.starts_with(PNG_IN_BASE64) { Self::Image } else { Self::Text }
    }
}

/// Returns the bytes of an image, or `None` if that is not a PNG.
pub fn png(qr: &str) -> Option<Vec<u8>> {
    let base64 = qr.strip_prefix("data:image/png;base64,").unwrap_or(qr);
    STANDARD.decode(base64.trim_end()).ok().filter(|bytes| bytes.starts_with(PNG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_data_url_or_a_bare_png_is_an_image() {
        let bare = STANDARD.encode([PNG, b"\0\0\0\rIHDR"].concat());
        assert!(bare.starts_with(PNG_IN_BASE64), "{bare}");
        for (qr, format, is_png) in [
            ("2@Avj6,RzBp,661/,1", Format::Text, false),
            ("https://wa.me/settings/linked_devices#2@Avj6", Format::Text, false),
            (&bare, Format::Image, true),
            (&format!("{bare}\n"), Format::Image, true),
            (&format!("data:image/png;base64,{bare}"), Format::Image, true),
            ("data:image/png;base64,", Format::Image, false),
            ("data:image/jpeg;base64,/9j/4AAQ", Format::Image, false),
            ("data:image/svg+xml,%3Csvg/%3E", Format::Image, false),
            ("iVBORw0KGgo?", Format::Image, false),
            ("", Format::Text, false),
        ] {
            assert_eq!((Format::of(qr), png(qr).is_some()), (format, is_png), "{qr}");
        }
    }
}
