//! Answers on their way, and the memory that they hold on to: a page stays until the last of it was read, while newer ones are
//! made.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use prometheus::IntCounter;
use shardmeter_access::HangUp;
use tokio::time::Instant;

/// What answers may hold of memory that the newest does not, bytes.
const ROOM: usize = 128 << 20;

/// And so many times the longest of them, should that be more: who reads a long page should come to its end.
const LONGEST: usize = 4;

/// All that read an answer. Who has read nothing for the longest is cut when they hold too much.
#[derive(Debug)]
pub(crate) struct Readers {
    room: usize,
    reading: Mutex<Vec<Weak<Reader>>>,
    /// Counts those that are cut.
    cut: IntCounter,
}

#[derive(Debug)]
struct Reader {
    hang_up: Option<HangUp>,
    /// Bytes of the whole answer.
    length: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What was not yet written to the socket.
    segments: VecDeque<Bytes>,
    /// Their bytes.
    bytes: usize,
    /// Of these, those that hyper has.
    given: usize,
    /// When the socket last took something.
    at: Instant,
}

impl Readers {
    pub(crate) fn new(cut: IntCounter) -> Self {
        Self::with_room(ROOM, cut)
    }

    fn with_room(room: usize, cut: IntCounter) -> Self {
        Self { room, reading: Mutex::default(), cut }
    }

    /// The body of an answer, to whose connection `hang_up` belongs.
    pub(super) fn body(&self, segments: Vec<Bytes>, hang_up: Option<HangUp>) -> Body {
        let length = segments.iter().map(Bytes::len).sum();
        let segments = segments.into();
        let state = Mutex::new(State { segments, bytes: length, given: 0, at: Instant::now() });
        let reader = Arc::new(Reader { hang_up, length, state });
        let others: Vec<_> = {
            let mut reading = self.reading.lock();
            let others = reading.iter().filter_map(Weak::upgrade).collect();
            reading.retain(|reader| reader.strong_count() > 0);
            reading.push(Arc::downgrade(&reader));
            others
        };
        self.make_room(others, &reader);
        Body::new(ReadBody { reader, rest: length as u64 })
    }

    /// Cuts as many of the others as it takes.
    fn make_room(&self, others: Vec<Arc<Reader>>, newest: &Reader) {
        let lengths = others.iter().map(|reader| reader.length);
        let longest = lengths.fold(newest.length, usize::max);
        let room = self.room.max(longest.saturating_mul(LONGEST));
        let mut all = 0;
        let look = |reader: Arc<Reader>| {
            let state = reader.state.lock();
            all += state.bytes;
            (state.at, Arc::clone(&reader))
        };
        let mut others: Vec<_> = others.into_iter().map(look).collect();
        if all <= room {
            return;
        }
        // Most of it may be the same memory.
        let mut seen = HashSet::new();
        newest.holds_beside(&mut seen);
        others.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut held = 0;
        for (_, reader) in others {
            held += reader.holds_beside(&mut seen);
            if held > room {
                self.cut.inc();
                reader.cut();
            }
        }
    }
}

impl Reader {
    /// Bytes in memory that was not seen before.
    fn holds_beside(&self, seen: &mut HashSet<usize>) -> usize {
        let state = self.state.lock();
        let new = state.segments.iter().filter(|segment| seen.insert(segment.as_ptr().addr()));
        new.map(Bytes::len).sum()
    }

    fn cut(&self) {
        let mut state = self.state.lock();
        state.segments.clear();
        state.bytes = 0;
        drop(state);
        if let Some(hang_up) = &self.hang_up {
            hang_up.now();
        }
    }

    /// The first of what hyper has is written.
    fn wrote(&self) {
        let mut state = self.state.lock();
        let written = state.segments.pop_front();
        state.bytes -= written.map_or(0, |segment| segment.len());
        state.given = state.given.saturating_sub(1);
        state.at = Instant::now();
    }
}

/// Its peer read too slowly, and others need the room.
#[derive(Debug, thiserror::Error)]
#[error("the answer is given up: it was read too slowly")]
struct Cut;

struct ReadBody {
    reader: Arc<Reader>,
    /// Bytes to come.
    rest: u64,
}

impl HttpBody for ReadBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let next = {
            let mut state = self.reader.state.lock();
            let next = state.segments.get(state.given).cloned();
            state.given += usize::from(next.is_some());
            next
        };
        let Some(segment) = next else {
            return Poll::Ready((self.rest > 0).then_some(Err(Cut)));
        };
        self.rest -= segment.len() as u64;
        let given = Given { segment, reader: Arc::clone(&self.reader) };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(given)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}

/// A segment that hyper has until it is written.
struct Given {
    segment: Bytes,
    reader: Arc<Reader>,
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        &self.segment
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.reader.wrote();
    }
}

#[cfg(test)]
mod tests;
