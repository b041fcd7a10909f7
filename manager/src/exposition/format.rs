//! Which format a scrape wants.

use mediatype::{MediaType, MediaTypeList, Name, ReadParams as _};

use crate::model::Escaping;

/// What makes the bytes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// The language it is written in.
    pub syntax: Syntax,
    /// How names beyond the legacy rule are written in it.
    pub escaping: Escaping,
    /// Whether OpenMetrics has `_created` samples. The others have none: protobuf always says when counting began.
    pub created: bool,
}

/// A language for pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// Prometheus' text format; 0.0.4 and 1.0.0 differ only in which names are allowed.
    Text,
    /// OpenMetrics text format 1.0.0.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

impl Syntax {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Short name; the label value of the manager's metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::OpenMetrics => "openmetrics",
            Self::Protobuf => "protobuf",
        }
    }
}

impl Format {
    /// Text that every Prometheus reads.
    pub const TEXT: Self = Self::new(Syntax::Text, Escaping::Underscores);
    /// OpenMetrics, names escaped with underscores.
    pub const OPENMETRICS: Self = Self::new(Syntax::OpenMetrics, Escaping::Underscores);
    /// Protobuf, names escaped with underscores.
    pub const PROTOBUF: Self = Self::new(Syntax::Protobuf, Escaping::Underscores);

    /// A format without `_created` samples.
    #[must_use]
    pub const fn new(syntax: Syntax, escaping: Escaping) -> Self {
        Self { syntax, escaping, created: false }
    }

    /// The same with `_created` samples, where there can be any.
    #[must_use]
    pub fn with_created(self, created: bool) -> Self {
        Self { created: created && self.syntax == Syntax::OpenMetrics, ..self }
    }
}

/// A format that was asked for, and how the answer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// What to render.
    pub format: Format,
    media_type: &'static str,
    states_escaping: bool,
}

const TEXT_0: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_1: &str = "text/plain; version=1.0.0; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

const VERSION: Name<'static> = Name::new_unchecked("version");
const ESCAPING: Name<'static> = Name::new_unchecked("escaping");
const PROTO: Name<'static> = Name::new_unchecked("proto");
const ENCODING: Name<'static> = Name::new_unchecked("encoding");
const Q: Name<'static> = Name::new_unchecked("q");

impl Negotiated {
    /// What everybody reads.
    const TEXT: Self = Self { format: Format::TEXT, media_type: TEXT_0, states_escaping: false };

    /// The format that an `Accept` header likes best (RFC 9110, section 12.5.1); the first of equals. Text, if it is
    /// absent, cannot be parsed or names nothing there is: a scrape that reads something beats a 406.
    #[must_use]
    pub fn from_accept(accept: Option<&str>) -> Self {
        let mut best: Option<(f32, Self)> = None;
        for range in MediaTypeList::new(accept.unwrap_or_default()).filter_map(Result::ok) {
            let q = range.get_param(Q).map_or(1.0, |q| q.as_str().parse().unwrap_or(0.0));
            if q > best.map_or(0.0, |(q, _)| q)
                && let Some(negotiated) = Self::from_range(&range)
            {
                best = Some((q, negotiated));
            }
        }
        best.map_or(Self::TEXT, |(_, negotiated)| negotiated)
    }

    /// What there is of a media range.
    fn from_range(range: &MediaType<'_>) -> Option<Self> {
        let parameter = |name| range.get_param(name).map(|value| value.unquoted_str().into_owned());
        let version = parameter(VERSION);
        let is = |known: &str| version.as_deref().is_none_or(|version| version == known);
        let [kind, subtype] = [range.ty, range.subty].map(|n| n.as_str().to_ascii_lowercase());
        let (syntax, media_type) = match (&*kind, &*subtype) {
            ("application", "openmetrics-text") if is("1.0.0") => {
                (Syntax::OpenMetrics, OPENMETRICS)
            }
            ("text", "plain") if is("0.0.4") => (Syntax::Text, TEXT_0),
            ("text", "plain") if is("1.0.0") => (Syntax::Text, TEXT_1),
            ("application", "vnd.google.protobuf")
                if parameter(PROTO).as_deref() == Some("io.prometheus.client.MetricFamily")
                    && parameter(ENCODING).as_deref() == Some("delimited") =>
            {
                (Syntax::Protobuf, PROTOBUF)
            }
            ("text" | "*", "*") => (Syntax::Text, TEXT_0),
            _ => return None,
        };
        let asked = parameter(ESCAPING);
        let asked =
            Escaping::ALL.into_iter().find(|known| asked.as_deref() == Some(known.as_str()));
        let escaping = match asked {
            // It came before names in quotes.
            Some(Escaping::AllowUtf8) if media_type == TEXT_0 => Escaping::Underscores,
            asked => asked.unwrap_or(Escaping::Underscores),
        };
        let format = Format::new(syntax, escaping);
        Some(Self { format, media_type, states_escaping: asked.is_some() })
    }

    /// Value of `Content-Type`: with the escaping, if one was asked for.
    #[must_use]
    pub fn content_type(self) -> String {
        let mut content_type = self.media_type.to_owned();
        if self.states_escaping {
            content_type.push_str("; escaping=");
            content_type.push_str(self.format.escaping.as_str());
        }
        content_type
    }
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
        for coding in accept_encoding.unwrap_or_default().to_ascii_lowercase().split(',') {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(1.0, |q| q.parse().unwrap_or(0.0_f32)).max(0.0);
            match name {
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

#[cfg(test)]
mod tests;
