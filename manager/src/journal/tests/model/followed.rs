//! Who follows shards over all of it: no event is missed or told twice, whatever is killed, and what they say goes with
//! what is exposed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{clients::first_counter, world::exposed};
use crate::{
    clock::UnixTime,
    registry::{EventKind, Followed, InstanceKey, Registry, ShardEvent, ShardState, Successor},
};

/// See the module. It goes on by what it remembers, as after a restart of its own, every time.
#[derive(Debug, Default)]
pub(super) struct Follower {
    epoch: Arc<str>,
    revision: u64,
    /// Where what follows began.
    since: u64,
    told: Vec<Arc<ShardEvent>>,
    /// By shard: sessions that were resumed, as events say, and as was exposed at the beginning.
    resumed: BTreeMap<u32, (u64, f64)>,
    states: BTreeMap<u32, ShardState>,
    /// Who was said to report, and whether that is sure.
    connected: HashMap<(u32, InstanceKey), bool>,
    may_miss_some: bool,
}

impl Follower {
    /// The disk may fail: what it never had is lost with the manager, and the follower is told so.
    pub(super) fn may_miss_some(&mut self) {
        self.may_miss_some = true;
    }

    /// Takes what is new.
    pub(super) fn follow(&mut self, registry: &Arc<Registry>, now: UnixTime) {
        self.look_back(registry);
        loop {
            match registry.follow(&self.epoch, self.revision).next(3) {
                Followed::Events(events) if events.is_empty() => break,
                Followed::Events(events) => events.iter().for_each(|event| self.take(event)),
                Followed::State { known, gap } => {
                    assert!(!gap || self.may_miss_some, "a gap from {} on", self.revision);
                    let goes_on = !gap && !self.epoch.is_empty();
                    (self.epoch, self.revision, self.since) =
                        (Arc::clone(&known.epoch), known.revision, known.revision);
                    self.told.clear();
                    if goes_on {
                        assert!(self.may_miss_some, "an epoch ended");
                        continue;
                    }
                    self.states = known.shards.into_iter().collect();
                    self.connected.clear();
                    self.begin(registry, now);
                }
            }
        }
        self.compare(registry, now);
    }

    /// Sessions are compared from now on.
    fn begin(&mut self, registry: &Registry, now: UnixTime) {
        let shown = exposed(registry, now);
        let count = |shard| shown.get(&first_counter(shard)).map_or(0.0, |(_, values)| values[0]);
        self.resumed = (0..2).map(|shard| (shard, (0, count(shard as usize)))).collect();
    }

    /// What was told before is told the same again.
    fn look_back(&self, registry: &Arc<Registry>) {
        if self.epoch.is_empty() {
            return;
        }
        if let Followed::Events(again) =
            registry.follow(&self.epoch, self.since).next(self.told.len())
        {
            assert_eq!(again, self.told, "told otherwise than before");
        } else {
            assert!(self.may_miss_some, "it is forgotten");
        }
    }

    fn take(&mut self, event: &Arc<ShardEvent>) {
        assert_eq!(event.revision, self.revision + 1, "{event:?}");
        self.revision = event.revision;
        self.told.push(Arc::clone(event));
        let before = self.states.insert(event.shard_id, event.state);
        let who = event.instance.clone().map(|(key, _)| (event.shard_id, key));
        match (event.kind, who) {
            (EventKind::Connected, Some(who)) => {
                assert_eq!(event.state, ShardState::Up);
                if !matches!(who.1, InstanceKey::Group(_)) {
                    let twice = self.connected.insert(who, true) == Some(true);
                    assert!(!twice, "connected twice: {event:?}");
                }
            }
            (EventKind::Disconnected(_) | EventKind::Superseded(Successor::Stream), Some(who)) => {
                let was = self.connected.insert(who, false);
                assert_ne!(was, Some(false), "left twice: {event:?}");
                assert_eq!(Some(event.state), before);
            }
            (EventKind::Stale, None) => {
                assert_eq!(before, Some(ShardState::Up));
                assert_ne!(event.state, ShardState::Up);
                let of_shard = |((shard, _), is): (&(u32, InstanceKey), &bool)| {
                    *is && *shard == event.shard_id
                };
                assert!(!self.connected.iter().any(of_shard), "someone reports: {event:?}");
            }
            (EventKind::Resumed(count), Some(_)) => {
                assert_eq!(event.state, ShardState::Up);
                self.resumed.entry(event.shard_id).or_default().0 += count;
            }
            (EventKind::Superseded(Successor::Instance), Some(who)) => {
                assert_ne!(self.connected.get(&who), Some(&false), "{event:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    /// What it was told goes with what everybody sees.
    fn compare(&self, registry: &Registry, now: UnixTime) {
        let shown = exposed(registry, now);
        for (shard, (told, before)) in &self.resumed {
            let counted = shown.get(&first_counter(*shard as usize));
            let counted = counted.map_or(0.0, |(_, values)| values[0]);
            assert_eq!(*told as f64 + before, counted, "sessions of shard {shard}");
        }
        for shard in registry.status(now) {
            let told = self.states.get(&shard.id).copied().unwrap_or_default();
            // That it is no longer up is noticed a second later.
            assert!(
                told == shard.state || told == ShardState::Up,
                "{told:?}, but it is {:?}",
                shard.state
            );
        }
    }
}
