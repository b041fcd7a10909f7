//! Which sessions there are, and how to reach their tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::identify::Identify;
use super::session::SessionCommand;
use crate::books::Books;
use crate::guilds::shard_of;
use crate::traffic::mix;

/// Sessions of one shard id at once: the running one, one of a rolling restart, and some that wait for a resume. A
/// further identify ends the oldest.
const SESSIONS_PER_SHARD: usize = 4;

/// What a session task is reached by.
#[derive(Debug, Clone)]
pub(crate) struct SessionHandle {
    pub(crate) id: Arc<str>,
    pub(crate) shard: u32,
    pub(crate) shard_count: u32,
    pub(crate) commands: mpsc::Sender<SessionCommand>,
    /// Cancelled to end the session: no resume, and its connection is dropped.
    pub(crate) ended: CancellationToken,
}

/// The sessions that can still be resumed, and the connections that are open.
#[derive(Debug)]
pub(crate) struct Sessions {
    seed: u64,
    /// How many there ever were; makes the ids.
    started: u64,
    /// Those of each shard, the newest last.
    by_shard: BTreeMap<u32, Vec<SessionHandle>>,
    /// The shard count stated last: where guilds belong.
    shard_count: u32,
    /// Parent of every connection's token; renewed by a restart.
    connections: CancellationToken,
    stopping: CancellationToken,
}

impl Sessions {
    pub(crate) fn new(seed: u64, stopping: &CancellationToken) -> Self {
        Self {
            seed,
            started: 0,
            by_shard: BTreeMap::new(),
            shard_count: 1,
            connections: stopping.child_token(),
            stopping: stopping.clone(),
        }
    }

    /// The token of a new connection; it is dropped when that is cancelled.
    pub(crate) fn connection_token(&self) -> CancellationToken {
        self.connections.child_token()
    }

    /// Enters a session that starts, and ends the oldest of its shard when there are too many.
    pub(crate) fn start(
        &mut self,
        books: &mut Books,
        identify: &Identify,
        commands: mpsc::Sender<SessionCommand>,
    ) -> SessionHandle {
        self.started += 1;
        let id = mix(self.seed, self.started);
        let handle = SessionHandle {
            id: format!("{id:016x}{:016x}", mix(id, self.started)).into(),
            shard: identify.shard,
            shard_count: identify.shard_count,
            commands,
            ended: self.stopping.child_token(),
        };
        let shard = books.shard_mut(identify.shard);
        let sessions = self.by_shard.entry(identify.shard).or_default();
        if sessions.len() == SESSIONS_PER_SHARD {
            let oldest = sessions.remove(0);
            shard.end_session(&oldest.id);
            oldest.ended.cancel();
        }
        sessions.push(handle.clone());
        shard.start_session(&handle.id, identify.shard_count);
        self.shard_count = identify.shard_count;
        handle
    }

    /// A session by id, for a resume.
    pub(crate) fn find(&self, id: &str) -> Option<SessionHandle> {
        let mut all = self.by_shard.values().flatten();
        all.find(|session| &*session.id == id).cloned()
    }

    /// The session of a shard that identified last.
    pub(crate) fn newest(&self, shard: u32) -> Option<SessionHandle> {
        self.by_shard.get(&shard)?.last().cloned()
    }

    /// The shard a guild belongs to now.
    pub(crate) fn shard_of(&self, guild_id: u64) -> u32 {
        shard_of(guild_id, self.shard_count)
    }

    /// The shard count stated last.
    pub(crate) fn shard_count(&self) -> u32 {
        self.shard_count
    }

    /// Every session that a guild's events go to.
    pub(crate) fn of_guild(&self, guild_id: u64) -> Vec<SessionHandle> {
        let all = self.by_shard.values().flatten();
        all.filter(|session| shard_of(guild_id, session.shard_count) == session.shard)
            .cloned()
            .collect()
    }

    /// Takes a session out; it cannot be resumed any more.
    pub(crate) fn end(&mut self, books: &mut Books, shard: u32, id: &str) {
        if let Some(sessions) = self.by_shard.get_mut(&shard) {
            sessions.retain(|session| &*session.id != id);
        }
        books.shard_mut(shard).end_session(id);
    }

    /// Forgets every session and drops every connection.
    pub(crate) fn restart(&mut self, books: &mut Books) {
        for session in std::mem::take(&mut self.by_shard).into_values().flatten() {
            books.shard_mut(session.shard).end_session(&session.id);
            session.ended.cancel();
        }
        let connections = std::mem::replace(&mut self.connections, self.stopping.child_token());
        connections.cancel();
    }
}
