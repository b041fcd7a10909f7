//! What happens to the registry, as values: enough of each change to make it again.
//!
//! Every change is given to the [`Sink`] before anybody can see it, and applied by the same code whether it happens or is
//! restored (redo). These types are the journal's format: whoever changes one raises the version in `journal/log/format.rs`. Decisions that depend on time, limits or other shards are made before, so a change only says their
//! outcome; what follows from the shard's own state is not said.

use std::{borrow::Cow, fmt, sync::OnceLock, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    EventsRecord, InstanceKey, Reason, ShardEvent, ShardState, Transport,
    events::EventLog,
    parts::{PartId, PartsRecord},
};
use crate::{clock::UnixTime, model::MetricType};

/// Keeps changes; returns whether they are durable.
pub type Sink = Box<dyn Fn(&[Change<'_>]) -> bool + Send + Sync>;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change<'a> {
    /// A family was defined.
    #[serde(borrow)]
    Family(FamilyChange<'a>),
    /// These families, by id, are no more, and their names are free.
    #[serde(borrow)]
    Retired(Cow<'a, [u32]>),
    /// The bot has this many shards.
    FleetSize {
        /// How many.
        shard_count: u32,
        /// When the instance that says so joined.
        said_at: UnixTime,
    },
    /// The manager was alive then.
    Time(UnixTime),
    /// The manager was started then, and had restored what is before this.
    Resumed(UnixTime),
    /// Something happened to a shard.
    Shard(u32, #[serde(borrow)] Step<'a>),
    /// Followers are told so, once the changes before it in its record are made.
    Event(ShardEvent),
    /// All that followers can be told.
    #[serde(borrow)]
    Events(EventsRecord<'a>),
}

/// A family, as it was defined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FamilyChange<'a> {
    /// The next id.
    pub id: u32,
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its type.
    pub kind: MetricType,
    /// Its help text.
    #[serde(borrow)]
    pub help: Cow<'a, str>,
    /// Its unit.
    #[serde(borrow)]
    pub unit: Cow<'a, str>,
    /// Whether another has taken its names since (in a checkpoint).
    pub gave_way: bool,
    /// Families, by id, whose names it took.
    pub replaces: Cow<'a, [u32]>,
    /// The shard that reported it first.
    pub first: u32,
    /// If another family of this name was retired: when this one began.
    pub since: Option<UnixTime>,
    /// What rules made of it, in words.
    #[serde(borrow)]
    pub treatment: Cow<'a, str>,
}

/// What happened to a shard. Instances are named by their ordinal, series by their place in the shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step<'a> {
    /// A series was added.
    #[serde(borrow)]
    Series(SeriesStep<'a>),
    /// An instance said Hello or posted for the first time.
    Join {
        /// Greater than all before.
        ordinal: u64,
        /// What makes it the same over reconnects.
        key: InstanceKey,
        /// How it reports.
        transport: Transport,
        /// When.
        at: UnixTime,
    },
    /// An instance says more about itself.
    Describe {
        /// The instance.
        ordinal: u64,
        /// The rest.
        #[serde(borrow)]
        about: About<'a>,
    },
    /// What an instance reports from now on, it began to count anew.
    Anew {
        /// The instance.
        ordinal: u64,
    },
    /// An instance says of parts of merged series what it will say in full: the first of a long report.
    Parts {
        /// The instance.
        ordinal: u64,
        /// What it says.
        #[serde(borrow)]
        parts: PartValues<'a>,
    },
    /// An instance reported.
    Report(ReportStep<'a>),
    /// An instance ended for good.
    Close {
        /// The instance.
        ordinal: u64,
        /// When.
        at: UnixTime,
    },
    /// An instance became part of the base.
    Fold {
        /// The instance.
        ordinal: u64,
    },
    /// All of a shard, whatever was known of it before: in a checkpoint, and when it is put in order anew.
    State(Box<ShardRecord<'a>>),
}

impl Step<'_> {
    /// The ordinal of the instance it happens to, if that is there before it.
    #[must_use]
    pub fn instance(&self) -> Option<u64> {
        match self {
            Self::Describe { ordinal, .. }
            | Self::Anew { ordinal }
            | Self::Parts { ordinal, .. }
            | Self::Close { ordinal, .. }
            | Self::Fold { ordinal } => Some(*ordinal),
            Self::Report(report) => Some(report.ordinal),
            Self::Series(_) | Self::Join { .. } | Self::State(_) => None,
        }
    }
}

/// A series, as it was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesStep<'a> {
    /// The next place.
    pub series: u32,
    /// Its family's id.
    pub family: u32,
    /// Its labels in canonical form.
    #[serde(borrow)]
    pub labels: Cow<'a, str>,
    /// Its bounds or quantiles.
    pub bounds: Cow<'a, [f64]>,
    /// Since when it is counted.
    pub created: UnixTime,
}

/// What an instance says about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct About<'a> {
    /// Name and version of its client library.
    #[serde(borrow)]
    pub client: Cow<'a, str>,
    /// When it began to count, by its own clock.
    pub started_at: Option<UnixTime>,
    /// How often it reports, if it does so more rarely than it is told.
    pub interval: Option<Duration>,
}

impl About<'_> {
    /// The same, for keeping.
    #[must_use]
    pub fn into_owned(self) -> About<'static> {
        About {
            client: Cow::Owned(self.client.into_owned()),
            started_at: self.started_at,
            interval: self.interval,
        }
    }
}

/// One report, after what was rejected was taken out; of one that says everything, what changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportStep<'a> {
    /// The instance.
    pub ordinal: u64,
    /// The last sequence applied for the instance from now on; 0 if it has none.
    pub sequence: u64,
    /// When it was applied.
    pub at: UnixTime,
    /// Series with new values.
    pub series: Cow<'a, [u32]>,
    /// Their values, as many for each as it has slots.
    pub values: Cow<'a, [f64]>,
    /// Series that left the sender's registry with it.
    pub left: Cow<'a, [u32]>,
    /// What it says of label sets that are parts of merged series.
    #[serde(borrow)]
    pub parts: PartValues<'a>,
    /// Samples that were not taken, by [`Reason::COUNTED`].
    pub rejected: [u64; Reason::COUNTED.len()],
}

/// What a report says of parts of merged series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartValues<'a> {
    /// The merged series of each.
    pub merged: Cow<'a, [u32]>,
    /// Which parts.
    pub parts: Cow<'a, [PartId]>,
    /// Their values, as many for each as the merged series has slots.
    pub values: Cow<'a, [f64]>,
    /// Gauges that left, with their merged series.
    pub left: Cow<'a, [(u32, PartId)]>,
}

