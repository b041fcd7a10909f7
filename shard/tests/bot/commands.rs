//! Slash commands: counted exactly, answered in time, bounded.

use std::{collections::BTreeMap, time::Duration};

use shardmeter_gateway_sim::{Config, Fault, Place, RateLimitScope, Route};
use shardmeter_process::testing::{eventually, soon};
use shardmeter_shard::ShardIds;

use crate::support::{Discord, Running, family, quiet_world, total};

/// Commands by command name and guild.
type Counts = BTreeMap<(String, String), u64>;

/// What a bot says it executed on a shard.
fn executed(bot: &Running, shard: u32) -> Counts {
    let samples = family(bot.shard(shard), "commands_executed_total");
    samples
        .into_iter()
        .map(|(labels, count)| {
            ((labels["command_name"].clone(), labels["guild_id"].clone()), count as u64)
        })
        .collect()
}

/// What the books say a shard confirmed.
fn confirmed(discord: &Discord, shard: u32) -> Counts {
    let tally = discord.shard_books(shard).confirmed;
    tally
        .into_iter()
        .map(|((place, command), count)| ((command, place.to_string()), count))
        .collect()
}

async fn until_exact(discord: &Discord, bot: &Running, shards: u32) {
    for shard in 0..shards {
        eventually("the bot's counts are the books'", || {
            executed(bot, shard) == confirmed(discord, shard)
        })
        .await;
    }
}

/// Waits until each of the two shards is connected after identifying and resuming `times` times in all.
async fn until_begun(discord: &Discord, bot: &Running, times: u64) {
    for shard in 0..2 {
        let begun = discord.control.until(|books| {
            let books = books.shard(shard);
            books
                .is_some_and(|books| books.identifies + books.resumes == times && books.connected())
        });
        soon("a session", begun).await;
        eventually("the bot's session", || {
            let [identified, resumed, _] = bot.sessions(shard);
            identified + resumed == times as f64 && bot.connected(shard)
        })
        .await;
    }
}

fn a_guild(discord: &Discord, shard: u32) -> Place {
    let guilds = discord.shard_books(shard).guilds;
    Place::Guild(*guilds.keys().next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_over_cuts_resumes_and_invalid_sessions() {
    let config = Config { commands_per_second: 300.0, ..quiet_world() };
    let discord = Discord::start(config).await;
    let bot = discord.bot().await;
    let control = &discord.control;
    for round in 0..3_u64 {
        let enough = (round + 1) * 100;
        soon("commands", control.until(|books| books.confirmed() >= enough)).await;
        control.cut(0).await.unwrap();
        control.reconnect(1).await.unwrap();
        until_begun(&discord, &bot, 2 * round + 2).await;
        control.invalidate(0, round % 2 == 0).await.unwrap();
        control.close_with(1, 4000).await.unwrap();
        until_begun(&discord, &bot, 2 * round + 3).await;
    }
    control.pause();
    until_exact(&discord, &bot, 2).await;
    let books = control.books();
    assert!(books.confirmed() >= 300);
    assert!(bot.sessions(0)[1] >= 3.0, "no resume: {:?}", bot.sessions(0));
    for shard in 0..2 {
        assert_eq!(
            total(bot.shard(shard), "interaction_ack_duration_seconds"),
            confirmed(&discord, shard).values().sum::<u64>() as f64,
        );
        let books = books.shard(shard).unwrap();
        assert_eq!(books.duplicate_callbacks, 0, "no interaction is answered twice");
    }
    bot.stop().await;
}

#[tokio::test]
async fn a_direct_message_and_an_unknown_command_have_labels_of_their_own() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let guild = a_guild(&discord, 1);
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    discord.control.interaction(guild, "stats").await.unwrap();
    for name in ["one-of-many", "another"] {
        discord.control.interaction(guild, name).await.unwrap();
    }
    soon("answers", discord.control.until(|books| books.confirmed() == 4)).await;
    let counts =
        |count: u64, command: &str, guild: Place| ((command.to_owned(), guild.to_string()), count);
    eventually("the direct message", || {
        executed(&bot, 0) == Counts::from([counts(1, "ping", Place::Dm)])
    })
    .await;
    let expected = Counts::from([counts(1, "stats", guild), counts(2, "unknown", guild)]);
    eventually("the guild's commands", || executed(&bot, 1) == expected).await;
    let unknown = [("command_name", "unknown"), ("error", "unknown_command")];
    assert_eq!(bot.value(1, "command_errors_total", &unknown), 2.0);
    bot.stop().await;
}

#[tokio::test]
async fn a_refused_answer_is_an_error_and_no_execution() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let wait = Duration::from_millis(10);
    for (fault, error, status, invalid) in [
        (Fault::Status(500), "discord_failed", "500", 0.0),
        (Fault::Status(404), "refused", "404", 0.0),
        (Fault::Status(403), "refused", "403", 1.0),
        (
            Fault::RateLimited { retry_after: wait, scope: RateLimitScope::Global },
            "rate_limited",
            "429",
            2.0,
        ),
    ] {
        let errors = [("command_name", "ping"), ("error", error)];
        let before = bot.value(0, "command_errors_total", &errors);
        discord.control.inject(Route::Callback, fault, 1);
        discord.control.interaction(Place::Dm, "ping").await.unwrap();
        eventually(error, || bot.value(0, "command_errors_total", &errors) == before + 1.0).await;
        let requests = [("route", "/interactions/{id}/{token}/callback"), ("status", status)];
        assert_eq!(bot.process_value("discord_rest_requests_total", &requests), 1.0, "{error}");
        assert_eq!(bot.process_value("discord_invalid_requests_total", &[]), invalid, "{error}");
    }
    assert_eq!(executed(&bot, 0), Counts::new());
    assert_eq!(discord.control.books().confirmed(), 0);
    bot.stop().await;
}

