//! A session: one task that numbers a shard's events and keeps those the bot may ask for again.

mod command;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::identify::{GUILDS, Identify, close};
use super::payload;
use super::sessions::SessionHandle;
use crate::books::GuildBooks;
use crate::guilds::{Guild, Presence};
use crate::interactions::Issued;
use crate::state::{Shared, State};

pub(crate) use command::{GuildChange, Link, Order, Outbound, Resumption, SessionCommand};
use replay::Replay;

/// Commands that wait for a session task. It never waits for a socket, so a few are enough.
const COMMANDS: usize = 64;
/// How long a session without a connection can be resumed.
const RESUME_WINDOW: Duration = Duration::from_secs(180);
/// Between two commands of a shard's own traffic, however low the rate: far ahead, and still a point in time.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
/// Guilds one shard may own.
const GUILDS_PER_SHARD: usize = 2_500;

/// Why a session does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartRefused {
    /// The shard would own more guilds than Discord allows.
    TooManyGuilds,
    /// A restart came in between; the connection ends, and must leave no session.
    ConnectionCut,
}

/// The state of the task.
pub(super) struct Session {
    shared: Arc<Shared>,
    handle: SessionHandle,
    intents: u64,
    /// The events so far, as far as they are kept.
    replay: Replay,
    link: Option<Link>,
    /// When the last connection was lost.
    detached_at: Instant,
    /// When the next command of the shard's own traffic is due; `None` without traffic.
    traffic: Option<Interval>,
}

/// Starts a session on a connection. READY and the guilds are on their way when this returns.
///
/// # Errors
///
/// [`StartRefused`].
pub(super) fn start(
    shared: &Arc<Shared>,
    identify: Identify,
    link: Link,
    url: &str,
) -> Result<SessionHandle, StartRefused> {
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let begun = shared.change(|state| {
        let guilds = state.guilds.of_shard(identify.shard, identify.shard_count);
        if guilds.len() > GUILDS_PER_SHARD {
            return Err(StartRefused::TooManyGuilds);
        }
        if link.is_cut() {
            return Err(StartRefused::ConnectionCut);
        }
        Ok((state.sessions.start(&mut state.books, &identify, commands), guilds))
    });
    let (handle, guilds) = begun?;
    let mut session = Session {
        shared: Arc::clone(shared),
        handle: handle.clone(),
        intents: identify.intents,
        replay: Replay::default(),
        link: Some(link),
        detached_at: Instant::now(),
        traffic: traffic(shared.config.commands_per_second, &identify),
    };
    session.greet(url, &guilds);
    shared.tasks.spawn(session.run(inbox));
    Ok(handle)
}

impl Session {
    async fn run(mut self, mut inbox: mpsc::Receiver<SessionCommand>) {
        let ended = self.handle.ended.clone();
        loop {
            let attached = self.link.is_some();
            let goes_on = tokio::select! {
                biased;
                () = ended.cancelled() => false,
                command = inbox.recv() => match command {
                    Some(command) => self.apply(command),
                    None => false,
                },
                () = closed(self.link.as_ref()), if attached => {
                    self.detach();
                    true
                }
                () = tick(self.traffic.as_mut()), if attached => {
                    self.send_traffic();
                    true
                }
                () = tokio::time::sleep_until(self.detached_at + RESUME_WINDOW), if !attached => false,
            };
            if !goes_on {
                break;
            }
        }
        self.end();
    }

    /// Ends the session, in the books too; a second time changes nothing.
    fn end(&self) {
        let SessionHandle { id, shard, .. } = &self.handle;
        self.shared.change(|state| state.sessions.end(&mut state.books, *shard, id));
        self.handle.ended.cancel();
    }

