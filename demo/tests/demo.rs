//! `cargo demo` as a newcomer runs it: the binary, its words on standard output, and curl's view of the page.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The demo, killed if the test fails before it ended.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One scrape, by hand: a newcomer's curl.
fn scrape(addr: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[test]
fn the_demo_shows_every_shard_and_ends_with_equal_books() {
    let demo = Command::new(env!("CARGO_BIN_EXE_shardmeter-demo"))
        .args(["--shards", "3", "--guilds", "12", "--rate", "50", "--for", "4s"])
        .args(["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut demo = Demo(demo);
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let http = lines
        .find_map(|l| Some(l.trim().strip_prefix("manager, HTTP")?.trim().to_owned()))
        .unwrap();
    let addr = http.trim_start_matches("http://").trim_end_matches('/').to_owned();

    // The demo ends by itself after 4 s, and refuses connections then: no deadline of our own is needed.
    let all_shards = |page: &str| {
        (0..3).all(|id| {
            page.lines()
                .any(|l| l.starts_with(&format!("gateway_connected{{shard_id=\"{id}\"}} 1")))
        })
    };
    while !all_shards(&scrape(&addr)) {
        std::thread::yield_now();
    }

    let summary = lines.last().unwrap();
    let numbers: Vec<u64> =
        summary.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{summary}");
    assert!(numbers[0] > 10, "there was traffic: {summary}");
    assert!(demo.0.wait().unwrap().success());
}
