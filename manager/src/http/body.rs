//! Bodies of answers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    vec::IntoIter,
};

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// A page on its way to the socket: its segments as they are, and their length beforehand.
#[derive(Debug)]
pub(super) struct PageBody {
    segments: IntoIter<Bytes>,
    rest: u64,
}

impl From<Vec<Bytes>> for PageBody {
    fn from(segments: Vec<Bytes>) -> Self {
        let rest = segments.iter().map(|segment| segment.len() as u64).sum();
        Self { segments: segments.into_iter(), rest }
    }
}

impl HttpBody for PageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let segment = self.segments.next();
        self.rest -= segment.as_ref().map_or(0, |segment| segment.len() as u64);
        Poll::Ready(segment.map(|segment| Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}
