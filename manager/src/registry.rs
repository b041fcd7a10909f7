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
mod events;
mod exemplars;
mod explain;
mod family;
mod fleet;
mod fold;
mod frame;
mod instance;
mod limits;
mod parts;
mod rearrange;
mod report;
mod restore;
mod rules;
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
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashSet;
use parking_lot::{Mutex, MutexGuard, RwLock};

pub use change::{
    About, Change, FamilyChange, InstanceRecord, Misfit, PartValues, ReportStep, SeriesStep,
    ShardRecord, Sink, Step,
};
pub use check::BadSample;
pub use events::{
    Departure, EventKind, EventsRecord, Followed, Follower, KnownShards, MAX_EVENTS, ShardEvent,
    Successor,
};
pub use exemplars::ReportedExemplar;
pub use explain::{Explained, ExplainedValue, Explanation, Hidden, MAX_EXPLAINED, NotExplained};
pub use family::Family;
pub use frame::{
    Applied, AttachError, DefineError, FamilyDefinition, Frame, FrameError, FrameKind, Hello,
    NotApplied, Outcome, SeriesDefinition,
};
pub use instance::{InstanceKey, Transport};
pub use parts::{PartId, PartsRecord};
pub use rearrange::Forgotten;
pub use report::{
    BodyPlace, NewValue, Placement, Repeat, Report, ReportError, ReportedFamily, ReportedSeries,
    Scope,
};
pub use rules::{Combine, Rule, RuleError, Rules, Treatment};
pub use status::{Collected, InstanceStatus, ShardState, ShardStatus, ShardSummary};
pub use store::SeriesId;
pub use view::{SeriesView, ShardView};
pub use writer::{Attached, Writer};

use crate::{clock::UnixTime, model::MetricType};
use change::Recorder;
use family::FamilyTable;
use fleet::Fleet;
use shard::Shard;
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
    /// Series at which no new shard is taken. Those that are there may have as many as they may.
    pub max_series: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_secs(30),
            report_interval: Duration::from_secs(10),
            max_series_per_family: 2_000,
            max_series_per_shard: 5_000,
            max_series: 10_000_000,
        }
    }
}

/// Greatest number of shards of a bot, so that nobody can make the manager list four billion.
pub const MAX_SHARD_COUNT: u32 = 65_536;

/// Values of a shard that are looked at before frames that wait for it go on: some hundred microseconds' work.
const VALUES_AT_ONCE: usize = 2_000;

/// Greatest number of families of all shards together, so that names without end fill nothing.
pub const MAX_FAMILIES: usize = 100_000;

/// Greatest number of families that one shard can be the first to report.
pub const MAX_FAMILIES_OF_SHARD: usize = 10_000;

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
    /// A rule drops the family: counted, and not said to the sender.
    Rule,
    /// A limit was reached, but the counts are in the family's `overflow="true"`: said to the sender, and counted nowhere, for
    /// nothing is lost.
    Overflow,
}

impl Reason {
    /// Those by which samples are lost, in the order of their counters.
    pub const COUNTED: [Self; 5] =
        [Self::TypeConflict, Self::NameCollision, Self::DuplicateSeries, Self::Limit, Self::Rule];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TypeConflict => "type_conflict",
            Self::NameCollision => "name_collision",
            Self::DuplicateSeries => "duplicate_series",
            Self::Limit => "limit",
            Self::Overflow => "overflow",
            Self::Rule => "rule",
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
    census: Census,
    /// What shards show together, as of the last [`Registry::collect`].
    fleet_sums: Mutex<Fleet>,
    /// The latest time that a restored change tells of.
    recorded_until: Mutex<UnixTime>,
    lines: rearrange::Lines,
}

/// What all shards have together, as it was last counted.
#[derive(Debug, Default)]
struct Census {
    series: AtomicUsize,
    /// Values of parts of merged series.
    parts: AtomicUsize,
    /// Ids that streams defined.
    ids: AtomicUsize,
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
    /// An empty registry without rules. `reserved` are families the manager itself exposes; shards cannot report them.
    #[must_use]
    pub fn new<'a>(
        settings: Settings,
        reserved: impl IntoIterator<Item = (&'a str, MetricType)>,
    ) -> Self {
        Self::with_rules(settings, reserved, Rules::default())
    }

    /// The same, with rules.
    #[must_use]
    pub fn with_rules<'a>(
        settings: Settings,
        reserved: impl IntoIterator<Item = (&'a str, MetricType)>,
        rules: Rules,
    ) -> Self {
        Self {
            settings,
            families: FamilyTable::new(reserved, rules),
            census: Census::default(),
            fleet_sums: Mutex::default(),
            shards: RwLock::default(),
            fleet: Mutex::default(),
            collected_count: AtomicU32::new(0),
            recorder: Arc::default(),
            recorded_until: Mutex::default(),
            lines: rearrange::Lines::default(),
        }
    }

