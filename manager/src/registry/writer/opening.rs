//! How a stream begins: its Hello, and the families it will report.

use std::sync::Arc;

use hashbrown::HashSet;
use tokio_util::sync::CancellationToken;

use super::{Accepted, Attached, Target, Writer};
use crate::{
    clock::UnixTime,
    registry::{
        AttachError, DefineError, FamilyDefinition, Hello, MAX_SHARD_COUNT, Reason, Registry,
        Rejected, SeriesDefinition, Transport,
        change::{About, Change},
        instance::InstanceKey,
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
        let stream = shard.next_stream();
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
            taken_over,
            ids: Vec::new(),
            families: HashSet::new(),
            taken: Vec::new(),
            named: Vec::new(),
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
        let room = || self.check_shard(&shard, head.name);
        let family = match self.families.resolve(head, &writer.families, &self.recorder, room) {
            Ok(family) => family,
            Err(rejected) => {
                let widths = series.iter().map(|s| head.kind.width(s.bounds.len()));
                writer.reject(rejected, widths);
                return Ok(());
            }
        };
        writer.families.insert(family.id);
        let (first_new, created) = (shard.store.len(), shard.started_at(writer.ordinal, now));
        for SeriesDefinition { labels, bounds, .. } in series {
            let width = head.kind.width(bounds.len());
            // Whatever its bounds, a label set stands once on a page.
            let first = shard.store.first_of(&family, &labels).map(|(first, _)| first);
            if first.is_some_and(|first| writer.has_taken(first)) {
                let message = format!(
                    "a series with the labels {labels:?} is already defined on this stream"
                );
                let (family, reason) = (head.name.into(), Reason::DuplicateSeries);
                writer.reject(Rejected { family, reason, message, series: 0 }, [width]);
                continue;
            }
            match self.place(&mut shard, &family, &labels, bounds, created) {
                Ok(id) => {
                    writer.take(first.unwrap_or(id));
                    writer.push(Target::Series(id), width);
                }
                Err(rejected) => writer.reject(rejected, [width]),
            }
        }
        shard.record_series(first_new, &self.recorder);
        Ok(())
    }
}
