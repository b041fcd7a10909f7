//! One instance of a shard: one metrics registry in one process run, and what it counted.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    change::{About, InstanceRecord},
    parts::Parts,
    rearrange::Move,
    store::SeriesId,
};
use crate::clock::UnixTime;

/// What makes an instance the same over reconnects. A key, not an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InstanceKey {
    /// The id of a gRPC client's `Hello`.
    Id([u8; 16]),
    /// What an HTTP sender calls itself (`X-Instance-Id`).
    Named(Box<str>),
    /// An HTTP sender's `process_start_time_seconds`, by its bits.
    ProcessStart(u64),
    /// An HTTP sender without identity.
    Anonymous,
    /// A grouping key of Pushgateway's API, without the shard's id.
    Group(Box<str>),
}

impl InstanceKey {
    /// Whether an instance that ended is not the one that comes next with this key: nobody has to be told that it ended.
    pub(super) const fn is_reused(&self) -> bool {
        matches!(self, Self::Anonymous | Self::Group(_))
    }

    /// Whether it owns its gauges whoever else reports for the shard: their labels say whose they are.
    pub(super) const fn is_group(&self) -> bool {
        matches!(self, Self::Group(_))
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Named(name) => f.write_str(name),
            Self::ProcessStart(bits) => write!(f, "process_start_time={}", f64::from_bits(*bits)),
            Self::Anonymous => f.write_str("none"),
            Self::Group(key) => f.write_str(key),
        }
    }
}

/// How a report came; also the label value of `shard_reports_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    pub(super) about: About<'static>,
    /// When its last frame or post was applied; its first Hello before that.
    pub(super) last_report: UnixTime,
    /// The same, or the manager's start if it lived when the manager ended: what its silence is measured from.
    pub(super) seen: UnixTime,
    /// A frame or post of it was applied; a Hello alone makes no owner of gauges.
    pub(super) has_reported: bool,
    /// Followers know that it reports.
    pub(super) announced: bool,
    /// Reports of it applied since the manager started: two looks at it with the same number saw the same.
    pub(super) reports: u64,
    /// The stream that may write it; 0 if none is open. A newer stream takes over.
    pub(super) stream: u64,
    /// Cancelled when a newer stream takes over from that one.
    pub(super) taken_over: CancellationToken,
    /// Last sequence applied; 0 before the first.
    pub(super) last_sequence: u64,
    /// It said goodbye: counts stay, gauges go, and it is folded once it is the oldest.
    pub(super) closed: bool,
    /// Its gauges are exposed.
    pub(super) owns: bool,
    /// What it counted, by slot; slots past the end are 0.
    values: Vec<f64>,
    /// Which series it has now, by series; series past the end it has not.
    has: Vec<bool>,
    /// Where values fell under the same HTTP identity: what they had reached before, and what was reported since. By slot,
    /// as `values`, which are the two added; empty until needed.
    carried: Vec<f64>,
    raw: Vec<f64>,
    /// What it says of parts of merged series.
    pub(super) parts: Parts,
    /// Series ids that its stream defined.
    pub(super) ids: usize,
}

impl Instance {
    pub(super) fn new(ordinal: u64, key: InstanceKey, transport: Transport, now: UnixTime) -> Self {
        Self {
            ordinal,
            key,
            transport,
            about: About::default(),
            last_report: now,
            seen: now,
            has_reported: false,
            announced: false,
            reports: 0,
            stream: 0,
            taken_over: CancellationToken::new(),
            last_sequence: 0,
            closed: false,
            owns: false,
            values: Vec::new(),
            has: Vec::new(),
            carried: Vec::new(),
            raw: Vec::new(),
            parts: Parts::default(),
            ids: 0,
        }
    }

    /// Whether it reported within `stale_after`, or three of its own intervals, and may again.
    pub(super) fn is_alive(&self, now: UnixTime, stale_after: Duration) -> bool {
        !self.closed && self.has_reported && !self.is_silent(now, stale_after)
    }

    /// Whether nothing was heard of it for `stale_after`, or three of its own intervals.
    pub(super) fn is_silent(&self, now: UnixTime, stale_after: Duration) -> bool {
        now.since(self.seen) > self.patience(stale_after)
    }

