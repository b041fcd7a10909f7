//! How one stream writes one instance: sequences, ids, snapshots and deltas (design section 3).

mod checks;
mod ids;
mod opening;

use std::{sync::Arc, time::Duration};

use hashbrown::HashSet;
use parking_lot::MutexGuard;
use tokio_util::sync::CancellationToken;

use super::{
    Applied, DefineError, Departure, EventKind, Family, FamilyDefinition, Frame, FrameError,
    FrameKind, MAX_SAID, NotApplied, Outcome, Reason, Rejected, ReportedExemplar, UnixTime,
    change::{Change, Recorder, ReportStep, Step},
    limits::overflowed,
    parts::{AcceptedParts, PartId},
    report::gave_way,
    shard::Shard,
    shared::SharedShard,
    store::SeriesId,
};
use crate::model::Samples;
use ids::{Defined, Target};

/// Families and reasons that a stream remembers to have said. Names may be long, and a stream may define a million families.
const MAX_REMEMBERED: usize = 10 * MAX_SAID;

/// The answer to a [`Hello`](super::Hello).
#[derive(Debug)]
pub struct Attached {
    /// Writes the instance; the writer of an older stream of it no longer can.
    pub writer: Writer,
    /// Last sequence applied for it; 0 if it is new.
    pub last_sequence: u64,
    /// Set when the instance was folded at this sequence. It takes no frames any more.
    pub closed_at: Option<u64>,
}

/// The right of one stream to write one instance, until a newer stream of that instance takes it. Dropped when the
/// stream ends.
#[derive(Debug)]
pub struct Writer {
    shard: Arc<SharedShard>,
    recorder: Arc<Recorder>,
    stale_after: Duration,
    ordinal: u64,
    stream: u64,
    /// The shard's, when the stream began.
    epoch: u32,
    taken_over: CancellationToken,
    /// What the stream's ids mean.
    ids: Vec<Defined>,
    /// Families the stream defined, by id.
    families: HashSet<usize>,
    /// Series the stream's ids have taken, by index; those past the end are not.
    taken: Vec<bool>,
    /// Of ids that stand for parts of merged series, which.
    parts: Vec<(SeriesId, PartId)>,
    /// The same, to find one again.
    taken_parts: HashSet<PartId>,
    /// Which ids the frame in hand named, a bit each, so that a series cannot stand twice in one frame.
    named: Vec<u64>,
    /// Ids of series that may tell how the shard's sessions with Discord's gateway go on.
    sessions: Vec<u32>,
    has_snapshot: bool,
    /// Kept for its memory.
    accepted: Accepted,
    unsaid: Vec<Rejected>,
    /// Families and reasons an [`Applied`] named already, or would have if there were fewer.
    said: HashSet<(Box<str>, Reason)>,
}

/// What is taken of a frame.
#[derive(Debug, Default)]
struct Accepted {
    samples: usize,
    series: Vec<u32>,
    values: Vec<f64>,
    left: Vec<u32>,
    parts: AcceptedParts,
    rejected: [u64; Reason::COUNTED.len()],
}

impl Accepted {
    fn clear(&mut self) {
        self.samples = 0;
        self.series.clear();
        self.values.clear();
        self.left.clear();
        self.parts.clear();
        self.rejected = Default::default();
    }

