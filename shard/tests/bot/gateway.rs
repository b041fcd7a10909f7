//! The gateway's state: true over every kind of loss.

use std::time::Duration;

use shardmeter_gateway_sim::Config;
use shardmeter_process::testing::{eventually, soon};
use shardmeter_shard::{FatalClose, RunError};

use crate::support::{Discord, booked_guilds, family, quiet_world, total};

#[tokio::test]
async fn a_bot_off_discord_does_not_look_healthy() {
    let config = Config { heartbeat_interval: Duration::from_millis(100), ..quiet_world() };
    let discord = Discord::start(config.clone()).await;
    let bot = discord.bot().await;
    let latency = || family(bot.shard(0), "gateway_latency_seconds").len();
    eventually("a latency", || latency() == 1).await;
    let addr = discord.addr;
    discord.stop().await;
    eventually("disconnected", || !bot.connected(0) && !bot.connected(1)).await;
    assert_eq!(latency(), 0, "there is no latency without a connection");
    let age = || bot.value(0, "gateway_heartbeat_ack_age_seconds", &[]);
    let before = age();
    eventually("silence grows", || age() > before + 0.5).await;
    assert_eq!(bot.value(0, "gateway_close_total", &[("code", "1006")]), 1.0);
    let discord = Discord::start(Config { addr, ..config }).await;
    bot.until_guilds(&discord.control).await;
    eventually("an ack", || age() < 0.5).await;
    bot.stop().await;
}

#[tokio::test]
async fn a_cut_is_resumed_without_a_new_session() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    discord.control.cut(0).await.unwrap();
    eventually("resumed", || bot.sessions(0) == [1.0, 1.0, 0.0] && bot.connected(0)).await;
    assert_eq!(bot.sessions(1), [1.0, 0.0, 0.0]);
    assert_eq!(bot.value(0, "gateway_close_total", &[("code", "1006")]), 1.0);
    assert_eq!(bot.guilds(0), booked_guilds(&discord.control, 0));
    bot.stop().await;
}

#[tokio::test]
async fn a_zombie_is_noticed() {
    let config = Config { heartbeat_interval: Duration::from_millis(100), ..quiet_world() };
    let discord = Discord::start(config).await;
    let bot = discord.bot().await;
    discord.control.mute_acks(1, true);
    let abnormal = || bot.value(1, "gateway_close_total", &[("code", "1006")]);
    eventually("a zombie", || abnormal() >= 1.0).await;
    discord.control.mute_acks(1, false);
    eventually("resumed", || bot.connected(1) && bot.sessions(1)[1] >= 1.0).await;
    bot.stop().await;
}

#[tokio::test]
async fn an_invalid_session_is_identified_anew() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    discord.control.invalidate(1, false).await.unwrap();
    eventually("identified anew", || bot.sessions(1) == [2.0, 0.0, 1.0] && bot.connected(1)).await;
    assert_eq!(discord.shard_books(1).identifies, 2);
    bot.until_guilds(&discord.control).await;
    discord.control.invalidate(1, true).await.unwrap();
    eventually("resumed", || bot.sessions(1) == [2.0, 1.0, 1.0] && bot.connected(1)).await;
    bot.stop().await;
}

#[tokio::test]
async fn every_loss_is_one_close_with_its_code() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let closes = || total(bot.shard(0), "gateway_close_total");
    let mut losses = 0.0;
    for (code, label) in [(4000, "4000"), (1001, "1001"), (4900, "other"), (4901, "other")] {
        let before = bot.value(0, "gateway_close_total", &[("code", label)]);
        discord.control.close_with(0, code).await.unwrap();
        losses += 1.0;
        eventually(label, || closes() == losses && bot.connected(0)).await;
        assert_eq!(bot.value(0, "gateway_close_total", &[("code", label)]), before + 1.0, "{code}");
    }
    // Here the bot closes, and Discord's confirmation is not counted again.
    discord.control.reconnect(0).await.unwrap();
    eventually("resumed", || closes() == 5.0 && bot.sessions(0)[1] == 5.0).await;
    assert_eq!(bot.value(0, "gateway_close_total", &[("code", "4000")]), 2.0);
    discord.control.invalidate(0, false).await.unwrap();
    eventually("identified", || closes() == 6.0 && bot.sessions(0)[0] == 2.0).await;
    assert_eq!(bot.value(0, "gateway_close_total", &[("code", "1000")]), 1.0);
    bot.stop().await;
}

