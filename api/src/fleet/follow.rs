//! What happens to shards, as the manager tells it: told live, and stored as incidents, each once.
//!
//! Two tasks with a bounded queue between them: one reads the manager's stream, the other stores. While the database is
//! away the queue fills, and then the stream is not read any further: the manager keeps the last 10,000 events. With the
//! incidents the database stores how far it has come, so after a restart of the api the stream goes on from there; so it does
//! when the database is found to have come less far than it had, for it was deleted or put back. Until the database says how
//! far that is, what happens is told live, and stored once it is read again from there.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use shardmeter_proto::v1::{
    self, FleetState, ShardEventKind, ShardEventReason, WatchShardsRequest, WatchShardsResponse,
    watch_shards_response::Message,
};
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Manager, time};
use crate::{
    events::{self, Events},
    metrics::FleetMetrics,
    store::{GAP, Incident, Position, Store, StoreError},
};

/// Incidents that wait for the database.
const MAX_WAITING: usize = 1_000;

/// Incidents that are stored at once.
const AT_ONCE: usize = 500;

/// For the manager to begin its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often is looked, while nothing happens, whether the database still is as far as it was.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Pause before a database that is away is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// At the start a database that is there has said how far it has come by then. Else what happens is told live meanwhile.
const DATABASE_WITHIN: Duration = Duration::from_secs(3);

/// Upper end of the first wait for the manager, and of every later one.
const BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// A stream that says nothing is one that is followed after this time, for nothing may have happened.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// What the stream told, and where that leaves it.
#[derive(Debug)]
struct Told {
    incident: Option<Incident>,
    position: Position,
}

/// Follows the manager until `shutdown`.
pub(crate) fn start(
    manager: Manager,
    store: Store,
    events: Events,
    metrics: FleetMetrics,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    let live = Position::default();
    let follower = Follower { manager, events, metrics, live, follows: None, failures: 0 };
    tokio::spawn(async move {
        // What is not stored yet is told again after the next start.
        shutdown.run_until_cancelled(follower.run(&store)).await;
    })
}

/// An answer of the manager's that goes on.
struct Stream {
    messages: Streaming<WatchShardsResponse>,
    /// When it is one that is followed, if it did not end by then.
    settled: Instant,
}

struct Follower {
    manager: Manager,
    events: Events,
    metrics: FleetMetrics,
    /// What was told live, or happened before anything was.
    live: Position,
    /// Whether the manager tells, as it was said last.
    follows: Option<bool>,
    /// Since the manager told something last.
    failures: u32,
}

impl Follower {
    async fn run(mut self, store: &Store) {
        loop {
            let mut position = self.begin(store).await;
            tracing::debug!(epoch = position.epoch, revision = position.revision, "stored so far");
            if self.live == Position::default() {
                self.live.clone_from(&position);
            }
            let (told, waiting) = mpsc::channel(MAX_WAITING);
            let metrics = self.metrics.clone();
            let keeping = keep(waiting, position.clone(), store, &metrics);
            tokio::select! {
                never = self.keep_following(Some((&mut position, &told))) => match never {},
                () = keeping => tracing::warn!(
                    "the database is not where this api left it: another wrote to it, or it was deleted or put back; \
                     what happened since is asked of the manager again"
                ),
            }
        }
    }

    /// From where to follow. What happens until that is known is told live.
    async fn begin(&mut self, store: &Store) -> Position {
        let live = async {
            sleep(DATABASE_WITHIN).await;
            tracing::debug!(
                "the database does not say how far it has come: what happens is told live alone"
            );
            self.keep_following(None).await
        };
        tokio::select! {
            biased;
            position = stored_position(store) => position,
            never = live => match never {},
        }
    }

