//! The report task: opens sessions, feeds them from the ledger, and waits between them.

use super::outage::Outage;
use super::{Client, ReporterBuilder, Shard, Status};
use crate::backoff::Backoff;
use crate::ledger::{InstanceId, Ledger};
use crate::session::{Answer, Lost, Session};
use crate::{Connection, ShutdownError};
use prometheus::Registry;
use shardmeter_proto::v1::{Ack, Hello, Welcome};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, info_span, warn};

/// How often the registries are gathered until a manager states its interval.
const DEFAULT_REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// No manager makes a shard report more often,
const MIN_REPORT_INTERVAL: Duration = Duration::from_millis(10);
/// or less often.
const MAX_REPORT_INTERVAL: Duration = Duration::from_secs(600);
/// A manager that asks for that many snapshots in a row does not understand them.
const MAX_RESYNCS: u32 = 3;

/// See the module.
pub(super) struct Task {
    connection: Connection,
    shard: Shard,
    fleet: String,
    client: Client,
    registries: Vec<Registry>,
    ledger: Ledger,
    /// When the ledger's instance began.
    started_at: SystemTime,
    ticks: Interval,
    backoff: Backoff,
    outage: Outage,
    /// Whether any manager welcomed this reporter yet.
    welcomed: bool,
    /// Sequence of the Goodbye that was sent, if one was.
    goodbye: Option<u64>,
    stop: CancellationToken,
    status: watch::Sender<Status>,
}

/// How a session came to its end, when nothing went wrong.
enum End {
    /// Goodbye was said and heard.
    Left,
    /// The manager had closed the instance; the ledger began a new one.
    Restarted,
}

pub(super) fn random_instance_id() -> Result<InstanceId, getrandom::Error> {
    let mut id = InstanceId::default();
    getrandom::fill(&mut id)?;
    Ok(id)
}

