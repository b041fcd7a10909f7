//! The books of one instance: turns gathered families into frames, and knows what of them the manager has.
//!
//! No I/O, no clock, no tasks. The session asks for a frame, delivers it, and says what became of it.

mod packing;
mod reading;
mod series;

use packing::{DefinitionPacker, SamplePacker, stated};
use prometheus::proto::MetricFamily;
use reading::{Labels, LeftOut, Reading};
use series::{Presence, Series};
use shardmeter_proto::rules::INSTANCE_ID_LEN;
use shardmeter_proto::v1::report_request::Message;
use shardmeter_proto::v1::{
    Definitions, Delta, FamilyDefinition, Goodbye, Label, Limits, MetricType, SeriesDefinition,
    Snapshot,
};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use tracing::warn;

/// Longest message when the manager states no limit: what gRPC servers take by default.
const DEFAULT_MESSAGE_BYTES: u32 = 4 << 20;
/// Series ids on a stream when the manager states no limit.
const DEFAULT_SERIES_IDS: u32 = 1 << 20;

/// Random bytes that name an instance.
pub(crate) type InstanceId = [u8; INSTANCE_ID_LEN];

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    instance_id: InstanceId,
    /// Of the last frame made.
    sequence: u64,
    /// Of the last frame that the manager acknowledged.
    acknowledged: u64,
    /// Whether the last frame awaits its acknowledgement.
    in_flight: bool,
    /// How many gathers were taken in.
    gathers: u64,
    families: BTreeMap<String, Family>,
    stream: Stream,
}

/// What is bound to one stream.
#[derive(Debug)]
struct Stream {
    message_bytes: usize,
    series_ids: u32,
    next_id: u32,
    /// Whether the next frame is a snapshot: at first, and after a `Resync`.
    snapshot_due: bool,
}

#[derive(Debug)]
struct Family {
    kind: MetricType,
    help: String,
    series: BTreeMap<Labels, Series>,
    /// What was already said about series that stay out.
    left_out: Vec<LeftOut>,
    /// Whether it was already said that the manager rejects the family.
    rejected: bool,
}

/// A snapshot or delta with the definitions it needs, in the order to send.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) sequence: u64,
    pub(crate) messages: Vec<Message>,
}

/// The stream has no ids left for new series, but a new stream would.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IdsExhausted;

impl Ledger {
    pub(crate) fn new(instance_id: InstanceId) -> Self {
        Self {
            instance_id,
            sequence: 0,
            acknowledged: 0,
            in_flight: false,
            gathers: 0,
            families: BTreeMap::new(),
            stream: Stream::new(Limits::default()),
        }
    }

    pub(crate) fn instance_id(&self) -> &InstanceId {
        &self.instance_id
    }

    /// Sequence of the last frame that the manager acknowledged; 0 before the first.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Takes in all families of all registries. Called often enough, also while the manager is away, that a counter
    /// seldom resets twice between two calls.
    pub(crate) fn gather(&mut self, families: &[MetricFamily]) {
        self.gathers += 1;
        for family in families {
            self.gather_family(family);
        }
        let gathers = self.gathers;
        self.retain(|kind, series| {
            if series.gather != gathers && series.presence == Presence::Present {
                series.leave(kind);
            }
            !series.left_unnoticed(kind)
        });
    }

    fn gather_family(&mut self, gathered: &MetricFamily) {
        let kind = reading::kind(gathered);
        let family = self.families.entry(gathered.name().to_owned()).or_insert_with(|| {
            Family::new(kind.unwrap_or(MetricType::Unspecified), gathered.help())
        });
        let name = gathered.name();
        let kind = match kind {
            Ok(kind) if kind == family.kind => kind,
            Ok(kind) if family.series.is_empty() => {
                family.kind = kind;
                kind
            }
            Ok(_) => return family.leave_out(name, LeftOut::Type),
            Err(reason) => return family.leave_out(name, reason),
        };
        for metric in gathered.get_metric() {
            let taken =
                reading::read(kind, metric).and_then(|reading| family.take(reading, self.gathers));
            if let Err(reason) = taken {
                family.leave_out(name, reason);
            }
        }
    }

