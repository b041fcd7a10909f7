//! The control handle: what tests and the demo do to the simulator, and what they see of it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::books::{Books, Place};
use crate::gateway::{GuildChange, Order, SessionCommand, SessionHandle};
use crate::guilds::{Guild, Presence};
use crate::rest::{Fault, Route};
use crate::state::Shared;

/// Acts on a running simulator and reads its books; cheap to clone.
///
/// When an act returns it is done and booked: `cut(0)` leaves shard 0 booked as not connected.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

/// Why an act was not possible. Nothing was sent or booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// The shard has no session.
    #[error("shard {0} has no session")]
    NoSession(u32),
    /// The shard has a session, but no connection to do this to.
    #[error("shard {0} is not connected")]
    NotConnected(u32),
    /// No such guild.
    #[error("there is no guild {0}")]
    UnknownGuild(u64),
    /// The guild is unavailable, or the bot has left it.
    #[error("guild {0} is away")]
    GuildAway(u64),
    /// No more guilds fit into the world, or no such shard.
    #[error("the guild cannot join")]
    CannotJoin,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A copy of the books, consistent at one moment.
    #[must_use]
    pub fn books(&self) -> Books {
        self.shared.read(|state| state.books.clone())
    }

    /// Waits until the books satisfy the predicate, which is asked again after every change. It runs under the
    /// simulator's lock: keep it short, and do not use this handle in it. A deadline is the caller's to set.
    pub async fn until(&self, predicate: impl FnMut(&Books) -> bool) {
        self.shared.until(predicate).await;
    }

    /// Waits until this many shards are connected.
    pub async fn until_connected(&self, shards: usize) {
        self.until(|books| books.connected().len() == shards).await;
    }

    /// Every guild of the world, those that joined or left included, by id.
    #[must_use]
    pub fn guilds(&self) -> Vec<Guild> {
        self.shared.read(|state| state.guilds.all())
    }

    /// Uses a slash command in a guild or a direct message; sends the interaction to the shard that owns the place, in
    /// the newest session of that shard. A session without a connection keeps it for its resume.
    ///
    /// # Errors
    ///
    /// [`ActError::UnknownGuild`], [`ActError::GuildAway`], [`ActError::NoSession`].
    pub async fn interaction(&self, place: Place, command: &str) -> Result<u64, ActError> {
        let session = self.shared.read(|state| {
            let shard = match place {
                Place::Dm => 0,
                Place::Guild(id) => {
                    let guild = state.guilds.get(id).ok_or(ActError::UnknownGuild(id))?;
                    if guild.presence != Presence::Available {
                        return Err(ActError::GuildAway(id));
                    }
                    state.sessions.shard_of(id)
                }
            };
            state.sessions.newest(shard).ok_or(ActError::NoSession(shard))
        })?;
        let command = command.to_owned();
        let id = ask(&session, |done| SessionCommand::Interaction { place, command, done }).await;
        id.ok_or(ActError::NoSession(session.shard))
    }

    /// Drops the shard's TCP connection without a close frame. The session can be resumed.
    ///
    /// # Errors
    ///
    /// [`ActError::NoSession`], [`ActError::NotConnected`]; so do the other acts on a shard.
    pub async fn cut(&self, shard: u32) -> Result<(), ActError> {
        self.order(shard, Order::Cut).await
    }

    /// Closes the shard's connection with a code. 4004, 4007, 4009 and 4010 to 4014 end the session as well.
    ///
    /// # Errors
    ///
    /// As [`Control::cut`].
    pub async fn close_with(&self, shard: u32, code: u16) -> Result<(), ActError> {
        self.order(shard, Order::Close(code)).await
    }

    /// Sends an invalid session (op 9). Unless it is resumable, the session is over.
    ///
    /// # Errors
    ///
    /// As [`Control::cut`].
    pub async fn invalidate(&self, shard: u32, resumable: bool) -> Result<(), ActError> {
        self.order(shard, Order::Invalidate { resumable }).await
    }

    /// Asks the shard to reconnect and resume (op 7).
    ///
    /// # Errors
    ///
    /// As [`Control::cut`].
    pub async fn reconnect(&self, shard: u32) -> Result<(), ActError> {
        self.order(shard, Order::Reconnect).await
    }

    /// Asks the shard for a heartbeat at once (op 1).
    ///
    /// # Errors
    ///
    /// As [`Control::cut`].
    pub async fn request_heartbeat(&self, shard: u32) -> Result<(), ActError> {
        self.order(shard, Order::RequestHeartbeat).await
    }

    /// Acknowledges the shard's heartbeats no longer, over reconnects, until told otherwise. (Twilight takes any event
    /// for a sign of life: a shard with traffic does not notice.)
    pub fn mute_acks(&self, shard: u32, muted: bool) {
        self.shared.change(|state| match muted {
            true => state.muted.insert(shard),
            false => state.muted.remove(&shard),
        });
    }

    /// Lets a guild have an outage.
    ///
    /// # Errors
    ///
    /// [`ActError::UnknownGuild`], [`ActError::GuildAway`] when it is not available now.
    pub async fn guild_unavailable(&self, id: u64) -> Result<(), ActError> {
        let change = |_| GuildChange::Unavailable(id);
        self.change_guild(id, &[Presence::Available], Presence::Unavailable, change).await
    }

    /// Ends a guild's outage.
    ///
    /// # Errors
    ///
    /// [`ActError::UnknownGuild`], [`ActError::GuildAway`] when it has none.
    pub async fn guild_available(&self, id: u64) -> Result<(), ActError> {
        let change = |guild| GuildChange::Available { guild, joined: false };
        self.change_guild(id, &[Presence::Unavailable], Presence::Available, change).await
    }

    /// Takes the bot out of a guild.
    ///
    /// # Errors
    ///
    /// [`ActError::UnknownGuild`], [`ActError::GuildAway`] when it had left before.
    pub async fn guild_leave(&self, id: u64) -> Result<(), ActError> {
        let from = [Presence::Available, Presence::Unavailable];
        self.change_guild(id, &from, Presence::Left, |_| GuildChange::Left(id)).await
    }

    /// Lets the bot join a new guild that belongs to this shard; its id.
    ///
    /// # Errors
    ///
    /// [`ActError::CannotJoin`].
    pub async fn guild_join(&self, shard: u32, members: u32) -> Result<u64, ActError> {
        let (guild, sessions) = self.shared.change(|state| {
            let count = state.sessions.shard_count();
            let guild = state.guilds.join(shard, count, members).ok_or(ActError::CannotJoin)?;
            Ok((guild, state.sessions.of_guild(guild.id)))
        })?;
        tell(&sessions, GuildChange::Available { guild, joined: true }).await;
        Ok(guild.id)
    }

    /// Drops every connection without a close frame and forgets every session, as a crash of the gateway would: resumes
    /// get an invalid session. Guilds, registered commands and books stay.
    pub fn restart(&self) {
        self.shared.change(|state| state.sessions.restart(&mut state.books));
    }

    /// Lets the gateway have an outage, or end it: it begins as a restart does, and nobody gets a connection meanwhile. REST
    /// goes on.
    pub fn gateway_away(&self, away: bool) {
        self.shared.change(|state| {
            state.gateway_away = away;
            if away {
                state.sessions.restart(&mut state.books);
            }
        });
    }

    /// Stops the traffic of its own accord: when this returns, nothing more of it is sent.
    pub fn pause(&self) {
        self.shared.change(|state| state.paused = true);
    }

    /// Lets the traffic go on where it stopped.
    pub fn resume(&self) {
        self.shared.change(|state| state.paused = false);
    }

    /// Lays a fault in the way of the next `times` requests of a route, after the faults that wait there already.
    pub fn inject(&self, route: Route, fault: Fault, times: usize) {
        self.shared.change(|state| state.faults.inject(route, fault, times));
    }

    /// Takes away all faults that wait.
    pub fn clear_faults(&self) {
        self.shared.change(|state| state.faults.clear());
    }

    async fn order(&self, shard: u32, order: Order) -> Result<(), ActError> {
        let session = self.shared.read(|state| state.sessions.newest(shard));
        let session = session.ok_or(ActError::NoSession(shard))?;
        match ask(&session, |done| SessionCommand::Order { order, done }).await {
            Some(true) => Ok(()),
            Some(false) => Err(ActError::NotConnected(shard)),
            None => Err(ActError::NoSession(shard)),
        }
    }

    async fn change_guild(
        &self,
        id: u64,
        from: &[Presence],
        to: Presence,
        change: impl FnOnce(Guild) -> GuildChange,
    ) -> Result<(), ActError> {
        let (guild, sessions) = self.shared.change(|state| {
            let guild = state.guilds.get(id).ok_or(ActError::UnknownGuild(id))?;
            if !from.contains(&guild.presence) {
                return Err(ActError::GuildAway(id));
            }
            let guild = state.guilds.set_presence(id, to).ok_or(ActError::UnknownGuild(id))?;
            Ok((guild, state.sessions.of_guild(id)))
        })?;
        tell(&sessions, change(guild)).await;
        Ok(())
    }
}

async fn tell(sessions: &[SessionHandle], change: GuildChange) {
    for session in sessions {
        // A session that ended needs no event: the next one reads the world.
        ask(session, |done| SessionCommand::Guild { change, done }).await;
    }
}

/// Sends a command and waits for its answer; `None` when the session has ended.
async fn ask<R>(
    session: &SessionHandle,
    command: impl FnOnce(oneshot::Sender<R>) -> SessionCommand,
) -> Option<R> {
    let (done, answer) = oneshot::channel();
    session.commands.send(command(done)).await.ok()?;
    answer.await.ok()
}
