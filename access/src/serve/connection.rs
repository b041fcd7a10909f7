//! A peer's bytes, both ways, as long as the connection's patience lasts.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tonic::transport::server::Connected;

use super::{Patience, Place};

/// How long a peer may leave unread what was sent to it.
const STALLED_WITHIN: Duration = Duration::from_secs(30);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it calls from.
    pub addr: SocketAddr,
    /// The subject of its certificate, if it has one.
    pub certificate: Option<Arc<str>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.certificate {
            Some(subject) => write!(f, "{} ({subject})", self.addr),
            None => self.addr.fmt(f),
        }
    }
}

/// A peer's bytes, both ways, as long as the connection's patience lasts.
#[derive(Debug)]
pub struct Connection<IO> {
    io: IO,
    peer: Peer,
    patience: Arc<Patience>,
    /// Since when it waits for the peer to read.
    stalled: Option<Instant>,
    read_alarm: Alarm,
    write_alarm: Alarm,
    _place: Option<Place>,
}

impl<IO> Connection<IO> {
    pub(crate) fn new(io: IO, peer: Peer, patience: Arc<Patience>, place: Option<Place>) -> Self {
        let (read_alarm, write_alarm) = <(Alarm, Alarm)>::default();
        Self { io, peer, patience, stalled: None, read_alarm, write_alarm, _place: place }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn patience(&self) -> &Arc<Patience> {
        &self.patience
    }

    /// What a write comes to: an error, if the peer has not read for too long.
    fn wrote<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = *self.stalled.get_or_insert_with(Instant::now);
        let until = stalled + STALLED_WITHIN;
        let until = self.patience.writes_until(cx).map_or(until, |answer| answer.min(until));
        ready!(self.write_alarm.poll_at(until, cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) {
            let bytes = buf.filled().len() - before;
            if bytes > 0 {
                this.patience.came(bytes);
            }
            return Poll::Ready(read);
        }
        let Some(until) = this.patience.reads_until(cx) else {
            return Poll::Pending;
        };
        ready!(this.read_alarm.poll_at(until, cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer says nothing")))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(cx);
        this.wrote(shut, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// A timer that is made when it is first needed.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll_at(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}
