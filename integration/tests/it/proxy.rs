//! A TCP proxy that can cut its connections, and swallow what they carry.

use std::{
    io, mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::wire::{Tap, Wire};

/// Forwards to one address; stops when dropped.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    /// What is done to the connections.
    line: watch::Sender<Line>,
    accepted: Arc<AtomicU64>,
    began: Began,
}

/// What came first on the connection that spoke up last.
type Began = Arc<Mutex<Vec<u8>>>;

/// The state of the line.
#[derive(Clone, Copy, Default)]
struct Line {
    /// Bumped to cut every connection.
    cuts: u64,
    /// Nothing passes.
    swallowing: bool,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        Self::tapped(target, Arc::default()).await
    }

    /// As [`Proxy::start`]; what is said on its connections is noted in `wire`.
    pub(crate) async fn tapped(target: SocketAddr, wire: Arc<Wire>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (line, watched) = watch::channel(Line::default());
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        let began = Began::default();
        let begin = Arc::clone(&began);
        tokio::spawn(async move {
            let mut dropped = watched.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = dropped.wait_for(|_| false) => return,
                };
                let Ok((client, _)) = accepted else {
                    continue;
                };
                count.fetch_add(1, Relaxed);
                let (wire, began) = (Arc::clone(&wire), Arc::clone(&begin));
                tokio::spawn(serve(client, target, watched.clone(), wire, began));
            }
        });
        Self { addr, line, accepted, began }
    }

    /// How many connections were made through it.
    pub(crate) fn connections(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// What came first on the connection that spoke up last: the head of a request, say.
    pub(crate) fn began(&self) -> String {
        String::from_utf8_lossy(&self.began.lock()).into_owned()
    }

    /// Drops every connection; new ones are let through.
    pub(crate) fn cut(&self) {
        self.line.send_modify(|line| line.cuts += 1);
    }

    /// Lets nothing through and closes nothing, as a firewall that forgot its connections does: what is sent piles up,
    /// who connects waits.
    pub(crate) fn swallow(&self) {
        self.line.send_modify(|line| line.swallowing = true);
    }

    /// Lets everything through again, what piled up included: TCP repeats what was lost, however late.
    pub(crate) fn heal(&self) {
        self.line.send_modify(|line| line.swallowing = false);
    }
}

/// One connection, until either side ends it or it is cut.
async fn serve(
    client: TcpStream,
    target: SocketAddr,
    mut line: watch::Receiver<Line>,
    wire: Arc<Wire>,
    began: Began,
) {
    let cuts = line.borrow_and_update().cuts;
    let (mut cut, up, down) = (line.clone(), line.clone(), line.clone());
    let forward = async move {
        passable(&mut line).await?;
        let server = TcpStream::connect(target).await?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let tap = Tap::new(wire);
        let mut is_first = true;
        let client_says = |bytes: &[u8]| {
            if mem::take(&mut is_first) {
                *began.lock() = bytes.to_vec();
            }
            tap.shard_says(bytes);
        };
        tokio::try_join!(
            pump(from_client, to_server, up, client_says),
            pump(from_server, to_client, down, |bytes| tap.manager_says(bytes)),
        )?;
        io::Result::Ok(())
    };
    tokio::select! {
        _ended = forward => {}
        _ = cut.wait_for(|line| line.cuts > cuts) => {}
    }
}

/// Waits while the line swallows.
async fn passable(line: &mut watch::Receiver<Line>) -> io::Result<()> {
    line.wait_for(|line| !line.swallowing).await.map(drop).map_err(io::Error::other)
}

/// Forwards one direction to its end.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    mut note: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 14];
    loop {
        passable(&mut line).await?;
        let read = tokio::select! {
            biased;
            _ = line.wait_for(|line| line.swallowing) => continue,
            read = from.read(&mut buffer) => read?,
        };
        if read == 0 {
            return to.shutdown().await;
        }
        let bytes = &buffer[..read];
        note(bytes);
        to.write_all(bytes).await?;
    }
}