    /// Whether it is silent, or lives only because the manager was started anew since it reported.
    pub(super) fn is_unheard(&self, now: UnixTime, stale_after: Duration) -> bool {
        self.is_silent(now, stale_after) || now.since(self.last_report) > self.patience(stale_after)
    }

    /// Until when it is alive if it does not report again; nothing, if it is not.
    pub(super) fn alive_until(&self, now: UnixTime, stale_after: Duration) -> Option<UnixTime> {
        let is_alive = self.is_alive(now, stale_after);
        is_alive.then(|| self.seen + self.patience(stale_after))
    }

    fn patience(&self, stale_after: Duration) -> Duration {
        stale_after.max(self.about.interval.unwrap_or_default() * 3)
    }

    /// A report of it was applied.
    pub(super) fn reported_at(&mut self, now: UnixTime) {
        self.last_report = now;
        self.seen = now;
        self.has_reported = true;
        self.reports += 1;
    }

    /// Gives `stream` the right to write it. The stream that had it learns so by its token; the new one's is returned.
    pub(super) fn hand_over(&mut self, stream: u64) -> CancellationToken {
        self.stream = stream;
        self.taken_over.cancel();
        self.taken_over = CancellationToken::new();
        self.taken_over.clone()
    }

    /// Its stream has to begin anew, or a body that is compared with the one before to be read as a whole.
    pub(super) fn end_stream(&mut self) {
        self.stream = 0;
        self.taken_over.cancel();
        self.reports += 1;
    }

    /// Brings its values to their new places in columns of `slots` values and `series` series.
    pub(super) fn rearrange(&mut self, moves: &[Move], slots: usize, series: usize) {
        let carries = !self.carried.is_empty();
        let mut has = vec![false; series];
        let mut values = vec![0.0; slots];
        let of_carried = if carries { slots } else { 0 };
        let (mut carried, mut raw) = (vec![0.0; of_carried], vec![0.0; of_carried]);
        for m in moves {
            if !self.ever_had(m.from, m.from_slot, m.width) {
                continue;
            }
            if let Some(has) = has.get_mut(m.to.index()) {
                *has |= m.merges || self.has(m.from);
            }
            for (from, to) in (m.from_slot..m.from_slot + m.width).zip(m.to_slot..) {
                let put = |column: &mut Vec<f64>, value: f64| {
                    if let Some(place) = column.get_mut(to) {
                        *place = if m.merges { *place + value } else { value };
                    }
                };
                put(&mut values, self.value(from));
                put(&mut carried, self.carried.get(from).copied().unwrap_or(0.0));
                put(&mut raw, self.reported(from));
            }
            if let Some(part) = m.part {
                let slots = m.from_slot..m.from_slot + m.width;
                let reported: Vec<_> = slots.map(|slot| self.reported(slot)).collect();
                self.parts.count(part, &reported, |_| true, &mut Vec::new());
            }
        }
        (self.has, self.values, self.carried, self.raw) = (has, values, carried, raw);
    }

    /// What it counted in these slots so far is left out: it counts from zero there, whatever its sender goes on from.
    pub(super) fn begin_anew(&mut self, slot: usize, width: usize) {
        let slots = self.values.len();
        if self.carried.len() < slots {
            self.raw.extend_from_slice(self.values.get(self.raw.len()..).unwrap_or_default());
            self.carried.resize(slots, 0.0);
        }
        for at in slot..slot + width {
            let reported = self.reported(at);
            if let (Some(value), Some(carried)) =
                (self.values.get_mut(at), self.carried.get_mut(at))
            {
                *value = 0.0;
                *carried = -reported;
            }
        }
    }

    /// What it reported last for the values of `width` slots from `slot`, if it ever had them.
    pub(super) fn reported_values(&self, slot: usize, width: usize) -> Option<&[f64]> {
        self.raw.get(slot..slot + width).or_else(|| self.values(slot, width))
    }

    /// What it counted in `slot`.
    pub(super) fn value(&self, slot: usize) -> f64 {
        self.values.get(slot).copied().unwrap_or(0.0)
    }

