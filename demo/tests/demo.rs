//! `cargo demo` as a newcomer runs it: the binary, its words on standard output, curl's view of the page and of live
//! events, and Ctrl-C.
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

/// Asks by hand, as a newcomer's curl does.
fn ask(addr: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "{request}").unwrap();
    stream
}

fn scrape(addr: &str) -> String {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    ask(addr, &request).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// The guild of the first command that is told live.
fn guild_of_a_live_command(api: &str) -> String {
    let stream = ask(api, &format!("GET /api/v1/events HTTP/1.0\r\nHost: {api}\r\n\r\n"));
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let guild = |line: String| {
        let data = line.strip_prefix("data: ")?;
        if !data.contains("\"type\":\"command_executed\"") {
            return None;
        }
        let (_, rest) = data.split_once("\"guild_id\":\"")?;
        Some(rest.split('"').next().unwrap().to_owned())
    };
    lines.find_map(guild).unwrap()
}

fn disable_all(api: &str, guild: &str) {
    let body = r#"{"disabled_commands":["ping","shards","stats"]}"#;
    let request = format!(
        "PUT /api/v1/guilds/{guild}/settings HTTP/1.0\r\nHost: {api}\r\nIf-Match: *\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    ask(api, &request).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[test]
fn the_demo_shows_every_shard_obeys_settings_and_ends_with_equal_books() {
    let demo = Command::new(env!("CARGO_BIN_EXE_shardmeter-demo"))
        // It ends by itself should this test not end it.
        .args(["--shards", "3", "--guilds", "12", "--rate", "50", "--for", "60s"])
        .args(["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"])
        .args(["--api-addr", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut demo = Demo(demo);
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut addr = |of: &str| {
        let url = lines.find_map(|line| Some(line.trim().strip_prefix(of)?.trim().to_owned()));
        url.unwrap().trim_start_matches("http://").split('/').next().unwrap().to_owned()
    };
    let (manager, api) = (addr("manager, HTTP"), addr("api"));

    let all_shards = |page: &str| {
        (0..3).all(|id| {
            page.lines()
                .any(|l| l.starts_with(&format!("gateway_connected{{shard_id=\"{id}\"}} 1")))
        })
    };
    while !all_shards(&scrape(&manager)) {
        std::thread::yield_now();
    }
    disable_all(&api, &guild_of_a_live_command(&api));
    let is_refused = |line: &str| {
        line.starts_with("command_errors_total")
            && line.contains("error=\"disabled\"")
            && !line.ends_with(" 0")
    };
    while !scrape(&manager).lines().any(is_refused) {
        std::thread::yield_now();
    }

    let interrupt = Command::new("kill").args(["-s", "INT", &demo.0.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let summary = lines.last().unwrap();
    let numbers: Vec<u64> =
        summary.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{summary}");
    assert!(numbers[0] > 10, "there was traffic: {summary}");
    assert!(demo.0.wait().unwrap().success());
}
