//! What the simulator knows to be true: what it sent, and what the bots confirmed.
//!
//! Tests compare a bot's metrics with these. Every number changes at the moment the simulator acts, exactly once:
//! `sent` when an interaction gets its place in a session's sequence, `confirmed` when its callback is accepted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::rest::Route;

/// Sessions remembered per shard; older ones leave the books.
const SESSIONS_KEPT: usize = 16;

/// Identifies remembered per key; older ones leave the books.
const IDENTIFIES_KEPT: usize = 64;

/// Where a command was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A direct message.
    Dm,
    /// A guild, by its id.
    Guild(u64),
}

impl fmt::Display for Place {
    /// As in the metric label `guild_id`: `dm`, or the id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dm => f.write_str("dm"),
            Self::Guild(id) => write!(f, "{id}"),
        }
    }
}

/// Commands counted by where they were used and what their name is.
pub type Tally = BTreeMap<(Place, String), u64>;

/// A copy of everything booked, consistent at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Books {
    /// By shard id, whatever shard count the sessions stated.
    pub shards: BTreeMap<u32, ShardBooks>,
    /// Identifies by rate limit key, `shard_id % max_concurrency`; none while there is no such limit.
    pub identify_keys: BTreeMap<u32, IdentifyKeyBooks>,
    /// Identifies beyond the day's, for each of which Discord would reset the bot's token.
    pub token_resets: u64,
    /// Close frames sent to connections that had no session yet, by code.
    pub closes_before_identify: BTreeMap<u16, u64>,
    /// Resumes of sessions that do not exist (any more), answered with an invalid session.
    pub unknown_resumes: u64,
    /// Callbacks refused because no such interaction (or not with that token) was sent.
    pub unknown_callbacks: u64,
    /// REST answers by route and status, injected faults included.
    pub requests: BTreeMap<(Route, u16), u64>,
    /// How often global commands were registered.
    pub registrations: u64,
    /// The last registration.
    pub registered: Option<Registration>,
}

/// One `PUT /applications/{id}/commands` that was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registration {
    /// The application that was named.
    pub application_id: u64,
    /// The `User-Agent` of the caller: the only thing that tells two processes with one token apart.
    pub user_agent: String,
    /// Names of the commands, in the order stated.
    pub commands: Vec<String>,
}

/// The identifies of one rate limit key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentifyKeyBooks {
    /// The last of them, the newest last.
    pub attempts: VecDeque<IdentifyAttempt>,
    /// Those that came too soon after another, over all time.
    pub breaches: u64,
}

/// One identify with a token that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentifyAttempt {
    /// Who identified.
    pub shard: u32,
    /// When, since the simulator was built.
    pub at: Duration,
    /// Whether the limits allowed it.
    pub admitted: bool,
}

/// What is booked of one shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShardBooks {
    /// Interactions sent.
    pub sent: Tally,
    /// Interactions whose callback was accepted.
    pub confirmed: Tally,
    /// Callbacks refused because the interaction had been answered before.
    pub duplicate_callbacks: u64,
    /// Callbacks refused because they came after the deadline.
    pub late_callbacks: u64,
    /// Identifies accepted.
    pub identifies: u64,
    /// Identifies answered with an invalid session, because they came too often.
    pub identifies_refused: u64,
    /// Resumes accepted.
    pub resumes: u64,
    /// Events sent again by resumes.
    pub replayed: u64,
    /// Invalid sessions (op 9) sent, by whether they were marked resumable.
    pub invalid_sessions: BTreeMap<bool, u64>,
    /// Reconnect requests (op 7) sent.
    pub reconnects: u64,
    /// Close frames sent, by code.
    pub closes: BTreeMap<u16, u64>,
    /// Connections dropped without a close frame, by order or because the client read too slowly.
    pub cuts: u64,
    /// Close frames that the bot sent first, by code.
    pub closes_received: BTreeMap<u16, u64>,
    /// Events dispatched by type; replays are not counted again.
    pub events: BTreeMap<&'static str, u64>,
    /// Heartbeats received.
    pub heartbeats: u64,
    /// Heartbeats acknowledged.
    pub acks: u64,
    /// The guilds as the shard's newest session was told of them, by id.
    pub guilds: BTreeMap<u64, GuildBooks>,
    /// The last sessions, the newest last.
    pub sessions: VecDeque<SessionBooks>,
}

/// A guild as a session was told of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuildBooks {
    /// Whether its data was sent; otherwise it is unavailable.
    pub available: bool,
    /// Its members; 0 while it is unavailable.
    pub members: u32,
}