    /// What it reported last for `slot`: without what was carried over a fall.
    pub(super) fn reported(&self, slot: usize) -> f64 {
        self.raw.get(slot).copied().unwrap_or_else(|| self.value(slot))
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
        match self.values.get_mut(slot..slot + reported.len()) {
            Some(values) if self.carried.is_empty() => values.copy_from_slice(reported),
            _ => self.set(slot, reported.iter().copied()),
        }
        self.hold(series);
    }

    /// Takes back what it reported in `width` slots: it reports the same counts elsewhere now.
    pub(super) fn take_back(&mut self, slot: usize, width: usize) {
        self.set(slot, std::iter::repeat_n(0.0, width));
    }

    /// The sender started `width` values anew: what they had reached is kept and added from now on.
    pub(super) fn carry(&mut self, slot: usize, width: usize) {
        let end = slot + width;
        if self.carried.len() < end {
            self.raw.extend_from_slice(self.values.get(self.raw.len()..end).unwrap_or_default());
            self.raw.resize(end, 0.0);
            self.carried.resize(end, 0.0);
        }
        if let (Some(carried), Some(values)) =
            (self.carried.get_mut(slot..end), self.values.get(slot..end))
        {
            carried.copy_from_slice(values);
        }
        if let Some(raw) = self.raw.get_mut(slot..end) {
            raw.fill(0.0);
        }
    }

    fn set(&mut self, slot: usize, reported: impl Iterator<Item = f64>) {
        for (slot, reported) in (slot..).zip(reported) {
            if let Some(value) = self.values.get_mut(slot) {
                // Not plus 0: -0 would not stay what it is.
                *value = self.carried.get(slot).map_or(reported, |carried| reported + carried);
            }
            if let Some(raw) = self.raw.get_mut(slot) {
                *raw = reported;
            }
        }
    }

    /// Adds to what it reported in one slot, because a part of a merged series did. The caller made room.
    pub(super) fn add(&mut self, slot: usize, more: f64) {
        let reported = self.reported(slot) + more;
        self.set(slot, std::iter::once(reported));
    }

    /// It reports a series, or a part of it.
    pub(super) fn hold(&mut self, series: SeriesId) {
        if let Some(has) = self.has.get_mut(series.index()) {
            *has = true;
        }
    }

    /// Whether it ever counted anything in a series: then it has its counts there for good.
    pub(super) fn ever_had(&self, series: SeriesId, slot: usize, width: usize) -> bool {
        let counted = |values: &[f64]| values.iter().any(|value| *value != 0.0);
        self.has(series) || self.values(slot, width).is_some_and(counted)
    }

    /// The series left the sender's registry.
    pub(super) fn remove(&mut self, series: SeriesId) {
        if let Some(has) = self.has.get_mut(series.index()) {
            *has = false;
        }
    }

    /// All of it, for a checkpoint.
    pub(super) fn record(&self) -> InstanceRecord<'_> {
        InstanceRecord {
            ordinal: self.ordinal,
            key: self.key.clone(),
            transport: self.transport,
            about: self.about.clone(),
            last_report: self.last_report,
            seen: self.seen,
            has_reported: self.has_reported,
            announced: self.announced,
            last_sequence: self.last_sequence,
            closed: self.closed,
            values: (&self.values[..]).into(),
            has: (&self.has[..]).into(),
            carried: (&self.carried[..]).into(),
            raw: (&self.raw[..]).into(),
            parts: self.parts.record(),
        }
    }

    /// The instance that [`Instance::record`] told of, without a stream.
    pub(super) fn restore(record: InstanceRecord<'_>) -> Self {
        Self {
            about: record.about.into_owned(),
            seen: record.seen,
            has_reported: record.has_reported,
            announced: record.announced,
            last_sequence: record.last_sequence,
            closed: record.closed,
            values: record.values.into_owned(),
            has: record.has.into_owned(),
            carried: record.carried.into_owned(),
            raw: record.raw.into_owned(),
            parts: Parts::restore(record.parts),
            ..Self::new(record.ordinal, record.key, record.transport, record.last_report)
        }
    }
}
