//! Peers that keep a connection waiting, in memory, under a paused clock.

use axum::{
    Extension,
    body::Bytes,
    extract::rejection::BytesRejection,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::*;

/// What lies between the two ends: less than a page.
const BUFFER: usize = 16 << 10;

/// Longer than any limit.
const EVER: Duration = Duration::from_secs(1_000);

struct Server {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

fn events() -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures_util::stream::repeat_with(|| Ok(vec![b'x'; 1 << 10].into()))
}

/// Serves one connection, whose other end it returns.
fn serve_one() -> (Server, DuplexStream) {
    async fn take(body: Result<Bytes, BytesRejection>) -> Response<Body> {
        match body {
            Ok(body) => format!("{} bytes", body.len()).into_response(),
            Err(rejection) => {
                assert!(matches!(cause(&rejection), Some(BodyError::Late)), "{rejection}");
                StatusCode::REQUEST_TIMEOUT.into_response()
            }
        }
    }
    async fn soon(Extension(hang_up): Extension<HangUp>) -> Vec<u8> {
        tokio::spawn(async move {
            sleep(Duration::from_secs(5)).await;
            hang_up.now();
        });
        vec![b'x'; 10 << 20]
    }
    let routes = Router::new()
        .route("/page", get(async || vec![b'x'; 10 << 20]))
        .route("/events", get(async || (Extension(Endless), Body::from_stream(events()))))
        .route("/never", get(async |Extension(hang_up): Extension<HangUp>| hang_up.now()))
        .route("/soon", get(soon))
        .route("/slow", get(async || sleep(Duration::from_secs(3)).await))
        .route("/body", post(take));
    let (near, far) = duplex(BUFFER);
    let peer = Peer { addr: ([127, 0, 0, 1], 1).into(), certificate: None };
    let connection = Connection::new(near, peer, Patience::with_requests(), None);
    let stop = CancellationToken::new();
    let connections = futures_util::stream::iter([connection]);
    let connections = connections.chain(futures_util::stream::pending());
    let serving = tokio::spawn(serve(connections, routes, stop.clone()));
    (Server { stop, serving }, far)
}

/// The next answer: its status line and its body.
async fn answer(peer: &mut DuplexStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(peer.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    peer.read_exact(&mut body).await.unwrap();
    (head.lines().next().unwrap().to_owned(), String::from_utf8(body).unwrap())
}

/// Seconds until the other side closes the connection, in whole ones.
async fn closed_after(mut peer: DuplexStream) -> u64 {
    let began = Instant::now();
    timeout(EVER, peer.read_to_end(&mut Vec::new())).await.expect("it stays open").unwrap();
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_cut() {
    let (_server, peer) = serve_one();
    assert_eq!(closed_after(peer).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_slowly_is_cut() {
    for before in [0, 1] {
        let (_server, mut peer) = serve_one();
        for _ in 0..before {
            peer.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            answer(&mut peer).await;
            sleep(Duration::from_secs(100)).await;
        }
        peer.write_all(b"GET /page HTTP/1.1\r\n").await.unwrap();
        let (mut reads, mut writes) = tokio::io::split(peer);
        let began = Instant::now();
        let trickle = async {
            while writes.write_all(b"a").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut said = Vec::new();
        tokio::select! {
            read = timeout(EVER, reads.read_to_end(&mut said)) => drop(read.expect("it stays open")),
            () = trickle => {}
        }
        assert_eq!(began.elapsed().as_secs(), 10, "after {before} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_rests_between_requests() {
    let (_server, mut peer) = serve_one();
    for _ in 0..3 {
        peer.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(answer(&mut peer).await.0, "HTTP/1.1 200 OK");
        sleep(Duration::from_secs(119)).await;
    }
    assert_eq!(closed_after(peer).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_comes_in_time() {
    let head = b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n";
    // Ten bytes each time, in seconds: until when, and to what end.
    for (pause, expected, within) in [
        (0.5, ("HTTP/1.1 200 OK", "1000 bytes"), 49),
        (29.0, ("HTTP/1.1 408 Request Timeout", ""), 60),
        (31.0, ("HTTP/1.1 408 Request Timeout", ""), 30),
    ] {
        let (_server, mut peer) = serve_one();
        peer.write_all(head).await.unwrap();
        let (mut reads, mut writes) = tokio::io::split(peer);
        let began = Instant::now();
        let sending = tokio::spawn(async move {
            for n in 0..100 {
                if n > 0 {
                    sleep(Duration::from_secs_f64(pause)).await;
                }
                let _ = writes.write_all(&[b'x'; 10]).await;
            }
            writes
        });
        let mut said = vec![0; 1000];
        let length = timeout(EVER, reads.read(&mut said)).await.expect("no answer").unwrap();
        assert_eq!(began.elapsed().as_secs(), within, "{pause}");
        let said = String::from_utf8(said[..length].to_vec()).unwrap();
        assert!(said.starts_with(expected.0) && said.ends_with(expected.1), "{pause}: {said}");
        sending.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_given_up() {
    let (_server, mut peer) = serve_one();
    peer.write_all(b"GET /page HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // What lies in between is still read; then it is over, though the page is not.
    sleep(Duration::from_secs(31)).await;
    let began = Instant::now();
    let mut page = Vec::new();
    timeout(EVER, peer.read_to_end(&mut page)).await.expect("it stays open").unwrap();
    assert!(page.len() <= BUFFER, "{} bytes", page.len());
    assert_eq!(began.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_drop_by_drop_is_given_up() {
    let (_server, mut peer) = serve_one();
    peer.write_all(b"GET /page HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let began = Instant::now();
    let mut drops = [0; 1_000];
    while timeout(EVER, peer.read(&mut drops)).await.expect("it stays open").unwrap() > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    let took = began.elapsed().as_secs();
    assert!((120..120 + BUFFER as u64 / 1_000 + 2).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_may_be_read_slowly_but_not_left() {
    let (_server, mut peer) = serve_one();
    peer.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut drops = vec![0; BUFFER];
    for _ in 0..100 {
        peer.read_exact(&mut drops).await.unwrap();
        sleep(Duration::from_secs(20)).await;
    }
    sleep(Duration::from_secs(11)).await;
    let mut rest = Vec::new();
    timeout(EVER, peer.read_to_end(&mut rest)).await.expect("it stays open").unwrap();
    assert!(rest.len() <= BUFFER, "{} bytes", rest.len());
}

#[tokio::test(start_paused = true)]
async fn a_connection_can_be_ended_from_within() {
    let (_server, mut peer) = serve_one();
    peer.write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(closed_after(peer).await, 0);
    // Also while it waits for the peer to read, and has not read all that the peer said.
    let (_server, mut peer) = serve_one();
    peer.write_all(b"GET /soon HTTP/1.1\r\nhost: a\r\n\r\nGET /page").await.unwrap();
    sleep(Duration::from_secs(6)).await;
    let mut page = Vec::new();
    peer.read_to_end(&mut page).await.unwrap();
    assert!(page.len() <= BUFFER, "{} bytes", page.len());
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_what_is_in_flight_finish() {
    let (Server { stop, serving }, mut busy) = serve_one();
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    stop.cancel();
    assert_eq!(answer(&mut busy).await.0, "HTTP/1.1 200 OK");
    assert_eq!(closed_after(busy).await, 0);
    serving.await.unwrap();

    let (Server { stop, serving }, idle) = serve_one();
    sleep(Duration::from_secs(1)).await;
    stop.cancel();
    assert_eq!(closed_after(idle).await, 0);
    serving.await.unwrap();
}
