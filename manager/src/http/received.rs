//! Bodies on their way in: what is long is counted from its first byte here to the last use of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request},
};
use bytes::BytesMut;
use http_body::{Frame, SizeHint};

use super::{Http, error::HttpError};

/// What each body may have without being counted, bytes: connections have a limit, and a small body must always get in.
const LIGHT: usize = 128 << 10;

/// There is no room for a long body.
#[derive(Debug, thiserror::Error)]
#[error(
    "the manager is busy with other bodies, and has no room for one this long; send it again later"
)]
pub(super) struct NoRoom;

/// Bytes that long bodies may still take, all together.
#[derive(Debug)]
pub(crate) struct Room(AtomicUsize);

impl Room {
    pub(crate) const fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> Result<(), NoRoom> {
        let take = |left: usize| left.checked_sub(bytes);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| NoRoom)
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a body takes of the room, until it is dropped.
#[derive(Debug)]
pub(super) struct Weight {
    room: Arc<Room>,
    bytes: AtomicUsize,
}

impl Weight {
    const fn new(room: Arc<Room>) -> Self {
        Self { room, bytes: AtomicUsize::new(0) }
    }

    /// The body has become this long.
    fn grow(&self, length: usize) -> Result<(), NoRoom> {
        let more = length.saturating_sub(LIGHT).saturating_sub(self.bytes.load(Ordering::Relaxed));
        if more > 0 {
            self.room.take(more)?;
            self.bytes.fetch_add(more, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.room.give_back(*self.bytes.get_mut());
    }
}

/// A whole body, as long as the routes allow.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    /// To be kept for as long as anything made of the bytes is.
    pub(super) weight: Arc<Weight>,
}

impl Received {
    async fn read(request: Request, room: &Arc<Room>) -> Result<Self, HttpError> {
        let weight = Arc::new(Weight::new(Arc::clone(room)));
        let weighed =
            |body| Body::new(WeighedBody { body, length: 0, weight: Arc::clone(&weight) });
        // Not `Bytes`, which keeps every frame until the last one is there: a frame of one byte holds on to kilobytes.
        let bytes = BytesMut::from_request(request.map(weighed), &()).await?;
        Ok(Self { bytes: bytes.freeze(), weight })
    }
}

impl FromRequest<Http> for Received {
    type Rejection = HttpError;

    async fn from_request(request: Request, http: &Http) -> Result<Self, HttpError> {
        Self::read(request, &http.room).await
    }
}

/// A body that is given up where there is no room for more of it.
#[derive(Debug)]
struct WeighedBody {
    body: Body,
    /// What came of it.
    length: usize,
    weight: Arc<Weight>,
}

impl HttpBody for WeighedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.length = self.length.saturating_add(data.len());
            if let Err(full) = self.weight.grow(self.length) {
                return Poll::Ready(Some(Err(axum::Error::new(full))));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::{http::StatusCode, response::IntoResponse as _};
    use futures_util::{StreamExt as _, stream};

    use super::*;

    fn left(room: &Room) -> usize {
        room.0.load(Ordering::Relaxed)
    }

    /// Receives a body that comes in frames of these lengths.
    async fn receive(room: &Arc<Room>, frames: &'static [usize]) -> Result<Received, HttpError> {
        let frames = stream::iter(frames).map(|length| Ok::<_, Infallible>(vec![b'x'; *length]));
        Received::read(Request::new(Body::from_stream(frames)), room).await
    }

    #[tokio::test]
    async fn a_long_body_has_weight_for_as_long_as_it_is_kept() {
        let room = Arc::new(Room::new(100));
        let first = receive(&room, &[LIGHT - 1, 21, 40]).await.unwrap();
        assert_eq!((first.bytes.len(), left(&room)), (LIGHT + 60, 40));
        // Of one that finds no room nothing is kept.
        let refused = receive(&room, &[LIGHT, 30, 11]).await.unwrap_err();
        assert!(refused.message().contains("other bodies"), "{}", refused.message());
        let answer = refused.into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "30");
        assert_eq!(left(&room), 40);
        let second = receive(&room, &[LIGHT + 40]).await.unwrap();
        assert_eq!(left(&room), 0);
        let light = receive(&room, &[LIGHT]).await.unwrap();
        assert_eq!((light.bytes.len(), left(&room)), (LIGHT, 0));
        let Received { bytes, weight } = first;
        drop(bytes);
        assert_eq!(left(&room), 0);
        drop(weight);
        assert_eq!(left(&room), 60);
        drop((second, light));
        assert_eq!(left(&room), 100);
    }

    /// What a frame holds on to is more than its length.
    #[tokio::test]
    async fn frames_are_not_kept() {
        struct Held(Arc<[u8; 1]>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &*self.0
            }
        }
        let held = Arc::new(*b"x");
        let frames = stream::iter(0..1_000).map(move |_| {
            assert!(Arc::strong_count(&held) <= 2, "{} frames", Arc::strong_count(&held));
            Ok::<_, Infallible>(Bytes::from_owner(Held(Arc::clone(&held))))
        });
        let request = Request::new(Body::from_stream(frames));
        let received = Received::read(request, &Arc::new(Room::new(0))).await.unwrap();
        assert_eq!(received.bytes.len(), 1_000);
    }
}