impl Task {
    pub(super) fn new(
        builder: ReporterBuilder,
        ledger: Ledger,
        stop: CancellationToken,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            connection: builder.connection,
            shard: builder.shard,
            fleet: builder.fleet,
            client: builder.client,
            registries: builder.registries,
            ledger,
            started_at: SystemTime::now(),
            ticks: ticks(DEFAULT_REPORT_INTERVAL),
            backoff: Backoff::default(),
            outage: Outage::default(),
            welcomed: false,
            goodbye: None,
            stop,
            status,
        }
    }

    /// Reports until it is told to stop and has said Goodbye.
    pub(super) async fn run(mut self) -> Result<(), ShutdownError> {
        loop {
            let end = self.session().await;
            self.status.send_modify(|status| status.connected = false);
            let wait = match end {
                Ok(End::Left) => return Ok(()),
                Ok(End::Restarted) => self.backoff.next_wait(),
                Err(Lost::IdsExhausted) => {
                    debug!("series ids are used up; opening a new stream");
                    continue;
                }
                Err(lost) => self.wait_after(&lost)?,
            };
            self.wait(wait).await;
        }
    }

    /// How long to wait after a failure; an error if there is no use in waiting.
    fn wait_after(&mut self, lost: &Lost) -> Result<Duration, ShutdownError> {
        if self.stop.is_cancelled() && (lost.is_refusal() || !self.welcomed) {
            let reason = lost.to_string();
            return Err(ShutdownError::NotTaken { reason });
        }
        if lost.is_refusal() {
            self.backoff.saturate();
        }
        if self.stop.is_cancelled() {
            // There is a deadline now: a manager that is just restarting must not be missed by a long wait.
            self.backoff.reset();
        }
        let wait = self.backoff.next_wait().max(lost.pushback());
        self.outage.note(lost, wait);
        Ok(wait)
    }

    /// Waits out a backoff, less if told to stop meanwhile.
    async fn wait(&mut self, wait: Duration) {
        let stop = self.stop.clone();
        if stop.is_cancelled() {
            self.gathering(sleep(wait)).await;
        } else {
            // Either way the next attempt is due.
            let _ = self.gathering(timeout(wait, stop.cancelled())).await;
        }
    }

    /// Goes on gathering while a step takes its time, so that a counter's reset meanwhile is noticed.
    async fn gathering<T>(&mut self, step: impl Future<Output = T>) -> T {
        tokio::pin!(step);
        loop {
            tokio::select! {
                done = &mut step => return done,
                _ = self.ticks.tick() => self.gather(),
            }
        }
    }

    /// One stream, from Hello to its end.
    async fn session(&mut self) -> Result<End, Lost> {
        let opening = Session::open(self.connection.clone(), self.hello());
        let (mut session, welcome) = self.gathering(opening).await?;
        self.welcomed = true;
        if let Some(closed_at) = welcome.closed_at {
            return Ok(self.closed(closed_at));
        }
        self.ledger.open(welcome.last_sequence, welcome.limits);
        self.ticks = ticks(report_interval(&welcome));
        self.report(&mut session).await?;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.leave(&mut session).await,
                _ = self.ticks.tick() => self.report(&mut session).await?,
                answer = session.answer() => {
                    if let Answer::Resync = answer? {
                        self.ledger.resync();
                        self.report(&mut session).await?;
                    }
                }
            }
        }
    }

    /// Delivers one frame, as a snapshot if the manager asks for it.
    async fn report(&mut self, session: &mut Session) -> Result<(), Lost> {
        // What has no sign would become a text.
        let shard_id = i64::from(self.shard.id);
        let span = || info_span!(parent: None, "report", otel.kind = "client", shard_id);
        let sampled = self.connection.sampler().sample(span);
        session.trace(&sampled);
        self.report_what_changed(session).instrument(sampled.span()).await
    }

    async fn report_what_changed(&mut self, session: &mut Session) -> Result<(), Lost> {
        for _ in 0..=MAX_RESYNCS {
            self.gather();
            match session.deliver(self.ledger.frame()?).await? {
                Answer::Ack(ack) => {
                    self.acknowledged(&ack);
                    return Ok(());
                }
                Answer::Resync => self.ledger.resync(),
            }
        }
        Err(Lost::Unexpected("one Resync after the other"))
    }

    fn acknowledged(&mut self, ack: &Ack) {
        self.ledger.acknowledge();
        self.backoff.reset();
        self.outage.end();
        self.status
            .send_replace(Status { connected: true, acknowledged: self.ledger.acknowledged() });
        for rejected in &ack.rejected {
            if self.ledger.note_rejected(&rejected.family) {
                let reason = rejected.reason().as_str_name();
                let (family, series) = (&rejected.family, rejected.series);
                warn!(family, reason, series, "the manager rejects metrics: {}", rejected.message);
            }
        }
    }

    /// The last frame, and Goodbye.
    async fn leave(&mut self, session: &mut Session) -> Result<End, Lost> {
        for _ in 0..=MAX_RESYNCS {
            self.report(session).await?;
            let goodbye = self.ledger.goodbye();
            self.goodbye = Some(goodbye.sequence);
            if session.leave(goodbye).await? {
                return Ok(End::Left);
            }
            self.ledger.resync();
        }
        Err(Lost::Unexpected("one Resync after the other"))
    }

    /// The manager closed this instance, by itself or because it heard the Goodbye whose stream then broke.
    fn closed(&mut self, closed_at: u64) -> End {
        if self.goodbye == Some(closed_at) {
            return End::Left;
        }
        match random_instance_id() {
            Ok(id) => {
                info!(closed_at, "the manager closed this instance; counting on as a new one");
                self.ledger.restart(id, closed_at);
                self.started_at = SystemTime::now();
                self.goodbye = None;
            }
            Err(error) => warn!("no random bytes for a new instance id: {error}"),
        }
        End::Restarted
    }

    fn gather(&mut self) {
        let families: Vec<_> = self.registries.iter().flat_map(Registry::gather).collect();
        self.ledger.gather(&families);
    }

    fn hello(&self) -> Hello {
        Hello {
            fleet: self.fleet.clone(),
            shard_id: self.shard.id,
            shard_count: self.shard.count,
            instance_id: self.ledger.instance_id().to_vec(),
            started_at: Some(self.started_at.into()),
            client_name: self.client.name.clone(),
            client_version: self.client.version.clone(),
        }
    }
}

fn report_interval(welcome: &Welcome) -> Duration {
    let stated = welcome.report_interval.and_then(|stated| Duration::try_from(stated).ok());
    stated.unwrap_or(DEFAULT_REPORT_INTERVAL).clamp(MIN_REPORT_INTERVAL, MAX_REPORT_INTERVAL)
}

/// Ticks that begin somewhere within the first period, so that shards which connected together report apart.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period.mul_f64(fastrand::f64()), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
