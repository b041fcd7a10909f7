//! What happened to shards, for those who follow them: the last 10,000 events, each with a revision.
//!
//! An event is recorded together with the change that it comes of, as one record, and before anybody can see it: so it is
//! there as often as that change is, once. What an event is, [`notice`] decides, under the shard's lock; here they get their
//! revisions, in the order in which they are recorded.
//!
//! Revisions count up without holes under one *epoch*. Whoever knows the epoch and the revision of an event can go on
//! after it, unless it is too old, or was never recorded: an event that only memory has is of another epoch than those that
//! the journal may have, for a restart would give its revision to another. So is what comes after events that were lost with
//! the journal's end, once that shows: by damage, or by a follower that knows a later event.

mod log;
mod notice;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    InstanceKey, Registry, ShardState, Transport,
    change::{Change, Recorder},
};
use crate::clock::UnixTime;
pub(super) use log::EventLog;
pub use log::EventsRecord;
use log::{After, Known};
pub(super) use notice::counts_sessions;

/// Events that are kept.
pub const MAX_EVENTS: usize = 10_000;

/// Something that happened to a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEvent {
    /// The revision of the event before, and 1.
    pub revision: u64,
    /// When.
    pub at: UnixTime,
    /// To which shard.
    pub shard_id: u32,
    /// What.
    pub kind: EventKind,
    /// To which instance, and how it reports. `None`: to the shard as a whole.
    pub instance: Option<(InstanceKey, Transport)>,
    /// How followers know the shard, after it.
    pub state: ShardState,
}

/// What happened to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// An instance reports, and did not before.
    Connected,
    /// It no longer does.
    Disconnected(Departure),
    /// No instance reported within `stale-after`.
    Stale,
    /// Something newer took an instance's place.
    Superseded(Successor),
    /// So many sessions with Discord's gateway were resumed.
    Resumed(u64),
    /// So many of them were invalidated.
    Invalidated(u64),
    /// What the shard counted was forgotten.
    Forgotten,
}

impl EventKind {
    /// What kinds there are, as label values.
    pub const NAMES: [&str; 7] =
        ["connected", "disconnected", "stale", "superseded", "resumed", "invalidated", "forgotten"];

    /// Its place among [`EventKind::NAMES`].
    const fn index(self) -> usize {
        match self {
            Self::Connected => 0,
            Self::Disconnected(_) => 1,
            Self::Stale => 2,
            Self::Superseded(_) => 3,
            Self::Resumed(_) => 4,
            Self::Invalidated(_) => 5,
            Self::Forgotten => 6,
        }
    }
}

/// Why an instance no longer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Departure {
    /// It ended for good, and said so.
    Goodbye,
    /// Its stream broke, or ended without a goodbye.
    Broken,
    /// Nothing came from it in time.
    Idle,
    /// It broke a rule or a limit.
    Refused,
    /// What it posts began anew.
    Restarted,
}

/// What took an instance's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Successor {
    /// A newer instance of the shard owns the gauges.
    Instance,
    /// A newer stream writes the instance.
    Stream,
}

/// How followers know all shards at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownShards {
    /// That of the events that come next.
    pub epoch: Arc<str>,
    /// The last event's.
    pub revision: u64,
    /// Of the event before the oldest that is kept.
    pub kept_after: u64,
    /// Those that reported, and all others below the bot's size, in order of id.
    pub shards: Vec<(u32, ShardState)>,
    /// The bot's size; 0 if nobody said.
    pub shard_count: u32,
}

/// What a follower gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// What happened next, in order; nothing, if nothing did.
    Events(Vec<Arc<ShardEvent>>),
    /// It cannot go on from where it is, but from here.
    State {
        /// How all shards are.
        known: KnownShards,
        /// Events between are lost to it.
        gap: bool,
    },
}

/// Follows what happens to shards, from one revision on. It keeps nothing, so one that is slow costs nothing.
#[derive(Debug)]
pub struct Follower {
    registry: Arc<Registry>,
    recorded: watch::Receiver<u64>,
    epoch: Arc<str>,
    revision: u64,
}

impl Registry {
    /// Follows what happens to shards after the event with this revision; if that cannot be, the first that comes says
    /// so.
    #[must_use]
    pub fn follow(self: &Arc<Self>, epoch: &str, revision: u64) -> Follower {
        Follower {
            registry: Arc::clone(self),
            recorded: self.recorder.events.recorded(),
            epoch: epoch.into(),
            revision,
        }
    }

    /// Looks at who fell silent. To be called every second.
    pub fn notice_silence(&self, now: UnixTime) {
        for shared in self.all() {
            let mut shard = shared.peek();
            let events = shard.silence(now, self.settings.stale_after);
            shard.record_events(&self.recorder, &[], events);
        }
    }

    /// How many events of each kind there were since the last call, by [`EventKind::NAMES`].
    pub fn take_event_counts(&self) -> [u64; EventKind::NAMES.len()] {
        self.recorder.events.take_counts()
    }

    /// From now on events are of another epoch: some that were seen may be lost. To be called while restoring.
    pub fn distrust_events(&self) {
        self.recorder.events.begin_epoch();
    }

    /// The same with the shards that never reported.
    fn complete_known(&self, known: Known, kept_after: u64) -> KnownShards {
        let shard_count = self.shard_count();
        let Known { epoch, revision, mut shards } = known;
        // Ids above the count are of a bot that was larger once.
        shards
            .retain(|id, state| *state == ShardState::Up || *id < shard_count || shard_count == 0);
        for id in 0..shard_count {
            shards.entry(id).or_insert(ShardState::NeverSeen);
        }
        let shards = shards.into_iter().collect();
        KnownShards { epoch, revision, kept_after, shards, shard_count }
    }
}

impl Follower {
    /// What comes next, as far as it is there: `most` events, or none.
    pub fn next(&mut self, most: usize) -> Followed {
        self.recorded.mark_unchanged();
        let recorder = &*self.registry.recorder;
        let record = |all: EventsRecord<'_>| recorder.record(&[Change::Events(all)]);
        recorder.events.end_if_outrun(&self.epoch, self.revision, record);
        match recorder.events.after(&self.epoch, self.revision, most) {
            After::Events(events) => {
                self.revision = events.last().map_or(self.revision, |event| event.revision);
                Followed::Events(events)
            }
            After::Known { known, kept_after, gap } => {
                (self.epoch, self.revision) = (Arc::clone(&known.epoch), known.revision);
                Followed::State { known: self.registry.complete_known(known, kept_after), gap }
            }
        }
    }

    /// Waits until something happens that [`Follower::next`] has not told.
    pub async fn changed(&mut self) {
        // The registry is kept, and with it what sends.
        let _ = self.recorded.changed().await;
    }
}

impl Recorder {
    /// Records changes and what they are to followers, as one record, and lets followers see it. Returns whether it is
    /// durable.
    pub(super) fn record_with(&self, changes: &[Change<'_>], events: &mut [ShardEvent]) -> bool {
        if events.is_empty() {
            return self.record(changes);
        }
        self.events.append(events, |events| {
            let events = events.iter().cloned().map(Change::Event);
            let all: Vec<_> = changes.iter().cloned().chain(events).collect();
            self.record(&all)
        })
    }
}
