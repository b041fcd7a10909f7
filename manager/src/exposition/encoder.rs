//! One family after the other, whatever the format.

use super::{Format, OwnFamily, protobuf, revalue, text::TextEncoder};
use crate::{model::MetricType, registry::SeriesView};

/// Writes families and series in one format.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoder {
    Text(TextEncoder),
    Protobuf,
}

impl Encoder {
    pub(super) const fn new(format: Format) -> Self {
        match format {
            Format::Text => Self::Text(TextEncoder::new(false)),
            Format::OpenMetrics => Self::Text(TextEncoder::new(true)),
            Format::Protobuf => Self::Protobuf,
        }
    }

    /// What is said of a family once, for [`Encoder::open`].
    pub(super) fn head(self, name: &str, kind: MetricType, help: &str, unit: &str) -> Vec<u8> {
        match self {
            Self::Text(text) => text.head(name, kind, help, unit),
            Self::Protobuf => protobuf::head(name, kind, help, unit),
        }
    }

    /// What stands before the series of a family, which have `length` bytes.
    pub(super) fn open(self, head: &[u8], length: usize) -> Vec<u8> {
        match self {
            Self::Text(_) => head.to_vec(),
            Self::Protobuf => protobuf::open(head, length),
        }
    }

    /// One series.
    pub(super) fn series(
        self,
        out: &mut Vec<u8>,
        name: &str,
        kind: MetricType,
        shard_id: Option<u32>,
        series: &SeriesView<'_>,
    ) {
        match self {
            Self::Text(text) => text.series(out, name, kind, shard_id, series),
            Self::Protobuf => protobuf::series(out, kind, shard_id, series),
        }
    }

    /// One series, of which `before` is what was written at an earlier time. False: it must be written anew.
    pub(super) fn revalue(
        self,
        out: &mut Vec<u8>,
        before: &[u8],
        kind: MetricType,
        series: &SeriesView<'_>,
    ) -> bool {
        match self {
            Self::Text(_) => revalue::revalue(out, before, kind, series),
            Self::Protobuf => false,
        }
    }

    /// A whole family of the manager's own.
    pub(super) fn own_family(self, family: &OwnFamily) -> Vec<u8> {
        let mut body = Vec::new();
        for one in &family.series {
            self.series(&mut body, &family.name, family.kind, one.shard_id, &one.view());
        }
        let head = self.head(&family.name, family.kind, &family.help, "");
        let mut out = self.open(&head, body.len());
        out.append(&mut body);
        out
    }

    /// What ends a page.
    pub(super) fn end(self) -> &'static [u8] {
        match self {
            Self::Text(text) => text.end(),
            Self::Protobuf => b"",
        }
    }
}
