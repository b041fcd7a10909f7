//! The last events, each written once as the text of a Server-Sent Event, in batches that all readers share.
//!
//! A reader is a position. What it has not read yet is looked up by it; so a slow reader holds nothing, and one that comes
//! back goes on where it was, unless that has left the ring.

use std::{collections::VecDeque, fmt, io::Write as _, str::FromStr, sync::Arc, time::SystemTime};

use bytes::Bytes;
use shardmeter_proto::events::GuildId;
use tokio::time::Instant;

use super::Event;

/// Events kept for readers that come back: at 100 a second, five minutes.
const MAX_EVENTS: usize = 32_768;

/// The text of them all, bytes.
const MAX_BYTES: usize = 16 << 20;

/// A batch ends here, bytes: what a reader's connection holds of it is a few of these.
const BATCH_BYTES: usize = 32 << 10;

/// What an event is known by: which process told it, and how many it had told by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    epoch: u32,
    sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.epoch, self.sequence)
    }
}

impl EventId {
    /// Of the last event before a position: who has it goes on at the position.
    pub(super) fn before(epoch: u32, position: u64) -> Self {
        Self { epoch, sequence: position.saturating_sub(1) }
    }
}

/// A text that is no event's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event's id")]
pub struct EventIdError;

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, sequence) = text.split_once('-').ok_or(EventIdError)?;
        // The types would take a sign.
        if text.contains('+') {
            return Err(EventIdError);
        }
        let epoch = u32::from_str_radix(epoch, 16).map_err(|_| EventIdError)?;
        let sequence = sequence.parse().map_err(|_| EventIdError)?;
        Ok(Self { epoch, sequence })
    }
}

/// The last event that a listener had when it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Of some process of the api.
    Known(EventId),
    /// What it says is no event's id.
    Unknown,
}

impl Last {
    /// What a listener says.
    #[must_use]
    pub fn read(text: &str) -> Self {
        text.parse().map_or(Self::Unknown, Self::Known)
    }
}

/// Events that were told together. Their text is shared by all who are sent it.
#[derive(Debug)]
pub(super) struct Batch {
    first: u64,
    text: Bytes,
    entries: Vec<Entry>,
    /// When it was whole.
    pub(super) sealed: Instant,
}

#[derive(Debug)]
struct Entry {
    event: Event,
    /// When it came.
    at: SystemTime,
    /// Where its text ends.
    end: usize,
}

impl Batch {
    /// The position after its last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Its events from a position on, and when they came.
    pub(super) fn events(&self, position: u64) -> impl Iterator<Item = (&Event, SystemTime)> {
        self.entries.iter().skip(self.index(position)).map(|entry| (&entry.event, entry.at))
    }

    /// The text of its events from a position on: of all, or of a guild's.
    pub(super) fn text(&self, position: u64, guild: Option<GuildId>) -> Bytes {
        let skipped = self.index(position);
        let start_of = |index: usize| {
            index.checked_sub(1).and_then(|i| self.entries.get(i)).map_or(0, |e| e.end)
        };
        let Some(guild) = guild else {
            return self.text.slice(start_of(skipped).min(self.text.len())..);
        };
        // Copied, for it is little, and would else hold all of the batch.
        let mut text = Vec::new();
        for (index, entry) in self.entries.iter().enumerate().skip(skipped) {
            if entry.event.concerns(guild) {
                text.extend(self.text.get(start_of(index)..entry.end).unwrap_or_default());
            }
        }
        text.into()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    epoch: u32,
    batches: VecDeque<Arc<Batch>>,
    /// What all batches hold.
    events: usize,
    bytes: usize,
    /// The batch that is being filled.
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// The sequence of its first event.
    first_open: u64,
}

/// What there is at a position.
pub(super) enum At {
    /// Events.
    Batch(Arc<Batch>),
    /// Nothing yet.
    End,
    /// It has left the ring.
    Gone,
}

impl Ring {
    pub(super) fn new(epoch: u32) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            events: 0,
            bytes: 0,
            text: Vec::new(),
            entries: Vec::new(),
            first_open: 1,
        }
    }

    /// Takes an event; says whether the batch should be sealed for its size.
    pub(super) fn push(&mut self, event: Event) -> bool {
        let sequence = self.first_open + self.entries.len() as u64;
        let id = EventId { epoch: self.epoch, sequence };
        // Writing to a Vec cannot fail, nor can the JSON of these types.
        let _ = write!(self.text, "id: {id}\nevent: {}\ndata: ", event.name());
        let _ = event.write_json(&mut self.text);
        self.text.extend_from_slice(b"\n\n");
        self.entries.push(Entry { event, at: SystemTime::now(), end: self.text.len() });
        self.text.len() >= BATCH_BYTES
    }

    /// Ends the batch that is being filled, so that it can be read; says whether there was something in it.
    pub(super) fn seal(&mut self) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let batch = Batch {
            first: self.first_open,
            // As long as it is, not as long as it could become.
            text: Bytes::copy_from_slice(&self.text),
            entries: std::mem::take(&mut self.entries),
            sealed: Instant::now(),
        };
        self.text.clear();
        self.first_open = batch.end();
        self.events += batch.entries.len();
        self.bytes += batch.text.len();
        self.batches.push_back(Arc::new(batch));
        while (self.events > MAX_EVENTS || self.bytes > MAX_BYTES)
            && let Some(oldest) = self.batches.pop_front()
        {
            self.events -= oldest.entries.len();
            self.bytes -= oldest.text.len();
        }
        true
    }

    /// Where a reader begins, and whether it lost something.
    pub(super) fn position(&self, last: Option<Last>) -> (u64, bool) {
        let Some(last) = last else {
            return (self.end(), false);
        };
        match last {
            Last::Known(EventId { epoch, sequence })
                if epoch == self.epoch && sequence < self.end() =>
            {
                // Who lost some gets all that is left, for it is new to them.
                let (next, start) = (sequence + 1, self.start());
                (next.max(start), next < start)
            }
            Last::Known(_) | Last::Unknown => (self.end(), true),
        }
    }

    /// The position after everything sealed.
    fn end(&self) -> u64 {
        self.first_open
    }

    /// The oldest position there is.
    fn start(&self) -> u64 {
        self.batches.front().map_or(self.first_open, |oldest| oldest.first)
    }

    /// How many events it holds that can be read, and of how many bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.events, self.bytes)
    }

    /// What there is at a position.
    pub(super) fn at(&self, position: u64) -> At {
        if position >= self.end() {
            return At::End;
        }
        if position < self.start() {
            return At::Gone;
        }
        let index = self.batches.partition_point(|batch| batch.end() <= position);
        self.batches.get(index).map_or(At::End, |batch| At::Batch(Arc::clone(batch)))
    }
}