    fn greet(&mut self, url: &str, guilds: &[Guild]) {
        let SessionHandle { id, shard, shard_count, .. } = self.handle.clone();
        let stubs = |state: &mut State| {
            let books = state.books.shard_mut(shard);
            books.guilds.extend(guilds.iter().map(|guild| (guild.id, GuildBooks::default())));
            Some(())
        };
        self.dispatch("READY", stubs, |()| payload::ready(&id, url, (shard, shard_count), guilds));
        for guild in guilds.iter().filter(|guild| guild.presence == Presence::Available) {
            self.tell(GuildChange::Available { guild: *guild, joined: false });
        }
    }

    /// Does what it is told; `false` when that was the session's end.
    fn apply(&mut self, command: SessionCommand) -> bool {
        // Who asked may have gone; what was asked for is done all the same.
        match command {
            SessionCommand::Interaction { place, command, done } => {
                let shard = self.handle.shard;
                let issued = self.send_interaction(|state| {
                    Some(state.interactions.issue(&mut state.books, shard, place, &command))
                });
                if let Some(issued) = issued {
                    let _ = done.send(issued.id);
                }
                true
            }
            SessionCommand::Guild { change, done } => {
                self.tell(change);
                let _ = done.send(());
                true
            }
            SessionCommand::Order { order, done } => {
                let attached = self.link.is_some();
                let goes_on = !attached || self.order(order);
                if !goes_on {
                    self.end();
                }
                let _ = done.send(attached);
                goes_on
            }
            SessionCommand::Resume { sequence, link, done } => {
                let resumption = self.resume(sequence, link);
                let goes_on = resumption == Resumption::Resumed;
                if !goes_on {
                    self.end();
                }
                let _ = done.send(resumption);
                goes_on
            }
            SessionCommand::Confirmed(sequence) => {
                self.replay.forget(sequence);
                true
            }
        }
    }

    fn send_traffic(&mut self) {
        let SessionHandle { shard, shard_count, .. } = self.handle;
        let id = Arc::clone(&self.handle.id);
        // Of two sessions of a shard (a rolling restart), the newer one gets the commands.
        self.send_interaction(|state| {
            let newest = state.books.shard_mut(shard).is_newest(&id);
            newest.then(|| state.issue_traffic(shard, shard_count)).flatten()
        });
    }

    fn send_interaction(
        &mut self,
        issue: impl FnOnce(&mut State) -> Option<Issued>,
    ) -> Option<Issued> {
        self.dispatch("INTERACTION_CREATE", issue, payload::interaction)
    }

    fn tell(&mut self, change: GuildChange) {
        if self.intents & GUILDS == 0 {
            return;
        }
        let (event, id, books, data) = match change {
            GuildChange::Available { guild, joined } => {
                let books = GuildBooks { available: true, members: guild.members };
                ("GUILD_CREATE", guild.id, Some(books), payload::guild(&guild, joined))
            }
            GuildChange::Unavailable(id) => {
                let books = GuildBooks::default();
                ("GUILD_DELETE", id, Some(books), payload::unavailable_guild(id))
            }
            GuildChange::Left(id) => ("GUILD_DELETE", id, None, payload::left_guild(id)),
        };
        let SessionHandle { id: session, shard, .. } = self.handle.clone();
        let book = |state: &mut State| {
            let shard = state.books.shard_mut(shard);
            if shard.is_newest(&session) {
                match books {
                    Some(books) => shard.guilds.insert(id, books),
                    None => shard.guilds.remove(&id),
                };
            }
            Some(())
        };
        self.dispatch(event, book, |()| data);
    }

    /// Dispatches an event: its cause and its number are booked as one, then it goes out. Nothing happens when `cause`
    /// finds none.
    fn dispatch<R>(
        &mut self,
        event: &'static str,
        cause: impl FnOnce(&mut State) -> Option<R>,
        data: impl FnOnce(&R) -> Value,
    ) -> Option<R> {
        let SessionHandle { id, shard, .. } = &self.handle;
        let sequence = self.replay.newest() + 1;
        let caused = self.shared.change(|state| {
            let caused = cause(state)?;
            state.books.shard_mut(*shard).dispatch(id, event, sequence);
            Some(caused)
        })?;
        let frame = payload::dispatch(event, sequence, &data(&caused));
        self.replay.push(frame.clone());
        self.deliver(Outbound::Frame(frame));
        Some(caused)
    }

