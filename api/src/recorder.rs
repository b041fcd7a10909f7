//! What the bus's events leave in the database: how often commands were executed, and which guilds the bot is in.
//!
//! Events are added up and stored once a second. While the database is away they go on being added up, which takes next to
//! no room. Of several apis that hear the same bots only one records ([`Store::records`]). A batch whose outcome is not known,
//! because the connection was cut at its end, is tried again as it was; the database knows if it has it.

use std::{
    collections::BTreeMap,
    iter,
    time::{Duration, SystemTime},
};

use shardmeter_proto::events::Event as Platform;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    events::{Ended, Event, Events, Heard, Subscription},
    metrics::RecorderMetrics,
    store::{Batch, Executed, Presence, Store, StoreError, hour_of, is_command_name},
};

/// How often what was heard is stored.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts, and guilds joined or left, that are stored at once: few enough for a database far away.
const AT_ONCE: usize = 500;

/// What storing the rest may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// Hours and commands that wait for the database: a bot's hundred commands, for four days.
const MAX_COUNTS: usize = 10_000;

/// Guilds joined or left that wait for it: a busy bot has hundreds a day.
const MAX_PRESENCES: usize = 10_000;

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
    let recorder = Recorder { name, batch: None, batches: 0, waiting, store, metrics, failures: 0 };
    let subscription = events.subscribe(None, None);
    tokio::spawn(recorder.run(subscription, events.clone()))
}

struct Recorder {
    /// Another than any other process's.
    name: String,
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

/// What is not stored yet.
#[derive(Debug, Default)]
struct Waiting {
    /// By hour and name.
    executed: BTreeMap<(SystemTime, String), u64>,
    /// In order.
    presences: Vec<Presence>,
}

impl Recorder {
    async fn run(mut self, mut subscription: Subscription, events: Events) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = subscription.next() => match heard {
                    Ok(Heard::Events(passage)) => {
                        let now = SystemTime::now();
                        for event in passage.events() {
                            self.hear(event, now);
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
        if timeout(LAST, last).await.is_err() || !self.is_idle() {
            tracing::warn!("what was heard last is not in the database, which is away");
        }
    }

    fn hear(&mut self, event: &Event, now: SystemTime) {
        let taken = match event {
            Event::Platform(Platform::CommandExecuted { command_name, .. }) => {
                self.waiting.count(command_name, now)
            }
            Event::Platform(Platform::GuildJoined { shard_id, guild_id }) => {
                self.waiting.note(Presence {
                    guild_id: guild_id.get(),
                    shard_id: *shard_id,
                    at: now,
                    joined: true,
                })
            }
            Event::Platform(Platform::GuildLeft { shard_id, guild_id }) => {
                self.waiting.note(Presence {
                    guild_id: guild_id.get(),
                    shard_id: *shard_id,
                    at: now,
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
        match self.store.records() {
            // Nobody knows yet who will.
            None => return false,
            Some(false) => {
                (self.batch, self.waiting) = (None, Waiting::default());
                return true;
            }
            Some(true) => {}
        }
        let batch = self.batch.get_or_insert_with(|| {
            self.batches += 1;
            let (executed, presences) = self.waiting.take_first();
            Batch { recorder: self.name.clone(), number: self.batches, executed, presences }
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
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.executed.is_empty() && self.presences.is_empty()
    }

    /// What is stored next.
    fn take_first(&mut self) -> (Vec<Executed>, Vec<Presence>) {
        let first = iter::from_fn(|| self.executed.pop_first()).take(AT_ONCE);
        let executed =
            first.map(|((at, command_name), count)| Executed { at, command_name, count }).collect();
        let presences = self.presences.drain(..AT_ONCE.min(self.presences.len()));
        (executed, presences.collect())
    }

    /// Whether there was room for it.
    fn count(&mut self, command_name: &str, now: SystemTime) -> bool {
        let key = (hour_of(now), command_name.to_owned());
        if let Some(count) = self.executed.get_mut(&key) {
            *count += 1;
            return true;
        }
        let fits = self.executed.len() < MAX_COUNTS && is_command_name(command_name);
        if fits {
            self.executed.insert(key, 1);
        }
        fits
    }

    /// Whether there was room for it.
    fn note(&mut self, presence: Presence) -> bool {
        let fits = self.presences.len() < MAX_PRESENCES && i64::try_from(presence.guild_id).is_ok();
        if fits {
            self.presences.push(presence);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// PostgreSQL would refuse them, and all that came with them.
    #[test]
    fn what_is_no_name_is_not_kept() {
        let mut waiting = Waiting::default();
        for name in ["", "bad\0name", "two words", &"x".repeat(33)] {
            assert!(!waiting.count(name, time(0)), "{name:?}");
        }
        assert!(waiting.count("größe-2", time(0)));
    }

    #[test]
    fn commands_are_added_up_by_hour() {
        let mut waiting = Waiting::default();
        for seconds in [0, 1, 3599, 3600] {
            assert!(waiting.count("ping", time(seconds)));
        }
        let counts: Vec<_> = waiting.executed.into_iter().collect();
        let key = |seconds| (time(seconds), "ping".to_owned());
        assert_eq!(counts, [(key(0), 3), (key(3600), 1)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        for i in 0..MAX_COUNTS {
            assert!(waiting.count(&format!("c{i}"), time(0)));
        }
        assert!(!waiting.count("another", time(0)));
        assert!(waiting.count("c0", time(0)), "what is there goes on");
        let presence = Presence { guild_id: 1, shard_id: 0, at: time(0), joined: true };
        for _ in 0..MAX_PRESENCES {
            assert!(waiting.note(presence));
        }
        assert!(!waiting.note(presence));
    }

    #[test]
    fn everything_is_stored_once_in_parts_and_in_order() {
        let mut waiting = Waiting::default();
        let presence = |guild_id| Presence { guild_id, shard_id: 0, at: time(0), joined: true };
        let many = 2 * AT_ONCE as u64 + 1;
        for i in 0..many {
            assert!(waiting.count(&format!("c{i}"), time(0)) && waiting.note(presence(i)));
        }
        let (mut names, mut guilds) = (Vec::new(), Vec::new());
        while !waiting.is_empty() {
            let (executed, presences) = waiting.take_first();
            assert!(executed.len() <= AT_ONCE && presences.len() <= AT_ONCE);
            names.extend(executed.into_iter().map(|executed| executed.command_name));
            guilds.extend(presences.iter().map(|presence| presence.guild_id));
        }
        assert!(guilds.into_iter().eq(0..many));
        names.sort();
        names.dedup();
        assert_eq!(names.len() as u64, many);
    }

    #[test]
    fn what_discord_cannot_have_said_is_not_stored() {
        let mut waiting = Waiting::default();
        assert!(!waiting.count(&"x".repeat(33), time(0)));
        let guild_id = u64::MAX;
        assert!(!waiting.note(Presence { guild_id, shard_id: 0, at: time(0), joined: true }));
        assert!(waiting.is_empty());
    }
}