/// What is booked of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionBooks {
    /// Its id, as READY states it.
    pub id: String,
    /// The shard count its identify stated.
    pub shard_count: u32,
    /// Sequence of the last event dispatched.
    pub sequence: u64,
    /// The greatest sequence the bot confirmed, in a heartbeat or a resume.
    pub confirmed: u64,
    /// Whether a connection serves it.
    pub connected: bool,
    /// Whether it is over: it cannot be resumed any more.
    pub ended: bool,
}

impl Books {
    /// The shards that have a connected session.
    #[must_use]
    pub fn connected(&self) -> BTreeSet<u32> {
        let connected = self.shards.iter().filter(|(_, shard)| shard.connected());
        connected.map(|(id, _)| *id).collect()
    }

    /// The books of a shard that has identified, or tried to.
    #[must_use]
    pub fn shard(&self, shard: u32) -> Option<&ShardBooks> {
        self.shards.get(&shard)
    }

    /// Interactions sent, over all shards.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shards.values().flat_map(|shard| shard.sent.values()).sum()
    }

    /// Interactions confirmed, over all shards.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.shards.values().flat_map(|shard| shard.confirmed.values()).sum()
    }

    /// Identifies that came too soon after another of their key.
    #[must_use]
    pub fn identify_breaches(&self) -> u64 {
        self.identify_keys.values().map(|key| key.breaches).sum()
    }

    pub(crate) fn identify(&mut self, key: u32, attempt: IdentifyAttempt) {
        let key = self.identify_keys.entry(key).or_default();
        key.breaches += u64::from(!attempt.admitted);
        if key.attempts.len() == IDENTIFIES_KEPT {
            key.attempts.pop_front();
        }
        key.attempts.push_back(attempt);
    }

    pub(crate) fn shard_mut(&mut self, shard: u32) -> &mut ShardBooks {
        self.shards.entry(shard).or_default()
    }

    /// Books a close frame that is sent to a shard's connection, or to one that has no shard yet.
    pub(crate) fn close(&mut self, shard: Option<u32>, code: u16) {
        let closes = match shard {
            Some(shard) => &mut self.shard_mut(shard).closes,
            None => &mut self.closes_before_identify,
        };
        *closes.entry(code).or_default() += 1;
    }
}

impl ShardBooks {
    /// Whether one of its sessions is connected.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.sessions.iter().any(|session| session.connected)
    }

    /// The session that identified last.
    #[must_use]
    pub fn newest_session(&self) -> Option<&SessionBooks> {
        self.sessions.back()
    }

    /// Guilds that are available.
    #[must_use]
    pub fn available_guilds(&self) -> u64 {
        self.guilds.values().filter(|guild| guild.available).count() as u64
    }

    /// Guilds that are not.
    #[must_use]
    pub fn unavailable_guilds(&self) -> u64 {
        self.guilds.len() as u64 - self.available_guilds()
    }

    /// Members of the available guilds together.
    #[must_use]
    pub fn members(&self) -> u64 {
        self.guilds.values().map(|guild| u64::from(guild.members)).sum()
    }

    pub(crate) fn start_session(&mut self, id: &str, shard_count: u32) {
        self.identifies += 1;
        self.guilds.clear();
        if self.sessions.len() == SESSIONS_KEPT {
            self.sessions.pop_front();
        }
        self.sessions.push_back(SessionBooks {
            id: id.to_owned(),
            shard_count,
            connected: true,
            ..SessionBooks::default()
        });
    }

    /// The books of a session, as long as they are kept.
    pub(crate) fn session_mut(&mut self, id: &str) -> Option<&mut SessionBooks> {
        self.sessions.iter_mut().rev().find(|session| session.id == id)
    }

    pub(crate) fn is_newest(&self, id: &str) -> bool {
        self.newest_session().is_some_and(|session| session.id == id)
    }

    pub(crate) fn dispatch(&mut self, id: &str, event: &'static str, sequence: u64) {
        *self.events.entry(event).or_default() += 1;
        if let Some(session) = self.session_mut(id) {
            session.sequence = sequence;
        }
    }

    pub(crate) fn confirm_sequence(&mut self, id: &str, sequence: u64) {
        if let Some(session) = self.session_mut(id) {
            // A bot cannot confirm what was not sent, whatever it says.
            session.confirmed = session.confirmed.max(sequence.min(session.sequence));
        }
    }

    pub(crate) fn set_connected(&mut self, id: &str, connected: bool) {
        if let Some(session) = self.session_mut(id) {
            session.connected = connected && !session.ended;
        }
    }

    pub(crate) fn end_session(&mut self, id: &str) {
        if let Some(session) = self.session_mut(id) {
            session.connected = false;
            session.ended = true;
        }
    }
}