    /// Hands a frame to the connection; one that reads too slowly is dropped.
    fn deliver(&mut self, frame: Outbound) {
        if self.link.as_ref().is_some_and(|link| !link.deliver(frame)) {
            self.cut();
        }
    }

    fn order(&mut self, order: Order) -> bool {
        let shard = self.handle.shard;
        match order {
            Order::Cut => {
                self.cut();
                true
            }
            Order::Close(code) => {
                self.shared.change(|state| state.books.close(Some(shard), code));
                self.deliver(Outbound::Close(code));
                self.detach();
                !close::ends_session(code)
            }
            Order::Invalidate { resumable } => {
                self.shared.change(|state| {
                    let sent = &mut state.books.shard_mut(shard).invalid_sessions;
                    *sent.entry(resumable).or_default() += 1;
                });
                self.deliver(Outbound::InvalidSession(resumable));
                self.detach();
                resumable
            }
            Order::Reconnect => {
                self.shared.change(|state| state.books.shard_mut(shard).reconnects += 1);
                self.deliver(Outbound::Frame(payload::reconnect()));
                true
            }
            Order::RequestHeartbeat => {
                self.deliver(Outbound::Frame(payload::heartbeat_request()));
                true
            }
        }
    }

    fn resume(&mut self, sequence: u64, link: Link) -> Resumption {
        if sequence > self.replay.newest() {
            return Resumption::BeyondSequence;
        }
        let Some(missed) = self.replay.after(sequence) else {
            return Resumption::Expired;
        };
        if let Some(replaced) = self.link.replace(link) {
            replaced.cut();
        }
        self.replay.forget(sequence);
        if let Some(traffic) = &mut self.traffic {
            // What came due without a connection is not made up for.
            traffic.reset();
        }
        let SessionHandle { id, shard, .. } = self.handle.clone();
        let replayed = missed.len() as u64;
        for frame in missed {
            self.deliver(Outbound::Frame(frame));
        }
        let book = |state: &mut State| {
            let books = state.books.shard_mut(shard);
            books.resumes += 1;
            books.replayed += replayed;
            books.confirm_sequence(&id, sequence);
            books.set_connected(&id, true);
            Some(())
        };
        self.dispatch("RESUMED", book, |()| Value::Object(serde_json::Map::new()));
        Resumption::Resumed
    }

    fn cut(&mut self) {
        let Some(link) = &self.link else { return };
        link.cut();
        let shard = self.handle.shard;
        self.shared.change(|state| state.books.shard_mut(shard).cuts += 1);
        self.detach();
    }

    fn detach(&mut self) {
        self.link = None;
        self.detached_at = Instant::now();
        let SessionHandle { id, shard, .. } = &self.handle;
        self.shared.change(|state| state.books.shard_mut(*shard).set_connected(id, false));
    }
}

/// A shard's part of the traffic, out of step with the other shards'.
fn traffic(commands_per_second: f64, identify: &Identify) -> Option<Interval> {
    let Identify { shard, shard_count, .. } = *identify;
    let rate = commands_per_second / f64::from(shard_count);
    // No rate is an infinite period, which is no duration.
    let period = Duration::try_from_secs_f64(rate.recip()).ok()?;
    let period = period.clamp(Duration::from_micros(1), LONGEST_PERIOD);
    let phase = period.mul_f64(f64::from(shard + 1) / f64::from(shard_count));
    let mut interval = tokio::time::interval_at(Instant::now() + phase, period);
    // Rates beyond the timer's millisecond are met on average.
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    Some(interval)
}

/// Completes when the connection has gone; never without one.
async fn closed(link: Option<&Link>) {
    match link {
        Some(link) => link.closed().await,
        None => std::future::pending().await,
    }
}

/// Completes when a command is due; never without traffic.
async fn tick(traffic: Option<&mut Interval>) {
    match traffic {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
