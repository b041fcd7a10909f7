//! What tells that Discord is about to cut a bot off, or that the bot is about to fail by itself.

use std::time::Duration;

use shardmeter_gateway_sim::{Config, Fault, Place, RateLimitScope, Route};
use shardmeter_process::testing::{eventually, soon};
use tokio::time::Instant;

use crate::support::{Discord, quiet_world};

const HEARTBEATS: Duration = Duration::from_millis(400);

async fn fast_discord() -> Discord {
    Discord::start(Config { heartbeat_interval: HEARTBEATS, ..quiet_world() }).await
}

#[tokio::test]
async fn a_connection_without_acks_and_events_is_a_zombie() {
    let discord = fast_discord().await;
    let bot = discord.bot().await;
    let zombies = |shard| bot.value(shard, "gateway_zombies_total", &[]);
    assert_eq!(bot.value(1, "gateway_heartbeat_interval_seconds", &[]), HEARTBEATS.as_secs_f64());
    discord.control.mute_acks(1, true);
    eventually("a zombie", || zombies(1) >= 1.0).await;
    assert_eq!(zombies(0), 0.0);
    bot.stop().await;
}

#[tokio::test]
async fn without_acks_a_connection_with_events_is_alive() {
    let discord = fast_discord().await;
    let bot = discord.bot().await;
    discord.control.mute_acks(0, true);
    let age = || bot.value(0, "gateway_heartbeat_ack_age_seconds", &[]);
    let last = || bot.value(0, "gateway_last_event_timestamp_seconds", &[]);
    let deaf = 4.0 * HEARTBEATS.as_secs_f64();
    let (mut events, mut latest) = (0, last());
    while age() < deaf {
        discord.control.interaction(Place::Dm, "ping").await.unwrap();
        eventually("an event", || last() > latest).await;
        (events, latest) = (events + 1, last());
        tokio::time::sleep(HEARTBEATS / 10).await;
    }
    assert!(events > 4, "{events}");
    assert_eq!(bot.value(0, "gateway_zombies_total", &[]), 0.0);
    assert!(bot.connected(0) && bot.sessions(0) == [1.0, 0.0, 0.0]);
    // Heartbeats are still not answered; but that is not why it ends.
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    eventually("an event", || last() > latest).await;
    discord.control.cut(0).await.unwrap();
    eventually("resumed", || bot.sessions(0)[1] == 1.0).await;
    assert_eq!(bot.value(0, "gateway_zombies_total", &[]), 0.0, "a cut is none");
    bot.stop().await;
}

/// In the last tenth of the time between two heartbeats, where a connection that is given up looks most like one that broke.
#[tokio::test]
async fn a_connection_that_breaks_is_no_zombie() {
    const HEARTBEATS: Duration = Duration::from_secs(2);
    let discord = Discord::start(Config { heartbeat_interval: HEARTBEATS, ..quiet_world() }).await;
    let bot = discord.bot().await;
    // Time since the last acknowledgement, in heartbeats.
    let age = || bot.value(0, "gateway_heartbeat_ack_age_seconds", &[]) / HEARTBEATS.as_secs_f64();
    let resumed = |times| {
        let bot = &bot;
        async move {
            eventually("resumed", || bot.sessions(0)[1] == times).await;
            assert_eq!(bot.value(0, "gateway_zombies_total", &[]), 0.0, "cut {times}");
        }
    };
    let heartbeat = async || {
        let before = discord.shard_books(0).heartbeats;
        soon("a heartbeat", discord.control.until(|books| books.shards[&0].heartbeats > before))
            .await;
    };
    // Nothing is unanswered.
    heartbeat().await;
    eventually("nearly the next", || (0.92..0.97).contains(&age())).await;
    discord.control.cut(0).await.unwrap();
    resumed(1.0).await;
    // A heartbeat is, but the next is not due yet.
    discord.control.mute_acks(0, true);
    heartbeat().await;
    tokio::time::sleep(HEARTBEATS / 2).await;
    discord.control.cut(0).await.unwrap();
    resumed(2.0).await;
    // It nearly is, but there was an event.
    heartbeat().await;
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    tokio::time::sleep(HEARTBEATS.mul_f64(0.95)).await;
    discord.control.cut(0).await.unwrap();
    resumed(3.0).await;
    bot.stop().await;
}

#[tokio::test]
async fn invalid_requests_and_rate_limits_are_told_apart() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    eventually("the commands are registered", || discord.control.books().registrations == 1).await;
    let limited = |scope| Fault::RateLimited { retry_after: Duration::from_millis(10), scope };
    let faults = [
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(404),
        limited(RateLimitScope::User),
        limited(RateLimitScope::Global),
        limited(RateLimitScope::Shared),
        limited(RateLimitScope::Shared),
        Fault::Status(429),
    ];
    let callback = "/interactions/{id}/{token}/callback";
    let requests = || {
        let statuses = ["401", "403", "404", "429"];
        let of = |status| ("route", callback, "status", status);
        statuses.map(of).map(|(route, callback, status, value)| {
            bot.process_value("discord_rest_requests_total", &[(route, callback), (status, value)])
        })
    };
    for fault in faults {
        discord.control.inject(Route::Callback, fault, 1);
        discord.control.interaction(Place::Dm, "ping").await.unwrap();
    }
    eventually("all are answered", || requests() == [1.0, 1.0, 1.0, 5.0]).await;
    let scopes = ["user", "global", "shared", "none"].map(|scope| {
        let labels = [("route", callback), ("scope", scope)];
        bot.process_value("discord_rest_rate_limits_total", &labels)
    });
    assert_eq!(scopes, [1.0, 1.0, 2.0, 1.0]);
    // Neither a 404 nor a limit that is shared is the bot's fault.
    assert_eq!(bot.process_value("discord_invalid_requests_total", &[]), 5.0);
    assert_eq!(bot.process_value("discord_invalid_requests_remaining", &[]), 9_995.0);
    bot.stop().await;
}

#[tokio::test]
async fn a_slow_acknowledgement_shows() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let delay = Duration::from_millis(600);
    discord.control.inject(Route::Callback, Fault::Delay(delay), 1);
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    soon("an answer", discord.control.until(|books| books.confirmed() == 1)).await;
    let acks = || {
        let families = bot.shard(0).gather();
        let family = families.iter().find(|f| f.name() == "interaction_ack_duration_seconds");
        family.unwrap().get_metric()[0].get_histogram().clone()
    };
    eventually("an acknowledgement", || acks().get_sample_count() == 1).await;
    let acks = acks();
    let fast = acks.get_bucket().iter().find(|bucket| bucket.upper_bound() == 0.5).unwrap();
    assert_eq!(fast.cumulative_count(), 0);
    assert!(acks.get_sample_sum() >= delay.as_secs_f64(), "{acks:?}");
    bot.stop().await;
}

#[tokio::test]
async fn a_blocked_runtime_lags() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let lag = || {
        let families = bot.registries.process.gather();
        let family = families.iter().find(|f| f.name() == "runtime_lag_seconds").unwrap();
        let lag = family.get_metric()[0].get_histogram();
        (lag.get_sample_count(), lag.get_sample_sum())
    };
    let (before, _) = lag();
    // The only thread there is; a timer is due within half a second.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    eventually("measured", || lag().0 > before && lag().1 > 0.4).await;
    bot.stop().await;
}
