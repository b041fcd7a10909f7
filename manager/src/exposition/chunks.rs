//! The rendered series of one family, kept so that a page costs what changed since the last one.
//!
//! An **entry** is the rendered samples of one series; a **chunk** is a run of entries in one piece of memory, handed to the
//! socket as it is. A series that changed is written over its old entry; where its length differs, the chunk is put
//! together anew from what changed and the runs between. Series that change all the time are kept apart from those at
//! rest, so that most chunks keep their compressed form.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::deflate::{Deflated, Deflater};

/// Length at which a chunk is full, bytes: large enough for the socket and for compression, small enough to be put
/// together within microseconds.
const FULL: usize = 64 << 10;

/// A chunk with less text than this is dissolved into others.
const SMALL: usize = FULL / 4;

/// Entries that left and are not worth the trouble.
const MANY: usize = 64;

/// A series that did not change for so many pages is at rest.
const REST_AFTER: u32 = 8;

/// Where a series' entry is. It moves: [`Chunks`] says where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    chunk: u32,
    entry: u32,
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
    filling: [Option<u32>; 2],
    /// Chunks without entries, to be used again.
    free: Vec<u32>,
    /// Entries that moved since [`Chunks::take_moved`].
    moved: Vec<(Key, Place)>,
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
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// None: it left.
    key: Option<Key>,
    /// One past its last byte in the chunk's text.
    end: u32,
    /// Number of the page on which it last changed.
    changed: u32,
}

impl Chunks {
    /// Takes `text` as the new entry of a series, which has a place if it had one; empty if it is no longer exposed.
    /// Returns its place. Until [`Chunks::settle`], what is appended is not there to be replaced.
    pub(super) fn put(
        &mut self,
        key: Key,
        place: Option<Place>,
        text: &[u8],
        page: u32,
    ) -> Option<Place> {
        let Some(place) = place else {
            // It may well rest: what was seen once is not yet known to change.
            return (!text.is_empty()).then(|| self.append(key, text, page, false));
        };
        let chunk = self.chunks.get_mut(place.chunk as usize)?;
        if chunk.entry(place.entry) == text {
            return Some(place);
        }
        if text.is_empty() {
            chunk.replace(place.entry, text, page);
            return None;
        }
        if chunk.hot {
            chunk.replace(place.entry, text, page);
            return Some(place);
        }
        chunk.replace(place.entry, &[], page);
        Some(self.append(key, text, page, true))
    }

    /// Puts chunks together anew where that is needed, and moves entries that are at rest to others of their kind.
    pub(super) fn settle(&mut self, page: u32) {
        for at in 0..self.chunks.len() {
            if self.chunks.get(at).is_some_and(|chunk| chunk.hot) {
                self.put_to_rest(at, page);
            }
        }
        for at in 0..self.chunks.len() {
            if let Some(chunk) = self.chunks.get_mut(at) {
                chunk.put_together();
            }
            self.dissolve_small(at);
        }
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
        let chunks = self.chunks.iter_mut().filter(|chunk| !chunk.text.is_empty());
        chunks.map(|chunk| {
            let text = &chunk.text;
            &*chunk.deflated.get_or_insert_with(|| deflater.deflate(text))
        })
    }

    /// Adds an entry to the chunk that is being filled.
    fn append(&mut self, key: Key, text: &[u8], page: u32, hot: bool) -> Place {
        let at = self.chunk_to_fill(hot);
        let mut place = Place { chunk: at, entry: 0 };
        if let Some(chunk) = self.chunks.get_mut(at as usize) {
            let all = Arc::make_mut(&mut chunk.text);
            all.extend_from_slice(text);
            place.entry = chunk.entries.len() as u32;
            chunk.entries.push(Entry { key: Some(key), end: all.len() as u32, changed: page });
            chunk.deflated = None;
        }
        place
    }

