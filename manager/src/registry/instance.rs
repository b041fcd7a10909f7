//! One instance of a shard: one metrics registry in one process run, and what it counted.

use std::{fmt, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::store::SeriesId;
use crate::clock::UnixTime;

/// What makes an instance the same over reconnects. A key, not an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InstanceKey {
    /// The id of a gRPC client's `Hello`.
    Id([u8; 16]),
    /// What an HTTP sender calls itself (`X-Instance-Id`).
    Named(Arc<str>),
    /// An HTTP sender's `process_start_time_seconds`, by its bits.
    ProcessStart(u64),
    /// An HTTP sender without identity.
    Anonymous,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Named(name) => f.write_str(name),
            Self::ProcessStart(bits) => write!(f, "process_start_time={}", f64::from_bits(*bits)),
            Self::Anonymous => f.write_str("none"),
        }
    }
}

/// How a report came; also the label value of `shard_reports_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A `Report` stream.
    Grpc,
    /// A POST.
    Http,
}

impl Transport {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// An instance that is not folded into its shard's base yet.
#[derive(Debug)]
pub(super) struct Instance {
    /// Order of first Hello or post, unique within the shard: what sums are ordered by and ownership is decided by.
    pub(super) ordinal: u64,
    pub(super) key: InstanceKey,
    pub(super) transport: Transport,
    /// Name and version of the client library.
    pub(super) client: Box<str>,
    /// When it began to count, by its own clock.
    pub(super) started_at: Option<UnixTime>,
    /// When its last frame or post was applied; its first Hello before that.
    pub(super) last_report: UnixTime,
    /// A frame or post of it was applied; a Hello alone makes no owner of gauges.
    pub(super) has_reported: bool,
    /// The stream that may write it; 0 if none is open. A newer stream takes over.
    pub(super) stream: u64,
    /// Cancelled when a newer stream takes over from that one.
    pub(super) taken_over: CancellationToken,
    /// Last sequence applied; 0 before the first.
    pub(super) last_sequence: u64,
    /// It said goodbye: counts stay, gauges go, and it is folded once it is the oldest.
    pub(super) closed: bool,
    /// What it counted, by slot; slots past the end are 0.
    values: Vec<f64>,
    /// Which series it has now, by series; series past the end it has not.
    has: Vec<bool>,
    /// What values that fell under the same HTTP identity had reached before; by slot, as `values`. Empty until needed.
    carried: Vec<f64>,
}

impl Instance {
    pub(super) fn new(ordinal: u64, key: InstanceKey, transport: Transport, now: UnixTime) -> Self {
        Self {
            ordinal,
            key,
            transport,
            client: Box::default(),
            started_at: None,
            last_report: now,
            has_reported: false,
            stream: 0,
            taken_over: CancellationToken::new(),
            last_sequence: 0,
            closed: false,
            values: Vec::new(),
            has: Vec::new(),
            carried: Vec::new(),
        }
    }

    /// Whether it reported within `stale_after`, and may again.
    pub(super) fn is_alive(&self, now: UnixTime, stale_after: Duration) -> bool {
        !self.closed && self.has_reported && now.since(self.last_report) <= stale_after
    }

    /// Gives `stream` the right to write it. The stream that had it learns so by its token; the new one's is returned.
    pub(super) fn hand_over(&mut self, stream: u64) -> CancellationToken {
        self.stream = stream;
        self.taken_over.cancel();
        self.taken_over = CancellationToken::new();
        self.taken_over.clone()
    }

    /// What it counted in `slot`.
    pub(super) fn value(&self, slot: usize) -> f64 {
        self.values.get(slot).copied().unwrap_or(0.0)
    }

    /// What it reported last for `slot`: what it counted less what was carried over a fall.
    pub(super) fn reported(&self, slot: usize) -> f64 {
        self.value(slot) - self.carried.get(slot).copied().unwrap_or(0.0)
    }

    /// The values of `width` slots from `slot`, if it ever had them.
    pub(super) fn values(&self, slot: usize, width: usize) -> Option<&[f64]> {
        self.values.get(slot..slot + width)
    }

    pub(super) fn has(&self, series: SeriesId) -> bool {
        self.has.get(series.index()).copied().unwrap_or(false)
    }

    /// Makes room for `slots` values and `series` series, so that assignments are in bounds.
    pub(super) fn make_room(&mut self, slots: usize, series: usize) {
        if self.values.len() < slots {
            self.values.resize(slots, 0.0);
        }
        if self.has.len() < series {
            self.has.resize(series, false);
        }
    }

    /// Assigns reported values. The caller made room.
    pub(super) fn assign(&mut self, series: SeriesId, slot: usize, reported: &[f64]) {
        if let Some(values) = self.values.get_mut(slot..slot + reported.len()) {
            values.copy_from_slice(reported);
            let carried = self.carried.get(slot..).unwrap_or_default();
            values.iter_mut().zip(carried).for_each(|(value, carried)| *value += carried);
        }
        if let Some(has) = self.has.get_mut(series.index()) {
            *has = true;
        }
    }

    /// The sender started `width` values anew: what they had reached is kept and added from now on.
    pub(super) fn carry(&mut self, slot: usize, width: usize) {
        if self.carried.len() < slot + width {
            self.carried.resize(slot + width, 0.0);
        }
        if let (Some(carried), Some(values)) =
            (self.carried.get_mut(slot..slot + width), self.values.get(slot..slot + width))
        {
            carried.copy_from_slice(values);
        }
    }

    /// The series left the sender's registry.
    pub(super) fn remove(&mut self, series: SeriesId) {
        if let Some(has) = self.has.get_mut(series.index()) {
            *has = false;
        }
    }
}
