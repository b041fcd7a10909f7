//! The bus of live events: what bots do and what changes in the fleet, told to everybody who listens.
//!
//! With Redis, events of the bots come from there, and what this process publishes goes there; without, they stay within
//! the process. Either way each is kept in the ring for a while, and listeners read from it at their own pace.

pub(crate) mod redis;
mod ring;
mod subscription;

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::Serialize;
use shardmeter_proto::events::{self, GuildId};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{redis::OnRedis, ring::Ring};
pub use self::{
    ring::{EventId, EventIdError, Last},
    subscription::{Ended, Heard, Passage, Subscription},
};
use crate::{fleet::ShardState, store::Incident};

/// Events that come within this time are told together: each listener costs a write a tenth of a second at most, however
/// many events there are. The first after a pause is told at once.
const TOGETHER: Duration = Duration::from_millis(100);

/// How often listeners hear that there is nothing to hear.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// On the platform: of a bot, or of its settings.
    Platform(events::Event),
    /// To a shard, as the manager tells it. Each process of the api hears of it by itself.
    Shard(ShardEvent),
    /// Redis was away: what happened meanwhile was not heard.
    Gap,
}

/// What happened to a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardEvent {
    #[serde(rename = "type")]
    name: &'static str,
    shard_id: u32,
    kind: Box<str>,
    instance: Option<Box<str>>,
    reason: Option<Box<str>>,
    count: u64,
    /// Whether the shard reports, after it.
    state: ShardState,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    epoch: Box<str>,
    revision: u64,
}

impl ShardEvent {
    pub(crate) fn new(incident: &Incident, shard_id: u32, state: ShardState) -> Self {
        Self {
            name: "shard_event",
            shard_id,
            kind: incident.kind.as_str().into(),
            instance: incident.instance.as_deref().map(Box::from),
            reason: incident.reason.as_deref().map(Box::from),
            count: incident.count,
            state,
            at: incident.at.into(),
            epoch: incident.epoch.as_str().into(),
            revision: incident.revision,
        }
    }
}

impl From<ShardEvent> for Event {
    fn from(event: ShardEvent) -> Self {
        Self::Shard(event)
    }
}

impl From<events::Event> for Event {
    fn from(event: events::Event) -> Self {
        Self::Platform(event)
    }
}

/// What is said of a [`Event::Gap`].
#[derive(Serialize)]
struct Gap {
    #[serde(rename = "type")]
    name: &'static str,
}

impl Event {
    /// The event's name, as listeners are told it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Platform(event) => event.name(),
            Self::Shard(event) => event.name,
            Self::Gap => "gap",
        }
    }

    /// Whether somebody who listens to one guild alone hears of it.
    fn concerns(&self, guild: GuildId) -> bool {
        match self {
            Self::Platform(event) => event.guild_id() == Some(guild),
            Self::Shard(_) => false,
            Self::Gap => true,
        }
    }

    fn write_json(&self, to: impl io::Write) -> serde_json::Result<()> {
        match self {
            Self::Platform(event) => serde_json::to_writer(to, event),
            Self::Shard(event) => serde_json::to_writer(to, event),
            Self::Gap => serde_json::to_writer(to, &Gap { name: self.name() }),
        }
    }
}

/// The bus; clones are handles of one.
#[derive(Debug, Clone)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoch: u32,
    ring: Mutex<Ring>,
    /// Changes with each batch too.
    told: watch::Sender<Told>,
    /// Something is to be sealed.
    filling: Notify,
    redis: Option<OnRedis>,
}

/// What listeners are told beside events.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    heartbeats: u64,
    closed: bool,
}

impl Shared {
    fn push(&self, event: Event) {
        let sealed = {
            let mut ring = self.ring.lock();
            ring.push(event) && ring.seal()
        };
        if sealed {
            self.told.send_modify(|_batch| {});
        } else {
            self.filling.notify_one();
        }
    }

    fn seal(&self) {
        if self.ring.lock().seal() {
            self.told.send_modify(|_batch| {});
        }
    }
}

impl Events {
    /// A bus whose events stay in this process, until `stop`.
    #[must_use]
    pub fn within_process(stop: CancellationToken) -> (Self, EventTasks) {
        Self::new(None, stop)
    }

    fn new(redis: Option<OnRedis>, stop: CancellationToken) -> (Self, EventTasks) {
        // Nothing but another than other processes have.
        let epoch = fastrand::u32(..);
        let shared = Arc::new(Shared {
            epoch,
            ring: Mutex::new(Ring::new(epoch)),
            told: watch::Sender::default(),
            filling: Notify::new(),
            redis,
        });
        let mut tasks = EventTasks(JoinSet::new());
        tasks.add("live events", tokio::spawn(keep_sealing(Arc::clone(&shared), stop)));
        (Self(shared), tasks)
    }

    /// Tells of an event. Never waits, never fails.
    pub fn publish(&self, event: impl Into<Event>) {
        let event = event.into();
        if let (Some(redis), Event::Platform(event)) = (&self.0.redis, &event) {
            redis.publish(event.clone());
        }
        self.0.push(event);
    }

    /// Settings may be others than bots were told: tells them all anew once they can be read. Never waits.
    pub(crate) fn settings_unknown(&self) {
        if let Some(redis) = &self.0.redis {
            redis.settings_unknown();
        }
    }

    /// Listens to all events from now on, or to those of one guild; or on from the one after `last`.
    #[must_use]
    pub fn subscribe(&self, guild: Option<GuildId>, last: Option<Last>) -> Subscription {
        // What is not sealed yet was told before.
        self.0.seal();
        let told = self.0.told.subscribe();
        let heartbeats = told.borrow().heartbeats;
        let (position, gap) = self.0.ring.lock().position(last);
        let shared = Arc::clone(&self.0);
        Subscription { shared, told, guild, position, gap, heartbeats }
    }

    /// How events come and go.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match &self.0.redis {
            None => Reach::Process,
            Some(redis) if redis.is_up() => Reach::Redis,
            Some(_) => Reach::Down,
        }
    }
}

/// What keeps the bus going; it stops when this is dropped.
#[derive(Debug)]
pub struct EventTasks(JoinSet<&'static str>);

impl EventTasks {
    /// Takes a task, by what it is called.
    pub(crate) fn add(&mut self, name: &'static str, task: JoinHandle<()>) {
        let task = AbortOnDropHandle::new(task);
        self.0.spawn(async move {
            // A panic in it was reported where it was.
            let _ended = task.await;
            name
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Waits until one ends, which none does by itself; says which.
    pub(crate) async fn ended(&mut self) -> &'static str {
        let ended = self.0.join_next().await;
        ended.and_then(Result::ok).unwrap_or("bus of live events")
    }
}

/// How live events come and go: over Redis, over a Redis that is away, or within this process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Over Redis.
    Redis,
    /// Over Redis, which is away.
    Down,
    /// Within this process alone.
    Process,
}

async fn keep_sealing(shared: Arc<Shared>, stop: CancellationToken) {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = heartbeat.tick() => shared.told.send_modify(|told| told.heartbeats += 1),
            () = shared.filling.notified() => {
                shared.seal();
                sleep(TOGETHER).await;
            }
        }
    }
    shared.seal();
    shared.told.send_modify(|told| told.closed = true);
}

#[cfg(test)]
mod tests;
