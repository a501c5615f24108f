//! The format in which a request wants the QR code.

use http::{HeaderMap, header};

/// The format of a QR code that is returned without JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// For a page, at any size.
    Svg,
    /// For any program that shows pictures.
    Png,
    /// For a terminal.
    HalfBlocks,
}

/// All formats. Among equally preferred ones, the first wins.
const FORMS: [(Option<ImageFormat>, &str, &str); 4] = [
    (None, "application", "json"),
    (Some(ImageFormat::Svg), "image", "svg+xml"),
    (Some(ImageFormat::Png), "image", "png"),
    (Some(ImageFormat::HalfBlocks), "text", "plain"),
];

impl ImageFormat {
    /// Returns the format that a request's `Accept` prefers. Returns `None` for JSON, also if `Accept` names no known format.
    pub(crate) fn wanted_by(headers: &HeaderMap) -> Option<Self> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        accept.and_then(Self::preferred)
    }

    /// Returns the preferred format. If several are equally preferred, a named format wins over one that matches a wildcard.
    fn preferred(accept: &str) -> Option<Self> {
        let ranges: Vec<_> = accept.split(',').filter_map(Range::read).collect();
        let liked = FORMS.iter().rev().filter_map(|(form, kind, name)| {
            let fitting = ranges.iter().filter_map(|range| Some((range.fit(kind, name)?, range.quality)));
            let (fit, quality) = fitting.max()?;
            (quality > 0).then_some((form, (quality, fit)))
        });
        liked.max_by_key(|(_, liking)| *liking).and_then(|(form, _)| *form)
    }
}

/// Such as `image/*;q=0.8`.
struct Range<'a> {
    kind: &'a str,
    name: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// Returns `None` if it cannot be read.
    fn read(range: &'a str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let (kind, name) = parts.next()?.split_once('/')?;
        let weight =
            parts.filter_map(|part| part.split_once('=')).find(|(key, _)| key.eq_ignore_ascii_case("q"));
        let quality = weight.map_or(Some(1.0), |(_, value)| value.parse().ok())?;
        let quality = (0.0..=1.0).contains(&quality).then_some((quality * 1000.0_f32).round() as u16)?;
        Some(Self { kind, name, quality })
    }

    /// Returns how specific it is for a media type. The most specific range counts.
    fn fit(&self, kind: &str, name: &str) -> Option<u8> {
        let fits = |asked: &str, own: &str| asked == "*" || asked.eq_ignore_ascii_case(own);
        let is_wild = |asked: &str| asked == "*";
        match (is_wild(self.kind), is_wild(self.name)) {
            _ if !fits(self.kind, kind) || !fits(self.name, name) => None,
            (false, false) => Some(2),
            (false, true) => Some(1),
            (true, true) => Some(0),
            (true, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ImageFormat::{HalfBlocks, Png, Svg};
    use super::*;

    #[test]
    fn most_preferred_format_is_chosen() {
        for (accept, expected) in [
            // What programs and browsers send by default.
            ("*/*", None),
            ("application/json", None),
            ("application/json, text/plain, */*", None),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", None),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", None),
            ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", Some(Svg)),
            ("image/webp,image/png,image/*;q=0.8,*/*;q=0.5", Some(Png)),
            // One format.
            ("image/svg+xml", Some(Svg)),
            ("image/png", Some(Png)),
            ("IMAGE/Png", Some(Png)),
            ("text/plain", Some(HalfBlocks)),
            ("text/plain; charset=utf-8; Q=0.3", Some(HalfBlocks)),
            // Weights.
            ("image/png;q=0.5, text/plain;q=0.8", Some(HalfBlocks)),
            ("image/png;q=0.5, text/plain;q=0.499", Some(Png)),
            ("application/json;q=0.9, image/png", Some(Png)),
            ("application/json, image/png;q=0.9", None),
            ("image/png; q=0, image/svg+xml; q=0.001", Some(Svg)),
            // Wildcards: the most specific range counts, wherever it is in the list.
            ("image/*", Some(Svg)),
            ("text/*", Some(HalfBlocks)),
            ("application/*, image/png;q=0.9", None),
            ("image/*, image/svg+xml;q=0.1", Some(Png)),
            ("image/svg+xml;q=0, image/*", Some(Png)),
            ("*/*, application/json;q=0", Some(Svg)),
            ("image/png;q=0, */*;q=0.1, application/json;q=0.05", Some(Svg)),
            ("*/png", None),
            // Ties: named formats first, then the order in the code.
            ("image/png, */*", Some(Png)),
            ("*/*, image/*", Some(Svg)),
            ("image/png, image/svg+xml", Some(Svg)),
            ("text/plain, image/png", Some(Png)),
            ("text/plain, application/json", None),
            // No known format, or an unreadable header.
            ("text/html", None),
            ("image/jpeg", None),
            ("image/png;q=0", None),
            ("application/json;q=0", None),
            ("image/png;q=2", None),
            ("image/png;q=-1", None),
            ("image/png;q=NaN", None),
            ("image/png;q=", None),
            ("png", None),
            ("", None),
            (",;=,/,*", None),
        ] {
            assert_eq!(ImageFormat::preferred(accept), expected, "{accept}");
        }
    }

    #[test]
    fn absent_or_unreadable_header_means_json() {
        let mut headers = HeaderMap::new();
        assert_eq!(ImageFormat::wanted_by(&headers), None);
        headers.insert(header::ACCEPT, "image/png".parse().unwrap());
        assert_eq!(ImageFormat::wanted_by(&headers), Some(Png));
        headers.insert(header::ACCEPT, "image/png, \u{e9}".parse().unwrap());
        assert_eq!(ImageFormat::wanted_by(&headers), None);
    }
}
