//! Publisher and subscriber on a real Redis that goes and comes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use prometheus::Registry;
use shardmeter_process::testing::{eventually, soon};
use shardmeter_proto::events::{
    EVENTS_CHANNEL, Event, GuildId, GuildSettings, SETTINGS_CHANNEL, SETTINGS_KEY,
};
use shardmeter_pubsub::{
    Heard, Publisher, Redis, RedisMetrics, Subscriber, Wanted, testing::RedisServer,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

fn metrics() -> RedisMetrics {
    RedisMetrics::register(&Registry::new()).unwrap()
}

fn joined(guild: u64) -> Event {
    Event::GuildJoined { shard_id: 0, guild_id: GuildId::new(guild).unwrap() }
}

fn settings(guild: u64, revision: u64) -> GuildSettings {
    GuildSettings {
        guild_id: GuildId::new(guild).unwrap(),
        revision,
        disabled_commands: vec![format!("c{revision}")],
        command_prefix: None,
    }
}

fn updated(guild: u64, revision: u64) -> Event {
    Event::GuildSettingsUpdated(settings(guild, revision))
}

/// A publisher, and what it counts.
struct Speaker {
    publisher: Publisher,
    task: JoinHandle<()>,
    metrics: RedisMetrics,
}

impl Speaker {
    fn new(server: &RedisServer, from: Option<&str>) -> Self {
        let metrics = metrics();
        let redis = Redis::at(&server.url()).unwrap();
        let (publisher, task) = Publisher::start(redis, from.map(str::to_owned), metrics.clone());
        Self { publisher, task, metrics }
    }

    async fn until_up(&self, up: bool) {
        eventually("the publisher's status", || self.metrics.is_up() == up).await;
    }

    fn published(&self, event: &str) -> u64 {
        self.metrics.redis_pubsub_messages_published_total.with_label_values(&[event]).get()
    }

    fn delivered(&self, event: &str) -> u64 {
        self.metrics.redis_pubsub_messages_delivered_total.with_label_values(&[event]).get()
    }

    fn dropped(&self, event: &str, reason: &str) -> u64 {
        let dropped = &self.metrics.redis_pubsub_messages_dropped_total;
        dropped.with_label_values(&[event, reason]).get()
    }
}

/// A subscriber, and what it heard.
struct Listener {
    heard: mpsc::Receiver<Heard>,
    metrics: RedisMetrics,
    _subscriber: Subscriber,
}

impl Listener {
    fn new(server: &RedisServer, settings: bool, own: Option<&str>) -> Self {
        let metrics = metrics();
        let (sender, heard) = mpsc::channel(10_000);
        let wanted = Wanted {
            channels: &[EVENTS_CHANNEL, SETTINGS_CHANNEL],
            settings,
            own: own.map(str::to_owned),
        };
        let subscriber = Subscriber::start(
            Redis::at(&server.url()).unwrap(),
            wanted,
            metrics.clone(),
            move |heard| sender.try_send(heard).unwrap(),
        );
        Self { heard, metrics, _subscriber: subscriber }
    }

    async fn until_up(&self, up: bool) {
        eventually("the subscriber's status", || self.metrics.is_up() == up).await;
    }

    async fn hears(&mut self, expected: Heard) {
        assert_eq!(soon("an event", self.heard.recv()).await, Some(expected));
    }

    fn delivered(&self, event: &str) -> u64 {
        self.metrics.redis_pubsub_messages_delivered_total.with_label_values(&[event]).get()
    }

    fn dropped(&self, reason: &str) -> u64 {
        let dropped = &self.metrics.redis_pubsub_messages_dropped_total;
        dropped.with_label_values(&["unknown", reason]).get()
    }
}

#[tokio::test]
async fn events_arrive_in_order_and_are_counted_on_both_sides() {
    let server = RedisServer::start().await;
    let (speaker, mut listener) =
        (Speaker::new(&server, None), Listener::new(&server, false, None));
    speaker.until_up(true).await;
    listener.until_up(true).await;
    for guild in 1..=1_000 {
        speaker.publisher.publish(joined(guild));
    }
    for guild in 1..=1_000 {
        listener.hears(Heard::Event(joined(guild))).await;
    }
    eventually("confirmed", || speaker.published("guild_joined") == 1_000).await;
    assert_eq!(speaker.delivered("guild_joined"), 1_000);
    assert_eq!(listener.delivered("guild_joined"), 1_000);
    // The last publisher's end waits for what is queued.
    speaker.publisher.publish(joined(2_000));
    drop(speaker.publisher);
    soon("the end", speaker.task).await.unwrap();
    listener.hears(Heard::Event(joined(2_000))).await;
}

#[tokio::test]
async fn a_redis_that_goes_and_comes_is_found_again_and_said_to_have_been_away() {
    let mut server = RedisServer::start().await;
    let (speaker, mut listener) =
        (Speaker::new(&server, None), Listener::new(&server, false, None));
    speaker.until_up(true).await;
    listener.until_up(true).await;
    for times in 1..=2 {
        server.kill();
        speaker.until_up(false).await;
        listener.until_up(false).await;
        // Nobody waits; what is published meanwhile waits for Redis, as much as there is room for.
        for guild in 1..=5_000 {
            speaker.publisher.publish(joined(guild));
        }
        assert!(speaker.dropped("guild_joined", "queue_full") >= 800 * times);
        server.start_again().await;
        listener.until_up(true).await;
        speaker.until_up(true).await;
        listener.hears(Heard::Interrupted).await;
        eventually("the queue is empty", || {
            speaker.published("guild_joined") + speaker.dropped("guild_joined", "queue_full")
                == 5_001 * times - 1
        })
        .await;
        // Some were published before the listener was back.
        while listener.heard.try_recv().is_ok() {}
        speaker.publisher.publish(joined(9_999));
        while soon("the last", listener.heard.recv()).await != Some(Heard::Event(joined(9_999))) {}
    }
    assert_eq!(speaker.dropped("guild_joined", "not_confirmed"), 0);
}

#[tokio::test]
async fn a_redis_that_freezes_is_noticed_and_what_it_did_not_confirm_is_counted() {
    let server = RedisServer::start().await;
    let (speaker, mut listener) =
        (Speaker::new(&server, None), Listener::new(&server, false, None));
    speaker.until_up(true).await;
    listener.until_up(true).await;
    server.signal("STOP");
    speaker.publisher.publish(joined(1));
    eventually("counted", || speaker.dropped("guild_joined", "not_confirmed") == 1).await;
    speaker.until_up(false).await;
    // Nothing is said on this one: it has to ask.
    listener.until_up(false).await;
    server.signal("CONT");
    listener.until_up(true).await;
    speaker.until_up(true).await;
    listener.hears(Heard::Interrupted).await;
    speaker.publisher.publish(joined(2));
    listener.hears(Heard::Event(joined(2))).await;
    assert_eq!(speaker.published("guild_joined"), 1);
}

#[tokio::test]
async fn a_publisher_without_redis_ends_at_once() {
    let mut server = RedisServer::start().await;
    server.kill();
    let speaker = Speaker::new(&server, None);
    speaker.publisher.publish(joined(1));
    drop(speaker.publisher);
    timeout(Duration::from_secs(5), speaker.task).await.expect("at once").unwrap();
    let dropped = &speaker.metrics.redis_pubsub_messages_dropped_total;
    assert_eq!(dropped.with_label_values(&["guild_joined", "not_confirmed"]).get(), 1);
}

#[tokio::test]
async fn only_newer_settings_replace_and_are_told() {
    let server = RedisServer::start().await;
    let speaker = Speaker::new(&server, Some("me"));
    let mut others = Listener::new(&server, false, Some("another"));
    let mut own = Listener::new(&server, false, Some("me"));
    for listener in [&others, &own] {
        listener.until_up(true).await;
    }
    let kept = async || -> Option<String> { server.ask(&["HGET", SETTINGS_KEY, "7"]).await };
    for revision in [2, 1, 2, 3] {
        speaker.publisher.publish(updated(7, revision));
    }
    speaker.publisher.restore(settings(7, 3)).await;
    speaker.publisher.restore(settings(8, 1)).await;
    for (guild, revision) in [(7, 2), (7, 3), (8, 1)] {
        others.hears(Heard::Event(updated(guild, revision))).await;
    }
    let of_guild = kept().await.unwrap();
    assert_eq!(serde_json::from_str::<GuildSettings>(&of_guild).unwrap(), settings(7, 3));
    eventually("confirmed", || speaker.published("guild_settings_updated") == 3).await;
    assert_eq!(speaker.delivered("guild_settings_updated"), 6, "two subscribers");
    // What nobody can read is no settings.
    let () = server.ask(&["HSET", SETTINGS_KEY, "7", "[1"]).await;
    speaker.publisher.publish(updated(7, 1));
    others.hears(Heard::Event(updated(7, 1))).await;
    // Its own were none.
    speaker.publisher.publish(joined(1));
    let other = Speaker::new(&server, None);
    other.publisher.publish(joined(2));
    own.hears(Heard::Event(joined(2))).await;
    assert_eq!(own.delivered("guild_settings_updated"), 0);
}

#[tokio::test]
async fn settings_are_asked_for_at_each_connection_and_lacked_by_an_emptied_redis() {
    let mut server = RedisServer::start().await;
    let speaker = Speaker::new(&server, None);
    let mut lacking = speaker.publisher.lacking();
    soon("connected", lacking.wait_for(|times| *times == 1)).await.unwrap();
    let all = 2_000;
    for guild in 1..=all {
        speaker.publisher.restore(settings(guild, 4)).await;
    }
    eventually("kept", || speaker.published("guild_settings_updated") == all).await;
    let () = server.ask(&["HSET", SETTINGS_KEY, "5", "no settings"]).await;

    let mut listener = Listener::new(&server, true, None);
    let mut told = std::collections::BTreeSet::new();
    for _ in 1..all {
        match soon("settings", listener.heard.recv()).await {
            Some(Heard::Event(Event::GuildSettingsUpdated(settings))) => {
                told.insert(settings.guild_id.get());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(told.iter().copied().eq((1..=all).filter(|guild| *guild != 5)));
    eventually("the unreadable one", || listener.dropped("undecodable") == 1).await;

    server.kill();
    server.start_again().await;
    soon("connected again", lacking.wait_for(|times| *times == 2)).await.unwrap();
    listener.hears(Heard::Interrupted).await;
    speaker.publisher.restore(settings(1, 4)).await;
    listener.hears(Heard::Event(updated(1, 4))).await;
}

#[tokio::test]
async fn what_is_no_event_is_counted_and_hurts_nobody() {
    let server = RedisServer::start().await;
    let mut listener = Listener::new(&server, false, None);
    listener.until_up(true).await;
    let long = format!(
        r#"{{"type":"guild_left","shard_id":1,"guild_id":"5","x":"{}"}}"#,
        "x".repeat(20_000)
    );
    for message in ["", "{}", r#"{"type":"of_tomorrow"}"#, &long] {
        let () = server.ask(&["PUBLISH", EVENTS_CHANNEL, message]).await;
    }
    let () = server
        .ask(&["PUBLISH", EVENTS_CHANNEL, r#"{"type":"guild_joined","shard_id":0,"guild_id":"3"}"#])
        .await;
    listener.hears(Heard::Event(joined(3))).await;
    assert_eq!((listener.dropped("undecodable"), listener.dropped("too_large")), (3, 1));
    assert!(Redis::at("no address").is_err());
}

async fn settings_in(server: &RedisServer) -> u64 {
    server.ask(&["HLEN", SETTINGS_KEY]).await
}

#[tokio::test]
async fn a_redis_that_is_emptied_on_a_live_connection_lacks_settings() {
    let server = RedisServer::start().await;
    let speaker = Speaker::new(&server, None);
    let mut lacking = speaker.publisher.lacking();
    soon("connected", lacking.wait_for(|times| *times == 1)).await.unwrap();
    let is_asked = async {
        while !server
            .ask::<String>(&["INFO", "commandstats"])
            .await
            .contains("cmdstat_expire:calls=2")
        {}
    };
    soon("asked twice", is_asked).await;
    assert_eq!(*lacking.borrow(), 1, "it lacks nothing");
    for times in 2..=3 {
        let () = server.ask(&["FLUSHALL"]).await;
        // One that is told of a change since is not whole either.
        speaker.publisher.publish(updated(1, times));
        soon("noticed", lacking.wait_for(|known| *known == times)).await.unwrap();
    }
    assert!(speaker.metrics.is_up());
    // Of a process that ended nothing stays.
    let marks: Vec<String> = server.ask(&["KEYS", "shardmeter:guild_settings:mark:*"]).await;
    let [mark] = &marks[..] else { panic!("{marks:?}") };
    assert!(server.ask::<i64>(&["TTL", mark]).await > 0);
}

#[tokio::test]
async fn who_knows_no_settings_leaves_no_mark() {
    let server = RedisServer::start().await;
    let (speaker, mut listener) =
        (Speaker::new(&server, None), Listener::new(&server, false, None));
    speaker.until_up(true).await;
    listener.until_up(true).await;
    speaker.publisher.publish(joined(1));
    listener.hears(Heard::Event(joined(1))).await;
    assert_eq!(server.ask::<u64>(&["DBSIZE"]).await, 0);
}

#[tokio::test]
async fn a_full_redis_tells_of_no_settings_that_it_cannot_keep_and_of_all_when_it_has_room() {
    let server = RedisServer::start().await;
    let speaker = Speaker::new(&server, None);
    let mut listener = Listener::new(&server, false, None);
    let mut lacking = speaker.publisher.lacking();
    soon("connected", lacking.wait_for(|times| *times == 1)).await.unwrap();
    listener.until_up(true).await;
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for times in 1..=3 {
        speaker.publisher.publish(updated(1, times));
        speaker.publisher.publish(joined(times));
        // Told all the same: it takes no memory.
        listener.hears(Heard::Event(joined(times))).await;
    }
    eventually("counted", || speaker.dropped("guild_settings_updated", "no_room") == 3).await;
    assert_eq!((settings_in(&server).await, speaker.published("guild_settings_updated")), (0, 0));
    eventually("confirmed", || speaker.published("guild_joined") == 3).await;
    assert_eq!(*lacking.borrow(), 1, "it would take none of them");
    assert!(speaker.metrics.is_up(), "the connection is good");
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    soon("room", lacking.wait_for(|times| *times == 2)).await.unwrap();
    speaker.publisher.restore(settings(1, 3)).await;
    listener.hears(Heard::Event(updated(1, 3))).await;
    assert_eq!(settings_in(&server).await, 1);
}

#[tokio::test]
async fn what_redis_has_newer_is_counted_and_what_it_has_is_not() {
    let server = RedisServer::start().await;
    let speaker = Speaker::new(&server, None);
    for revision in [7, 7, 6, 5] {
        speaker.publisher.publish(updated(1, revision));
    }
    eventually("refused", || speaker.dropped("guild_settings_updated", "older") == 2).await;
    assert_eq!(speaker.published("guild_settings_updated"), 1);
}

#[tokio::test]
async fn what_may_be_lost_is_shown_at_zero() {
    let server = RedisServer::start().await;
    let registry = Registry::new();
    let metrics = RedisMetrics::register(&registry).unwrap();
    let redis = Redis::at(&server.url()).unwrap();
    let (_publisher, _task) = Publisher::start(redis.clone(), None, metrics.clone());
    let wanted = Wanted { channels: &[EVENTS_CHANNEL], settings: false, own: None };
    let _subscriber = Subscriber::start(redis, wanted, metrics, |_| {});
    let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for (event, reason) in [
        ("command_executed", "queue_full"),
        ("guild_joined", "not_confirmed"),
        ("guild_settings_updated", "no_room"),
        ("guild_settings_updated", "older"),
        ("unknown", "undecodable"),
    ] {
        let labels = format!("event_type=\"{event}\",reason=\"{reason}\"");
        let series = format!("redis_pubsub_messages_dropped_total{{{labels}}} 0");
        assert!(page.contains(&series), "{series}:\n{page}");
    }
}

/// What changes between the two is heard of twice, and never missed.
#[tokio::test]
async fn who_listens_subscribes_first_and_then_reads_what_there_is() {
    let server = RedisServer::start().await;
    let mut monitor = TcpStream::connect(server.addr()).await.unwrap();
    monitor.write_all(b"MONITOR\r\n").await.unwrap();
    let mut said = BufReader::new(monitor).lines();
    assert_eq!(soon("monitored", said.next_line()).await.unwrap().unwrap(), "+OK");
    let _listener = Listener::new(&server, true, None);
    let mut done = Vec::new();
    while done.last() != Some(&"HSCAN") {
        let line = soon("a command", said.next_line()).await.unwrap().unwrap();
        let looked_for = ["SUBSCRIBE", "HSCAN"].into_iter();
        done.extend(looked_for.filter(|name| line.to_uppercase().contains(&format!("\"{name}\""))));
    }
    assert_eq!(done, ["SUBSCRIBE", "HSCAN"]);
}
