//! The rendered series of one family, kept so that a page costs what changed since the last one.
//!
//! An **entry** is the rendered samples of one series; a **chunk** is a run of entries in one piece of memory, handed to the
//! socket as it is. A series that changed is written over its old entry; where its length differs, the chunk is put
//! together anew from what changed and the runs between. When a page is compressed, series that change all the time are
//! moved apart from those at rest, so that most chunks keep their compressed form.

use std::{num::NonZeroU32, ops::Range, sync::Arc};

use bytes::Bytes;

use super::deflate::{Deflated, Deflater};

/// Length at which a chunk is full, bytes: large enough for the socket and for compression, small enough to be put
/// together within microseconds.
const FULL: usize = 64 << 10;

/// What a chunk keeps of the memory in which changes waited, bytes and changes.
const SPARE: (usize, usize) = (1 << 10, 16);

/// A chunk with less text than this is dissolved into others.
const SMALL: usize = FULL / 4;

/// Entries that left and are not worth the trouble.
const MANY: usize = 64;

/// A series that did not change in so many compressed pages is at rest.
const REST_AFTER: u32 = 8;

/// Where a series' entry is. It moves: [`Chunks::take_moved`] says where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// One more than its chunk's index.
    chunk: NonZeroU32,
    entry: u32,
}

impl Place {
    fn new(chunk: usize, entry: usize) -> Self {
        Self { chunk: NonZeroU32::MIN.saturating_add(chunk as u32), entry: entry as u32 }
    }

    const fn chunk(self) -> usize {
        self.chunk.get() as usize - 1
    }
}

/// Whose entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) shard_id: u32,
    /// Dense in the shard.
    pub(super) series: u32,
}

/// All chunks of one family.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    /// The chunks that are being filled: with series at rest, and with those that change.
    filling: [Option<usize>; 2],
    /// Chunks without entries, to be used again.
    free: Vec<usize>,
    /// Chunks with entries that left or whose length changed.
    unsettled: Vec<usize>,
    /// Entries that moved since [`Chunks::take_moved`].
    moved: Vec<(Key, Place)>,
    /// Compressed pages so far.
    round: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    text: Arc<Vec<u8>>,
    entries: Vec<Entry>,
    /// How many of them left.
    gone: usize,
    /// It is of series that change.
    hot: bool,
    /// Entries whose length changed: which, and their new text in `new_text`.
    pending: Vec<(u32, Range<usize>)>,
    new_text: Vec<u8>,
    /// The compressed text, until it changes.
    deflated: Option<Deflated>,
    /// The round in which it was last compressed, from 1.
    deflated_in: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    /// One past its last byte in the chunk's text.
    end: u32,
    /// The round in which it last changed, from 1; 0: it did not, for as long as anybody remembers. [`GONE`]: it left.
    changed: u32,
}

const GONE: u32 = u32::MAX;

impl Chunks {
    /// The entry at a place, as it was when the page was last settled.
    pub(super) fn text(&self, place: Place) -> &[u8] {
        self.chunks.get(place.chunk()).map_or(&[], |chunk| chunk.entry(place.entry))
    }

    /// Takes `text` as the entry of a series that has none.
    pub(super) fn add(&mut self, key: Key, text: &[u8]) -> Place {
        // It may well rest: what was seen once is not yet known to change.
        self.append(key, text, 0, false)
    }

    /// Takes `text` as the new entry at a place.
    pub(super) fn replace(&mut self, place: Place, text: &[u8]) {
        let now = self.round + 1;
        if let Some(chunk) = self.chunks.get_mut(place.chunk())
            && chunk.replace(place.entry, text, now)
        {
            self.unsettled.push(place.chunk());
        }
    }

    /// The series at a place is no longer exposed.
    pub(super) fn remove(&mut self, place: Place) {
        if let Some(chunk) = self.chunks.get_mut(place.chunk())
            && chunk.replace(place.entry, &[], GONE)
        {
            self.unsettled.push(place.chunk());
        }
    }