    /// Calls `look` with every shard that ever reported, in order of id, and then with what is shown of all together. Each
    /// shard is locked while it is looked at, so what `look` sees of it comes from whole frames.
    pub fn visit(&self, now: UnixTime, mut look: impl FnMut(&ShardView<'_>)) {
        let mut fleet = Fleet::default();
        self.visit_shards(now, |shard| {
            look(shard);
            if self.families.collapses() {
                let all: Vec<_> = shard.shard.store.ids().collect();
                fleet.take(shard.shard, &all);
            }
        });
        fleet.settle(&self.families, true);
        look(&fleet.view());
    }

    fn visit_shards(&self, now: UnixTime, mut look: impl FnMut(&ShardView<'_>)) {
        for shard in self.all() {
            let mut shard = shard.peek();
            shard.settle(now, self.settings.stale_after);
            look(&ShardView::new(&shard));
        }
    }

    /// Calls `look` with every shard of which something changed since the last call, as [`Registry::visit`] does, and with
    /// those of its series that changed: whoever keeps what it saw needs no more. There can be one such keeper. With
    /// `all`, `look` is called with every series of every shard; when the bot's size changed, with every shard. If many
    /// series of a shard changed it is called several times, between which a frame may come. Should its series have got other
    /// places, [`ShardView::before`] says so the first time.
    pub fn collect(
        &self,
        now: UnixTime,
        all: bool,
        mut look: impl FnMut(&ShardView<'_>, &[SeriesId]),
    ) -> Collected {
        let stale_after = self.settings.stale_after;
        let count = self.shard_count();
        let count_before = self.collected_count.swap(count, Relaxed);
        let complete = all || count_before != count;
        let mut collected = Collected { complete, ..Collected::default() };
        let mut touched = Vec::new();
        let mut fleet = self.fleet_sums.lock();
        for shared in self.due(now, complete) {
            let mut shard = shared.peek();
            shard.settle(now, stale_after);
            // If its series get other places meanwhile, all of them are looked at again.
            while !self.look_at(&mut shard, all, &mut fleet, &mut touched, &mut look) {}
            touched.clear();
            let summary = ShardView::new(&shard).summary(now, stale_after);
            // What a frame changed meanwhile may have been looked at before.
            if !shard.store.is_touched() && shard.renumbered.is_none() {
                shared.looked_at(&shard, shard.unchanged_until(now, stale_after));
            }
            if summary.state.is_listed(summary.id, count) {
                collected.summaries.push(summary);
            } else {
                collected.unlisted.push(summary.id);
            }
        }
        let changed = fleet.settle(&self.families, all);
        look(&fleet.view(), &changed);
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

    /// Looks at what changed of a shard since it was last looked at, or at all of it. False: its series got other places
    /// meanwhile.
    fn look_at(
        &self,
        shard: &mut MutexGuard<'_, Shard>,
        all: bool,
        fleet: &mut Fleet,
        touched: &mut Vec<SeriesId>,
        mut look: impl FnMut(&ShardView<'_>, &[SeriesId]),
    ) -> bool {
        touched.clear();
        shard.store.take_touched(touched);
        if all {
            touched.clear();
            touched.extend(shard.store.ids());
        }
        let mut renumbered = shard.renumbered.take();
        if renumbered.is_some() {
            fleet.forget(shard.id);
        }
        let mut rest = &touched[..];
        loop {
            let (some, others) = shard.store.split_at_values(rest, VALUES_AT_ONCE);
            look(&ShardView::renumbered(shard, renumbered.take()), some);
            if self.families.collapses() {
                fleet.take(shard, some);
            }
            rest = others;
            if rest.is_empty() {
                return true;
            }
            MutexGuard::bump(shard); // a frame that waits goes first
            if shard.renumbered.is_some() {
                return false;
            }
        }
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

    /// The shard, made now if it never reported.
    fn shard(&self, id: u32) -> Arc<SharedShard> {
        if let Some(shard) = self.shards.read().get(&id) {
            return Arc::clone(shard);
        }
        let mut shards = self.shards.write();
        Arc::clone(shards.entry(id).or_insert_with(|| Arc::new(SharedShard::new(id))))
    }

    /// All shards, in order of id.
    fn all(&self) -> Vec<Arc<SharedShard>> {
        self.shards.read().values().map(Arc::clone).collect()
    }

    /// Counts what all shards have together, which limits go by. To be called every second or so.
    pub fn count(&self) {
        let (mut series, mut parts, mut ids) = (0, 0, 0);
        for shard in self.all() {
            let shard = shard.peek();
            series += shard.store.len();
            parts += shard.parts();
            ids += shard.instances.iter().map(|instance| instance.ids).sum::<usize>();
        }
        self.census.series.store(series, Relaxed);
        self.census.parts.store(parts, Relaxed);
        self.census.ids.store(ids, Relaxed);
    }

    /// Whether no more parts of merged series can be kept.
    fn is_full_of_parts(&self) -> bool {
        self.census.parts.load(Relaxed) >= limits::MAX_PARTS
    }

    /// Whether streams may have no more ids than each always may.
    fn is_full_of_ids(&self) -> bool {
        self.census.ids.load(Relaxed) >= limits::MAX_IDS
    }

    /// Whether a shard is known, or can be taken.
    fn may_have(&self, shard_id: u32) -> bool {
        self.census.series.load(Relaxed) < self.settings.max_series
            || self.shards.read().contains_key(&shard_id)
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

#[cfg(test)]
pub(crate) mod tests;
