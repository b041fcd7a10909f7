//! Events on a real Redis.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::AsyncCommands as _;
use shardmeter_gateway_sim::Place;
use shardmeter_shard::{Config, EVENTS_CHANNEL};

use crate::support::{Discord, Running, eventually, family, quiet_world, soon};

/// A `redis-server` on a free port, without persistence.
struct Redis {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Redis {
    async fn start(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (Debian: apt-get install redis-server)");
        let redis = Self { process, port, _dir: dir };
        let client = redis::Client::open(redis.url()).unwrap();
        let up = async {
            while client.get_multiplexed_async_connection().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("redis-server answers", up).await;
        redis
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Nothing to do about a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn redis_value(bot: &Running, family: &str, event: &str) -> f64 {
    bot.process_value(&format!("redis_pubsub_messages_{family}_total"), &[("event_type", event)])
}

fn status(bot: &Running) -> f64 {
    bot.process_value("redis_connection_status", &[("connection_type", "publisher")])
}

#[tokio::test]
async fn events_are_published_and_a_redis_that_is_away_costs_only_events() {
    let redis = Redis::start(free_port()).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut subscriber = client.get_async_pubsub().await.unwrap();
    subscriber.subscribe(EVENTS_CHANNEL).await.unwrap();
    let mut messages = subscriber.into_on_message();
    let mut message = async || -> serde_json::Value {
        let message = futures_util::StreamExt::next(&mut messages);
        let message = soon("an event", message).await.unwrap();
        serde_json::from_slice(message.get_payload_bytes()).unwrap()
    };

    let discord = Discord::start(quiet_world()).await;
    let config = Config { redis_url: Some(redis.url().into()), ..discord.config() };
    let bot = Running::start(config).await;
    bot.until_guilds(&discord.control).await;
    eventually("connected", || status(&bot) == 1.0).await;

    // The first event: the guilds of the start were not joined.
    let joined = discord.control.guild_join(1, 5).await.unwrap();
    let expected = |kind: &str| serde_json::json!({"type": kind, "shard_id": 1, "guild_id": joined.to_string()});
    assert_eq!(message().await, expected("guild_joined"));
    discord.control.interaction(Place::Guild(joined), "stats").await.unwrap();
    let mut executed = expected("command_executed");
    executed["command_name"] = "stats".into();
    assert_eq!(message().await, executed);
    discord.control.guild_leave(joined).await.unwrap();
    assert_eq!(message().await, expected("guild_left"));
    for event in ["guild_joined", "command_executed", "guild_left"] {
        eventually(event, || redis_value(&bot, "published", event) == 1.0).await;
        assert_eq!(redis_value(&bot, "delivered", event), 1.0, "{event}");
    }

    let port = redis.port;
    drop(redis);
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    soon("an answer without Redis", discord.control.until(|books| books.confirmed() == 2)).await;
    let lost = [("event_type", "command_executed"), ("reason", "not_confirmed")];
    let dropped = || bot.process_value("redis_pubsub_messages_dropped_total", &lost);
    eventually("a lost event", || dropped() == 1.0 && status(&bot) == 0.0).await;
    assert_eq!(redis_value(&bot, "published", "command_executed"), 1.0);

    let redis = Redis::start(port).await;
    eventually("connected again", || status(&bot) == 1.0).await;
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    eventually("published again", || redis_value(&bot, "published", "command_executed") == 2.0)
        .await;
    bot.stop().await;
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let subscribers: u64 = connection.publish(EVENTS_CHANNEL, "end").await.unwrap();
    assert_eq!(subscribers, 0, "the bot does not subscribe");
    drop(redis);
}

#[tokio::test]
async fn without_redis_there_are_no_redis_families() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let families = bot.registries.process.gather();
    assert!(families.iter().all(|family| !family.name().starts_with("redis_")));
    assert!(!family(&bot.registries.process, "discord_rest_requests_total").is_empty());
    bot.stop().await;
}
