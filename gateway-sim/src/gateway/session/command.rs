//! What a session is told, and what it gives its connection.

use axum::extract::ws::Utf8Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::replay::REPLAYED;
use crate::books::Place;
use crate::guilds::Guild;

/// Frames that wait for a socket: READY with the guilds Discord allows a shard, or a whole replay, and what comes
/// meanwhile. A client that reads slower than that is dropped, and may resume.
const OUTBOUND: usize = 2 * REPLAYED;

/// What a session task is asked to do.
#[derive(Debug)]
pub(crate) enum SessionCommand {
    /// Send an interaction; answers with its id.
    Interaction { place: Place, command: String, done: oneshot::Sender<u64> },
    /// Tell of a guild.
    Guild { change: GuildChange, done: oneshot::Sender<()> },
    /// Do something to the connection; answers whether there was one.
    Order { order: Order, done: oneshot::Sender<bool> },
    /// Go on from a sequence on this connection.
    Resume { sequence: u64, link: Link, done: oneshot::Sender<Resumption> },
    /// A heartbeat confirmed everything up to a sequence.
    Confirmed(u64),
}

/// A change of a guild, as the world has it now.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GuildChange {
    /// It joined, or is back.
    Available { guild: Guild, joined: bool },
    /// It has an outage.
    Unavailable(u64),
    /// The bot is no longer in it.
    Left(u64),
}

/// What the control handle can do to a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Cut,
    Close(u16),
    Invalidate { resumable: bool },
    Reconnect,
    RequestHeartbeat,
}

/// What became of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumption {
    Resumed,
    /// The missed events are not kept any more.
    Expired,
    /// The bot claims events that were never sent.
    BeyondSequence,
}

/// What a session gives its connection.
#[derive(Debug)]
pub(crate) enum Outbound {
    Frame(Utf8Bytes),
    /// Send this close frame; it is booked already.
    Close(u16),
    /// Send op 9; the connection has no session after it.
    InvalidSession(bool),
}

/// A session's way to a connection. Dropping it drops the connection, once what waits is written.
#[derive(Debug)]
pub(crate) struct Link {
    outbound: mpsc::Sender<Outbound>,
    /// Drops the connection at once.
    cut: CancellationToken,
}

impl Link {
    /// A link, and the frames for the connection to write. `cut` is what the connection ends with.
    pub(crate) fn new(cut: CancellationToken) -> (Self, mpsc::Receiver<Outbound>) {
        let (outbound, frames) = mpsc::channel(OUTBOUND);
        (Self { outbound, cut }, frames)
    }

    /// Queues a frame; `false` when the connection reads too slowly. One that has gone takes everything.
    pub(super) fn deliver(&self, frame: Outbound) -> bool {
        !matches!(self.outbound.try_send(frame), Err(TrySendError::Full(_)))
    }

    /// Drops the connection at once, without a close frame.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Whether it was dropped so.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Completes when the connection has gone.
    pub(super) async fn closed(&self) {
        self.outbound.closed().await;
    }
}
