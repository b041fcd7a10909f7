//! How a stream begins: its Hello, and the families it will report.

use std::sync::Arc;

use hashbrown::HashSet;
use tokio_util::sync::CancellationToken;

use super::{Accepted, Attached, Target, Writer};
use crate::{
    clock::UnixTime,
    model::LabelSet,
    registry::{
        AttachError, DefineError, EventKind, Family, FamilyDefinition, Hello, MAX_SHARD_COUNT,
        Reason, Registry, Rejected, SeriesDefinition, Successor, Transport,
        change::{About, Change},
        family::Asking,
        instance::InstanceKey,
        limits::{IDS_ALWAYS, Place, Sender},
        shard::Shard,
    },
};

impl Registry {
    /// Begins a stream of an instance, which is made if it is new.
    ///
    /// # Errors
    /// If the Hello makes no sense.
    pub fn attach(&self, hello: Hello<'_>, now: UnixTime) -> Result<Attached, AttachError> {
        let Hello { shard_id, shard_count, .. } = hello;
        if shard_id >= shard_count {
            return Err(AttachError::IdOutOfRange { shard_id, shard_count });
        }
        if shard_count > MAX_SHARD_COUNT {
            return Err(AttachError::TooManyShards(shard_count));
        }
        if !self.may_have(shard_id) {
            return Err(AttachError::FleetFull(self.settings.max_series));
        }
        let key = InstanceKey::Id(hello.instance_id);
        let stale_after = self.settings.stale_after;
        let shared = self.shard(shard_id);
        let mut shard = shared.lock();
        let closed_at = shard.closed_at(&key);
        let known = shard.position(&key);
        if known
            .and_then(|at| shard.instances.get(at))
            .is_some_and(|i| i.transport == Transport::Http)
        {
            return Err(AttachError::AlsoHttp);
        }
        if closed_at.is_none() && known.is_none() && shard.is_full(now, stale_after, &self.recorder)
        {
            return Err(AttachError::TooManyInstances(shard_id));
        }
        let (stream, epoch) = (shard.next_stream(), shard.epoch);
        let mut ordinal = 0;
        let mut taken_over = CancellationToken::new();
        let mut last_sequence = closed_at.unwrap_or(0);
        if closed_at.is_none() {
            if known.is_none() {
                self.note_fleet_size(shard_count, now);
            }
            let about = About {
                client: hello.client.into(),
                started_at: Some(hello.started_at),
                interval: None,
            };
            let at = shard.join(key, Transport::Grpc, now, &self.recorder);
            if let Some(step) = shard.description(at, about.clone()) {
                self.recorder.record(&[Change::Shard(shard_id, step)]);
                shard.describe(at, about);
            }
            if shard.instances.get(at).is_some_and(|instance| instance.stream != 0) {
                let superseded = EventKind::Superseded(Successor::Stream);
                let events = shard.departure(at, superseded, now);
                shard.record_events(&self.recorder, &[], events);
            }
            if let Some(instance) = shard.instances.get_mut(at) {
                taken_over = instance.hand_over(stream);
                ordinal = instance.ordinal;
                last_sequence = instance.last_sequence;
            }
        }
        drop(shard);
        let writer = Writer {
            shard: shared,
            recorder: Arc::clone(&self.recorder),
            stale_after,
            ordinal,
            stream,
            epoch,
            taken_over,
            ids: Vec::new(),
            parts: Vec::new(),
            taken_parts: HashSet::new(),
            families: HashSet::new(),
            taken: Vec::new(),
            named: Vec::new(),
            sessions: Vec::new(),
            has_snapshot: false,
            accepted: Accepted::default(),
            unsaid: Vec::new(),
            said: HashSet::new(),
        };
        Ok(Attached { writer, last_sequence, closed_at })
    }

    /// Introduces a family's series on a stream. What conflicts with other shards, or is over a limit, is rejected in
    /// part: its ids are defined, their samples passed over, and the next [`Applied`](super::super::Applied) says so.
    ///
    /// # Errors
    /// If the definition breaks a rule of the wire; none of its series is defined then.
    pub fn define(
        &self,
        writer: &mut Writer,
        definition: FamilyDefinition<'_>,
        now: UnixTime,
    ) -> Result<(), DefineError> {
        writer.check_definitions(std::slice::from_ref(&definition))?;
        let FamilyDefinition { head, series } = definition;
        if series.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&writer.shard);
        let mut shard = shared.lock();
        if shard.epoch != writer.epoch {
            return Err(DefineError::Rearranged);
        }
        if writer.ids.len() + series.len() > IDS_ALWAYS && self.is_full_of_ids() {
            return Err(DefineError::TooManyIds);
        }
        let sender = Sender {
            at: shard.position_of(writer.ordinal),
            started_at: shard.started_at(writer.ordinal, now),
        };
        let asking = Asking { head, own: &writer.families, shard_id: shard.id, now };
        let room = || self.check_family(&shard, head);
        let family = match self.families.resolve(&asking, &self.recorder, room) {
            Ok(family) => family,
            Err(rejected) => {
                let widths = series.iter().map(|s| head.kind.width(s.bounds.len()));
                writer.reject(rejected, widths);
                return Ok(());
            }
        };
        writer.families.insert(family.id);
        if self.make_way_for(writer, &mut shard, &family, &series, now) {
            return Err(DefineError::Rearranged);
        }
        let first_new = shard.store.len();
        for SeriesDefinition { labels, bounds, .. } in series {
            let width = head.kind.width(bounds.len());
            // Whatever its bounds, a label set stands once on a page.
            let first = shard.store.first_of(&family, &labels).map(|(first, _)| first);
            let first = first.filter(|_| !family.treatment.merges());
            if first.is_some_and(|first| writer.has_taken(first)) {
                writer.reject(twice(head.name, &labels), [width]);
                continue;
            }
            match self.place(&mut shard, sender, &family, &labels, &bounds) {
                Ok(Place::Series(id)) => {
                    writer.take(first.unwrap_or(id));
                    if family.counts_sessions {
                        writer.sessions.push(writer.ids.len() as u32);
                    }
                    writer.push(Target::Series(id), width);
                }
                Ok(Place::Part { merged, part, is_over }) => {
                    if !writer.push_part(merged, part, width) {
                        writer.reject(twice(head.name, &labels), [width]);
                    } else if is_over {
                        writer.note_overflow(&family);
                    }
                }
                Err(rejected) => writer.reject(rejected, [width]),
            }
        }
        if let Some(instance) = sender.at.and_then(|at| shard.instances.get_mut(at)) {
            instance.ids = writer.ids.len();
        }
        shard.record_series(first_new, &self.recorder);
        Ok(())
    }

    /// Makes room for the series of a definition, if that is possible and they need it.
    fn make_way_for(
        &self,
        writer: &Writer,
        shard: &mut Shard,
        family: &Arc<Family>,
        series: &[SeriesDefinition],
        now: UnixTime,
    ) -> bool {
        // Merged series are few, and one that overflowed admits no new ones.
        let at = shard.position_of(writer.ordinal);
        if family.treatment.merges() || shard.has_overflowed(at, family) {
            return false;
        }
        let labels = series.iter().map(|series| &series.labels).collect();
        let wanted = [(Some(Arc::clone(family)), labels)];
        self.make_way(shard, &wanted, |id| writer.has_taken(id), now)
    }
}

/// Why a series that a stream defines again is not taken.
fn twice(family: &str, labels: &LabelSet) -> Rejected {
    Rejected {
        family: family.into(),
        reason: Reason::DuplicateSeries,
        message: format!("a series with the labels {labels:?} is already defined on this stream"),
        series: 0,
    }
}
