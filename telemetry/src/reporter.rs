//! The public face of a report task.

mod outage;
mod task;

use crate::ledger::Ledger;
use crate::{BuildError, Connection, ShutdownError, marker};
use prometheus::Registry;
use std::time::Duration;
use task::Task;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, info_span};

/// How long [`Reporter::shutdown`] tries, unless told otherwise: a bot that is asked to stop has little time.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// One shard of a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Counts from 0; becomes the label `shard_id` of everything this shard reports.
    pub id: u32,
    /// How many shards the whole bot has, over all its processes.
    pub count: u32,
}

/// How a reporter is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the manager acknowledged a frame on the stream that is open now.
    pub connected: bool,
    /// Sequence of the last frame that the manager acknowledged for the current instance; 0 before the first.
    pub acknowledged: u64,
}

/// Handle of a running report task.
///
/// Call [`shutdown`](Self::shutdown) when the bot stops. Dropping the handle ends reporting on the spot: what was
/// counted after the last report is lost, and the manager keeps the shard's gauges until it thinks the shard dead.
#[derive(Debug)]
#[must_use = "dropping it ends reporting"]
pub struct Reporter {
    task: AbortOnDropHandle<Result<(), ShutdownError>>,
    stop: CancellationToken,
    status: watch::Receiver<Status>,
    shutdown_deadline: Duration,
}

impl Reporter {
    /// Begins to describe a reporter of `shard` over `connection`.
    pub fn builder(connection: &Connection, shard: Shard) -> ReporterBuilder {
        ReporterBuilder {
            connection: connection.clone(),
            shard,
            fleet: String::new(),
            registries: Vec::new(),
            client: Client::default(),
            shutdown_deadline: SHUTDOWN_DEADLINE,
        }
    }

    /// How the reporter is doing right now. For a health page; the bot need not act on it.
    #[must_use]
    pub fn status(&self) -> Status {
        let status = *self.status.borrow();
        Status { connected: status.connected && !self.task.is_finished(), ..status }
    }

    /// Reports what is left, says Goodbye, and waits until the manager has confirmed both. Stop counting before.
    ///
    /// Takes no longer than the deadline (5 s, see [`ReporterBuilder::shutdown_deadline`]). A manager that is
    /// restarting is waited for that long; one that was never reached is tried once.
    ///
    /// # Errors
    ///
    /// When the manager may lack the last counts, or may think that the shard died. There is nothing left to do about
    /// it but to log it.
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        self.stop.cancel();
        match timeout(self.shutdown_deadline, self.task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_ended)) => Err(ShutdownError::TaskEnded),
            Err(_elapsed) => Err(ShutdownError::Deadline(self.shutdown_deadline)),
        }
    }
}

/// Describes a [`Reporter`]. Needs one [`registry`](Self::registry) at least; the rest has defaults.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ReporterBuilder {
    connection: Connection,
    shard: Shard,
    fleet: String,
    registries: Vec<Registry>,
    client: Client,
    shutdown_deadline: Duration,
}

/// What the manager shows people about the reporting library.
#[derive(Clone, Debug)]
struct Client {
    name: String,
    version: String,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl ReporterBuilder {
    /// The bot's name at the manager, if the manager has one: it refuses shards of another. Default: not stated.
    pub fn fleet(mut self, fleet: impl Into<String>) -> Self {
        self.fleet = fleet.into();
        self
    }

    /// Adds a registry whose metrics are this shard's. May be called several times: the registry of the whole process
    /// goes along with the lowest shard in it. Where two registries have the same series, the first one's counts.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registries.push(registry);
        self
    }

    /// Name and version of the bot or library that reports, for people who look at the manager. Default: this crate's.
    pub fn client(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.client = Client { name: name.into(), version: version.into() };
        self
    }

    /// How long [`Reporter::shutdown`] may take. Default: 5 s.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown_deadline = deadline;
        self
    }

    /// Starts to report, on the tokio runtime that runs here. The registries stay the bot's: metrics may be registered
    /// and unregistered at any time. A registry takes one reporter in its life, because the manager keeps what it
    /// counted.
    ///
    /// # Errors
    ///
    /// [`BuildError`] lists the mistakes in a set-up. That the manager is away is no error.
    pub fn build(self) -> Result<Reporter, BuildError> {
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        if self.shard.id >= self.shard.count {
            return Err(BuildError::Shard(self.shard));
        }
        if self.registries.is_empty() {
            return Err(BuildError::NoRegistry);
        }
        let ledger = Ledger::new(task::random_instance_id().map_err(BuildError::Random)?);
        marker::mark(&self.registries)?;

        let stop = CancellationToken::new();
        let (status_sender, status) = watch::channel(Status::default());
        // Says in logs which shard they are about. It lasts too long to be part of a trace, as those of this crate's target are.
        let span = info_span!(target: "telemetry", "telemetry", shard_id = self.shard.id);
        let shutdown_deadline = self.shutdown_deadline;
        let task = Task::new(self, ledger, stop.clone(), status_sender);
        let task = runtime.spawn(task.run().instrument(span));
        Ok(Reporter { task: AbortOnDropHandle::new(task), stop, status, shutdown_deadline })
    }
}