    fn chunk_to_fill(&mut self, hot: bool) -> u32 {
        let filling = self.filling[usize::from(hot)];
        let has_room =
            |at: &u32| self.chunks.get(*at as usize).is_some_and(|chunk| chunk.text.len() < FULL);
        if let Some(at) = filling.filter(has_room) {
            return at;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() as u32 - 1
        });
        if let Some(chunk) = self.chunks.get_mut(at as usize) {
            chunk.hot = hot;
            Arc::make_mut(&mut chunk.text).reserve(FULL);
        }
        self.filling[usize::from(hot)] = Some(at);
        at
    }

    /// Moves what did not change for long out of a hot chunk.
    fn put_to_rest(&mut self, at: usize, page: u32) {
        let Some(chunk) = self.chunks.get(at) else {
            return;
        };
        let is_at_rest = |(_, entry): &(u32, &Entry)| {
            entry.key.is_some() && page.wrapping_sub(entry.changed) > REST_AFTER
        };
        let at_rest: Vec<_> =
            (0..).zip(&chunk.entries).filter(is_at_rest).map(|(n, _)| n).collect();
        for entry in at_rest {
            self.move_entry(at, entry, page, false);
        }
    }

    /// Moves all entries of a chunk that has become small or sparse.
    fn dissolve_small(&mut self, at: usize) {
        let Some(chunk) = self.chunks.get(at) else {
            return;
        };
        let (index, hot) = (at as u32, chunk.hot);
        let is_filling = self.filling.contains(&Some(index));
        let is_small = !is_filling && chunk.text.len() < SMALL && !chunk.entries.is_empty();
        if !is_small && !chunk.is_sparse() {
            return;
        }
        if is_filling {
            self.filling[usize::from(hot)] = None;
        }
        let live: Vec<_> =
            (0..).zip(&chunk.entries).filter(|(_, e)| e.key.is_some()).map(|(n, _)| n).collect();
        for entry in live {
            let changed = self.changed(at, entry);
            self.move_entry(at, entry, changed, hot);
        }
        if let Some(chunk) = self.chunks.get_mut(at) {
            *chunk = Chunk::default();
            self.free.push(index);
        }
    }

    fn changed(&self, at: usize, entry: u32) -> u32 {
        let entry = self.chunks.get(at).and_then(|chunk| chunk.entries.get(entry as usize));
        entry.map_or(0, |entry| entry.changed)
    }

    fn move_entry(&mut self, from: usize, entry: u32, changed: u32, hot: bool) {
        let Some(chunk) = self.chunks.get_mut(from) else {
            return;
        };
        let text = chunk.entry(entry).to_vec();
        let key = chunk.entries.get(entry as usize).and_then(|entry| entry.key);
        chunk.replace(entry, &[], changed);
        if let Some(key) = key {
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

    fn entry(&self, entry: u32) -> &[u8] {
        self.text.get(self.range(entry)).unwrap_or_default()
    }

    /// Changes an entry, at once if its length stays; empty: it leaves.
    fn replace(&mut self, entry: u32, text: &[u8], page: u32) {
        self.deflated = None;
        let range = self.range(entry);
        let Some(known) = self.entries.get_mut(entry as usize) else {
            return;
        };
        known.changed = page;
        if text.is_empty() && known.key.take().is_some() {
            self.gone += 1;
        }
        if range.len() == text.len() {
            // A scrape that is still being sent keeps the text as it was.
            if let Some(place) = Arc::make_mut(&mut self.text).get_mut(range) {
                place.copy_from_slice(text);
            }
            return;
        }
        let from = self.new_text.len();
        self.new_text.extend_from_slice(text);
        self.pending.push((entry, from..self.new_text.len()));
    }

    /// Puts the text together from what is pending and the runs between.
    fn put_together(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.pending.sort_unstable_by_key(|(entry, _)| *entry);
        let mut pending = self.pending.drain(..).peekable();
        let mut text = Vec::with_capacity((self.text.len() + self.new_text.len()).max(FULL));
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
    }

    /// Whether so much of it left that the rest had better be elsewhere.
    fn is_sparse(&self) -> bool {
        let live = self.entries.len() - self.gone;
        self.entries.len() > 2 * live + MANY
    }
}

#[derive(Debug)]
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
