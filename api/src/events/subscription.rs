//! One who listens.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use shardmeter_proto::events::GuildId;
use tokio::{sync::watch, time::Instant};

use super::{
    Event, Shared, Told,
    ring::{At, Batch, EventId},
};

/// Somebody who listens, at their own pace. It holds nothing of what it has not read.
#[derive(Debug)]
pub struct Subscription {
    pub(super) shared: Arc<Shared>,
    pub(super) told: watch::Receiver<Told>,
    pub(super) guild: Option<GuildId>,
    /// The next to be read.
    pub(super) position: u64,
    /// Something before the position was lost.
    pub(super) gap: bool,
    pub(super) heartbeats: u64,
}

/// What a listener hears next.
#[derive(Debug)]
pub enum Heard {
    /// What comes next does not follow on what was heard last.
    Gap,
    /// Events.
    Events(Passage),
    /// Nothing, for a while.
    Heartbeat,
}

/// Why a listener hears no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was so slow that what it had not heard is not kept any more.
    Behind,
    /// Nothing more is told.
    Closed,
}

/// Some events, in order.
#[derive(Debug)]
pub struct Passage {
    batch: Arc<Batch>,
    position: u64,
    guild: Option<GuildId>,
}

impl Passage {
    /// The events.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.timed().map(|(event, _at)| event)
    }

    /// The events, and when they came to this process.
    pub(crate) fn timed(&self) -> impl Iterator<Item = (&Event, SystemTime)> {
        let concerns =
            |(event, _): &(&Event, _)| self.guild.is_none_or(|guild| event.concerns(guild));
        self.batch.events(self.position).filter(concerns)
    }

    /// Their text as Server-Sent Events.
    #[must_use]
    pub fn text(&self) -> Bytes {
        self.batch.text(self.position, self.guild)
    }
}

impl Subscription {
    /// The last event it heard of, or would have, were it of its guild: it can go on from there.
    #[must_use]
    pub fn last(&self) -> EventId {
        EventId::before(self.shared.epoch, self.position)
    }

    /// What comes next; waits for it. Can be dropped while it waits, and nothing is lost.
    ///
    /// # Errors
    /// If there is nothing more to hear.
    pub async fn next(&mut self) -> Result<Heard, Ended> {
        if std::mem::take(&mut self.gap) {
            return Ok(Heard::Gap);
        }
        loop {
            // First, so that what is told after the look below is a change since.
            let told = *self.told.borrow_and_update();
            let at = self.shared.ring.lock().at(self.position);
            match at {
                At::Gone => return Err(Ended::Behind),
                At::Batch(batch) => {
                    let passage = Passage { position: self.position, guild: self.guild, batch };
                    self.position = passage.batch.end();
                    if passage.events().next().is_some() {
                        self.heartbeats = told.heartbeats;
                        return Ok(Heard::Events(passage));
                    }
                }
                At::End if told.closed => return Err(Ended::Closed),
                At::End if self.heartbeats != told.heartbeats => {
                    self.heartbeats = told.heartbeats;
                    return Ok(Heard::Heartbeat);
                }
                At::End => {
                    if self.told.changed().await.is_err() {
                        return Err(Ended::Closed);
                    }
                }
            }
        }
    }

    /// Since when something waits to be heard.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        match self.shared.ring.lock().at(self.position) {
            At::Batch(batch) => Some(batch.sealed),
            At::Gone | At::End => None,
        }
    }
}
