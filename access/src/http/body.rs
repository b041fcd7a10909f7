//! Bodies: of requests, which must come in time, and of answers.

use std::{
    error::Error,
    iter,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::serve::Turn;

/// A request's body did not come in time.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Because the peer took too long.
    #[error("the body did not come in time")]
    Late,
    /// Because the connection broke, or was misused.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// What of this type is among the causes of an error: a [`BodyError`], for what an extractor says of a body.
#[must_use]
pub fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut causes =
        iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    causes.find_map(|cause| cause.downcast_ref())
}

/// A request's body, which may neither stop coming nor take too long.
#[derive(Debug)]
pub(super) struct TimedBody {
    body: Incoming,
    idle: Duration,
    /// When all of it must have come.
    until: Instant,
    /// Made when it is first waited for.
    alarm: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, idle: Duration, within: Duration) -> Self {
        Self { body, idle, until: Instant::now() + within, alarm: None, waits: false }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waits = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let next = || this.until.min(Instant::now() + this.idle);
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(next())));
        if !this.waits {
            this.waits = true;
            alarm.as_mut().reset(next());
        }
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Late)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of any answer. With its end the connection waits for another request.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    _turn: Turn,
}

impl AnswerBody {
    pub(super) fn new(body: Body, turn: Turn) -> Self {
        Self { body, _turn: turn }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