/// All of a shard. Columns are by slot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardRecord<'a> {
    /// All series, in order.
    #[serde(borrow)]
    pub series: Vec<SeriesStep<'a>>,
    /// Of series that differ in their bounds alone, those that are shown.
    pub shown: Vec<u32>,
    /// Series some instance had a sample of.
    pub counted: Vec<u32>,
    /// What folded instances counted.
    pub base: Cow<'a, [f64]>,
    /// Instances that are not folded, in order.
    #[serde(borrow)]
    pub instances: Vec<InstanceRecord<'a>>,
    /// Folded instances that are remembered, oldest first, and their last sequences.
    pub tombstones: Vec<(InstanceKey, u64)>,
    /// The greatest ordinal given.
    pub ordinals: u64,
    /// When a sender without identity last began anew.
    pub fell_at: Option<UnixTime>,
    /// When a report was last applied.
    pub last_report: Option<UnixTime>,
    /// What silence is measured from.
    pub seen: Option<UnixTime>,
    /// How followers know it.
    pub announced: ShardState,
    /// Reports applied, by [`Transport::ALL`].
    pub reports: [u64; Transport::ALL.len()],
    /// Samples not taken, by [`Reason::COUNTED`].
    pub rejected: [u64; Reason::COUNTED.len()],
}

/// All of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord<'a> {
    /// Its ordinal.
    pub ordinal: u64,
    /// What makes it the same over reconnects.
    pub key: InstanceKey,
    /// How it reports.
    pub transport: Transport,
    /// What it says about itself.
    #[serde(borrow)]
    pub about: About<'a>,
    /// When its last report was applied; its first Hello before that.
    pub last_report: UnixTime,
    /// What its silence is measured from.
    pub seen: UnixTime,
    /// A report of it was applied.
    pub has_reported: bool,
    /// Followers know that it reports.
    pub announced: bool,
    /// Last sequence applied.
    pub last_sequence: u64,
    /// It ended for good.
    pub closed: bool,
    /// What it counted.
    pub values: Cow<'a, [f64]>,
    /// Which series it has.
    pub has: Cow<'a, [bool]>,
    /// What it had counted before it began anew.
    pub carried: Cow<'a, [f64]>,
    /// What it reported since.
    pub raw: Cow<'a, [f64]>,
    /// What it said of parts of merged series.
    pub parts: PartsRecord,
}

/// A restored change that does not fit what was restored before it: something is missing in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {0} does not fit what came before it")]
pub struct Misfit(pub &'static str);

/// Gives changes to whoever keeps them; to nobody at first.
#[derive(Default)]
pub(super) struct Recorder {
    sink: OnceLock<Sink>,
    /// What followers are told.
    pub(super) events: EventLog,
}

impl Recorder {
    /// From now on changes go to `sink`. Only the first call counts.
    pub(super) fn record_to(&self, sink: Sink) {
        let _ = self.sink.set(sink);
    }

    /// Returns whether the changes are durable.
    pub(super) fn record(&self, changes: &[Change<'_>]) -> bool {
        self.sink.get().is_some_and(|sink| sink(changes))
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("sink", &self.sink.get().is_some()).finish_non_exhaustive()
    }
}
