//! What the manager has room for, and what it says to whoever comes after.

use std::{io, net::SocketAddr};

use serde_json::{Value, json};
use shardmeter_manager::Config;
use shardmeter_process::testing::{soon, until};
use shardmeter_proto::v1::report_request::Message as Said;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use tonic::{
    Code, Status,
    transport::{Channel, Uri},
};

use crate::server::{Server, Stream, delta, hello, snapshot};

async fn with_limits(limits: &str) -> Server {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("manager.toml");
    std::fs::write(&config, format!("[limits]\n{limits}\n")).unwrap();
    Server::start_with(Config { config: Some(config), ..Config::default() }).await
}

/// A connection from another of this machine's addresses, 127.0.0.N.
async fn connect(from: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, from], 0).into())?;
    socket.connect(to).await
}

/// Asks for something on a connection that stays open; the answer's first line, or nothing if it is closed.
async fn ask(peer: &mut TcpStream) -> String {
    // The other end may have closed by now.
    let _ = peer.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut said = vec![0; 1_000];
    let length = soon("an answer", peer.read(&mut said)).await.unwrap_or(0);
    let said = String::from_utf8(said[..length].to_vec()).unwrap();
    let mut lines = said.lines();
    let status = lines.next().unwrap_or_default().to_owned();
    format!("{status} {}", lines.next_back().unwrap_or_default())
}

const FINE: &str = "HTTP/1.1 200 OK ok";

#[tokio::test]
async fn one_address_takes_half_of_the_connections() {
    let server = with_limits("connections = 5").await;
    let mut open = Vec::new();
    for from in [1, 1, 1, 2, 3] {
        let mut peer = connect(from, server.http_addr).await.unwrap();
        assert_eq!(ask(&mut peer).await, FINE);
        open.push(peer);
    }
    for (from, reason) in [
        (1, "there are 5 HTTP connections, the limit"),
        (4, "there are 5 HTTP connections, the limit"),
    ] {
        let mut peer = connect(from, server.http_addr).await.unwrap();
        let said = ask(&mut peer).await;
        assert!(said.starts_with("HTTP/1.1 503 ") && said.contains(reason), "{said}");
    }
    // Who is in goes on, and who leaves makes room: for others.
    drop(open.pop());
    until("there is room", async || {
        let mut peer = connect(1, server.http_addr).await.unwrap();
        let said = ask(&mut peer).await;
        let reason = "this address has 3 HTTP connections, the limit of one address";
        if said.contains(reason) { Ok(()) } else { Err(said) }
    })
    .await;
    let mut peer = connect(4, server.http_addr).await.unwrap();
    assert_eq!(ask(&mut peer).await, FINE);
    for peer in &mut open {
        assert_eq!(ask(peer).await, FINE);
    }
    drop((open, peer));
    server.stop().await;
}

async fn channel(from: u8, server: &Server) -> Channel {
    let to = server.grpc_addr;
    let connector = tower::service_fn(move |_: Uri| async move {
        connect(from, to).await.map(hyper_util::rt::TokioIo::new)
    });
    let endpoint = Channel::from_shared(format!("http://{to}")).unwrap();
    endpoint.connect_with_connector(connector).await.unwrap()
}

async fn open(channel: &Channel) -> Result<Stream, Status> {
    Stream::open(channel.clone(), None).await
}

#[tokio::test]
async fn streams_have_a_limit_for_all_and_for_one_address() {
    let server = with_limits("streams = 3\nstreams_per_peer = 2").await;
    let (one, two) = (channel(1, &server).await, channel(2, &server).await);
    let first = open(&one).await.unwrap();
    let mut second = open(&one).await.unwrap();
    let refused = open(&one).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let message = refused.message();
    assert!(message.starts_with("this address has 2 Report streams, the limit"), "{message}");
    assert!(message.contains("limits.streams_per_peer"), "{message}");
    let _third = open(&two).await.unwrap();
    let refused = open(&two).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("there are 3 Report streams, the limit"));

    // Who is in goes on, and who leaves makes room.
    second.say(Said::Hello(hello(1))).await;
    second.answer().await;
    second.say(snapshot(1, &[])).await;
    second.ack().await;
    drop(first);
    let _fourth = until("there is room", || open(&two)).await;
    second.say(delta(2, &[])).await;
    assert_eq!(second.ack().await.sequence, 2);
    server.stop().await;
}

#[tokio::test]
async fn grpc_connections_have_the_limits_of_streams() {
    let server = with_limits("streams = 3\nstreams_per_peer = 2").await;
    let mut open = Vec::new();
    for from in [1, 1, 2] {
        open.push(connect(from, server.grpc_addr).await.unwrap());
    }
    // The preface's answer tells that a connection is served.
    for peer in &mut open {
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        soon("the preface's answer", peer.read_u8()).await.unwrap();
    }
    let mut refused = connect(3, server.grpc_addr).await.unwrap();
    let read = soon("the end", refused.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(open);
    server.stop().await;
}

#[tokio::test]
async fn a_shard_that_sends_too_often_is_told_when_to_come_back() {
    let server = with_limits("frames_per_second = 1").await;
    let mut stream = server.ready(1).await;
    let mut refused = None;
    for sequence in 1..20 {
        let frame = if sequence == 1 { snapshot(1, &[]) } else { delta(sequence, &[]) };
        stream.say(frame).await;
        if let Err(status) = stream.next().await {
            refused = Some((sequence, status));
            break;
        }
    }
    let (sequence, status) = refused.expect("nothing was refused");
    assert!(sequence >= 5, "{sequence}: the hello, and four more");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let wait = status.metadata().get("grpc-retry-pushback-ms").expect("no pushback");
    let wait: u64 = wait.to_str().unwrap().parse().unwrap();
    assert!((1..=1_001).contains(&wait), "{wait}");
    server.wait_for("shardmeter_manager_streams 0").await;

    // Another shard is another matter; with posts it is the same.
    let client = reqwest::Client::new();
    let url = format!("{}/shard-metrics", server.http);
    let post = async |text: &str| {
        let body = json!({ "shardId": 1, "metrics": text });
        client.post(&url).header("x-instance-id", "a").json(&body).send().await.unwrap()
    };
    let mut taken = 0;
    let refused = loop {
        let answer = post(&format!("# TYPE a_total counter\na_total {taken}\n")).await;
        if answer.status() != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 20, "nothing was refused");
    };
    assert!(taken >= 5, "{taken}");
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    let answer: Value = refused.json().await.unwrap();
    let error = answer["error"].as_str().unwrap();
    assert!(error.starts_with("shard 1 sends more than 1 reports a second"), "{error}");
    server.wait_for(&format!("a_total{{shard_id=\"1\"}} {}", taken - 1)).await;
    server.stop().await;
}