    /// Puts chunks together anew where that is needed.
    pub(super) fn settle(&mut self) {
        while let Some(at) = self.unsettled.pop() {
            if let Some(chunk) = self.chunks.get_mut(at) {
                chunk.put_together();
                self.dissolve_small(at);
            }
        }
    }

    /// Moves series that changed since the last compressed page, and those that came to rest, to others of their kind.
    pub(super) fn separate(&mut self) {
        let now = self.round + 1;
        for at in 0..self.chunks.len() {
            match self.chunks.get(at) {
                Some(chunk) if chunk.deflated.is_some() || chunk.deflated_in == 0 => {}
                Some(chunk) if chunk.hot => self.put_to_rest(at, now),
                Some(_) => self.set_apart(at),
                None => {}
            }
        }
        self.settle();
    }

    /// Entries that moved since the last call, with their new places.
    pub(super) fn take_moved(&mut self) -> impl Iterator<Item = (Key, Place)> {
        self.moved.drain(..)
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.text.is_empty())
    }

    /// Length of all text, bytes.
    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.text.len()).sum()
    }

    /// The text of all entries.
    pub(super) fn texts(&self) -> impl Iterator<Item = Bytes> {
        let chunks = self.chunks.iter().filter(|chunk| !chunk.text.is_empty());
        chunks.map(|chunk| Bytes::from_owner(Shared(Arc::clone(&chunk.text))))
    }

    /// The text of all entries, compressed.
    pub(super) fn deflated(&mut self, deflater: &mut Deflater) -> impl Iterator<Item = &Deflated> {
        self.round += 1;
        let round = self.round;
        let chunks = self.chunks.iter_mut().filter(|chunk| !chunk.text.is_empty());
        chunks.map(move |chunk| {
            let (text, deflated_in) = (&chunk.text, &mut chunk.deflated_in);
            &*chunk.deflated.get_or_insert_with(|| {
                *deflated_in = round;
                deflater.deflate(text)
            })
        })
    }

    /// Forgets the compressed forms.
    pub(super) fn forget_deflated(&mut self) {
        for chunk in &mut self.chunks {
            (chunk.deflated, chunk.deflated_in) = (None, 0);
        }
    }

    /// Whether it has compressed forms.
    #[cfg(test)]
    pub(super) fn is_deflated(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.deflated.is_some())
    }

    /// Adds an entry to the chunk that is being filled.
    fn append(&mut self, key: Key, text: &[u8], changed: u32, hot: bool) -> Place {
        let at = self.chunk_to_fill(text.len(), hot);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return Place::new(at, 0);
        };
        chunk.append(key, text, changed);
        Place::new(at, chunk.entries.len() - 1)
    }

    /// The chunk that is being filled with series of a kind.
    const fn filling(&mut self, hot: bool) -> &mut Option<usize> {
        let [at_rest, changing] = &mut self.filling;
        if hot { changing } else { at_rest }
    }

    fn chunk_to_fill(&mut self, length: usize, hot: bool) -> usize {
        let filling = *self.filling(hot);
        let has_room =
            |at: &usize| self.chunks.get(*at).is_some_and(|c| c.text.len() + length <= FULL);
        if let Some(at) = filling.filter(has_room) {
            return at;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() - 1
        });
        if let Some(chunk) = self.chunks.get_mut(at) {
            chunk.hot = hot;
            if filling.is_some() {
                // Of a family that goes on, all but the last chunk will be filled.
                Arc::make_mut(&mut chunk.text).reserve_exact(FULL);
            }
        }
        *self.filling(hot) = Some(at);
        at
    }

    /// Moves what changed out of a chunk at rest; if that is most of it, it changes its kind.
    fn set_apart(&mut self, at: usize) {
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        let since = chunk.deflated_in;
        let changed = chunk.select(|entry| entry.changed > since);
        if 2 * changed.len() > chunk.live() {
            chunk.hot = true;
            self.filling.iter_mut().filter(|f| **f == Some(at)).for_each(|f| *f = None);
        } else {
            self.move_entries(at, changed, true);
        }
    }

    /// Moves what did not change for long out of a chunk of what does.
    fn put_to_rest(&mut self, at: usize, now: u32) {
        let at_rest = |entry: &Entry| now.saturating_sub(entry.changed) > REST_AFTER;
        let at_rest = self.chunks.get(at).map(|chunk| chunk.select(at_rest));
        self.move_entries(at, at_rest.unwrap_or_default(), false);
    }

    /// Moves all entries of a chunk that has become small or sparse.
    fn dissolve_small(&mut self, at: usize) {
        let Some(chunk) = self.chunks.get(at) else {
            return;
        };
        let hot = chunk.hot;
        let is_filling = self.filling.contains(&Some(at));
        let is_small = !is_filling && chunk.text.len() < SMALL && !chunk.entries.is_empty();
        if !is_small && !chunk.is_sparse() {
            return;
        }
        let live = chunk.select(|_| true);
        if is_filling {
            *self.filling(hot) = None;
        }
        self.move_entries(at, live, hot);
        if let Some(chunk) = self.chunks.get_mut(at) {
            *chunk = Chunk::default();
            self.free.push(at);
        }
    }

    fn move_entries(&mut self, from: usize, entries: Vec<u32>, hot: bool) {
        for entry in entries {
            let Some(chunk) = self.chunks.get_mut(from) else {
                return;
            };
            let Some(Entry { key, changed, .. }) = chunk.entries.get(entry as usize).copied()
            else {
                return;
            };
            let text = chunk.entry(entry).to_vec();
            if chunk.replace(entry, &[], GONE) {
                self.unsettled.push(from);
            }
            let changed = if hot { changed } else { 0 };
            let place = self.append(key, &text, changed, hot);
            self.moved.push((key, place));
        }
    }
}

