//! The trace that a request belongs to, as X-Ray and as the W3C write it. What is not as either says is dropped.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A request's place in X-Ray's trace and in the caller's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    xray: Option<XRay>,
    /// As it goes on: the caller's, else one that is made of X-Ray's.
    traceparent: Option<String>,
}

/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`; other parts are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct XRay {
    root: String,
    parent: Option<String>,
    is_sampled: bool,
}

impl Trace {
    /// Of the invocation's X-Ray header and the request's headers.
    pub(crate) fn of(xray: Option<&str>, headers: &HeaderMap) -> Self {
        let xray = xray.and_then(XRay::parse);
        let given = headers.get("traceparent").map(HeaderValue::to_str).and_then(Result::ok);
        let given = given.filter(|given| is_traceparent(given)).map(str::to_owned);
        let traceparent = given.or_else(|| xray.as_ref().and_then(XRay::as_traceparent));
        Self { xray, traceparent }
    }

    /// What X-Ray finds the trace by; without X-Ray, the W3C's id.
    pub(crate) fn id(&self) -> Option<&str> {
        let xray = self.xray.as_ref().map(|xray| xray.root.as_str());
        xray.or_else(|| self.traceparent.as_ref()?.split('-').nth(1))
    }

    /// The headers for whoever is called.
    pub(crate) fn headers(&self) -> HeaderMap {
        let xray = self.xray.as_ref().map(|xray| ("x-amzn-trace-id", xray.as_header()));
        let traceparent = self.traceparent.clone().map(|traceparent| ("traceparent", traceparent));
        let all = xray.into_iter().chain(traceparent);
        all.filter_map(|(name, value)| Some((HeaderName::from_static(name), value.try_into().ok()?)))
            .collect()
    }
}

impl XRay {
    fn parse(header: &str) -> Option<Self> {
        let part = |name: &str| {
            let mut parts = header.split(';').filter_map(|part| part.trim().split_once('='));
            parts.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let root = part("Root").filter(|root| {
            let parts: Vec<_> = root.split('-').collect();
            matches!(parts[..], ["1", time, id] if is_hex(time, 8) && is_hex(id, 24))
        })?;
        let parent = part("Parent").filter(|parent| is_hex(parent, 16));
        Some(Self {
            root: root.to_owned(),
            parent: parent.map(str::to_owned),
            is_sampled: part("Sampled") == Some("1"),
        })
    }

    fn as_header(&self) -> String {
        let parent = self.parent.as_ref().map(|parent| format!(";Parent={parent}")).unwrap_or_default();
        format!("Root={}{parent};Sampled={}", self.root, u8::from(self.is_sampled))
    }

    /// Nothing where there is no parent, which the W3C asks for.
    fn as_traceparent(&self) -> Option<String> {
        let id: String = self.root.split('-').skip(1).collect();
        let traceparent = format!("00-{id}-{}-{:02x}", self.parent.as_ref()?, u8::from(self.is_sampled));
        is_traceparent(&traceparent).then_some(traceparent)
    }
}

/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`, with no id of zeros alone.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let is_id = |id: &str, digits| is_hex(id, digits) && id.bytes().any(|digit| digit != b'0');
    matches!(parts[..], ["00", trace, parent, flags]
        if is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "1-5759e988-bd862e3fe1be46a994272793";
    const XRAY: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    const DERIVED: &str = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
    const CALLERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn trace(xray: &str, traceparent: &str) -> (Option<String>, HeaderMap) {
        let headers = headers("", traceparent);
        let trace = Trace::of(Some(xray), &headers);
        (trace.id().map(str::to_owned), trace.headers())
    }

    fn headers(xray: &str, traceparent: &str) -> HeaderMap {
        let both = [("x-amzn-trace-id", xray), ("traceparent", traceparent)];
        let given = both.into_iter().filter(|(_, value)| !value.is_empty());
        given.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_trace_goes_on_in_both_notations_and_the_callers_own_comes_first() {
        let unsampled = XRAY.replace("Sampled=1", "Sampled=0");
        for (xray, given, id, on) in [
            (XRAY, "", ROOT, headers(XRAY, DERIVED)),
            (XRAY, CALLERS, ROOT, headers(XRAY, CALLERS)),
            (&unsampled, "", ROOT, headers(&unsampled, &DERIVED.replace("-01", "-00"))),
            (&format!("Self=1-2-3;{XRAY};Lineage=a:0"), "", ROOT, headers(XRAY, DERIVED)),
            ("", CALLERS, "4bf92f3577b34da6a3ce929d0e0e4736", headers("", CALLERS)),
            (&format!("Root={ROOT}"), "", ROOT, headers(&format!("Root={ROOT};Sampled=0"), "")),
        ] {
            assert_eq!(trace(xray, given), (Some(id.to_owned()), on), "{xray} {given}");
        }
        assert_eq!(Trace::of(None, &HeaderMap::new()), Trace::default());
    }

    #[test]
    fn what_is_not_as_either_notation_says_is_dropped() {
        for wrong in [
            "x",
            "Root=",
            "Root=1-5759e988",
            "Root=2-5759e988-bd862e3fe1be46a994272793",
            "Root=1-5759e988-bd862e3fe1be46a99427279",
            "Root=1-5759E988-bd862e3fe1be46a994272793",
            "Root=1-5759e988-bd862e3fe1be46a994272793-1",
            "Parent=53995c3f42cd8ad8;Sampled=1",
        ] {
            assert_eq!(trace(wrong, ""), (None, HeaderMap::new()), "{wrong}");
        }
        let orphan = format!("Root={ROOT};Parent=53995c3f;Sampled=1");
        assert_eq!(trace(&orphan, "").1, headers(&format!("Root={ROOT};Sampled=1"), ""));
        for wrong in [
            "x",
            &CALLERS.replacen("00-", "ff-", 1),
            &CALLERS.replacen("00-", "01-", 1),
            &CALLERS.to_uppercase(),
            &CALLERS[1..],
            &format!("{CALLERS}-more"),
            &format!("{CALLERS},{CALLERS}"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        ] {
            assert_eq!(trace(XRAY, wrong).1, headers(XRAY, DERIVED), "{wrong}");
            assert_eq!(trace("", wrong), (None, HeaderMap::new()), "{wrong}");
        }
    }
}
