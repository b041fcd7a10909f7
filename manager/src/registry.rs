//! The registry: what every shard counted, and what of it is exposed. It is the one owner of that state.
//!
//! A shard's exposed count is its **base** (what ended instances counted) plus what each of its **instances** counted.
//! An instance reports absolute values, so applying a frame is an assignment; a gauge belongs to one instance, the
//! **owner**. Design section 4 has the rules (E1 to E7).
//!
//! Ways in: a [`Writer`] applies the frames of one stream, [`Registry::report`] takes a whole body of an HTTP sender, and
//! [`Registry::repeat`] what changed since the body before.
//! Ways out: [`Registry::visit`] reads what is exposed, [`Registry::status`] who reports. The time is always passed in;
//! there is no I/O here, and nothing of gRPC, HTTP or text formats.
//!
//! Whatever happens is checked, given as a [`Change`] to the sink ([`Registry::record_to`]), then applied. Changes that
//! were kept make the registry again ([`Registry::restore`]); [`Registry::checkpoint`] says all of it at once.
//!
//! Locks: the map of shards, the table of families, and one lock a shard, held for one frame or one shard's rendering.

mod change;
mod check;
mod exemplars;
mod family;
mod fold;
mod frame;
mod instance;
mod limits;
mod report;
mod restore;
mod shard;
mod shared;
mod status;
mod store;
mod view;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashSet;
use parking_lot::{Mutex, MutexGuard, RwLock};

pub use change::{
    About, Change, FamilyChange, InstanceRecord, Misfit, ReportStep, SeriesStep, ShardRecord, Sink,
    Step,
};
pub use check::BadSample;
pub use exemplars::ReportedExemplar;
pub use family::Family;
pub use frame::{
    Applied, AttachError, DefineError, FamilyDefinition, Frame, FrameError, FrameKind, Hello,
    NotApplied, Outcome, SeriesDefinition,
};
pub use instance::{InstanceKey, Transport};
pub use report::{
    NewValue, Placement, Repeat, Report, ReportError, ReportedFamily, ReportedSeries,
};
pub use status::{Collected, InstanceStatus, ShardState, ShardStatus, ShardSummary};
pub use store::SeriesId;
pub use view::{SeriesView, ShardView};
pub use writer::{Attached, Writer};

use crate::{clock::UnixTime, model::MetricType};
use change::Recorder;
use family::FamilyTable;
use shared::SharedShard;

/// What the registry needs to know of the manager's configuration.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A shard silent for longer than this is down, and its gauges leave the scrape.
    pub stale_after: Duration,
    /// How often senders report, unless they say otherwise.
    pub report_interval: Duration,
    /// Series a shard may have in one family.
    pub max_series_per_family: usize,
    /// Series a shard may have in all.
    pub max_series_per_shard: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_secs(30),
            report_interval: Duration::from_secs(10),
            max_series_per_family: 2_000,
            max_series_per_shard: 5_000,
        }
    }
}

/// Greatest number of shards of a bot, so that nobody can make the manager list four billion.
pub const MAX_SHARD_COUNT: u32 = 65_536;

/// Values of a shard that are looked at before frames that wait for it go on: some hundred microseconds' work.
const VALUES_AT_ONCE: usize = 2_000;

/// Greatest number of families of all shards together, so that names without end fill nothing.
pub const MAX_FAMILIES: usize = 100_000;

/// Why series were not taken; also the label value of `shard_rejected_samples_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The family is known with another type.
    TypeConflict,
    /// The name is the manager's or collides with another family's sample names.
    NameCollision,
    /// The series equals another of the same shard once the manager's labels are set, or label names escaped.
    DuplicateSeries,
    /// A limit on series was reached.
    Limit,
}

impl Reason {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 4] =
        [Self::TypeConflict, Self::NameCollision, Self::DuplicateSeries, Self::Limit];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TypeConflict => "type_conflict",
            Self::NameCollision => "name_collision",
            Self::DuplicateSeries => "duplicate_series",
            Self::Limit => "limit",
        }
    }
}

/// A family, or some of its series, that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The family's name.
    pub family: Box<str>,
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// How many series are concerned.
    pub series: u32,
}

impl Rejected {
    /// Whether both say the same of the same family.
    fn is_same(&self, other: &Self) -> bool {
        self.family == other.family && self.reason == other.reason
    }
}

/// Families named in one answer as rejected; all are counted, however many.
const MAX_SAID: usize = 100;

/// All shards' metrics. See the module's documentation.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    families: FamilyTable,
    shards: RwLock<BTreeMap<u32, Arc<SharedShard>>>,
    fleet: Mutex<FleetSize>,
    /// The shard count at the last [`Registry::collect`].
    collected_count: AtomicU32,
    recorder: Arc<Recorder>,
    /// The latest time that a restored change tells of.
    recorded_until: Mutex<UnixTime>,
}

/// How many shards the bot has, as the instance that began last says.
#[derive(Debug, Default)]
struct FleetSize {
    shard_count: u32,
    said_at: UnixTime,
}

impl FleetSize {
    fn change(&self) -> Change<'static> {
        Change::FleetSize { shard_count: self.shard_count, said_at: self.said_at }
    }
}

impl Registry {
    /// An empty registry. `reserved` are families the manager itself exposes; shards cannot report them.
    #[must_use]
    pub fn new<'a>(
        settings: Settings,
        reserved: impl IntoIterator<Item = (&'a str, MetricType)>,
    ) -> Self {
        Self {
            settings,
            families: FamilyTable::new(reserved),
            shards: RwLock::default(),
            fleet: Mutex::default(),
            collected_count: AtomicU32::new(0),
            recorder: Arc::default(),
            recorded_until: Mutex::default(),
        }
    }

