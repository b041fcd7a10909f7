//! Live events over Server-Sent Events; over a Redis that goes and comes in [`redis`].

mod redis;

use std::net::SocketAddr;

use serde_json::{Value, json};
use shardmeter_api::events::Events;
use shardmeter_process::testing::{is, soon, until};
use shardmeter_proto::events::{Event, GuildId, GuildSettings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    backend::Backend,
    manager::Manager,
    server::{Server, problem},
};

fn joined(guild: u64) -> Event {
    Event::GuildJoined { shard_id: 0, guild_id: GuildId::new(guild).unwrap() }
}

/// One that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Received {
    fn guild(&self) -> u64 {
        self.data["guild_id"].as_str().unwrap_or_default().parse().unwrap_or(0)
    }
}

/// A client, as the standard says it: what is not ended by an empty line has not come.
pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// What `Last-Event-ID` would be.
    last: Option<String>,
}

impl Client {
    /// Asks, and reads the head.
    async fn connect(server: &Server, query: &str, last: Option<&str>) -> Self {
        let addr: SocketAddr = server.url.strip_prefix("http://").unwrap().parse().unwrap();
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let last_line = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        // HTTP/1.0: the body is not in chunks, so that every byte is one of the stream.
        let head =
            format!("GET /api/v1/events{query} HTTP/1.0\r\nHost: localhost\r\n{last_line}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut client = Self { socket, buffer: Vec::new(), last: last.map(str::to_owned) };
        let head = client.until(b"\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        client
    }

    /// What comes before this, and this; nothing if the connection ends first.
    async fn until(&mut self, end: &[u8]) -> Option<String> {
        let mut looked = 0;
        loop {
            let mut new = self.buffer.windows(end.len()).skip(looked);
            if let Some(at) = new.position(|window| window == end) {
                let rest = self.buffer.split_off(looked + at + end.len());
                let found = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(found).unwrap());
            }
            looked = (self.buffer.len() + 1).saturating_sub(end.len());
            self.buffer.reserve(16 << 10);
            if self.socket.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next event; nothing if the connection ends.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        loop {
            let block = soon("an event", self.until(b"\n\n")).await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let Some(id) = field("id: ") {
                self.last = Some(id.to_owned());
            }
            if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                let id = field("id: ").expect("every event has an id").to_owned();
                let data = serde_json::from_str(data).unwrap();
                return Some(Received { id, name: name.to_owned(), data });
            }
        }
    }

    /// The opening, after which the client hears what happens.
    pub(crate) async fn connected(server: &Server, query: &str, last: Option<&str>) -> Self {
        let mut client = Self::connect(server, query, last).await;
        let opening = client.until(b"\n\n").await.unwrap();
        assert!(opening.starts_with("retry: "), "{opening}");
        let id = opening.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        client.last = Some(id.to_owned());
        client
    }

    async fn hears(&mut self, event: &Event) -> Received {
        let received = self.next().await.expect("an event");
        let mut expected = serde_json::to_value(event).unwrap();
        expected["type"] = json!(event.name());
        assert_eq!(received.data, expected);
        assert_eq!(received.name, event.name());
        received
    }

    async fn hears_of_a_gap(&mut self) {
        let received = self.next().await.expect("a gap");
        assert_eq!((received.name.as_str(), received.data), ("gap", json!({"type": "gap"})));
    }
}

async fn eventually(server: &Server, series: &str, value: f64) {
    until(series, async || is(server.value(series).await, value)).await;
}

async fn on_sqlite() -> Server {
    Server::start(Backend::Sqlite).await
}

#[tokio::test]
async fn without_redis_events_stay_within_the_process_and_readyz_says_so() {
    let server = on_sqlite().await;
    assert_eq!(server.json("/readyz").await["events"], "process");
    assert!(!server.page().await.contains("redis_"));
    let mut all = Client::connected(&server, "", None).await;
    let mut one = Client::connected(&server, "?guild_id=7", None).await;
    eventually(&server, "sse_active_connections", 2.0).await;
    for guild in [6, 7, 8] {
        server.events.publish(joined(guild));
    }
    for guild in [6, 7, 8] {
        all.hears(&joined(guild)).await;
    }
    one.hears(&joined(7)).await;
    let new = json!({ "disabled_commands": ["ping"], "command_prefix": "!" });
    let put = server.put("/api/v1/guilds/7/settings", &new).header("If-Match", "*");
    assert_eq!(put.send().await.unwrap().status(), 200);
    let told = one.next().await.unwrap();
    assert_eq!(told, all.next().await.unwrap());
    let revision = &server.json("/api/v1/guilds/7/settings").await["revision"];
    let expected = json!({
        "type": "guild_settings_updated", "guild_id": "7", "revision": revision, "disabled_commands": ["ping"],
        "command_prefix": "!",
    });
    assert_eq!(told.data, expected);
    drop(all);
    server.events.publish(joined(1));
    eventually(&server, "sse_active_connections", 1.0).await;
    // The end of the api is the end of the stream.
    let stopped = tokio::spawn(server.stop());
    assert_eq!(one.next().await, None);
    stopped.await.unwrap();
}

#[tokio::test]
async fn what_nobody_can_listen_to_is_refused() {
    let server = on_sqlite().await;
    for query in ["?guild_id=", "?guild_id=0", "?guild_id=x", "?guild_id=1&guild_id=2"] {
        let answer = server.get(&format!("/api/v1/events{query}")).send().await.unwrap();
        problem(answer, 400, "invalid").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_cut_at_every_byte_loses_and_doubles_nothing() {
    let server = on_sqlite().await;
    let opening = Client::connected(&server, "", None).await;
    let events = 6;
    for guild in 1..=events {
        server.events.publish(joined(guild));
    }
    let mut whole = Client::connect(&server, "", opening.last.as_deref()).await;
    let mut length = 0;
    let mut guilds = Vec::new();
    while guilds.len() < events as usize {
        let block = whole.until(b"\n\n").await.unwrap();
        length += block.len();
        guilds.extend(block.contains("data: ").then_some(()));
    }
    for cut in 0..=length {
        let mut first = Client::connect(&server, "", opening.last.as_deref()).await;
        while first.buffer.len() < cut {
            assert_ne!(first.socket.read_buf(&mut first.buffer).await.unwrap(), 0);
        }
        first.buffer.truncate(cut);
        let (_, mut write) = first.socket.split();
        write.shutdown().await.unwrap();
        // What has come is all there is.
        let mut had = Vec::new();
        let mut cut_off = Client { buffer: first.buffer, last: first.last, socket: ended().await };
        while let Some(event) = cut_off.next().await {
            had.push(event.guild());
        }
        let by_query = format!("?last_event_id={}", cut_off.last.as_deref().unwrap());
        let mut back = match cut % 2 {
            0 => Client::connected(&server, "", cut_off.last.as_deref()).await,
            _ => Client::connected(&server, &by_query, None).await,
        };
        while had.len() < events as usize {
            let event = back.next().await.unwrap();
            assert_eq!(event.name, "guild_joined", "{cut}");
            had.push(event.guild());
        }
        assert!(had.iter().copied().eq(1..=events), "{cut}: {had:?}");
    }
    server.stop().await;
}

/// A connection that has ended.
async fn ended() -> TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    drop(listener.accept().await.unwrap());
    connected
}

#[tokio::test]
async fn who_is_of_another_process_or_too_late_is_told_of_the_gap() {
    let server = on_sqlite().await;
    for last in ["00000000-1", "nonsense", "\u{e4}"] {
        let mut client = Client::connected(&server, "", Some(last)).await;
        client.hears_of_a_gap().await;
        server.events.publish(joined(1));
        client.hears(&joined(1)).await;
    }
    let mut early = Client::connected(&server, "", None).await;
    let id = early.last.clone();
    for guild in 1..=40_000 {
        server.events.publish(joined(guild));
    }
    let mut late = Client::connected(&server, "", id.as_deref()).await;
    late.hears_of_a_gap().await;
    let first = late.next().await.unwrap().guild();
    assert!(first > 5_000, "{first}");
    for guild in first + 1..=40_000 {
        assert_eq!(late.next().await.unwrap().guild(), guild);
    }
    // It did read on, if late: it may have been in time, or was cut; either way there is no hole in what it read.
    let mut expected = 1;
    while expected <= 40_000
        && let Some(event) = early.next().await
    {
        assert_eq!(event.guild(), expected);
        expected += 1;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_others_get_all_in_order() {
    let server = on_sqlite().await;
    let slow = Client::connected(&server, "", None).await;
    let mut fast = Client::connected(&server, "", None).await;
    // More than the connection, the kernel and the ring hold together; no faster than the fast one reads.
    let long = |revision| GuildSettings {
        guild_id: GuildId::new(1).unwrap(),
        revision,
        disabled_commands: vec!["x".repeat(10_000)],
        command_prefix: None,
    };
    let (total, at_once) = (4_000_u64, 500);
    for some in 0..total / at_once {
        let revisions = some * at_once + 1..=(some + 1) * at_once;
        for revision in revisions.clone() {
            server.events.publish(Event::GuildSettingsUpdated(long(revision)));
        }
        for revision in revisions {
            let event = fast.next().await.expect("the fast one is not cut");
            assert_eq!(event.data["revision"], revision);
        }
    }
    let mut slow = slow;
    let mut read = 0;
    while let Some(event) = slow.next().await {
        read += 1;
        assert_eq!(event.data["revision"], read);
    }
    assert!(read < total, "it was cut");
    eventually(&server, "sse_clients_cut_total{reason=\"behind\"}", 1.0).await;
    eventually(&server, "sse_active_connections", 1.0).await;
    // What it missed it is told to have missed.
    let mut back = Client::connected(&server, "", slow.last.as_deref()).await;
    back.hears_of_a_gap().await;
    server.stop().await;
}

/// What the handle says without HTTP.
#[tokio::test]
async fn a_bus_can_be_listened_to_within_the_process() {
    let server = on_sqlite().await;
    let events: Events = server.events.clone();
    let mut subscription = events.subscribe(None, None);
    events.publish(joined(1));
    let heard = soon("it is told", subscription.next()).await.unwrap();
    assert!(matches!(heard, shardmeter_api::events::Heard::Events(_)));
    server.stop().await;
}

#[tokio::test]
async fn what_happens_to_shards_is_told_live() {
    let manager = Manager::start(1).await;
    let server = Server::start_beside(Backend::Sqlite, &manager).await;
    let mut all = Client::connected(&server, "", None).await;
    manager.until_followed(1).await;
    manager.log.happens(1);
    let received = all.next().await.expect("an event");
    assert_eq!(received.name, "shard_event");
    let expected = json!({
        "type": "shard_event", "shard_id": 0, "kind": "disconnected", "instance": "00ff",
        "reason": "stream_broke", "count": 1, "state": "up", "at": "2023-11-14T22:13:21Z",
        "epoch": "first", "revision": 1,
    });
    assert_eq!(received.data, expected);
    server.stop().await;
    manager.stop().await;
}
