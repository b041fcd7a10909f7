//! `cargo demo` as a newcomer runs it: the binary, its words on standard output, curl's view of the page and of live
//! events, and Ctrl-C.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// The demo; killed if the test fails before it ended.
struct Demo {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    manager: String,
    api: String,
}

impl Demo {
    /// Starts it with these flags too.
    fn start(flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_shardmeter-demo"))
            // It ends by itself should the test not end it.
            .args(["--guilds", "12", "--rate", "50", "--for", "90s"])
            .args(["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"])
            .args(["--api-addr", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut addr = |of: &str| {
            let mut said = lines.by_ref().map(Result::unwrap);
            let url = said.find_map(|line| Some(line.trim().strip_prefix(of)?.trim().to_owned()));
            url.unwrap().trim_start_matches("http://").split('/').next().unwrap().to_owned()
        };
        let (manager, api) = (addr("manager, HTTP"), addr("api"));
        Self { process, lines, manager, api }
    }

    /// Waits until so many shards are connected to Discord, and report it.
    fn until_connected(&self, shards: usize) {
        let is_connected =
            |line: &&str| line.starts_with("gateway_connected{") && line.ends_with(" 1");
        while scrape(&self.manager).lines().filter(is_connected).count() != shards {
            std::thread::yield_now();
        }
    }

    /// Ctrl-C; how many commands Discord confirmed, after the manager has counted as many.
    fn end(mut self) -> u64 {
        let interrupt =
            Command::new("kill").args(["-s", "INT", &self.process.id().to_string()]).status();
        assert!(interrupt.unwrap().success());
        let summary = self.lines.by_ref().last().unwrap().unwrap();
        let numbers: Vec<u64> =
            summary.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{summary}");
        assert!(self.process.wait().unwrap().success());
        numbers[0]
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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
    let demo = Demo::start(&["--shards", "3"]);
    demo.until_connected(3);
    disable_all(&demo.api, &guild_of_a_live_command(&demo.api));
    let is_refused = |line: &str| {
        line.starts_with("command_errors_total")
            && line.contains("error=\"disabled\"")
            && !line.ends_with(" 0")
    };
    while !scrape(&demo.manager).lines().any(is_refused) {
        std::thread::yield_now();
    }
    let confirmed = demo.end();
    assert!(confirmed > 10, "there was traffic: {confirmed}");
}

#[test]
fn an_outage_of_discord_is_seen_and_costs_no_count() {
    let demo = Demo::start(&["--shards", "2", "--scenario", "outage"]);
    demo.until_connected(2);
    demo.until_connected(0);
    let page = scrape(&demo.manager);
    let up = page.lines().filter(|line| line.starts_with("shard_up{") && line.ends_with(" 1"));
    assert_eq!(up.count(), 2, "it is Discord, not us");
    demo.until_connected(2);
    demo.end();
}