impl Chunk {
    fn range(&self, entry: u32) -> Range<usize> {
        let entry = entry as usize;
        let start = entry.checked_sub(1).and_then(|before| self.entries.get(before));
        let end = self.entries.get(entry).map_or(0, |entry| entry.end as usize);
        start.map_or(0, |before| before.end as usize)..end
    }

    /// Adds an entry. Memory grows in steps of its own, for there are many chunks: no further than a full one needs.
    fn append(&mut self, key: Key, text: &[u8], changed: u32) {
        let all = Arc::make_mut(&mut self.text);
        let length = all.len() + text.len();
        if length > all.capacity() {
            let capacity = (2 * all.capacity()).min(FULL).max(length);
            all.reserve_exact(capacity - all.len());
        }
        all.extend_from_slice(text);
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len() / 4 + 16);
        }
        self.entries.push(Entry { key, end: length as u32, changed });
        self.deflated = None;
    }

    fn entry(&self, entry: u32) -> &[u8] {
        self.text.get(self.range(entry)).unwrap_or_default()
    }

    /// Entries that are there and of which `is_it` is true.
    fn select(&self, is_it: impl Fn(&Entry) -> bool) -> Vec<u32> {
        let entries = (0..).zip(&self.entries);
        entries.filter(|(_, e)| e.changed != GONE && is_it(e)).map(|(n, _)| n).collect()
    }

    /// Entries that are there.
    fn live(&self) -> usize {
        self.entries.len() - self.gone
    }

    /// Changes an entry, at once if its length stays. Returns whether the chunk must be put together, and was not to be
    /// before.
    fn replace(&mut self, entry: u32, text: &[u8], changed: u32) -> bool {
        let range = self.range(entry);
        let Some(known) = self.entries.get_mut(entry as usize) else {
            return false;
        };
        if self.text.get(range.clone()) == Some(text) {
            return false;
        }
        self.deflated = None;
        known.changed = changed;
        if changed == GONE {
            self.gone += 1;
        }
        if range.len() == text.len() {
            // A scrape that is still being sent keeps the text as it was.
            if let Some(place) = Arc::make_mut(&mut self.text).get_mut(range) {
                place.copy_from_slice(text);
            }
            return false;
        }
        let from = self.new_text.len();
        self.new_text.extend_from_slice(text);
        self.pending.push((entry, from..self.new_text.len()));
        self.pending.len() == 1
    }

    /// Puts the text together from what is pending and the runs between.
    fn put_together(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.pending.sort_unstable_by_key(|(entry, _)| *entry);
        let replaced: usize = self.pending.iter().map(|(entry, _)| self.range(*entry).len()).sum();
        let mut text = Vec::with_capacity(self.text.len() - replaced + self.new_text.len());
        let mut pending = self.pending.drain(..).peekable();
        let (mut run, mut start, mut shift) = (0, 0, 0);
        for (n, entry) in (0..).zip(&mut self.entries) {
            let end = entry.end as usize;
            if let Some((_, new)) = pending.next_if(|(entry, _)| *entry == n) {
                text.extend_from_slice(self.text.get(run..start).unwrap_or_default());
                text.extend_from_slice(self.new_text.get(new).unwrap_or_default());
                run = end;
                shift = text.len() as i64 - end as i64;
            }
            start = end;
            entry.end = (end as i64 + shift) as u32;
        }
        text.extend_from_slice(self.text.get(run..).unwrap_or_default());
        drop(pending);
        self.text = Arc::new(text);
        self.new_text.clear();
        self.new_text.shrink_to(SPARE.0);
        self.pending.shrink_to(SPARE.1);
    }

    /// Whether so much of it left that the rest had better be elsewhere.
    fn is_sparse(&self) -> bool {
        self.entries.len() > 2 * self.live() + MANY
    }
}