    /// A stream was opened and the manager welcomed this instance: what it last applied, and what it takes.
    pub(crate) fn open(&mut self, last_sequence: u64, limits: Option<Limits>) {
        self.settle(last_sequence);
        self.sequence = self.sequence.max(last_sequence);
        self.stream = Stream::new(limits.unwrap_or_default());
        self.retain(|kind, series| series.reopen(kind, last_sequence));
    }

    /// The manager closed this instance at sequence `closed_at`: a new one begins, which counts from there.
    pub(crate) fn restart(&mut self, instance_id: InstanceId, closed_at: u64) {
        if closed_at < self.acknowledged {
            warn!(
                closed_at,
                acknowledged = self.acknowledged,
                "the manager kept less than it acknowledged; the rest is lost"
            );
        }
        self.settle(closed_at);
        self.retain(|kind, series| series.restart(kind));
        self.instance_id = instance_id;
        self.sequence = 0;
        self.acknowledged = 0;
    }

    /// The next frame, with the values of the last gather. One frame is in flight: the last one was acknowledged, or
    /// answered with `resync`, or its stream is gone.
    pub(crate) fn frame(&mut self) -> Result<Frame, IdsExhausted> {
        let definitions = self.define()?;
        let mut snapshot = self.stream.snapshot_due;
        let mut parts = self.pack(snapshot);
        if !snapshot && parts.len() > 1 {
            // A delta has no parts; a snapshot says the same and has.
            snapshot = true;
            parts = self.pack(true);
        }
        self.sequence = self.sequence.saturating_add(1);
        self.in_flight = true;
        let sequence = self.sequence;
        let count = parts.len();
        let frames = parts.into_iter().enumerate().map(|(index, part)| {
            let (samples, removed) = (stated(part.samples), stated(part.removed));
            if snapshot {
                Message::Snapshot(Snapshot {
                    sequence,
                    part: index as u32,
                    last: index + 1 == count,
                    samples,
                    removed,
                    exemplars: Vec::new(),
                })
            } else {
                Message::Delta(Delta { sequence, samples, removed, exemplars: Vec::new() })
            }
        });
        let messages = definitions.into_iter().map(Message::Definitions).chain(frames).collect();
        Ok(Frame { sequence, messages })
    }

    /// The frame in flight was applied.
    pub(crate) fn acknowledge(&mut self) {
        if std::mem::take(&mut self.in_flight) {
            let sequence = self.sequence;
            self.acknowledged = sequence;
            self.series_mut().for_each(|series| series.acknowledge(sequence));
            self.stream.snapshot_due = false;
        }
    }

    /// The manager asks for a snapshot: the frame in flight, if any, was not applied.
    pub(crate) fn resync(&mut self) {
        self.forget_flight();
        self.stream.snapshot_due = true;
    }

    pub(crate) fn goodbye(&self) -> Goodbye {
        Goodbye { sequence: self.sequence }
    }

    /// Whether this is the first rejection of a family that this ledger reports.
    pub(crate) fn note_rejected(&mut self, family: &str) -> bool {
        self.families
            .get_mut(family)
            .is_some_and(|family| !std::mem::replace(&mut family.rejected, true))
    }

    /// Learns what became of the frame that was in flight when its stream ended.
    fn settle(&mut self, last_sequence: u64) {
        if self.in_flight && self.sequence <= last_sequence {
            self.acknowledge();
        } else {
            self.forget_flight();
        }
        if last_sequence == 0 {
            // Nothing, or nothing any more: the manager has no memory of this instance.
            self.series_mut().for_each(Series::forget_acknowledged);
        }
    }

    fn forget_flight(&mut self) {
        self.in_flight = false;
        self.series_mut().for_each(Series::forget_flight);
    }

