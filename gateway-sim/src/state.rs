//! Everything that connections, REST and the control handle share, behind one small lock.
//!
//! The rules live in the parts, which are plain values: [`Guilds`], [`Interactions`], [`Traffic`], [`Starts`],
//! [`Sessions`], [`Faults`]. One lock over all of them is what makes a copy of the books consistent. It is held for
//! microseconds and never over an await.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::books::Books;
use crate::config::Config;
use crate::gateway::{Sessions, Starts};
use crate::guilds::Guilds;
use crate::interactions::{Interactions, Issued};
use crate::rest::{Faults, RegisteredCommands};
use crate::traffic::Traffic;

/// Connections held open at most: every shard there can be, and as many that reconnect before the old one is noticed.
const MAX_CONNECTIONS: usize = 2 * crate::config::MAX_SHARDS as usize;

/// What is shared, with what never changes beside it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    state: Mutex<State>,
    /// Notified after every change of the state.
    changed: Notify,
    /// Cancelled when the simulator shuts down.
    pub(crate) stopping: CancellationToken,
    /// Every connection and session task, for shutdown to wait for.
    pub(crate) tasks: TaskTracker,
    /// One permit per open gateway connection.
    pub(crate) connections: Arc<Semaphore>,
}

/// The parts.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) books: Books,
    pub(crate) guilds: Guilds,
    pub(crate) interactions: Interactions,
    pub(crate) starts: Starts,
    pub(crate) sessions: Sessions,
    pub(crate) faults: Faults,
    pub(crate) commands: RegisteredCommands,
    /// Shards whose heartbeats are not acknowledged.
    pub(crate) muted: BTreeSet<u32>,
    /// Whether the traffic of its own accord rests.
    pub(crate) paused: bool,
    /// Whether nobody gets a connection to the gateway.
    pub(crate) gateway_away: bool,
    /// The command generator of each shard, kept over its sessions.
    traffic: HashMap<u32, Traffic>,
    seed: u64,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        let stopping = CancellationToken::new();
        let state = State {
            books: Books::default(),
            guilds: Guilds::new(config.seed, config.guilds, &config.members_per_guild),
            interactions: Interactions::new(config.seed, config.interaction_deadline),
            starts: Starts::new(&config),
            sessions: Sessions::new(config.seed, &stopping),
            faults: Faults::default(),
            commands: RegisteredCommands::default(),
            muted: BTreeSet::new(),
            paused: false,
            gateway_away: false,
            traffic: HashMap::new(),
            seed: config.seed,
        };
        Self {
            config,
            state: Mutex::new(state),
            changed: Notify::new(),
            stopping,
            tasks: TaskTracker::new(),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Reads the state.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.lock())
    }

    /// Changes the state, and wakes who waits for it.
    pub(crate) fn change<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let outcome = act(&mut self.state.lock());
        self.changed.notify_waiters();
        outcome
    }

    /// Waits until the books satisfy the predicate; looks again after every change.
    pub(crate) async fn until(&self, mut predicate: impl FnMut(&Books) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change after it is not missed.
            changed.as_mut().enable();
            if self.read(|state| predicate(&state.books)) {
                return;
            }
            changed.await;
        }
    }
}

impl State {
    /// The next command of a shard's own traffic, booked as sent.
    pub(crate) fn issue_traffic(&mut self, shard: u32, shard_count: u32) -> Option<Issued> {
        if self.paused {
            return None;
        }
        let traffic = self.traffic.entry(shard).or_insert_with(|| Traffic::new(self.seed, shard));
        let (place, command) = traffic.draw(&self.guilds, shard_count)?;
        Some(self.interactions.issue(&mut self.books, shard, place, command))
    }

    /// Books a heartbeat and what it confirms; whether it is to be acknowledged.
    pub(crate) fn heartbeat(&mut self, shard: u32, session: &str, sequence: Option<u64>) -> bool {
        let books = self.books.shard_mut(shard);
        books.heartbeats += 1;
        if let Some(sequence) = sequence {
            books.confirm_sequence(session, sequence);
        }
        let acked = !self.muted.contains(&shard);
        books.acks += u64::from(acked);
        acked
    }
}
