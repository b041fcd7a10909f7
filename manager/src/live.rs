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

/// Rows that are told at once, some hundred kilobytes: who reads slowly holds no more than that.
const ROWS_AT_ONCE: usize = 1_000;

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
        Follower { fleet, seen: 0, rest: None }
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
        if matches!(spawn_blocking(move || live.collect()).await, Ok(false)) {
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

    /// `{"time": 1.5, "rows": [...], "more": false}` with the rows that came after a revision, from that of a shard on, and the
    /// shard whose row is the first of more.
    fn since(&self, revision: u64, from: u32) -> (String, Option<u32>) {
        let mut new = self.rows.range(from..).filter(|(_, row)| row.since > revision);
        let mut text = format!(r#"{{"time":{},"rows":["#, self.time);
        for (n, (_, row)) in new.by_ref().take(ROWS_AT_ONCE).enumerate() {
            if n > 0 {
                text.push(',');
            }
            text.push_str(&row.text);
        }
        let next = new.next().map(|(id, _)| *id);
        text.push_str(if next.is_some() { r#"],"more":true}"# } else { r#"],"more":false}"# });
        (text, next)
    }
}

/// Someone who looks.
#[derive(Debug)]
pub(crate) struct Follower {
    fleet: watch::Receiver<Arc<Fleet>>,
    /// The revision that it knows all of.
    seen: u64,
    /// The next one that it will, and the shard from which on it lacks rows of that.
    rest: Option<(u64, u32)>,
}

impl Follower {
    /// Gives what is new to this follower, which the first time is all, in as many texts as it takes; waits until the fleet was
    /// collected anew, if nothing is. Nothing, if the manager ends.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let (revision, from) = match self.rest.take() {
            Some(rest) => rest,
            None => {
                self.fleet.changed().await.ok()?;
                (self.fleet.borrow_and_update().revision, 0)
            }
        };
        // The newest, whichever it was when the first rows were told: who reads slowly keeps none alive.
        let (text, next) = self.fleet.borrow().since(self.seen, from);
        match next {
            Some(shard) => self.rest = Some((revision, shard)),
            None => self.seen = revision,
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests;