#[tokio::test]
async fn slow_answers_do_not_hold_each_other_up() {
    // One after the other, the third would miss Discord's deadline.
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    discord.control.inject(Route::Callback, Fault::Delay(Duration::from_millis(1200)), 8);
    for _ in 0..8 {
        discord.control.interaction(Place::Dm, "ping").await.unwrap();
    }
    soon("all answers", discord.control.until(|books| books.confirmed() == 8)).await;
    until_exact(&discord, &bot, 2).await;
    assert_eq!(total(bot.shard(0), "command_errors_total"), 0.0);
    bot.stop().await;
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    discord.control.inject(Route::Callback, Fault::Delay(Duration::from_secs(3600)), 1);
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    let errors = [("command_name", "ping"), ("error", "timeout")];
    eventually("a timeout", || bot.value(0, "command_errors_total", &errors) == 1.0).await;
    assert_eq!(executed(&bot, 0), Counts::new());
    bot.stop().await;
}

#[tokio::test]
async fn too_many_commands_at_once_are_declined_and_counted() {
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    let sent = 100;
    // Long enough for all to come meanwhile, and a second below the deadline.
    discord.control.inject(Route::Callback, Fault::Delay(Duration::from_secs(2)), sent);
    for _ in 0..sent {
        discord.control.interaction(Place::Dm, "shards").await.unwrap();
    }
    // 64 are answered at once, 16 more are told that the bot is busy, nobody is told beyond these.
    soon("answers", discord.control.until(|books| books.confirmed() == 80)).await;
    until_exact(&discord, &bot, 2).await;
    let overloaded = [("command_name", "shards"), ("error", "overloaded")];
    assert_eq!(bot.value(0, "command_errors_total", &overloaded), (sent - 64) as f64);
    discord.control.clear_faults();
    discord.control.interaction(Place::Dm, "shards").await.unwrap();
    soon("an answer after the rush", discord.control.until(|books| books.confirmed() == 81)).await;
    bot.stop().await;
}

#[tokio::test]
async fn only_the_process_with_shard_0_registers_the_commands() {
    let discord = Discord::start(quiet_world()).await;
    let shards =
        |ids: ShardIds| shardmeter_shard::Config { shard_ids: Some(ids), ..discord.config() };
    let upper = Running::start(shards(ShardIds::new(1, 1).unwrap())).await;
    upper.until_guilds(&discord.control).await;
    // Not at the first try: it is tried again, and nothing fails meanwhile.
    discord.control.inject(Route::Commands, Fault::Status(500), 1);
    assert_eq!(discord.control.books().registrations, 0);
    let lower = Running::start(shards(ShardIds::new(0, 0).unwrap())).await;
    soon("a registration", discord.control.until(|books| books.registrations > 0)).await;
    let books = discord.control.books();
    assert_eq!(books.registered.unwrap().commands, ["ping", "shards", "stats"]);
    assert_eq!(books.registrations, 1);
    let route = "/applications/{id}/commands";
    let requests = |bot: &Running| {
        let samples = family(&bot.registries.process, "discord_rest_requests_total");
        samples
            .iter()
            .filter(|(labels, _)| labels["route"] == route)
            .map(|(_, count)| count)
            .sum::<f64>()
    };
    eventually("both tries", || requests(&lower) == 2.0).await;
    assert_eq!(requests(&upper), 0.0);
    upper.stop().await;
    lower.stop().await;
}
