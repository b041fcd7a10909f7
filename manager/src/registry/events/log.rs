//! The events that are kept, and their revisions.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{EventKind, MAX_EVENTS, ShardEvent};
use crate::registry::{Misfit, ShardState};

/// What comes after a revision.
#[derive(Debug)]
pub(super) enum After {
    /// These events, or nothing yet.
    Events(Vec<Arc<ShardEvent>>),
    /// It cannot be gone on from, but from here.
    Known {
        known: Known,
        /// Of the event before the oldest that is kept.
        kept_after: u64,
        /// Events between are lost.
        gap: bool,
    },
}

/// What followers know by one revision.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) epoch: Arc<str>,
    pub(super) revision: u64,
    /// Shards that reported.
    pub(super) shards: BTreeMap<u32, ShardState>,
}

/// All events that are kept, for a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventsRecord<'a> {
    /// Of what comes next.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// The last event's.
    pub revision: u64,
    /// In order.
    pub events: Vec<ShardEvent>,
}

/// See the module above. Its lock is held while an event is recorded, so that the journal has events in order.
#[derive(Debug)]
pub(in crate::registry) struct EventLog {
    kept: Mutex<Kept>,
    /// The last revision.
    recorded: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    known: Known,
    /// The journal may have the epoch: a revision of it that the journal has not could be given again after a restart.
    is_recorded: bool,
    /// The epoch is an earlier process's, which may have told more of it than the journal still has.
    is_restored: bool,
    /// The epoch before, and what was known when it ended. Forgotten with a restart.
    former: Option<(Arc<str>, Known)>,
    /// With rising revisions, without holes, the last one's being the known one.
    events: VecDeque<Arc<ShardEvent>>,
    counts: [u64; EventKind::NAMES.len()],
}

impl Default for EventLog {
    fn default() -> Self {
        let kept = Kept {
            known: Known { epoch: random(), revision: 0, shards: BTreeMap::new() },
            is_recorded: false,
            is_restored: false,
            former: None,
            events: VecDeque::new(),
            counts: Default::default(),
        };
        Self { kept: Mutex::new(kept), recorded: watch::Sender::new(0) }
    }
}

impl EventLog {
    /// Gives events their revisions, has them recorded, and keeps them. Returns what `record` does: whether they are
    /// durable.
    pub(super) fn append(
        &self,
        events: &mut [ShardEvent],
        record: impl FnOnce(&[ShardEvent]) -> bool,
    ) -> bool {
        let mut kept = self.kept.lock();
        for (event, revision) in events.iter_mut().zip(kept.known.revision + 1..) {
            event.revision = revision;
        }
        let durable = record(events);
        if durable {
            kept.is_recorded = true;
        } else if kept.is_recorded {
            // Whoever is at its end goes on from there, under the new one.
            let former = std::mem::replace(&mut kept.known.epoch, random());
            kept.former = Some((former, kept.known.clone()));
            (kept.is_recorded, kept.is_restored) = (false, false);
        }
        for event in events {
            if let Some(count) = kept.counts.get_mut(event.kind.index()) {
                *count += 1;
            }
            kept.push(event.clone());
        }
        self.recorded.send_replace(kept.known.revision);
        durable
    }

    /// Keeps an event again that was recorded.
    pub(in crate::registry) fn restore(&self, event: ShardEvent) -> Result<(), Misfit> {
        let mut kept = self.kept.lock();
        if event.revision <= kept.known.revision {
            return Err(Misfit("event"));
        }
        if event.revision > kept.known.revision + 1 {
            kept.events.clear(); // what is missing in between stays so
        }
        kept.push(event);
        Ok(())
    }

    /// Keeps all events again that were recorded in a checkpoint.
    pub(in crate::registry) fn restore_all(&self, record: EventsRecord<'_>) {
        let mut kept = self.kept.lock();
        kept.known.epoch = record.epoch.into();
        kept.known.revision = record.revision;
        (kept.is_recorded, kept.is_restored) = (true, true);
        kept.events = record.events.into_iter().map(Arc::new).collect();
    }

    /// What followers know of a shard is restored.
    pub(in crate::registry) fn know(&self, shard_id: u32, state: ShardState) {
        self.kept.lock().known.take(shard_id, state);
    }