    /// Calls `look` with every shard that ever reported, in order of id. Each shard is locked while it is looked at, so
    /// what `look` sees of it comes from whole frames.
    pub fn visit(&self, now: UnixTime, mut look: impl FnMut(&ShardView<'_>)) {
        for shard in self.all() {
            let mut shard = shard.peek();
            shard.settle(now, self.settings.stale_after);
            look(&ShardView::new(&shard));
        }
    }

    /// Calls `look` with every shard of which something changed since the last call, as [`Registry::visit`] does, and with
    /// those of its series that changed: whoever keeps what it saw needs no more. There can be one such keeper. With
    /// `all`, `look` is called with every series of every shard; when the bot's size changed, with every shard. If many
    /// series of a shard changed it is called several times, between which a frame may come.
    pub fn collect(
        &self,
        now: UnixTime,
        all: bool,
        mut look: impl FnMut(&ShardView<'_>, &[SeriesId]),
    ) -> Collected {
        let stale_after = self.settings.stale_after;
        let count = self.fleet.lock().shard_count;
        let count_before = self.collected_count.swap(count, Relaxed);
        let complete = all || count_before != count;
        let mut collected = Collected { complete, ..Collected::default() };
        let mut touched = Vec::new();
        for shared in self.due(now, complete) {
            let mut shard = shared.peek();
            shard.settle(now, stale_after);
            shard.store.take_touched(&mut touched);
            if all {
                touched.clear();
                touched.extend(shard.store.ids());
            }
            let mut rest = &touched[..];
            loop {
                let (some, others) = shard.store.split_at_values(rest, VALUES_AT_ONCE);
                look(&ShardView::new(&shard), some);
                rest = others;
                if rest.is_empty() {
                    break;
                }
                MutexGuard::bump(&mut shard); // a frame that waits goes first
            }
            touched.clear();
            let summary = ShardView::new(&shard).summary(now, stale_after);
            // What a frame changed meanwhile may have been looked at before.
            if !shard.store.is_touched() {
                shared.looked_at(&shard, shard.unchanged_until(now, stale_after));
            }
            if summary.is_listed(count) {
                collected.summaries.push(summary);
            } else {
                collected.unlisted.push(summary.id);
            }
        }
        if complete {
            // One that came meanwhile is among those that were not looked at.
            let seen = collected.summaries.iter().map(|shard| shard.id);
            let seen: HashSet<_> = seen.chain(collected.unlisted.iter().copied()).collect();
            let never_seen = (0..count).filter(|id| !seen.contains(id));
            collected.summaries.extend(never_seen.map(ShardSummary::never_seen));
            // So that a page that is kept begins in the order of one that is rendered anew.
            collected.summaries.sort_by_key(|shard| shard.id);
        }
        collected
    }

    /// The shards that may show something else than when they were collected, in order of id; or all.
    fn due(&self, now: UnixTime, all: bool) -> Vec<Arc<SharedShard>> {
        let shards = self.shards.read();
        shards.values().filter(|shard| all || shard.is_due(now)).map(Arc::clone).collect()
    }

    /// All families that shards ever reported, in order of [`Family::id`].
    #[must_use]
    pub fn families(&self) -> Vec<Arc<Family>> {
        self.families.all()
    }

    /// The state of every shard: those that reported, and every other id below the newest shard count.
    #[must_use]
    pub fn status(&self, now: UnixTime) -> Vec<ShardStatus> {
        let mut known = BTreeMap::new();
        self.visit(now, |view| {
            known.insert(view.id(), view.status(now, self.settings.stale_after));
        });
        self.complete(known, ShardStatus::never_seen, |shard| &shard.summary)
    }

    /// The same without instances.
    #[must_use]
    pub fn summaries(&self, now: UnixTime) -> Vec<ShardSummary> {
        let mut known = BTreeMap::new();
        self.visit(now, |view| {
            known.insert(view.id(), view.summary(now, self.settings.stale_after));
        });
        self.complete(known, ShardSummary::never_seen, |shard| shard)
    }

    /// Adds the shards that never reported, and drops those that are no longer listed.
    fn complete<T>(
        &self,
        mut known: BTreeMap<u32, T>,
        never_seen: impl Fn(u32) -> T,
        summary: impl Fn(&T) -> &ShardSummary,
    ) -> Vec<T> {
        let count = self.fleet.lock().shard_count;
        for id in 0..count {
            known.entry(id).or_insert_with(|| never_seen(id));
        }
        known.retain(|_, shard| summary(shard).is_listed(count));
        known.into_values().collect()
    }

    /// The shard, made now if it never reported.
    fn shard(&self, id: u32) -> Arc<SharedShard> {
        if let Some(shard) = self.shards.read().get(&id) {
            return Arc::clone(shard);
        }
        let mut shards = self.shards.write();
        Arc::clone(shards.entry(id).or_insert_with(|| Arc::new(SharedShard::new(id))))
    }

    /// STUB until the registry can forget: knows no shard.
    #[must_use]
    pub fn forget(&self, _shard_id: u32, _now: UnixTime) -> Option<Forgotten> {
        None
    }

    /// All shards, in order of id.
    fn all(&self) -> Vec<Arc<SharedShard>> {
        self.shards.read().values().map(Arc::clone).collect()
    }

    fn note_fleet_size(&self, shard_count: u32, said_at: UnixTime) {
        let mut fleet = self.fleet.lock();
        if said_at >= fleet.said_at {
            let said = FleetSize { shard_count, said_at };
            if shard_count != fleet.shard_count {
                self.recorder.record(&[said.change()]);
            }
            *fleet = said;
        }
    }
}

/// STUB: what [`Registry::forget`] did.
#[derive(Debug, Clone, Copy)]
pub struct Forgotten;

#[cfg(test)]
pub(crate) mod tests;
