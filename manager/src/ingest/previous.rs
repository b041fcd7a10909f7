//! What every sender posted last, as it was received. The next body is compared with it byte by byte: as long as nothing
//! but values differs, only those are read, and go straight to the series that they went to before.

mod spots;

use std::{mem::size_of, sync::Arc, time::Duration};

use hashbrown::{Equivalent, HashMap};
use parking_lot::{Mutex, RwLock};
use prometheus::{IntCounter, IntGauge};

use super::{Identity, IngestError, Post, Read, ShardIds, Taken, Text, read};
use crate::{
    clock::UnixTime,
    metrics::PreviousBodyMetrics,
    registry::{InstanceKey, Placement, Registry, Repeat, Scope},
};
use spots::Spots;

/// Longest body that is kept, bytes: a shard at its limit of series has half of it.
const MAX_BODY_BYTES: usize = 2 << 20;

/// What all kept bodies may take together, bytes: 10,000 bodies of 250 series.
const MAX_BYTES: i64 = 256 << 20;

/// A body is forgotten when its sender was silent for so long.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// The previous bodies of all senders.
///
/// Locks: the map of senders, and one lock a sender, held while its body is compared and applied. It is taken before those of
/// shards, so a sender's posts are applied in the order in which they become its previous body.
#[derive(Debug)]
pub struct PreviousBodies {
    by_sender: RwLock<BySender>,
    max_bytes: i64,
    bytes: IntGauge,
    repeated: IntCounter,
}

type BySender = HashMap<Sender<Box<str>>, Arc<Mutex<Previous>>>;

/// Whose body it is, as far as is known before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sender<S> {
    shards: ShardIds,
    who: Who<S>,
}

/// An [`Identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who<S> {
    InBody,
    Named(S),
    /// The same text replaces more or less, as the scope says.
    Group(S, Scope),
}

impl<S> Who<S> {
    fn map<'a, T>(&'a self, name: impl FnOnce(&'a S) -> T) -> Who<T> {
        match self {
            Self::InBody => Who::InBody,
            Self::Named(named) => Who::Named(name(named)),
            Self::Group(key, scope) => Who::Group(name(key), *scope),
        }
    }
}

impl Equivalent<Sender<Box<str>>> for Sender<&str> {
    fn equivalent(&self, key: &Sender<Box<str>>) -> bool {
        self.shards == key.shards && self.who == key.who.map(AsRef::as_ref)
    }
}

/// A body, and what became of it.
#[derive(Debug)]
struct Previous {
    received: Vec<u8>,
    spots: Spots,
    sender: InstanceKey,
    placement: Placement,
    used: UnixTime,
    counted: Counted,
}

/// Bytes that the gauge counts for as long as this lives.
#[derive(Debug)]
struct Counted {
    bytes: i64,
    gauge: IntGauge,
}