    pub(super) fn begin_epoch(&self) {
        self.kept.lock().begin_epoch();
    }

    /// Ends the epoch of an earlier process if a follower knows a later event of it than the journal had: an unknown number
    /// of its revisions were, or would be, given to other events. It can happen once, so no follower can make it a habit.
    pub(super) fn end_if_outrun(
        &self,
        epoch: &str,
        revision: u64,
        record: impl FnOnce(EventsRecord<'_>) -> bool,
    ) {
        let mut kept = self.kept.lock();
        let last = kept.known.revision;
        if !kept.is_restored || revision <= last || *epoch != *kept.known.epoch {
            return;
        }
        tracing::error!(
            last,
            known = revision,
            "a follower knows later events than the journal has, which lost its end or is an older copy: all followers \
             are told of a gap"
        );
        kept.begin_epoch();
        kept.is_recorded = record(kept.record());
        self.recorded.send_replace(last);
    }

    /// Gives `record` all there is; whatever comes later is recorded later.
    pub(in crate::registry) fn checkpoint(&self, record: impl FnOnce(EventsRecord<'_>)) {
        let mut kept = self.kept.lock();
        kept.is_recorded = true;
        record(kept.record());
    }

    /// The same, unless the journal has the epoch already.
    pub(in crate::registry) fn record_epoch(&self, record: impl FnOnce(EventsRecord<'_>) -> bool) {
        let mut kept = self.kept.lock();
        if !kept.is_recorded {
            kept.is_recorded = record(kept.record());
        }
        self.recorded.send_replace(kept.known.revision);
    }

    pub(super) fn recorded(&self) -> watch::Receiver<u64> {
        self.recorded.subscribe()
    }

    pub(super) fn take_counts(&self) -> [u64; EventKind::NAMES.len()] {
        std::mem::take(&mut self.kept.lock().counts)
    }

    /// What comes after a revision of an epoch, `most` events of it; from no epoch, what is known now.
    pub(super) fn after(&self, epoch: &str, revision: u64, most: usize) -> After {
        let kept = self.kept.lock();
        let last = match &kept.former {
            _ if *epoch == *kept.known.epoch => Some(kept.known.revision),
            Some((former, end)) if *epoch == **former && revision == end.revision => {
                return After::Known { known: end.clone(), kept_after: end.revision, gap: false };
            }
            Some((former, end)) if *epoch == **former => Some(end.revision),
            _ => None,
        };
        let there = last.and_then(|last| last.checked_sub(revision));
        match there.and_then(|there| kept.events_after(revision, there.min(most as u64))) {
            Some(events) => After::Events(events),
            None => After::Known {
                known: kept.known.clone(),
                kept_after: kept.kept_after(),
                gap: !epoch.is_empty(),
            },
        }
    }
}

impl Kept {
    fn push(&mut self, event: ShardEvent) {
        self.known.take(event.shard_id, event.state);
        self.known.revision = event.revision;
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(event));
    }

    fn begin_epoch(&mut self) {
        self.known.epoch = random();
        self.former = None;
        (self.is_recorded, self.is_restored) = (false, false);
    }

    fn kept_after(&self) -> u64 {
        self.known.revision - self.events.len() as u64
    }

    /// So many events after a revision, if all of them are kept.
    fn events_after(&self, revision: u64, many: u64) -> Option<Vec<Arc<ShardEvent>>> {
        let passed = usize::try_from(revision.checked_sub(self.kept_after())?).ok()?;
        let many = usize::try_from(many).ok()?;
        Some(self.events.iter().skip(passed).take(many).map(Arc::clone).collect())
    }

    fn record(&self) -> EventsRecord<'_> {
        EventsRecord {
            epoch: (&*self.known.epoch).into(),
            revision: self.known.revision,
            events: self.events.iter().map(|event| ShardEvent::clone(event)).collect(),
        }
    }
}

impl Known {
    fn take(&mut self, shard_id: u32, state: ShardState) {
        match state {
            ShardState::NeverSeen => self.shards.remove(&shard_id),
            ShardState::Up | ShardState::Stale => self.shards.insert(shard_id, state),
        };
    }
}

/// A random text: the standard library's hashers have random keys.
fn random() -> Arc<str> {
    format!("{:016x}", RandomState::new().hash_one(())).into()
}
