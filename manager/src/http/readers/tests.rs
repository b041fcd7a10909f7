//! Real sockets: some read, some do not.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{Extension, Router, extract::State, routing::get};
use shardmeter_access::{Door, Farewell, Places, Protocol, accept, serve_http};
use shardmeter_process::testing::{eventually, soon};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::*;

/// Segments of a page, and bytes of each.
const SEGMENTS: usize = 64;
const SEGMENT: usize = 64 << 10;
const PAGE: usize = SEGMENTS * SEGMENT;

/// What sockets keep, so that pages do not end up there.
const SOCKET: u32 = 16 << 10;

/// Memory of pages, and how much of it there is.
struct Counted {
    text: Vec<u8>,
    all: Arc<AtomicUsize>,
}

impl Counted {
    fn bytes(all: &Arc<AtomicUsize>) -> Bytes {
        all.fetch_add(SEGMENT, SeqCst);
        Bytes::from_owner(Self { text: vec![b'x'; SEGMENT], all: Arc::clone(all) })
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.fetch_sub(self.text.len(), SeqCst);
    }
}

/// Pages of which so many segments change each time.
#[derive(Clone)]
struct Pages {
    readers: Arc<Readers>,
    page: Arc<Mutex<Vec<Bytes>>>,
    changes: usize,
    /// Bytes there are of all pages.
    bytes: Arc<AtomicUsize>,
}

impl Pages {
    fn new(room: usize, changes: usize) -> Self {
        let cut = IntCounter::new("cut", "cut").unwrap();
        let readers = Arc::new(Readers::with_room(room, cut));
        let bytes = Arc::default();
        let page = (0..SEGMENTS).map(|_| Counted::bytes(&bytes)).collect();
        Self { readers, page: Arc::new(Mutex::new(page)), changes, bytes }
    }

    fn next(&self) -> Vec<Bytes> {
        let mut page = self.page.lock();
        for segment in page.iter_mut().take(self.changes) {
            *segment = Counted::bytes(&self.bytes);
        }
        page.clone()
    }

    fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    fn cut(&self) -> u64 {
        self.readers.cut.get()
    }

    async fn serve(&self) -> (SocketAddr, AbortOnDropHandle<()>) {
        async fn page(
            State(pages): State<Pages>,
            Extension(hang_up): Extension<HangUp>,
        ) -> axum::body::Body {
            pages.readers.body(pages.next(), Some(hang_up))
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SOCKET).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(100).unwrap();
        let addr = listener.local_addr().unwrap();
        let door = Door {
            protocol: Protocol::Http,
            places: Places::new("connections", 1_000, 1_000),
            tls: None,
            say_full: |_| Farewell { content_type: "", body: String::new() },
        };
        let routes = Router::new().route("/page", get(page)).with_state(self.clone());
        let serving = serve_http(accept(listener, door), routes, CancellationToken::new());
        (addr, AbortOnDropHandle::new(tokio::spawn(serving)))
    }
}

async fn ask(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SOCKET).unwrap();
    let mut peer = socket.connect(addr).await.unwrap();
    let request = b"GET /page HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    peer.write_all(request).await.unwrap();
    // Its head is there: so the page is made.
    peer.read_exact(&mut [0; 15]).await.unwrap();
    peer
}

/// Bytes that come, to the end.
async fn read(mut peer: TcpStream) -> usize {
    let mut page = Vec::new();
    let read = soon("its end", peer.read_to_end(&mut page)).await;
    read.map_or(0, |_| page.iter().filter(|byte| **byte == b'x').count())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_keeps_no_more_than_there_is_room_for() {
    let pages = Pages::new(8 * PAGE, SEGMENTS);
    let (addr, _serving) = pages.serve().await;
    let mut stalled = Vec::new();
    for n in 0..40 {
        stalled.push(ask(addr).await);
        if n % 4 == 0 {
            let page = read(ask(addr).await).await;
            assert_eq!(page, PAGE, "one that reads is not hurt");
        }
        // Beside the room: the newest page, and the one of which it is decided.
        eventually("room", || pages.bytes() <= 10 * PAGE).await;
    }
    assert!(pages.cut() >= 30, "{} cut", pages.cut());
    // Those that asked last are not cut, and come to the end of it.
    assert_eq!(read(stalled.pop().unwrap()).await, PAGE);
    assert!(read(stalled.swap_remove(0)).await < PAGE);
    drop(stalled);
    eventually("nothing but the page is left", || pages.bytes() == PAGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_hold_together_counts_once() {
    let pages = Pages::new(PAGE, 1);
    let (addr, _serving) = pages.serve().await;
    let mut stalled = Vec::new();
    for _ in 0..40 {
        stalled.push(ask(addr).await);
    }
    assert_eq!(pages.cut(), 0);
    assert!(pages.bytes() <= PAGE + 40 * SEGMENT, "{}", pages.bytes());
    for peer in stalled {
        assert_eq!(read(peer).await, PAGE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_outlives_who_does_not_read() {
    let pages = Pages::new(0, SEGMENTS);
    let (addr, _serving) = pages.serve().await;
    let mut slow = ask(addr).await;
    let mut stalled = Vec::new();
    let mut got = 0;
    // Four pages' worth of room, the slow one's included.
    for _ in 0..12 {
        stalled.push(ask(addr).await);
        let mut some = vec![0; 3 * SEGMENT];
        slow.read_exact(&mut some).await.unwrap();
        got += some.iter().filter(|byte| **byte == b'x').count();
    }
    assert!(pages.cut() >= 6, "{} cut", pages.cut());
    assert_eq!(got + read(slow).await, PAGE);
}