    /// Gives ids to the series that the next frame names for the first time on this stream.
    fn define(&mut self) -> Result<Vec<Definitions>, IdsExhausted> {
        let stream = &mut self.stream;
        let mut packer = DefinitionPacker::new(stream.message_bytes);
        let mut out_of_ids = false;
        for (name, family) in &mut self.families {
            let header = family.header(name);
            let mut left_out = None;
            let undefined = |series: &Series| {
                series.id.is_none() && !matches!(series.presence, Presence::Gone { .. })
            };
            for (labels, series) in family.series.iter_mut().filter(|(_, series)| undefined(series))
            {
                let definition = definition(stream.next_id, labels, &series.bounds);
                if !packing::fits(&header, &definition, series.columns(), stream.message_bytes) {
                    left_out = Some(LeftOut::TooLong);
                } else if stream.next_id >= stream.series_ids {
                    out_of_ids = true;
                    left_out = Some(LeftOut::OutOfIds);
                } else {
                    series.id = Some(stream.next_id);
                    stream.next_id += 1;
                    packer.push(&header, definition);
                }
            }
            if let Some(reason) = left_out {
                family.leave_out(name, reason);
            }
        }
        if out_of_ids && !self.stream.snapshot_due && self.has_idle_ids() {
            return Err(IdsExhausted);
        }
        Ok(packer.finish())
    }

    /// Whether ids of this stream belong to series that are gone.
    fn has_idle_ids(&self) -> bool {
        let mut series = self.families.values().flat_map(|family| family.series.values());
        series.any(|series| series.id.is_some() && matches!(series.presence, Presence::Gone { .. }))
    }

    /// Samples of all series, or of those that are due, noted as departing.
    fn pack(&mut self, all: bool) -> Vec<packing::Part> {
        let mut packer = SamplePacker::new(self.stream.message_bytes);
        for series in self.series_mut() {
            let named = match series.presence {
                Presence::Gone { .. } => false,
                Presence::Present | Presence::Left => all || series.is_due(),
            };
            if let (true, Some(id)) = (named, series.id) {
                let values = series.values();
                packer.push(id, series.presence == Presence::Left, &values);
                series.depart(values);
            }
        }
        packer.finish()
    }

    fn series_mut(&mut self) -> impl Iterator<Item = &mut Series> {
        self.families.values_mut().flat_map(|family| family.series.values_mut())
    }

    /// Keeps the series, and the families, that still matter.
    fn retain(&mut self, keep: impl Fn(MetricType, &mut Series) -> bool) {
        self.families.retain(|_, family| {
            family.series.retain(|_, series| keep(family.kind, series));
            // Without series a family is kept for what was said about it already.
            !family.series.is_empty() || !family.left_out.is_empty()
        });
    }
}

impl Stream {
    fn new(limits: Limits) -> Self {
        let stated = |limit: u32, default: u32| if limit == 0 { default } else { limit };
        Self {
            message_bytes: stated(limits.max_message_bytes, DEFAULT_MESSAGE_BYTES) as usize,
            series_ids: stated(limits.max_series_ids, DEFAULT_SERIES_IDS),
            next_id: 0,
            snapshot_due: true,
        }
    }
}

impl Family {
    fn new(kind: MetricType, help: &str) -> Self {
        Self {
            kind,
            help: help.to_owned(),
            series: BTreeMap::new(),
            left_out: Vec::new(),
            rejected: false,
        }
    }

    fn take(&mut self, mut reading: Reading, gather: u64) -> Result<(), LeftOut> {
        match self.series.entry(std::mem::take(&mut reading.labels)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Series::new(reading, gather));
            }
            Entry::Occupied(occupied) if occupied.get().gather == gather => {
                return Err(LeftOut::Duplicate);
            }
            Entry::Occupied(mut occupied) => occupied.get_mut().update(self.kind, reading, gather),
        }
        Ok(())
    }

    /// Says once that some of the family is not reported.
    fn leave_out(&mut self, name: &str, reason: LeftOut) {
        if !self.left_out.contains(&reason) {
            self.left_out.push(reason);
            warn!(family = name, "not all of this family is reported: {reason}");
        }
    }

    fn header(&self, name: &str) -> FamilyDefinition {
        FamilyDefinition {
            name: name.to_owned(),
            r#type: self.kind.into(),
            help: self.help.clone(),
            ..FamilyDefinition::default()
        }
    }
}

fn definition(id: u32, labels: &Labels, bounds: &[f64]) -> SeriesDefinition {
    let label =
        |(name, value): &(String, String)| Label { name: name.clone(), value: value.clone() };
    SeriesDefinition { id, labels: labels.iter().map(label).collect(), bounds: bounds.to_vec() }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
