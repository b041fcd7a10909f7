//! How long a connection waits for its peer: a deadline, and what moves it.

use std::{
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// For the head of a request, from the connection's beginning or its own first byte; for the HTTP/2 preface too.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Between two requests: scrapers come every minute, and should find their connection.
const IDLE_WITHIN: Duration = Duration::from_secs(120);

/// For an answer to be read as a whole. No scraper waits longer, and what it reads is kept in memory for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// What opens an HTTP/2 connection (RFC 9113, section 3.4), bytes.
const PREFACE: usize = 24;

/// See the module. What serves the connection and its socket share it.
#[derive(Debug)]
pub(crate) struct Patience(Mutex<State>);

#[derive(Debug)]
struct State {
    wait: Wait,
    /// Whoever would read while nothing is waited for. hyper does not ask again by itself once that changes.
    reader: Option<Waker>,
    /// Whoever waits for the peer to read.
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy)]
enum Wait {
    /// For so many more bytes, by then; from then on HTTP/2's own pings tell whether the peer is there.
    Preface(usize, Instant),
    /// For a request of which nothing came, by then.
    Request(Instant),
    /// For the rest of its head, by then.
    Head(Instant),
    /// The peer waits.
    Busy,
    /// Nothing, from now on.
    Nothing,
    /// For the peer to read the answer, by then.
    Answer(Instant),
    /// For nothing more: the connection ends.
    Over,
}

impl Patience {
    /// Of a connection that brings one request after the other.
    pub(crate) fn with_requests() -> Arc<Self> {
        Self::new(Wait::Request(Instant::now() + HEAD_WITHIN))
    }

    /// Of one that begins with an HTTP/2 preface.
    pub(crate) fn with_preface() -> Arc<Self> {
        Self::new(Wait::Preface(PREFACE, Instant::now() + HEAD_WITHIN))
    }

    fn new(wait: Wait) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { wait, reader: None, writer: None })))
    }

    /// Until when the peer has to send something. If nothing is waited for, the reader is woken when that changes.
    pub(super) fn reads_until(&self, cx: &Context<'_>) -> Option<Instant> {
        let mut state = self.0.lock();
        match state.wait {
            Wait::Preface(_, until) | Wait::Request(until) | Wait::Head(until) => Some(until),
            Wait::Busy | Wait::Answer(_) => {
                state.reader = Some(cx.waker().clone());
                None
            }
            Wait::Nothing => None,
            Wait::Over => Some(Instant::now()),
        }
    }

    /// Until when it has to have read what it is sent. The writer is woken if that changes to now.
    pub(super) fn writes_until(&self, cx: &Context<'_>) -> Option<Instant> {
        let mut state = self.0.lock();
        state.writer = Some(cx.waker().clone());
        match state.wait {
            Wait::Over => Some(Instant::now()),
            Wait::Answer(until) => Some(until),
            _ => None,
        }
    }

    /// That many bytes came.
    pub(super) fn came(&self, bytes: usize) {
        let wait = &mut self.0.lock().wait;
        match *wait {
            Wait::Preface(left, until) if left > bytes => {
                *wait = Wait::Preface(left - bytes, until);
            }
            Wait::Preface(..) => *wait = Wait::Nothing,
            Wait::Request(until) => *wait = Wait::Head(until.min(Instant::now() + HEAD_WITHIN)),
            Wait::Head(_) | Wait::Busy | Wait::Answer(_) | Wait::Nothing | Wait::Over => {}
        }
    }

    /// A request came: the peer waits until what this returns is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Turn {
        self.0.lock().waits(Wait::Busy);
        Turn(Arc::clone(self))
    }
}

impl State {
    /// From now on, unless the connection is over.
    fn waits(&mut self, wait: Wait) {
        if !matches!(self.wait, Wait::Over) {
            self.wait = wait;
        }
    }
}

/// In a request's extensions: ends its connection.
#[derive(Debug, Clone)]
pub struct HangUp(Arc<Patience>);

impl HangUp {
    pub(crate) const fn new(patience: Arc<Patience>) -> Self {
        Self(patience)
    }

    /// Whatever the peer still sends or has not read yet, it is over.
    pub fn now(&self) {
        let wakers = {
            let mut state = self.0.0.lock();
            state.wait = Wait::Over;
            [state.reader.take(), state.writer.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// A request and its answer.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Patience>);

impl Turn {
    /// The answer begins.
    pub(crate) fn answers(&self) {
        self.0.0.lock().waits(Wait::Answer(Instant::now() + ANSWER_WITHIN));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let reader = {
            let mut state = self.0.0.lock();
            state.waits(Wait::Request(Instant::now() + IDLE_WITHIN));
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