    fn reject(&mut self, reason: Reason) {
        if let Some(count) = self.rejected.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

impl Writer {
    /// How many series ids the stream has defined.
    #[must_use]
    pub fn ids(&self) -> usize {
        self.ids.len()
    }

    /// How many families and reasons it said, or would have.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.said.len()
    }

    /// Whether families can be defined next, one after the other; defines nothing.
    ///
    /// # Errors
    /// What [`Registry::define`](super::Registry::define) would say of the first that cannot.
    pub fn check_definitions(&self, families: &[FamilyDefinition<'_>]) -> Result<(), DefineError> {
        let mut next = self.ids.len() as u32;
        for FamilyDefinition { head, series } in families {
            for definition in series {
                if definition.id != next {
                    return Err(DefineError::Id {
                        family: head.name.into(),
                        expected: next,
                        got: definition.id,
                    });
                }
                next += 1;
                let bounds = definition.bounds.len();
                if bounds > 0 && head.kind.width(bounds) == head.kind.width(0) {
                    return Err(DefineError::UnexpectedBounds {
                        family: head.name.into(),
                        kind: head.kind,
                    });
                }
            }
        }
        Ok(())
    }

    /// Cancelled once a newer stream of the instance has taken over.
    #[must_use]
    pub fn superseded(&self) -> CancellationToken {
        self.taken_over.clone()
    }

    /// Why the stream may no longer write the instance, once [`Writer::superseded`] is cancelled.
    #[must_use]
    pub fn why_superseded(&self) -> FrameError {
        let shard = self.shard.lock();
        self.claim(&shard).err().unwrap_or(FrameError::Superseded)
    }

    /// Applies a frame, or says why it changes nothing.
    ///
    /// # Errors
    /// If it breaks a rule of the wire.
    pub fn apply(&mut self, frame: Frame<'_>, now: UnixTime) -> Result<Outcome, FrameError> {
        let shared = Arc::clone(&self.shard);
        let mut shard = shared.lock();
        let at = self.claim(&shard)?;
        if frame.sequence == 0 {
            return Err(FrameError::SequenceZero);
        }
        let last = shard.instances.get(at).map_or(0, |i| i.last_sequence);
        if frame.sequence <= last {
            return Ok(Outcome::Duplicate);
        }
        if frame.kind == FrameKind::Delta {
            if !self.has_snapshot {
                return Ok(Outcome::NotApplied(NotApplied::NoSnapshotYet));
            }
            if frame.sequence != last + 1 {
                return Ok(Outcome::NotApplied(NotApplied::Gap {
                    expected: last + 1,
                    got: frame.sequence,
                }));
            }
        }
        self.named.fill(0);
        for samples in [frame.samples, frame.removed] {
            if let Some(undefined) = self.check(&shard, at, samples)? {
                return Ok(Outcome::NotApplied(NotApplied::UndefinedId(undefined)));
            }
        }
        self.check_exemplars(&shard, frame.exemplars)?;
        let (samples, durable) = self.commit(&mut shard, at, &frame, now);
        self.exemplify(&mut shard, frame.exemplars, now);
        let rejected = std::mem::take(&mut self.unsaid);
        Ok(Outcome::Applied(Applied { samples, rejected, durable }))
    }

    /// Ends the instance: counts stay, gauges go. Returns whether `sequence` was the last one applied; if not, nothing
    /// ended and a snapshot is needed first.
    ///
    /// # Errors
    /// If this stream may not write the instance.
    pub fn goodbye(&mut self, sequence: u64, now: UnixTime) -> Result<bool, FrameError> {
        let mut shard = self.shard.lock();
        let at = self.claim(&shard)?;
        let last = shard.instances.get(at).map_or(0, |i| i.last_sequence);
        if sequence == last {
            shard.close(at, Departure::Goodbye, now, self.stale_after, &self.recorder);
        }
        Ok(sequence == last)
    }

    /// The stream ends, and not by a goodbye nor by what the manager does: whoever follows the shard is told.
    pub fn depart(&mut self, why: Departure, now: UnixTime) {
        let mut shard = self.shard.lock();
        if let Ok(at) = self.claim(&shard) {
            let events = shard.departure(at, EventKind::Disconnected(why), now);
            shard.record_events(&self.recorder, &[], events);
        }
    }

    /// The instance's place, if this stream may still write it.
    fn claim(&self, shard: &MutexGuard<'_, Shard>) -> Result<usize, FrameError> {
        if shard.epoch != self.epoch {
            return Err(FrameError::Rearranged);
        }
        let at = shard.position_of(self.ordinal).ok_or(FrameError::Closed)?;
        let instance = shard.instances.get(at).ok_or(FrameError::Closed)?;
        if instance.closed {
            return Err(FrameError::Closed);
        }
        if instance.stream != self.stream {
            return Err(FrameError::Superseded);
        }
        Ok(at)
    }

    /// Takes the exemplars of a frame that was applied.
    fn exemplify(
        &mut self,
        shard: &mut Shard,
        exemplars: &[(u32, ReportedExemplar)],
        now: UnixTime,
    ) {
        for (id, reported) in exemplars {
            // Of a part nothing is shown by itself.
            if let Some(Target::Series(id)) = self.ids.get(*id as usize).map(|d| d.target)
                && let Err(rejected) = shard.exemplify(id, reported, now)
            {
                self.note(rejected, 1);
            }
        }
    }

    /// Records and applies a frame that passed all checks. Returns how many samples were applied, and whether they are
    /// durable.
    fn commit(
        &mut self,
        shard: &mut Shard,
        at: usize,
        frame: &Frame<'_>,
        now: UnixTime,
    ) -> (usize, bool) {
        let mut accepted = std::mem::take(&mut self.accepted);
        accepted.clear();
        self.accept(shard, at, frame.kind, frame.samples, &mut accepted);
        if frame.kind == FrameKind::Snapshot {
            let present = self.series_of(frame.samples.ids).collect();
            accepted.left = shard.left_out(at, &present, None);
            let present = self.gauge_parts_of(shard, frame.samples.ids).collect();
            accepted.parts.left = shard.parts_left_out(at, &present, None);
        }
        self.accept(shard, at, FrameKind::Delta, frame.removed, &mut accepted);
        accepted.left.extend(self.removed(frame.removed.ids).map(|id| id.index() as u32));
        accepted.parts.left.extend(self.gauge_parts_of(shard, frame.removed.ids));
        let (parts, last_parts) = accepted.parts.in_chunks(shard);
        for chunk in parts {
            // By themselves, so that nobody waits long for the journal. Values are absolute: whatever comes of the rest of
            // the frame, they will be said again.
            let step = Step::Parts { ordinal: self.ordinal, parts: chunk };
            self.recorder.record(&[Change::Shard(shard.id, step.clone())]);
            shard.follow(at, step);
        }
        let sessions = match self.names_sessions() {
            true => shard.sessions_among(&accepted.series, &accepted.values),
            false => Vec::new(),
        };
        // By itself, so that nobody waits for a long report to be recorded. Should that not come to it, the instance will
        // be back, or be said to be idle.
        let arrival = shard.arrival(at, false, now, self.stale_after);
        if !arrival.is_empty() {
            shard.record_events(&self.recorder, &[], arrival);
        }
        let events = shard.session_events(at, &sessions, false, now);
        let report = ReportStep {
            ordinal: self.ordinal,
            sequence: frame.sequence,
            at: now,
            series: (&accepted.series[..]).into(),
            values: (&accepted.values[..]).into(),
            left: (&accepted.left[..]).into(),
            parts: last_parts,
            rejected: accepted.rejected,
        };
        let report = Change::Shard(shard.id, Step::Report(report));
        let durable = shard.record_events(&self.recorder, std::slice::from_ref(&report), events);
        if let Change::Shard(_, Step::Report(report)) = &report {
            shard.take(at, report);
        }
        shard.settle(now, self.stale_after);
        let taken = accepted.samples;
        if frame.kind == FrameKind::Snapshot {
            self.has_snapshot = true; // which was long; what comes now is what changed
        } else {
            self.accepted = accepted;
        }
        (taken, durable)
    }

    /// Sorts out which samples are taken, and of which series. Of a snapshot, which says everything, only what is new.
    fn accept(
        &mut self,
        shard: &Shard,
        at: usize,
        kind: FrameKind,
        samples: Samples<'_>,
        accepted: &mut Accepted,
    ) {
        let mut rest = samples.values;
        for wire_id in samples.ids {
            let Some(defined) = self.ids.get(*wire_id as usize) else {
                continue;
            };
            let Some((values, after)) = rest.split_at_checked(defined.width()) else {
                break;
            };
            rest = after;
            match defined.target {
                Target::Series(id) if shard.store.claim(id) => {
                    accepted.samples += 1;
                    if kind == FrameKind::Delta || !shard.has_reported(at, id, values) {
                        accepted.series.push(id.index() as u32);
                        accepted.values.extend_from_slice(values);
                    }
                }
                Target::Series(id) => {
                    accepted.reject(Reason::TypeConflict);
                    self.note_gave_way(shard, id);
                }
                Target::Part(place) => {
                    let Some(part) = self.parts.get(place as usize).copied() else { continue };
                    if !shard.store.claim(part.0) {
                        accepted.reject(Reason::TypeConflict);
                        self.note_gave_way(shard, part.0);
                        continue;
                    }
                    if !accepted.parts.has_room(shard, at, part) {
                        accepted.reject(Reason::Limit);
                        continue;
                    }
                    accepted.samples += 1;
                    let known = (kind == FrameKind::Snapshot).then_some(at);
                    accepted.parts.take(shard, known, part, values);
                }
                Target::Rejected(reason) => accepted.reject(reason),
            }
        }
    }

    /// Defines ids whose samples are passed over, and remembers to say so once.
    fn reject(&mut self, rejected: Rejected, widths: impl IntoIterator<Item = usize>) {
        let reason = rejected.reason;
        let before = self.ids.len();
        widths.into_iter().for_each(|width| self.push(Target::Rejected(reason), width));
        let series = (self.ids.len() - before) as u32;
        self.note(rejected, series);
    }

    /// Says of a series that another family took its family's name.
    fn note_gave_way(&mut self, shard: &Shard, id: SeriesId) {
        if let Some(family) = shard.store.get(id).and_then(|s| shard.store.family_of(s)) {
            self.note(gave_way(family), 1);
        }
    }

    /// Says of a series that it is counted together with others, for want of room.
    fn note_overflow(&mut self, family: &Family) {
        match self.unsaid.last_mut() {
            Some(last) if last.reason == Reason::Overflow && last.family == family.name => {
                last.series += 1;
            }
            _ => self.note(overflowed(family), 1),
        }
    }

    fn note(&mut self, rejected: Rejected, series: u32) {
        if rejected.reason == Reason::Rule {
            return; // the operator wants it so, and the sender can change nothing
        }
        if let Some(last) = self.unsaid.last_mut().filter(|last| last.is_same(&rejected)) {
            last.series += series;
        } else if self.said.len() < MAX_REMEMBERED
            && self.said.insert((rejected.family.clone(), rejected.reason))
            && self.unsaid.len() < MAX_SAID
        {
            self.unsaid.push(Rejected { series, ..rejected });
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut shard = self.shard.lock();
        let at = shard.position_of(self.ordinal);
        if let Some(instance) = at.and_then(|at| shard.instances.get_mut(at))
            && instance.stream == self.stream
        {
            instance.stream = 0;
        }
    }
}
