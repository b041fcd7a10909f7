//! How instances end: they are closed, and become part of their shard's base (design section 4, folding).

use std::time::Duration;

use super::{
    Departure, EventKind, Transport,
    change::{Change, Recorder, Step},
    instance::{Instance, InstanceKey},
    shard::{MAX_INSTANCES, Shard},
    view::total,
};
use crate::clock::UnixTime;

/// An instance silent for this long is taken for dead and folded.
const FOLD_AFTER: Duration = Duration::from_secs(3600);
/// More silent instances than this are folded at once, so that a crash loop stays bounded.
const MAX_WAITING: usize = 4;
/// Folded instances remembered, so that one that returns is not counted twice.
const MAX_TOMBSTONES: usize = 4_096;

/// An instance that was folded: its key and the last sequence applied.
pub(super) type Tombstone = (InstanceKey, u64);

/// Decides and records that instances end; [`Shard::end`] and [`Shard::fold_at`] do it.
impl Shard {
    /// Whether no instance can join, because as many as there may be are alive.
    pub(super) fn is_full(
        &mut self,
        now: UnixTime,
        stale_after: Duration,
        recorder: &Recorder,
    ) -> bool {
        self.fold(now, stale_after, recorder);
        self.instances.len() >= MAX_INSTANCES
    }

    /// Instance `at` ended for good.
    pub(super) fn close(
        &mut self,
        at: usize,
        why: Departure,
        now: UnixTime,
        stale_after: Duration,
        recorder: &Recorder,
    ) {
        if let Some(ordinal) = self.instances.get(at).map(|i| i.ordinal) {
            let close = Change::Shard(self.id, Step::Close { ordinal, at: now });
            let events = self.departure(at, EventKind::Disconnected(why), now);
            self.record_events(recorder, &[close], events);
            self.end(at, now);
        }
        self.fold(now, stale_after, recorder);
        self.settle(now, stale_after);
    }

    /// Makes instances that ended part of the base.
    fn fold(&mut self, now: UnixTime, stale_after: Duration, recorder: &Recorder) {
        while let Some(at) = self.foldable(now, stale_after) {
            if let Some(ordinal) = self.instances.get(at).map(|i| i.ordinal) {
                let fold = Change::Shard(self.id, Step::Fold { ordinal });
                // One that did not come back since the manager was started may still be known to report.
                let idle = EventKind::Disconnected(Departure::Idle);
                let events = self.departure(at, idle, now);
                self.record_events(recorder, &[fold], events);
            }
            self.fold_at(at);
        }
    }

    /// The next instance to fold: only ever the oldest, so that the order of additions, and with it the last bit of a sum,
    /// never changes; unless there are too many.
    fn foldable(&self, now: UnixTime, stale_after: Duration) -> Option<usize> {
        let is_waiting = |i: &&Instance| i.is_silent(now, stale_after);
        let oldest = self.instances.first()?;
        let many = self.instances.iter().filter(is_waiting).count() > MAX_WAITING;
        let dead = now.since(oldest.seen) > FOLD_AFTER;
        let may_fold = match oldest.transport {
            Transport::Grpc => dead || (many && is_waiting(&oldest)),
            // It could not be told that it was folded, and an outage is no reason to refuse it.
            Transport::Http => dead && many && may_end(oldest),
        };
        if oldest.closed || may_fold {
            return Some(0);
        }
        if self.instances.len() < MAX_INSTANCES {
            return None;
        }
        // A gRPC client that lost its stream learns on its return that it was folded, and counts on from there.
        let may_return = |i: &Instance| i.transport == Transport::Grpc && i.stream == 0;
        // A manager that is started again and again must not keep all it ever knew alive.
        let is_unheard = |i: &Instance| i.is_unheard(now, stale_after);
        let first = |may_go: &dyn Fn(&Instance) -> bool| self.instances.iter().position(may_go);
        first(&|i| i.closed || may_return(i) || (is_unheard(i) && may_end(i)))
            // Groups last: a job may push once a day. Should it come back, it is told.
            .or_else(|| first(&|i| is_unheard(i) && i.key.is_group()))
    }

    /// Instance `at` takes no more reports: counts stay, gauges go.
    pub(super) fn end(&mut self, at: usize, now: UnixTime) {
        let Some(instance) = self.instances.get_mut(at) else {
            return;
        };
        instance.closed = true;
        instance.stream = 0;
        if instance.key == InstanceKey::Anonymous {
            self.fell_at = Some(now);
        }
    }

    /// Makes instance `at` part of the base.
    pub(super) fn fold_at(&mut self, at: usize) {
        self.make_room();
        self.base.resize(self.store.slots(), 0.0);
        let slots = if at > 0 { 0..self.base.len() } else { 0..0 };
        let before: Vec<_> = slots.map(|slot| total(&self.base, &self.instances, slot)).collect();
        let ended = self.instances.remove(at);
        let owned = ended.owns;
        for (slot, base) in self.base.iter_mut().enumerate() {
            // Gauge slots of the base are never read.
            *base += ended.value(slot);
        }
        if !before.is_empty() {
            self.lift_base(&before);
        }
        if owned {
            self.refresh_owned();
        }
        self.remember(ended);
    }

    /// Remembers an instance that is no more, so that it is told on its return.
    pub(super) fn remember(&mut self, ended: Instance) {
        // What has no identity cannot return under it, nor does a group that was ended; and what never reported has nothing
        // that could count twice.
        let may_return = !ended.key.is_reused() || (ended.key.is_group() && !ended.closed);
        if may_return && (ended.has_reported || ended.closed) {
            self.tombstones.push_back((ended.key, ended.last_sequence));
        }
        if self.tombstones.len() > MAX_TOMBSTONES {
            self.tombstones.pop_front();
        }
    }

    /// Forgets that an instance is no more. Returns whether it was remembered.
    pub(super) fn forget_ended(&mut self, key: &InstanceKey) -> bool {
        let before = self.tombstones.len();
        self.tombstones.retain(|(ended, _)| ended != key);
        self.tombstones.len() < before
    }

    /// After additions changed their order: no total may be lower than before, not by its last bit (E2). Whole numbers
    /// never are.
    fn lift_base(&mut self, before: &[f64]) {
        for (slot, before) in before.iter().enumerate() {
            let mut lift = before - total(&self.base, &self.instances, slot);
            while lift > 0.0 && total(&self.base, &self.instances, slot) < *before {
                if let Some(base) = self.base.get_mut(slot) {
                    *base += lift;
                }
                lift *= 2.0;
            }
        }
        let all: Vec<_> = self.store.ids().collect();
        all.into_iter().for_each(|id| self.refresh(id));
    }
}

/// One that could not be told that it was folded would count everything again on its return.
const fn may_end(instance: &Instance) -> bool {
    !instance.key.is_reused()
}
