//! Events and settings on a real Redis.

use shardmeter_gateway_sim::Place;
use shardmeter_process::testing::{eventually, soon};
use shardmeter_proto::events::{
    EVENTS_CHANNEL, Event, GuildId, GuildSettings, SETTINGS_CHANNEL, SETTINGS_KEY,
};
use shardmeter_pubsub::testing::RedisServer;
use shardmeter_shard::{Bot, Config};

use crate::support::{Discord, Running, family, quiet_world};

fn redis_value(bot: &Running, family: &str, event: &str) -> f64 {
    bot.process_value(&format!("redis_pubsub_messages_{family}_total"), &[("event_type", event)])
}

fn status(bot: &Running, connection: &str) -> f64 {
    bot.process_value("redis_connection_status", &[("connection_type", connection)])
}

async fn until_connected(bot: &Running, up: bool) {
    let both = || ["publisher", "subscriber"].map(|connection| status(bot, connection));
    eventually("connected or not", || both() == [f64::from(u8::from(up)); 2]).await;
}

fn on_redis(discord: &Discord, redis: &RedisServer) -> Config {
    Config { redis_url: Some(redis.url().into()), ..discord.config() }
}

#[tokio::test]
async fn events_are_published_and_a_redis_that_is_away_makes_nobody_wait() {
    let mut redis = RedisServer::start().await;
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
    let bot = Running::start(on_redis(&discord, &redis)).await;
    bot.until_guilds(&discord.control).await;
    until_connected(&bot, true).await;

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

    redis.kill();
    until_connected(&bot, false).await;
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    soon("an answer without Redis", discord.control.until(|books| books.confirmed() == 2)).await;
    assert_eq!(redis_value(&bot, "published", "command_executed"), 1.0);

    redis.start_again().await;
    until_connected(&bot, true).await;
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    eventually("both published", || redis_value(&bot, "published", "command_executed") == 3.0)
        .await;
    bot.stop().await;
    let channels: Vec<String> = redis.ask(&["PUBSUB", "CHANNELS"]).await;
    assert!(channels.is_empty(), "{channels:?}");
}

/// A guild of shard 1 of 2.
async fn guild(discord: &Discord) -> u64 {
    discord.control.guild_join(1, 5).await.unwrap()
}

fn disabling(guild: u64, revision: u64, commands: &[&str]) -> GuildSettings {
    GuildSettings {
        guild_id: GuildId::new(guild).unwrap(),
        revision,
        disabled_commands: commands.iter().map(|name| (*name).to_owned()).collect(),
        command_prefix: None,
    }
}

/// As the api does.
async fn keep(redis: &RedisServer, settings: &GuildSettings) {
    let json = serde_json::to_string(settings).unwrap();
    let guild = settings.guild_id.to_string();
    let () = redis.ask(&["HSET", SETTINGS_KEY, &guild, &json]).await;
}

async fn tell(redis: &RedisServer, settings: GuildSettings) {
    let json = serde_json::to_string(&Event::GuildSettingsUpdated(settings)).unwrap();
    let told: u64 = redis.ask(&["PUBLISH", SETTINGS_CHANNEL, &json]).await;
    assert_eq!(told, 1, "the bot listens");
}

/// How often a command was refused, after it was called once more and answered.
async fn refused(discord: &Discord, bot: &Running, guild: u64, command: &str) -> f64 {
    let before = discord.control.books().confirmed();
    discord.control.interaction(Place::Guild(guild), command).await.unwrap();
    soon("an answer", discord.control.until(|books| books.confirmed() == before + 1)).await;
    bot.value(1, "command_errors_total", &[("command_name", command), ("error", "disabled")])
}

#[tokio::test]
async fn a_disabled_command_is_refused_from_the_moment_it_is_told() {
    let redis = RedisServer::start().await;
    let discord = Discord::start(quiet_world()).await;
    let bot = Running::start(on_redis(&discord, &redis)).await;
    until_connected(&bot, true).await;
    bot.until_connected().await;
    let (guild, other) = (guild(&discord).await, guild(&discord).await);
    let told = |times: f64| {
        let bot = &bot;
        async move {
            let delivered = || redis_value(bot, "delivered", "guild_settings_updated");
            eventually("told", || delivered() == times).await;
        }
    };
    assert_eq!(refused(&discord, &bot, guild, "ping").await, 0.0);
    tell(&redis, disabling(guild, 2, &["ping"])).await;
    told(1.0).await;
    assert_eq!(refused(&discord, &bot, guild, "ping").await, 1.0);
    assert_eq!(refused(&discord, &bot, guild, "stats").await, 0.0, "another command");
    assert_eq!(refused(&discord, &bot, other, "ping").await, 1.0, "another guild");
    // Late news changes nothing.
    tell(&redis, disabling(guild, 1, &[])).await;
    told(2.0).await;
    assert_eq!(refused(&discord, &bot, guild, "ping").await, 2.0);
    tell(&redis, disabling(guild, 3, &[])).await;
    told(3.0).await;
    assert_eq!(refused(&discord, &bot, guild, "ping").await, 2.0);
    bot.stop().await;
}

#[tokio::test]
async fn settings_that_changed_while_the_bot_or_redis_was_away_are_obeyed() {
    let mut redis = RedisServer::start().await;
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let guild = guild(&discord).await;
    bot.stop().await;

    // Said before the bot came.
    keep(&redis, &disabling(guild, 7, &["ping"])).await;
    let bot = Running::start(on_redis(&discord, &redis)).await;
    bot.until_guilds(&discord.control).await;
    until_connected(&bot, true).await;
    let mut times = 0.0;
    while refused(&discord, &bot, guild, "ping").await == 0.0 {
        times += 1.0;
        assert!(times < 100.0, "the settings are read right after the subscription");
    }

    redis.kill();
    until_connected(&bot, false).await;
    assert_eq!(refused(&discord, &bot, guild, "stats").await, 0.0, "answered as before, at once");
    assert!(refused(&discord, &bot, guild, "ping").await >= 2.0, "obeyed without Redis");
    redis.start_again().await;
    until_connected(&bot, true).await;
    assert!(refused(&discord, &bot, guild, "ping").await >= 3.0, "an emptied Redis says nothing");

    // Not told, as the connection of this bot alone is cut.
    keep(&redis, &disabling(guild, 8, &["stats"])).await;
    assert_eq!(refused(&discord, &bot, guild, "stats").await, 0.0);
    let cut: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(cut, 1);
    let mut times = 0.0;
    while refused(&discord, &bot, guild, "stats").await == 0.0 {
        times += 1.0;
        assert!(times < 1_000.0, "settings are read at each connection");
    }
    bot.stop().await;
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

#[tokio::test]
async fn a_neighbour_in_the_process_hears_events_and_brings_settings() {
    let discord = Discord::start(quiet_world()).await;
    let (events, mut heard) = tokio::sync::mpsc::channel(16);
    let bot = Bot::build_beside(discord.config(), move |event| events.try_send(event).unwrap());
    let bot = bot.await.unwrap();
    let settings = bot.settings();
    let bot = Running::run(bot);
    bot.until_guilds(&discord.control).await;
    let guild = guild(&discord).await;
    let guild_id = GuildId::new(guild).unwrap();
    let joined = soon("an event", heard.recv()).await;
    assert_eq!(joined, Some(Event::GuildJoined { shard_id: 1, guild_id }));
    settings.apply(&disabling(guild, 1, &["ping"]));
    assert_eq!(refused(&discord, &bot, guild, "ping").await, 1.0);
    bot.stop().await;
}
