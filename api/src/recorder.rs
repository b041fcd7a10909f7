//! What the bus's events leave in the database: how often commands were executed, and which guilds the bot is in.
//!
//! Events are added up and stored once a second. While the database is away they go on being added up, which takes next to
//! no room. A batch whose outcome is not known, because the connection was cut at its end, is tried again as it was; the
//! database knows if it has it.
//!
//! Of several apis that hear the same bots only one records ([`Store::recording`]). Who comes to record, or comes back to it,
//! goes on after what the others have stored, by the time at which they heard it: their clocks should agree.

mod waiting;

use std::time::{Duration, SystemTime};

use shardmeter_proto::events::Event as Platform;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    events::{Ended, Event, Events, Heard, Subscription},
    metrics::RecorderMetrics,
    store::{Batch, Presence, Recording, Store, StoreError},
};
use waiting::Waiting;

/// How often what was heard is stored.
const INTERVAL: Duration = Duration::from_secs(1);

/// What storing the rest may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// How long what another api records is kept: longer than it takes until that one has stored it, or this one knows that it
/// is gone.
const STANDBY: Duration = Duration::from_secs(3);

/// At most so much later than another, if at all, this api hears of the same event.
const APART: Duration = Duration::from_millis(100);

/// Of how many events, and which, nobody knows.
const UNKNOWN: &str = "unknown";

/// Listens to the bus and stores what it hears, until the bus ends.
pub(crate) fn start(events: &Events, store: Store, metrics: RecorderMetrics) -> JoinHandle<()> {
    // At zero: of a series that begins at one, no increase is seen.
    for event_type in Platform::NAMES.into_iter().chain([UNKNOWN]) {
        metrics.api_events_lost_total.with_label_values(&[event_type]);
    }
    let name = format!("{:016x}", fastrand::u64(..));
    let waiting = Waiting::default();
    let recorder = Recorder {
        name,
        term: None,
        batch: None,
        batches: 0,
        waiting,
        store,
        metrics,
        failures: 0,
    };
    let subscription = events.subscribe(None, None);
    tokio::spawn(recorder.run(subscription, events.clone()))
}

struct Recorder {
    /// Another than any other process's.
    name: String,
    /// For which it knows what others have stored: see [`Recording::This`].
    term: Option<u64>,
    /// What is being stored, and stays as it is until it is known to be.
    batch: Option<Batch>,
    /// How many there were.
    batches: u64,
    waiting: Waiting,
    store: Store,
    metrics: RecorderMetrics,
    /// Of the database, since it took something last.
    failures: u32,
}

impl Recorder {
    async fn run(mut self, mut subscription: Subscription, events: Events) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = subscription.next() => match heard {
                    Ok(Heard::Events(passage)) => {
                        for (event, at) in passage.timed() {
                            self.hear(event, at);
                        }
                    }
                    // How many were missed, nobody knows.
                    Ok(Heard::Gap) => self.lose(UNKNOWN),
                    Ok(Heard::Heartbeat) => {}
                    Err(Ended::Behind) => {
                        self.lose(UNKNOWN);
                        subscription = events.subscribe(None, None);
                    }
                    Err(Ended::Closed) => break,
                },
                _ = tick.tick() => {
                    if self.store_batch().await && !self.is_idle() {
                        // The rest as soon as what came meanwhile was heard.
                        tick.reset_immediately();
                    }
                }
            }
        }
        let last = async { while !self.is_idle() && self.store_batch().await {} };
        let late = timeout(LAST, last).await.is_err();
        if (late || !self.is_idle()) && self.store.recording() != Some(Recording::Another) {
            tracing::warn!("what was heard last is not in the database, which is away");
        }
    }

    fn hear(&mut self, event: &Event, at: SystemTime) {
        let taken = match event {
            Event::Platform(Platform::CommandExecuted { command_name, .. }) => {
                self.waiting.count(command_name, at)
            }
            Event::Platform(Platform::GuildJoined { shard_id, guild_id }) => self
                .waiting
                .note(Presence { guild_id: guild_id.get(), shard_id: *shard_id, at, joined: true }),
            Event::Platform(Platform::GuildLeft { shard_id, guild_id }) => {
                self.waiting.note(Presence {
                    guild_id: guild_id.get(),
                    shard_id: *shard_id,
                    at,
                    joined: false,
                })
            }
            Event::Platform(Platform::GuildSettingsUpdated(_)) | Event::Shard(_) => true,
            Event::Gap => false,
        };
        if !taken {
            self.lose(if *event == Event::Gap { UNKNOWN } else { event.name() });
        }
    }

    fn lose(&self, event_type: &str) {
        self.metrics.api_events_lost_total.with_label_values(&[event_type]).inc();
    }

    /// Whether everything is stored.
    fn is_idle(&self) -> bool {
        self.batch.is_none() && self.waiting.is_empty()
    }

    /// Stores the first of what waits. Whether that is done, so that more may be stored.
    async fn store_batch(&mut self) -> bool {
        if self.is_idle() {
            return true;
        }
        match self.store.recording() {
            // Nobody knows yet who will.
            None => return false,
            Some(Recording::Another) => {
                self.batch = None;
                self.waiting.forget_before(SystemTime::now() - STANDBY);
                return false;
            }
            Some(Recording::This(term)) => {
                if self.term != Some(term) && !self.take_over(term).await {
                    return false;
                }
            }
        }
        if self.is_idle() {
            return true;
        }
        let batch = self.batch.get_or_insert_with(|| {
            self.batches += 1;
            let (executed, presences, at) = self.waiting.take_first();
            Batch { recorder: self.name.clone(), number: self.batches, at, executed, presences }
        });
        match self.store.record_activity(batch).await {
            Ok(()) => self.failures = 0,
            Err(StoreError::Away(reason)) => {
                self.failures = self.failures.saturating_add(1);
                // Once may be the moment at which the database went away, which its keeper tells.
                if self.failures == 2 {
                    tracing::warn!(reason, "what was heard cannot be stored; trying again");
                }
                return false;
            }
            // It would be refused again.
            Err(StoreError::Failed(error)) => {
                tracing::error!(%error, "the database refused what was heard");
                self.lose(UNKNOWN);
            }
        }
        self.batch = None;
        true
    }

    /// Drops what others have stored meanwhile. Whether it is known what that is.
    async fn take_over(&mut self, term: u64) -> bool {
        match self.store.recorded_by_others(&self.name).await {
            Ok(at) => {
                self.waiting.forget_before(at + APART);
                self.batch = self.batch.take().filter(|batch| batch.at > at);
            }
            Err(StoreError::Away(_)) => return false,
            // It would be refused again.
            Err(StoreError::Failed(error)) => {
                tracing::error!(%error, "the database refused to say what others have stored");
            }
        }
        self.term = Some(term);
        true
    }
}
