//! Connections, alike on both ports: accepted as long as there is room, secured, and cut when the peer keeps others waiting.
//!
//! A task accepts and goes on accepting whatever the peers do: TLS is agreed on in a task of its own for each. What has come
//! that far is a [`Connection`], which HTTP or gRPC then serves.

mod connection;
mod patience;
mod places;
mod socket;

use std::{io, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::tls::{self, Protocol, Tls};
pub use connection::{Connection, Peer};
pub use patience::HangUp;
pub(crate) use patience::{Patience, Turn};
pub use places::{Full, Place, Places, network};
pub use socket::Socket;

/// Pause after a connection could not be accepted: without descriptors the next attempt fails at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How long a peer may take to agree on TLS.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Handshakes at the same time: a crowd of clients that comes back at once, and some ten MB. One address may have half.
const HANDSHAKES: usize = 1_024;

/// Connections that wait to be served, which takes no time.
const ACCEPTED: usize = 64;

/// How long a peer that is turned away may take to read why, and how many may do so at once.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
const FAREWELLS: usize = 64;

/// A port, and who may come in.
#[derive(Debug)]
pub struct Door {
    /// What is spoken there.
    pub protocol: Protocol,
    /// For the connections that may be open.
    pub places: Arc<Places>,
    /// How they are secured, if they are.
    pub tls: Option<Arc<Tls>>,
    /// How those that find no place are told over plain HTTP.
    pub say_full: fn(Full) -> Farewell,
}

/// The body of an answer that says 503.
#[derive(Debug)]
pub struct Farewell {
    /// Its type.
    pub content_type: &'static str,
    /// What it says.
    pub body: String,
}

/// Accepts connections until what it returns is dropped, which closes the port.
pub fn accept(listener: TcpListener, door: Door) -> impl Stream<Item = Connection<Socket>> {
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let accepting = AbortOnDropHandle::new(tokio::spawn(keep_accepting(listener, door, accepted)));
    let connections = ReceiverStream::new(connections);
    futures_util::stream::unfold((connections, accepting), |(mut connections, accepting)| async {
        let connection = futures_util::StreamExt::next(&mut connections).await?;
        Some((connection, (connections, accepting)))
    })
}

type Accepted = mpsc::Sender<Connection<Socket>>;

async fn keep_accepting(listener: TcpListener, door: Door, accepted: Accepted) {
    let handshakes = Places::new("TLS handshakes at the same time", HANDSHAKES, HANDSHAKES / 2);
    // Dropped, and so aborted, together with this task.
    let mut pending = JoinSet::new();
    loop {
        let (socket, addr) = tokio::select! {
            came = listener.accept() => match came {
                Ok(came) => came,
                Err(error) => {
                    tracing::warn!(%error, protocol = door.protocol.as_str(), "a connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = pending.join_next() => continue,
        };
        // Small writes are answered one by one, and the end of a page is waited for; without it each would wait for the
        // peer's word on the one before. A socket that refuses works all the same.
        let _ = socket.set_nodelay(true);
        let peer = Peer { addr, certificate: None };
        let place = match door.places.take(Some(addr.ip())) {
            Ok(place) => place,
            Err(full) => {
                turn_away(&door, &mut pending, socket, &peer, full);
                continue;
            }
        };
        let Some(tls) = &door.tls else {
            let connection = connection(Socket::Plain(socket), peer, place, door.protocol);
            if accepted.send(connection).await.is_err() {
                return;
            }
            continue;
        };
        match handshakes.take(Some(addr.ip())) {
            Ok(handshake) => {
                let agreeing = agree(tls.acceptor(door.protocol), socket, peer.clone());
                let (accepted, protocol) = (accepted.clone(), door.protocol);
                pending.spawn(async move {
                    let agreed = agreeing.await;
                    drop(handshake);
                    match agreed {
                        Ok((socket, peer)) => {
                            let _ = accepted.send(connection(socket, peer, place, protocol)).await;
                        }
                        Err(error) => tracing::debug!(%peer, %error, "no TLS"),
                    }
                });
            }
            Err(full) => turn_away(&door, &mut pending, socket, &peer, full),
        }
    }
}

fn connection(socket: Socket, peer: Peer, place: Place, protocol: Protocol) -> Connection<Socket> {
    let patience = match protocol {
        Protocol::Http => Patience::with_requests(),
        Protocol::Grpc => Patience::with_preface(),
    };
    Connection::new(socket, peer, patience, Some(place))
}

async fn agree<IO: AsyncRead + AsyncWrite + Unpin>(
    acceptor: TlsAcceptor,
    io: IO,
    peer: Peer,
) -> io::Result<(Socket<IO>, Peer)> {
    let agreed = timeout(HANDSHAKE_WITHIN, acceptor.accept(io)).await??;
    let certificate = tls::subject(agreed.get_ref().1);
    Ok((Socket::Tls(Box::new(agreed)), Peer { certificate, ..peer }))
}

/// Says why there is no room, where that can be said.
fn turn_away(door: &Door, pending: &mut JoinSet<()>, socket: TcpStream, peer: &Peer, full: Full) {
    tracing::debug!(%peer, protocol = door.protocol.as_str(), "turned away: {full}");
    let speaks_plainly = door.protocol == Protocol::Http && door.tls.is_none();
    if speaks_plainly && pending.len() < FAREWELLS {
        let farewell = (door.say_full)(full);
        pending.spawn(async move {
            // A peer that does not listen is none the wiser.
            let _ = timeout(FAREWELL_WITHIN, say(socket, farewell)).await;
        });
    }
}

async fn say(mut socket: TcpStream, farewell: Farewell) -> io::Result<()> {
    let Farewell { content_type, body } = farewell;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
         retry-after: 5\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await?;
    // Closing on what was not read would take the answer back.
    let mut passed_over = [0; 1024];
    while socket.read(&mut passed_over).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
