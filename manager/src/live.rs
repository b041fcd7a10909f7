//! How the fleet is at this second, for those who look at it: one row a shard. It is collected while somebody looks, once for
//! all of them.
//!
//! A follower gets what changed since it last asked, so one that reads slowly misses steps on the way and never the newest.

mod row;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{clock::Clock, registry::Registry};
pub(crate) use row::COLUMNS;

/// How often it is collected.
const EVERY: Duration = Duration::from_secs(1);

/// The fleet as it was last collected.
#[derive(Debug)]
pub(crate) struct Live {
    registry: Arc<Registry>,
    clock: Clock,
    collecting: Mutex<Collecting>,
}

#[derive(Debug)]
struct Collecting {
    goes_on: bool,
    fleet: watch::Sender<Arc<Fleet>>,
}

/// Rows of all shards.
#[derive(Debug, Clone, Default)]
struct Fleet {
    /// How often it was collected.
    revision: u64,
    /// Unix seconds.
    time: f64,
    rows: BTreeMap<u32, Row>,
}

#[derive(Debug, Clone)]
struct Row {
    /// A JSON array; of a shard that is no longer listed, its id alone.
    text: Arc<str>,
    /// The revision that brought it.
    since: u64,
}

impl Live {
    pub(crate) fn new(registry: Arc<Registry>, clock: Clock) -> Arc<Self> {
        let (fleet, _) = watch::channel(Arc::default());
        let collecting = Mutex::new(Collecting { goes_on: false, fleet });
        Arc::new(Self { registry, clock, collecting })
    }

    /// Someone who looks from now on.
    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        let mut collecting = self.collecting.lock();
        let mut fleet = collecting.fleet.subscribe();
        if std::mem::replace(&mut collecting.goes_on, true) {
            fleet.mark_changed();
        } else {
            tokio::spawn(collect(Arc::downgrade(self)));
        }
        Follower { fleet, seen: 0 }
    }

    /// Collects the fleet anew. False: nobody looks any more.
    fn collect(&self) -> bool {
        let before = {
            let mut collecting = self.collecting.lock();
            collecting.goes_on = collecting.fleet.receiver_count() > 0;
            if !collecting.goes_on {
                return false;
            }
            Arc::clone(&collecting.fleet.borrow())
        };
        let fleet = Arc::new(before.next(&self.registry, self.clock));
        self.collecting.lock().fleet.send_replace(fleet);
        true
    }
}

async fn collect(live: Weak<Live>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(live) = live.upgrade() else { return };
        // Of ten thousand shards it takes some ten milliseconds.
        if !matches!(spawn_blocking(move || live.collect()).await, Ok(true)) {
            return;
        }
    }
}

impl Fleet {
    /// The one that follows it.
    fn next(&self, registry: &Registry, clock: Clock) -> Self {
        let now = clock.now();
        let revision = self.revision + 1;
        let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
        row::each(registry, now, |id, text| {
            let row = match self.rows.get(&id) {
                Some(before) if *before.text == *text => before.clone(),
                _ => Row { text: text.into(), since: revision },
            };
            rows.insert(id, row);
        });
        for (id, before) in &self.rows {
            rows.entry(*id).or_insert_with(|| {
                let text: Arc<str> = row::gone(*id).into();
                let since = if before.text == text { before.since } else { revision };
                Row { text, since }
            });
        }
        Self { revision, time: now.as_secs_f64(), rows }
    }

    /// `{"time": 1.5, "rows": [...]}` with the rows that came after a revision.
    fn since(&self, revision: u64) -> String {
        let mut text = format!(r#"{{"time":{},"rows":["#, self.time);
        let new = self.rows.values().filter(|row| row.since > revision);
        for (n, row) in new.enumerate() {
            if n > 0 {
                text.push(',');
            }
            text.push_str(&row.text);
        }
        text.push_str("]}");
        text
    }
}

/// Someone who looks.
#[derive(Debug)]
pub(crate) struct Follower {
    fleet: watch::Receiver<Arc<Fleet>>,
    seen: u64,
}

impl Follower {
    /// Waits until it was collected anew, and gives what is new to this follower: all of it, the first time. Nothing, if the
    /// manager ends.
    pub(crate) async fn next(&mut self) -> Option<String> {
        self.fleet.changed().await.ok()?;
        let fleet = Arc::clone(&self.fleet.borrow_and_update());
        let text = fleet.since(self.seen);
        self.seen = fleet.revision;
        Some(text)
    }
}

#[cfg(test)]
mod tests;
