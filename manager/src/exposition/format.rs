//! Which format a scrape wants.

use mediatype::{MediaType, MediaTypeList, Name, ReadParams as _};

/// A format of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics text format 1.0.0.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

/// How a page is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952, as one member.
    Gzip,
    /// RFC 8878, as one frame.
    Zstd,
}

impl Coding {
    /// Value of `Content-Encoding`, if there is one.
    #[must_use]
    pub const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The coding for an `Accept-Encoding` header (RFC 9110, section 12.5.3): gzip wherever it is welcome, for a page is
    /// kept in that form, unless zstd is more so.
    #[must_use]
    pub fn negotiate(accept_encoding: Option<&str>) -> Self {
        let (mut gzip, mut zstd, mut any) = (None, None, None);
        for coding in accept_encoding.unwrap_or_default().split(',') {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = weight.trim().strip_prefix("q=").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = Some(weight),
                "zstd" => zstd = Some(weight),
                "*" => any = Some(weight),
                _ => {}
            }
        }
        let gzip: f32 = gzip.or(any).unwrap_or(0.0);
        // "Whatever you have" does not say that the reader knows this one.
        match zstd.unwrap_or(0.0) {
            zstd if zstd > gzip => Self::Zstd,
            _ if gzip > 0.0 => Self::Gzip,
            _ => Self::Identity,
        }
    }
}

const VERSION: Name<'static> = Name::new_unchecked("version");
const PROTO: Name<'static> = Name::new_unchecked("proto");
const ENCODING: Name<'static> = Name::new_unchecked("encoding");
const Q: Name<'static> = Name::new_unchecked("q");

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// Short name; the label value of the manager's metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::OpenMetrics => "openmetrics",
            Self::Protobuf => "protobuf",
        }
    }

    /// The format that an `Accept` header likes best (RFC 9110, section 12.5.1); the first of equals. Text, if it is
    /// absent, cannot be parsed or names nothing there is: a scrape that reads something beats a 406.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let mut best: Option<(f32, Self)> = None;
        for range in MediaTypeList::new(accept.unwrap_or_default()).filter_map(Result::ok) {
            let version = range.get_param(VERSION).map(|v| v.unquoted_str().into_owned());
            let asks_for = |known: &str| version.as_deref().is_none_or(|v| v == known);
            let format = match (range.ty.as_str(), range.subty.as_str()) {
                ("application", "openmetrics-text") if asks_for("1.0.0") => Self::OpenMetrics,
                ("text", "plain") if asks_for("0.0.4") => Self::Text,
                ("application", "vnd.google.protobuf") if is_families(&range) => Self::Protobuf,
                ("text" | "*", "*") => Self::Text,
                _ => continue,
            };
            let q = range.get_param(Q).map_or(1.0, |q| q.as_str().parse().unwrap_or(0.0));
            if q > best.map_or(0.0, |(q, _)| q) {
                best = Some((q, format));
            }
        }
        best.map_or(Self::Text, |(_, format)| format)
    }
}

/// Whether a protobuf media type is that of delimited metric families.
fn is_families(range: &MediaType<'_>) -> bool {
    let says = |name, known: &str| range.get_param(name).is_some_and(|v| v.unquoted_str() == known);
    says(PROTO, "io.prometheus.client.MetricFamily") && says(ENCODING, "delimited")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_where_it_is_welcome() {
        for welcome in
            ["gzip", "deflate, gzip;q=0.5", "*", "GZIP", "x-gzip", "br;q=1.0, gzip;q=0.8, *;q=0.1"]
        {
            assert_eq!(Coding::negotiate(Some(welcome)), Coding::Gzip, "{welcome}");
        }
        for not in ["", "identity", "gzip;q=0", "*, gzip;q=0", "gzip;q=0, *", "gzip;q=x", "*;q=0"] {
            assert_eq!(Coding::negotiate(Some(not)), Coding::Identity, "{not}");
        }
        assert_eq!(Coding::negotiate(None), Coding::Identity);
    }

    #[test]
    fn zstd_is_used_if_it_is_preferred() {
        for preferred in ["zstd", "zstd, gzip;q=0.9", "gzip;q=0, zstd;q=0.1", "zstd;q=1.0, *;q=0.5"]
        {
            assert_eq!(Coding::negotiate(Some(preferred)), Coding::Zstd, "{preferred}");
        }
        // As curl and browsers ask.
        for not in ["deflate, gzip, br, zstd", "gzip, zstd;q=0.5", "*"] {
            assert_eq!(Coding::negotiate(Some(not)), Coding::Gzip, "{not}");
        }
        assert_eq!(Coding::negotiate(Some("zstd;q=0")), Coding::Identity);
    }

    #[test]
    fn the_best_liked_format_is_chosen() {
        let cases = [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("application/openmetrics-text;version=0.0.1"), Format::Text),
            (
                Some("text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5"),
                Format::Text,
            ),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (Some("application/vnd.google.protobuf"), Format::Text),
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
                ),
                Format::Text,
            ),
            // Prometheus 2.53 with native histograms
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                     application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ),
                Format::Protobuf,
            ),
            (Some("not an accept header"), Format::Text),
            // Prometheus 2.42
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                Format::OpenMetrics,
            ),
        ];
        for (accept, format) in cases {
            assert_eq!(Format::negotiate(accept), format, "{accept:?}");
        }
    }
}
