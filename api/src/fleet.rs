//! What the manager knows of all shards.

pub(crate) mod follow;
mod manager;

use std::{sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use prometheus::IntGauge;
use serde::Serialize;
use shardmeter_process::ManagerConfig;
use shardmeter_proto::v1::{self, ListShardsRequest};
use tokio::time::{Duration, Instant, timeout};
use tonic::Status;

use manager::Manager;
pub use manager::ManagerError;

/// How old what is shown may be. However many ask, the manager is asked no more often.
const FRESH: Duration = Duration::from_secs(1);

/// A manager that takes longer to answer is away.
const PATIENCE: Duration = Duration::from_secs(1);

/// All shards, as the manager knew them at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shards {
    /// In order of id.
    pub(crate) shards: Vec<Shard>,
    /// Of the bot; 0 if no shard said it yet.
    pub(crate) shard_count: u32,
    /// When it was so, by the manager's clock.
    pub(crate) as_of: SystemTime,
}

/// How one shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) shard_id: u32,
    pub(crate) state: ShardState,
    pub(crate) last_report: Option<SystemTime>,
    /// That the manager keeps of it.
    pub(crate) series: u64,
    /// Oldest first.
    pub(crate) instances: Vec<Instance>,
}

/// Whether a shard reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShardState {
    Up,
    Stale,
    NeverSeen,
}

/// One process run of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) instance: String,
    /// Whether it posts over HTTP; else it streams over gRPC.
    pub(crate) posts: bool,
    pub(crate) client: String,
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) last_report: Option<SystemTime>,
    /// Whether a stream of it is open.
    pub(crate) connected: bool,
    pub(crate) owns_gauges: bool,
}

impl Shards {
    /// The shard with this id.
    pub(crate) fn get(&self, shard_id: u32) -> Option<&Shard> {
        let at = self.shards.binary_search_by_key(&shard_id, |shard| shard.shard_id).ok()?;
        self.shards.get(at)
    }
}

/// The manager, asked when somebody wants to know.
#[derive(Debug)]
pub(crate) struct Fleet {
    manager: Manager,
    /// Held while the manager is asked: who comes meanwhile shares the answer.
    asking: tokio::sync::Mutex<()>,
    last: Mutex<Last>,
    status: IntGauge,
}

/// What came of asking.
#[derive(Debug, Clone, Default)]
struct Last {
    /// When the manager was asked.
    asked: Option<Instant>,
    /// Whether it answered.
    answered: bool,
    /// Its last answer.
    shards: Option<Arc<Shards>>,
}

impl Last {
    fn is_fresh(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < FRESH)
    }
}

impl Fleet {
    /// The fleet of the manager that is configured, which need not be there yet.
    ///
    /// # Errors
    /// If it cannot be asked with this configuration.
    pub(crate) fn new(config: &ManagerConfig, status: IntGauge) -> Result<Self, ManagerError> {
        let manager = manager::connect(config)?;
        let asking = tokio::sync::Mutex::default();
        Ok(Self { manager, asking, last: Mutex::default(), status })
    }

    /// The manager, to be followed.
    pub(crate) fn manager(&self) -> Manager {
        self.manager.clone()
    }

    /// All shards, as of a second ago at most; or as they were last known, while the manager is away. `None` if they never
    /// were.
    pub(crate) async fn shards(&self) -> Option<Arc<Shards>> {
        self.ask().await.shards
    }

    /// Whether the manager answers.
    pub(crate) async fn is_up(&self) -> bool {
        self.ask().await.answered
    }

    async fn ask(&self) -> Last {
        let last = self.last.lock().clone();
        if last.is_fresh() {
            return last;
        }
        let _turn = self.asking.lock().await;
        let mut last = self.last.lock().clone();
        if last.is_fresh() {
            return last;
        }
        let mut manager = self.manager.clone();
        let list = timeout(PATIENCE, manager.list_shards(ListShardsRequest {})).await;
        let late = |_| Err(Status::deadline_exceeded("it took too long"));
        let is_first = last.asked.is_none();
        let (answered, shards) = match list.unwrap_or_else(late) {
            Ok(list) => {
                if !last.answered && !is_first {
                    tracing::info!("the manager answers again");
                }
                (true, Some(Arc::new(Shards::from(list.into_inner()))))
            }
            Err(status) => {
                if last.answered || is_first {
                    tracing::warn!(%status, "the manager does not answer");
                }
                (false, last.shards.take())
            }
        };
        self.status.set(answered.into());
        let now = Last { asked: Some(Instant::now()), answered, shards };
        self.last.lock().clone_from(&now);
        now
    }
}

impl From<v1::ListShardsResponse> for Shards {
    fn from(list: v1::ListShardsResponse) -> Self {
        Self {
            shards: list.shards.into_iter().map(Shard::from).collect(),
            shard_count: list.shard_count,
            as_of: time(list.time).unwrap_or_else(SystemTime::now),
        }
    }
}

impl From<v1::Shard> for Shard {
    fn from(shard: v1::Shard) -> Self {
        Self {
            shard_id: shard.shard_id,
            state: shard.state().into(),
            last_report: time(shard.last_report),
            series: shard.series,
            instances: shard.instances.into_iter().map(Instance::from).collect(),
        }
    }
}

impl From<v1::ShardState> for ShardState {
    fn from(state: v1::ShardState) -> Self {
        match state {
            v1::ShardState::Up => Self::Up,
            v1::ShardState::Stale => Self::Stale,
            v1::ShardState::NeverSeen | v1::ShardState::Unspecified => Self::NeverSeen,
        }
    }
}

impl From<v1::Instance> for Instance {
    fn from(instance: v1::Instance) -> Self {
        Self {
            posts: instance.transport() == v1::Transport::Http,
            started_at: time(instance.started_at),
            last_report: time(instance.last_report),
            connected: instance.connected,
            owns_gauges: instance.owns_gauges,
            instance: instance.instance,
            client: instance.client,
        }
    }
}

/// A time that can be written as RFC 3339 has it: before the year 10000.
fn time(time: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    const YEAR_10000: i64 = 253_402_300_800;
    time.filter(|time| time.seconds < YEAR_10000)?.try_into().ok()
}