impl Counted {
    fn set(&mut self, bytes: i64) {
        self.gauge.add(bytes - std::mem::replace(&mut self.bytes, bytes));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

impl PreviousBodies {
    /// None yet.
    #[must_use]
    pub fn new(metrics: PreviousBodyMetrics) -> Self {
        let PreviousBodyMetrics { bytes, repeated } = metrics;
        Self { by_sender: RwLock::default(), max_bytes: MAX_BYTES, bytes, repeated }
    }

    /// Takes a body, as [`super::ingest`] does, and keeps it.
    ///
    /// # Errors
    /// As [`super::ingest`] has.
    pub fn ingest(
        &self,
        registry: &Registry,
        post: &Post<'_>,
        text: Text<'_>,
        now: UnixTime,
    ) -> Result<Taken, IngestError> {
        if let Some(taken) = self.repeat(registry, post, text.received(), now) {
            return Ok(taken);
        }
        let read = read(registry, post, text, now)?;
        let taken = read.taken.clone();
        // A late body changed nothing: the previous one still is what the registry has.
        if !taken.late {
            self.keep(post, text, read, now);
        }
        Ok(taken)
    }

    /// Takes a body that differs from its sender's previous one in values alone. Nothing of it needs to be known before: all
    /// that is no value is as it was in a body that was read. `None`: it is another, or the previous one
    /// is in use, and nothing was done. Takes a microsecond for 40 samples or so, and waits for no reading of bodies.
    pub fn repeat(
        &self,
        registry: &Registry,
        post: &Post<'_>,
        received: &[u8],
        now: UnixTime,
    ) -> Option<Taken> {
        let previous = Arc::clone(self.by_sender.read().get(&Sender::of(post))?);
        let mut previous = previous.try_lock()?;
        let previous = &mut *previous;
        let difference = previous.spots.compare(&previous.received, received)?;
        let repeat = Repeat {
            sender: &previous.sender,
            shards: post.shards.lowest()..=post.shards.highest(),
            sequence: post.sequence,
            interval: post.interval,
            values: &difference.values,
        };
        let applied = registry.repeat(&mut previous.placement, &repeat, now)?;
        previous.spots.follow(&difference);
        previous.become_of(received, now);
        self.repeated.inc();
        Some(Taken {
            series: applied.samples,
            rejected: applied.rejected,
            identified: previous.sender != InstanceKey::Anonymous,
            late: false,
            durable: applied.durable,
        })
    }

    /// Keeps a body that was applied in place of its sender's previous one, if there is room.
    fn keep(&self, post: &Post<'_>, text: Text<'_>, read: Read<'_>, now: UnixTime) {
        let sender = Sender::of(post);
        let previous = Previous::of(text, read, &self.bytes, now);
        let Some(previous) = previous.filter(|_| self.bytes.get() <= self.max_bytes) else {
            let is_known = self.by_sender.read().contains_key(&sender);
            if is_known {
                self.by_sender.write().remove(&sender);
            }
            return;
        };
        let known = self.by_sender.read().get(&sender).map(Arc::clone);
        match known {
            Some(known) => *known.lock() = previous,
            None => {
                let previous = Arc::new(Mutex::new(previous));
                self.by_sender.write().insert(sender.into_owned(), previous);
            }
        }
    }

    /// Forgets bodies whose senders have been silent for long.
    pub fn forget_unused(&self, now: UnixTime) {
        let is_unused = |previous: &Mutex<Previous>| {
            // One that is in use now is used.
            previous.try_lock().is_some_and(|previous| now.since(previous.used) > KEPT_FOR)
        };
        // There may be many senders: they are looked at while others go on, and few are unused.
        let unused: Vec<_> = {
            let known = self.by_sender.read();
            let unused = known.iter().filter(|(_, previous)| is_unused(previous));
            unused.map(|(sender, _)| sender.clone()).collect()
        };
        for sender in unused {
            // Bodies take their time to go: that is not while others wait.
            let forgotten = self.by_sender.write().remove(&sender);
            drop(forgotten);
        }
    }
}

impl<'a> Sender<&'a str> {
    fn of(post: &Post<'a>) -> Self {
        let who = match post.identity {
            Identity::InBody => Who::InBody,
            Identity::Named(name) => Who::Named(name),
            Identity::Group { group, scope } => Who::Group(group.key(), scope),
        };
        Self { shards: post.shards, who }
    }

    fn into_owned(self) -> Sender<Box<str>> {
        Sender { shards: self.shards, who: self.who.map(|name| (*name).into()) }
    }
}

impl Previous {
    /// The body that was just read, if the next one can be compared with it.
    fn of(text: Text<'_>, read: Read<'_>, gauge: &IntGauge, now: UnixTime) -> Option<Self> {
        let placement = read.placement?;
        let received = text.received();
        if received.len() > MAX_BODY_BYTES {
            return None;
        }
        let spots = Spots::find(text, &read.text, &read.values, &placement)?;
        let mut previous = Self {
            received: received.to_vec(),
            spots,
            sender: read.sender,
            placement,
            used: now,
            counted: Counted { bytes: 0, gauge: gauge.clone() },
        };
        previous.count();
        Some(previous)
    }

    /// A body that was like it takes its place.
    fn become_of(&mut self, received: &[u8], now: UnixTime) {
        self.received.clear();
        self.received.reserve_exact(received.len());
        self.received.extend_from_slice(received);
        self.used = now;
        self.count();
    }

    fn count(&mut self) {
        let series: usize = self.placement.series().map(|(_, series)| series).sum();
        let bytes = size_of::<Self>()
            + self.received.capacity()
            + self.spots.bytes()
            + series * size_of::<u32>();
        self.counted.set(bytes as i64);
    }
}

#[cfg(test)]
mod tests;