/// However a body comes, and whatever it looks like: a shard's reports come out of one bucket.
#[tokio::test]
async fn every_way_in_counts_for_its_shard() {
    use std::io::Write as _;
    let gzip = |name: &str, body: &str| {
        let packed = flate2::GzBuilder::new().filename(name);
        let mut packed = packed.write(Vec::new(), flate2::Compression::fast());
        packed.write_all(body.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let json = |pad: &str| {
        format!("{{\"y\":\"{pad}\",\"shardId\":3,\"metrics\":\"a 1\\n\",\"z\":\"{pad}\"}}")
    };
    let lying = "{\"x\":{\"shardId\":9},\"metrics\":\"a 1\\n\",\"shardId\":3}".to_owned();
    let long = "x".repeat(200 << 10);
    for (method, path, kind, body, packed) in [
        ("POST", "/shard-metrics", "application/json", json("").into_bytes(), false),
        ("POST", "/shard-metrics", "application/json", json(&"x".repeat(200)).into_bytes(), false),
        ("POST", "/shard-metrics", "application/json", json(&long).into_bytes(), false),
        ("POST", "/shard-metrics", "application/json", lying.into_bytes(), false),
        ("POST", "/shard-metrics", "application/json", gzip("\"shardId\":9", &json("")), true),
        ("POST", "/shard-metrics", "application/json", gzip("", &json(&long)), true),
        ("POST", "/metrics?shard_id=3", "text/plain", b"a 1\n".to_vec(), false),
        ("POST", "/metrics?shard_id=3", "text/plain", gzip("", "a 1\n"), true),
        ("PUT", "/metrics/job/b/shard_id/3", "text/plain", b"a 1\n".to_vec(), false),
        ("DELETE", "/metrics/job/b/shard_id/3", "text/plain", Vec::new(), false),
    ] {
        let server = with_limits("frames_per_second = 1").await;
        let client = reqwest::Client::new();
        let mut refused = 0;
        for _ in 0..12 {
            let request = client.request(method.parse().unwrap(), format!("{}{path}", server.http));
            let mut request = request.header("content-type", kind).header("x-instance-id", "a");
            if packed {
                request = request.header("content-encoding", "gzip");
            }
            let status = request.body(body.clone()).send().await.unwrap().status().as_u16();
            assert!([200, 202, 429].contains(&status), "{method} {path}: {status}");
            refused += u32::from(status == 429);
        }
        assert!(refused > 0, "{method} {path} {kind} {} bytes", body.len());
        server.stop().await;
    }
}

/// Sends 7 MiB of a body of 8, for as long as it is listened to, and waits for an answer.
async fn post_most(to: SocketAddr, shard: usize) -> String {
    let (mut from, mut to) = connect(1, to).await.unwrap().into_split();
    let head = format!(
        "POST /metrics?shard_id={shard} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        8 << 20
    );
    let send = async {
        to.write_all(head.as_bytes()).await?;
        to.write_all(&vec![b'\n'; 7 << 20]).await
    };
    let hear = async {
        let mut said = Vec::new();
        while !said.ends_with(b"}") {
            if !matches!(from.read_buf(&mut said).await, Ok(1..)) {
                break;
            }
        }
        String::from_utf8(said).unwrap()
    };
    // Whoever is refused cannot send all of it.
    tokio::join!(send, hear).1
}

/// Long bodies that do not end take no more than the manager has for them, and nothing of what small ones need.
#[tokio::test]
async fn long_bodies_have_a_limit_together() {
    let server = Server::start().await;
    let mut posts: JoinSet<String> =
        (0..40).map(|shard| post_most(server.http_addr, shard)).collect();
    // 256 MiB are enough for 37 of them.
    for _ in 0..3 {
        let refused = soon("some are refused", posts.join_next()).await;
        let refused = refused.unwrap().unwrap();
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        assert!(refused.contains("\r\nretry-after: 30\r\n"), "{refused}");
        assert!(refused.contains("busy with other bodies"), "{refused}");
    }
    let client = reqwest::Client::new();
    let url = format!("{}/metrics?shard_id=50", server.http);
    let small = client.post(&url).body("a 1\n").send().await.unwrap();
    assert_eq!(small.status(), 200);
    assert!(posts.len() > 30, "{} are left", posts.len());
    posts.shutdown().await;
    // The manager may take a moment to see that they are gone.
    until("there is room", async || {
        let large = format!("a 2\n{}", "\n".repeat(7 << 20));
        client.post(&url).body(large).send().await?.error_for_status()
    })
    .await;
    server.wait_for("a{shard_id=\"50\"} 2").await;
    server.stop().await;
}
