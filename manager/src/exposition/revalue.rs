//! A series' lines with other values: all that changes on most pages.

use super::text::put_value;
use crate::{model::MetricType, registry::SeriesView};

/// Writes `lines`, which are those of the series at an earlier time in some text format, with its values of now. False: that
/// cannot be done, and nothing is written.
pub(super) fn revalue(
    out: &mut Vec<u8>,
    lines: &[u8],
    kind: MetricType,
    series: &SeriesView<'_>,
) -> bool {
    let begin = out.len();
    let mut lines = Lines { out, rest: lines };
    let fits = match (kind, series.values) {
        (MetricType::Counter | MetricType::Gauge | MetricType::Untyped, [value]) => {
            lines.revalue(*value)
        }
        (MetricType::Histogram, [buckets @ .., count, sum]) => {
            buckets.iter().chain([count, sum, count]).all(|value| lines.revalue(*value))
        }
        // Which lines it has depends on who is alive.
        _ => false,
    };
    let fits = fits && lines.rest.is_empty();
    if !fits {
        out.truncate(begin);
    }
    fits
}

struct Lines<'a> {
    out: &'a mut Vec<u8>,
    rest: &'a [u8],
}

impl Lines<'_> {
    /// Writes the next line with another value, which is what follows its last blank.
    fn revalue(&mut self, value: f64) -> bool {
        let Some((line, rest)) =
            memchr::memchr(b'\n', self.rest).and_then(|end| self.rest.split_at_checked(end + 1))
        else {
            return false;
        };
        let Some(before) = memchr::memrchr(b' ', line).and_then(|blank| line.get(..=blank)) else {
            return false;
        };
        self.out.extend_from_slice(before);
        put_value(self.out, value);
        self.out.push(b'\n');
        self.rest = rest;
        true
    }
}