#[derive(Debug)]
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_takes_little_more_than_its_text() {
        let mut chunks = Chunks::default();
        let text = |n: u32, value: f64| {
            format!("ack_seconds_sum{{shard_id=\"{n}\",command_name=\"ping\"}} {value}\n")
        };
        let key = |shard_id| Key { shard_id, series: 0 };
        let places: Vec<_> =
            (0..20_000).map(|n| chunks.add(key(n), text(n, 1.0).as_bytes())).collect();
        for value in [10.5, 1.0 / 3.0, 7.0] {
            for (n, place) in (0..).zip(&places) {
                chunks.replace(*place, text(n, value).as_bytes());
            }
            chunks.settle();
            assert_eq!(chunks.take_moved().count(), 0);
            let taken = |chunk: &Chunk| {
                chunk.text.capacity()
                    + chunk.new_text.capacity()
                    + chunk.pending.capacity() * size_of::<(u32, Range<usize>)>()
                    + chunk.entries.capacity() * size_of::<Entry>()
            };
            let taken: usize = chunks.chunks.iter().map(taken).sum();
            let needed = chunks.len() + places.len() * size_of::<Entry>();
            assert!(taken < needed + needed / 8 + FULL, "{taken} bytes for {needed}");
        }
    }

    /// Gauges come and go for as long as the manager runs.
    #[test]
    fn what_left_takes_no_room() {
        let mut chunks = Chunks::default();
        let mut deflater = Deflater::new();
        let mut places = std::collections::HashMap::new();
        for n in 0..20_000 {
            let text = format!("guild_count{{shard_id=\"{n}\",name=\"{}\"}} 1\n", "x".repeat(100));
            let key = Key { shard_id: n, series: 0 };
            places.insert(n, chunks.add(key, text.as_bytes()));
            if let Some(place) = n.checked_sub(100).and_then(|old| places.remove(&old)) {
                chunks.remove(place);
            }
            if n % 10 == 0 {
                chunks.settle();
            }
            if n % 70 == 0 {
                chunks.separate();
                chunks.deflated(&mut deflater).for_each(drop);
            }
            for (key, to) in chunks.take_moved() {
                places.insert(key.shard_id, to);
            }
        }
        chunks.settle();
        let entries: usize = chunks.chunks.iter().map(|chunk| chunk.entries.len()).sum();
        let text: usize = chunks.chunks.iter().map(|chunk| chunk.text.capacity()).sum();
        assert!(entries < 1_000, "{entries} entries of 100 series");
        assert!(text < 10 * FULL, "{text} bytes of 100 series");
        assert!(chunks.len() < 100 * 200, "{} bytes are shown of 100 series", chunks.len());
    }
}
