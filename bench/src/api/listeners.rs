//! Those who listen to live events.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use shardmeter_proto::events::{EVENTS_CHANNEL, Event, GuildId};
use shardmeter_pubsub::testing::RedisServer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{Cost, Who, server};
use crate::{http, server::Server};

/// Events told in a second.
pub(super) const EVENTS_A_SECOND: usize = 100;

/// The floor is handed so many at once, which is what the api tells at once.
const TOGETHER: usize = 10;

/// Of so many listeners one looks when its events were told.
const SAMPLED: usize = 100;

/// How long everything may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// The floor and the api, one after the other.
pub(super) async fn round(
    api: &Path,
    listeners: usize,
    events: usize,
) -> anyhow::Result<[Cost; 2]> {
    let floor = Server::floor().await?;
    let of_floor = listen(Who::Floor, &floor, "/events", listeners, async |began| {
        let client = http::client()?;
        let url = format!("{}/events", floor.http);
        let mut due = paced();
        for _ in 0..events / TOGETHER {
            let mut text = String::new();
            for _ in 0..TOGETHER {
                due.tick().await;
                let json = serde_json::to_string(&event(began)?)?;
                text += &format!("id: 01234567-1000\nevent: command_executed\ndata: {json}\n\n");
            }
            client.put(&url).body(text).send().await?.error_for_status()?;
        }
        Ok(events / TOGETHER * TOGETHER)
    });
    let of_floor = of_floor.await.context("floor")?;
    drop(floor);
    let redis = RedisServer::start().await;
    let (api, _folder) = server(api, Some(&redis.url()), None).await?;
    let mut connection = redis.connection().await;
    let of_api = listen(Who::Api, &api, "/api/v1/events", listeners, async |began| {
        let mut due = paced();
        for _ in 0..events {
            due.tick().await;
            let json = serde_json::to_string(&event(began)?)?;
            let told: u64 = redis::cmd("PUBLISH")
                .arg(EVENTS_CHANNEL)
                .arg(json)
                .query_async(&mut connection)
                .await?;
            ensure!(told == 1, "the api does not listen");
        }
        Ok(events)
    });
    let of_api = of_api.await.context("api")?;
    Ok([of_floor, of_api])
}

fn paced() -> tokio::time::Interval {
    let mut due = interval(Duration::from_secs(1) / EVENTS_A_SECOND as u32);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    due
}

/// An event whose guild says when it was told: microseconds after the beginning.
fn event(began: Instant) -> anyhow::Result<Event> {
    let micros = u64::try_from(began.elapsed().as_micros())?;
    Ok(Event::CommandExecuted {
        shard_id: 1,
        command_name: "ping".into(),
        guild_id: GuildId::new(micros + 1),
    })
}

/// What listeners have received.
#[derive(Default)]
struct Received {
    /// Events, all listeners together.
    events: AtomicUsize,
    connected: AtomicUsize,
    latencies: Mutex<Vec<Duration>>,
}

/// Has all connect, tells them events, and waits until all have all.
async fn listen(
    who: Who,
    server: &Server,
    path: &str,
    listeners: usize,
    tell: impl AsyncFnOnce(Instant) -> anyhow::Result<usize>,
) -> anyhow::Result<Cost> {
    let addr = server.http.strip_prefix("http://").context("an address")?.to_owned();
    let began = Instant::now();
    let received = Arc::new(Received::default());
    let mut clients = JoinSet::new();
    for n in 0..listeners {
        let stream = TcpStream::connect(&addr).await?;
        clients.spawn(read(stream, addr.clone(), path.to_owned(), Arc::clone(&received), {
            (n % SAMPLED == 0).then_some(began)
        }));
    }
    until("all are connected", || received.connected.load(Relaxed) == listeners).await?;
    let before = server.cpu.settled().await?;
    let idle = server.rss()?.saturating_sub(server.rss_at_start);
    let first = Instant::now();
    let times = tell(began).await? * listeners;
    until("all have all", || received.events.load(Relaxed) >= times).await?;
    let wall = first.elapsed();
    let cpu = server.cpu.settled().await?.saturating_sub(before);
    let after = server.rss()?.saturating_sub(server.rss_at_start);
    while let Some(ended) = clients.try_join_next() {
        ended??;
    }
    let latencies = std::mem::take(&mut *received.latencies.lock());
    ensure!(received.events.load(Relaxed) == times, "some heard more than was told");
    Ok(Cost { who, cpu, wall, times, latencies, grown: [idle, after] })
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let waited = timeout(ARRIVES_WITHIN, async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.with_context(|| format!("waited in vain until {what}"))
}

/// Reads on and on; does not return unless the server ends the stream.
async fn read(
    mut stream: TcpStream,
    addr: String,
    path: String,
    received: Arc<Received>,
    sampled: Option<Instant>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).await?;
    let mut buffer = vec![0; 16 << 10];
    let mut is_connected = false;
    loop {
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "the server ended the stream");
        let bytes = &buffer[..read];
        if !is_connected {
            ensure!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(bytes));
            is_connected = true;
            received.connected.fetch_add(1, Relaxed);
        }
        if let Some(began) = sampled {
            received.latencies.lock().extend(latencies(bytes, began));
        }
        // Each event has one brace, and nothing else has.
        received.events.fetch_add(memchr::memchr_iter(b'{', bytes).count(), Relaxed);
    }
}

/// How long ago the events in these bytes were told; those that are cut off by their ends are left out.
fn latencies(bytes: &[u8], began: Instant) -> impl Iterator<Item = Duration> {
    const BEFORE: &[u8] = b"\"guild_id\":\"";
    let now = began.elapsed();
    memchr::memmem::find_iter(bytes, BEFORE).filter_map(move |at| {
        let digits = bytes.get(at + BEFORE.len()..)?;
        let end = digits.iter().position(|byte| *byte == b'"')?;
        let micros: u64 = std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()?;
        Some(now.saturating_sub(Duration::from_micros(micros)))
    })
}
