//! One family after the other, whatever the format.

use super::{Format, OwnFamily, Syntax, protobuf, text::TextEncoder};
use crate::{model::MetricType, registry::SeriesView};

/// Writes families and series in one format.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoder {
    Text(TextEncoder),
    Protobuf(protobuf::Encoder),
}

/// A family on a page.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) kind: MetricType,
    /// Its name as its samples begin with it: escaped, and between quotes if there are any.
    pub(super) name: Box<str>,
    /// What is said of it once, for [`Encoder::open`].
    pub(super) text: Vec<u8>,
}

impl Encoder {
    pub(super) const fn new(format: Format) -> Self {
        match format.syntax {
            Syntax::Text | Syntax::OpenMetrics => Self::Text(TextEncoder::new(format)),
            Syntax::Protobuf => Self::Protobuf(protobuf::Encoder::new(format.escaping)),
        }
    }

    /// What its series need to know of a family, and what is said of it once.
    pub(super) fn head(self, name: &str, kind: MetricType, help: &str, unit: &str) -> Head {
        match self {
            Self::Text(text) => text.head(name, kind, help, unit),
            Self::Protobuf(protobuf) => protobuf.head(name, kind, help, unit),
        }
    }

    /// What stands before the series of a family, which have `length` bytes.
    pub(super) fn open(self, head: &Head, length: usize) -> Vec<u8> {
        match self {
            Self::Text(_) => head.text.clone(),
            Self::Protobuf(_) => protobuf::open(&head.text, length),
        }
    }

    /// One series.
    pub(super) fn series(
        self,
        out: &mut Vec<u8>,
        head: &Head,
        shard_id: Option<u32>,
        series: &SeriesView<'_>,
    ) {
        match self {
            Self::Text(text) => text.series(out, head, shard_id, series),
            Self::Protobuf(protobuf) => protobuf.series(out, head.kind, shard_id, series),
        }
    }

    /// One series, of which `before` is what was written at an earlier time. False: it must be written anew.
    pub(super) fn revalue(
        self,
        out: &mut Vec<u8>,
        before: &[u8],
        head: &Head,
        series: &SeriesView<'_>,
    ) -> bool {
        match self {
            Self::Text(text) => text.revalue(out, before, head.kind, series),
            Self::Protobuf(_) => false,
        }
    }

    /// A whole family of the manager's own.
    pub(super) fn own_family(self, family: &OwnFamily) -> Vec<u8> {
        let head = self.head(&family.name, family.kind, &family.help, "");
        let mut body = Vec::new();
        for one in &family.series {
            self.series(&mut body, &head, one.shard_id, &one.view());
        }
        let mut out = self.open(&head, body.len());
        out.append(&mut body);
        out
    }

    /// What ends a page.
    pub(super) fn end(self) -> &'static [u8] {
        match self {
            Self::Text(text) => text.end(),
            Self::Protobuf(_) => b"",
        }
    }
}