#[tokio::test]
async fn guilds_come_and_go_as_in_the_world() {
    let discord = Discord::start(quiet_world()).await;
    let control = &discord.control;
    let bot = discord.bot().await;
    let before = bot.guilds(0);
    assert_eq!(before[0] + bot.guilds(1)[0], 20.0);
    let joined = control.guild_join(0, 77).await.unwrap();
    let [guilds, users, _] = before;
    eventually("joined", || bot.guilds(0) == [guilds + 1.0, users + 77.0, 0.0]).await;
    control.guild_unavailable(joined).await.unwrap();
    eventually("an outage", || bot.guilds(0) == [guilds, users, 1.0]).await;
    control.guild_available(joined).await.unwrap();
    eventually("the outage's end", || bot.guilds(0) == [guilds + 1.0, users + 77.0, 0.0]).await;
    control.guild_unavailable(joined).await.unwrap();
    control.guild_leave(joined).await.unwrap();
    eventually("left", || bot.guilds(0) == before).await;
    // What happens while the session is invalid is known from the next one.
    control.guild_join(0, 5).await.unwrap();
    control.restart();
    eventually("identified anew", || bot.sessions(0)[0] == 2.0).await;
    bot.until_guilds(control).await;
    assert_eq!(bot.guilds(0), [guilds + 1.0, users + 5.0, 0.0]);
    let events = discord.shard_books(0).events;
    let counted = |name| bot.value(0, "gateway_events_total", &[("event_type", name)]);
    assert_eq!(counted("GUILD_CREATE"), events["GUILD_CREATE"] as f64);
    assert_eq!(counted("GUILD_DELETE"), events["GUILD_DELETE"] as f64);
    assert!(bot.value(0, "gateway_last_event_timestamp_seconds", &[]) > 1.7e9);
    bot.stop().await;
}

#[tokio::test]
async fn identifies_left_are_shown() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    assert!(bot.process_value("gateway_identify_remaining", &[]) > 0.0);
    assert!(bot.process_value("gateway_identify_reset_timestamp_seconds", &[]) > 1.7e9);
    bot.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_process_is_measured() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let memory = |kind| bot.process_value("memory_usage_bytes", &[("type", kind)]);
    let (rss, heap, external) = (memory("rss"), memory("heap"), memory("external"));
    assert!(heap > 0.0 && external > 0.0 && rss >= heap, "{rss} {heap} {external}");
    assert!(family(&bot.registries.process, "cpu_usage_percent").len() == 1);
    bot.stop().await;
}

#[tokio::test]
async fn a_fatal_close_ends_the_process_with_cause_and_cure() {
    for (code, cure) in [(4004, "DISCORD_TOKEN"), (4014, "developer portal"), (4011, "SHARD_COUNT")]
    {
        let discord = Discord::start(quiet_world()).await;
        let bot = discord.bot().await;
        discord.control.close_with(1, code).await.unwrap();
        let label = code.to_string();
        let registries = bot.registries.clone();
        let error = bot.ended().await.unwrap_err();
        assert!(
            matches!(error, RunError::FatalClose(FatalClose { shard_id: 1, code: c }) if c == code),
            "{error}"
        );
        assert!(error.is_config());
        assert!(error.to_string().contains(cure), "{error}");
        assert!(error.to_string().contains(&label), "{error}");
        let shard = &registries.shards[1].1;
        assert_eq!(total(shard, "gateway_connected"), 0.0);
        // The other shard was closed such that it can be resumed.
        soon(
            "the close",
            discord.control.until(|books| {
                books.shard(0).is_some_and(|shard| shard.closes_received.get(&4000) == Some(&1))
            }),
        )
        .await;
    }
}
