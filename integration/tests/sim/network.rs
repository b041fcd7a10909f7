//! Connections of the simulated network, with what it needs to be cruel: a client's side of one can be reset while what
//! it sent is still on its way.

use std::{
    collections::BTreeMap,
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

pub(crate) const MANAGER: &str = "manager";
const PORT: u16 = 30_001;

/// Connections of one host that are open on its side, by its port.
pub(crate) type Open = Arc<Mutex<BTreeMap<u16, CancellationToken>>>;

/// One side of a connection.
pub(crate) struct Line {
    tcp: TcpStream,
    reset: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Connects the host that runs this to the manager.
pub(crate) async fn connect(open: Open) -> io::Result<Line> {
    let tcp = TcpStream::connect((MANAGER, PORT)).await?;
    let reset = CancellationToken::new();
    open.lock().insert(tcp.local_addr()?.port(), reset.clone());
    Ok(Line { tcp, reset: Box::pin(reset.cancelled_owned()) })
}

/// The connections that come to the host that runs this.
pub(crate) async fn listen() -> io::Result<impl Stream<Item = io::Result<Line>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(stream::unfold(listener, |listener| async {
        let never = Box::pin(CancellationToken::new().cancelled_owned());
        let accepted = listener.accept().await.map(|(tcp, _)| Line { tcp, reset: never });
        Some((accepted, listener))
    }))
}

impl Line {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.reset.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_reset(cx)?;
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_reset(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tcp).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Connected for Line {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