    /// Follows the manager for ever, on from what is stored; or live alone, where that is not known.
    async fn keep_following(
        &mut self,
        mut stored: Option<(&mut Position, &Sender<Told>)>,
    ) -> Infallible {
        loop {
            let Err(status) = match &mut stored {
                Some((position, told)) => self.watch(position, told).await,
                None => self.watch_live().await,
            };
            if self.follows != Some(false) {
                tracing::warn!(
                    code = ?status.code(),
                    reason = status.message(),
                    "the manager does not tell what happens to shards"
                );
            }
            self.follows = Some(false);
            sleep(backoff(self.failures)).await;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Asks the manager what happened since `position`.
    async fn ask(&mut self, position: &Position) -> Result<Stream, Status> {
        let Position { epoch, revision } = position.clone();
        tracing::debug!(epoch, revision, "asking the manager what happened since");
        let request = WatchShardsRequest { epoch, revision };
        let answer = timeout(ANSWER_WITHIN, self.manager.watch_shards(request));
        let late = |_| Status::deadline_exceeded("the manager does not answer");
        let messages = answer.await.map_err(late)??.into_inner();
        Ok(Stream { messages, settled: Instant::now() + SETTLED_AFTER })
    }

    /// What the manager tells next.
    async fn next(&mut self, stream: &mut Stream) -> Result<WatchShardsResponse, Status> {
        let said = match timeout_at(stream.settled, stream.messages.message()).await {
            Err(_quiet) if self.follows != Some(true) => {
                self.follow();
                stream.messages.message().await
            }
            Err(_quiet) => stream.messages.message().await,
            Ok(said) => said,
        };
        let said = said?.ok_or_else(|| Status::unavailable("the manager ended its answer"))?;
        self.follow();
        Ok(said)
    }

    /// The manager tells. That it began to answer is not enough: it may end at once, again and again.
    fn follow(&mut self) {
        self.failures = 0;
        if self.follows.replace(true) != Some(true) {
            tracing::info!("follows what happens to shards");
        }
    }

    /// Takes what the manager tells from `position` on, until that ends.
    async fn watch(
        &mut self,
        position: &mut Position,
        sender: &Sender<Told>,
    ) -> Result<Infallible, Status> {
        let mut stream = self.ask(position).await?;
        loop {
            let told = match self.next(&mut stream).await?.message {
                // Nothing is stored yet: what the manager still has is where the history begins.
                Some(Message::State(state)) if begins_earlier(position, &state) => {
                    if self.live == Position::default() {
                        let (epoch, revision) = (state.epoch.clone(), state.revision);
                        self.live = Position { epoch, revision };
                    }
                    *position = Position { epoch: state.epoch, revision: state.kept_after };
                    stream = self.ask(position).await?;
                    continue;
                }
                Some(Message::State(state)) => self.state(position, state),
                Some(Message::Event(event)) => self.event(position, event),
                None => continue, // of a later version
            };
            position.clone_from(&told.position);
            if sender.send(told).await.is_err() {
                return Err(Status::cancelled("nobody stores it"));
            }
        }
    }

    /// The same from now on, and nothing is stored.
    async fn watch_live(&mut self) -> Result<Infallible, Status> {
        let mut stream = self.ask(&self.live.clone()).await?;
        loop {
            match self.next(&mut stream).await?.message {
                Some(Message::State(state)) => {
                    self.live = Position { epoch: state.epoch, revision: state.revision };
                }
                Some(Message::Event(event)) => drop(self.event(&self.live.clone(), event)),
                None => {} // of a later version
            }
        }
    }

    /// The stream goes on from elsewhere.
    fn state(&mut self, before: &Position, state: FleetState) -> Told {
        let position = Position { epoch: state.epoch, revision: state.revision };
        if !self.live.is_past(&position) {
            self.live.clone_from(&position);
        }
        if !state.gap {
            return Told { incident: None, position };
        }
        // Of another epoch it is not known how many.
        let same = before.epoch == position.epoch;
        let lost = if same { position.revision.saturating_sub(before.revision) } else { 1 }.max(1);
        tracing::error!(lost, "what happened to shards meanwhile is not known");
        self.metrics.api_incidents_lost_total.inc_by(lost);
        Told { incident: Some(gap(&position, lost)), position }
    }

    fn event(&mut self, before: &Position, event: v1::ShardEvent) -> Told {
        let (kind, reason) = (kind(event.kind()), reason(event.reason()));
        let position = Position { epoch: before.epoch.clone(), revision: event.revision };
        let state = super::ShardState::from(event.state());
        let incident = Incident {
            epoch: position.epoch.clone(),
            revision: position.revision,
            at: time(event.time).unwrap_or_else(SystemTime::now),
            shard_id: Some(event.shard_id),
            kind,
            instance: (!event.instance.is_empty()).then_some(event.instance),
            reason,
            count: event.count,
        };
        // What was told live is not told again where it is read to be stored.
        if !self.live.is_past(&position) {
            self.live.clone_from(&position);
            self.events.publish(events::ShardEvent::new(&incident, event.shard_id, state));
        }
        Told { incident: Some(incident), position }
    }
}

/// How far the database has come; it may be away for a while.
async fn stored_position(store: &Store) -> Position {
    loop {
        match store.position().await {
            Ok(position) => return position,
            Err(StoreError::Away(_)) => {}
            Err(StoreError::Failed(error)) => {
                tracing::error!(%error, "the database refused to say how far it has come");
            }
        }
        sleep(RETRY).await;
    }
}

/// Stores what waits, in order, until the database has not come as far as this is: it is not the one that it was.
async fn keep(
    mut waiting: Receiver<Told>,
    mut stored: Position,
    store: &Store,
    metrics: &FleetMetrics,
) {
    let mut batch = Vec::new();
    loop {
        let Ok(_some) = timeout(LOOK_INTERVAL, waiting.recv_many(&mut batch, AT_ONCE)).await else {
            match store.position().await {
                Ok(position) if !position.is_past(&stored) => return,
                Ok(_) | Err(_) => continue,
            }
        };
        let Some(position) = batch.last().map(|told| told.position.clone()) else { return };
        let mut incidents: Vec<_> = batch.drain(..).filter_map(|told| told.incident).collect();
        let mut failures = 0_u32;
        loop {
            match store.record_incidents(&stored, &incidents, &position).await {
                Ok(true) => {
                    stored = position;
                    break;
                }
                Ok(false) => return,
                Err(StoreError::Away(reason)) => {
                    failures = failures.saturating_add(1);
                    // Once may be the moment at which the database went away, which its keeper tells.
                    if failures == 2 {
                        tracing::warn!(reason, "incidents cannot be stored; trying again");
                    }
                    sleep(RETRY).await;
                }
                // It would be refused again.
                Err(StoreError::Failed(error)) => {
                    let lost = incidents.len() as u64;
                    tracing::error!(%error, lost, "the database refused incidents");
                    metrics.api_incidents_lost_total.inc_by(lost);
                    if lost == 0 || incidents.iter().all(|incident| incident.kind == GAP) {
                        break;
                    }
                    incidents = vec![gap(&position, lost)];
                }
            }
        }
    }
}

fn begins_earlier(position: &Position, state: &FleetState) -> bool {
    position.epoch.is_empty() && state.kept_after < state.revision
}

/// What happened before `position` is lost.
fn gap(position: &Position, lost: u64) -> Incident {
    Incident {
        epoch: position.epoch.clone(),
        revision: position.revision,
        at: SystemTime::now(),
        shard_id: None,
        kind: GAP.to_owned(),
        instance: None,
        reason: None,
        count: lost.max(1),
    }
}

fn kind(kind: ShardEventKind) -> String {
    let name = kind.as_str_name();
    name.strip_prefix("SHARD_EVENT_KIND_").unwrap_or(name).to_ascii_lowercase()
}

fn reason(reason: ShardEventReason) -> Option<String> {
    let name = reason.as_str_name();
    let name = name.strip_prefix("SHARD_EVENT_REASON_").unwrap_or(name).to_ascii_lowercase();
    (reason != ShardEventReason::Unspecified).then_some(name)
}

/// How long to wait after so many failures: drawn evenly from zero to an end that doubles, so that apis that lost their
/// manager at one moment come back spread over the whole time.
fn backoff(failures: u32) -> Duration {
    let end = BACKOFF.saturating_mul(2_u32.saturating_pow(failures)).min(MAX_BACKOFF);
    end.mul_f64(fastrand::f64())
}
