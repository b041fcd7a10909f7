//! Sessions over a restart of the bot.

use std::time::Duration;

use shardmeter_gateway_sim::{Config as World, Place};
use shardmeter_process::testing::{eventually, soon};
use shardmeter_shard::Config;

use crate::support::{Discord, Running, booked_guilds, quiet_world, total};

#[tokio::test]
async fn a_saved_session_is_resumed_and_nothing_in_between_is_lost() {
    let world = World { interaction_deadline: Duration::from_secs(60), ..quiet_world() };
    let discord = Discord::start(world).await;
    let control = &discord.control;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { state_dir: Some(dir.path().join("state")), ..discord.config() };
    let first = Running::start(config.clone()).await;
    first.until_guilds(control).await;
    soon("a registration", control.until(|books| books.registrations == 1)).await;
    let guilds = [first.guilds(0), first.guilds(1)];
    first.stop().await;
    assert_eq!(std::fs::read_dir(dir.path().join("state")).unwrap().count(), 2);

    control.interaction(Place::Dm, "ping").await.unwrap();
    control.guild_join(1, 9).await.unwrap();

    let second = Running::start(config).await;
    second.until_connected().await;
    for shard in 0..2 {
        assert_eq!(second.sessions(shard), [0.0, 1.0, 0.0], "shard {shard}");
        let books = discord.shard_books(shard);
        assert_eq!((books.identifies, books.resumes), (1, 1), "shard {shard}");
    }
    soon("the answer", control.until(|books| books.confirmed() == 1)).await;
    eventually("counted", || total(second.shard(0), "commands_executed_total") == 1.0).await;
    assert_eq!(second.guilds(0), guilds[0]);
    let [count, users, _] = guilds[1];
    eventually("the guild joined meanwhile", || {
        second.guilds(1) == [count + 1.0, users + 9.0, 0.0]
    })
    .await;
    assert_eq!(second.guilds(1), booked_guilds(control, 1));
    // RESUMED does not say who the bot is; it was saved.
    soon("a registration", control.until(|books| books.registrations == 2)).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_called_during_the_close_are_answered_by_one_run_or_the_next() {
    // Fewer than are answered at once, so that none is declined.
    const SENT: u64 = 60;
    let world = World { interaction_deadline: Duration::from_secs(60), ..quiet_world() };
    let discord = Discord::start(world).await;
    let control = discord.control.clone();
    let dir = tempfile::tempdir().unwrap();
    let config = Config { state_dir: Some(dir.path().to_owned()), ..discord.config() };
    let mut executed = 0.0;
    for round in 1..=10 {
        let bot = Running::start(config.clone()).await;
        bot.until_connected().await;
        let calls = tokio::spawn({
            let control = control.clone();
            async move {
                for _ in 0..SENT {
                    control.interaction(Place::Dm, "ping").await.unwrap();
                }
            }
        });
        soon("the first commands", control.until(|books| books.sent() >= SENT * (round - 1) + 10))
            .await;
        let registry = bot.shard(0).clone();
        bot.stop().await;
        calls.await.unwrap();
        executed += total(&registry, "commands_executed_total");
        let rest = Running::start(config.clone()).await;
        soon("all answers", control.until(|books| books.confirmed() == SENT * round)).await;
        let registry = rest.shard(0).clone();
        rest.stop().await;
        executed += total(&registry, "commands_executed_total");
        assert_eq!(executed, (SENT * round) as f64, "round {round}");
        assert_eq!(total(&registry, "command_errors_total"), 0.0);
    }
    assert_eq!(discord.shard_books(0).identifies, 1, "every run resumed");
    assert_eq!(discord.shard_books(0).duplicate_callbacks, 0);
}

#[tokio::test]
async fn a_session_discord_forgot_is_replaced() {
    let discord = Discord::start(quiet_world()).await;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { state_dir: Some(dir.path().to_owned()), ..discord.config() };
    let first = Running::start(config.clone()).await;
    first.until_guilds(&discord.control).await;
    first.stop().await;
    discord.control.restart();
    let second = Running::start(config).await;
    second.until_guilds(&discord.control).await;
    for shard in 0..2 {
        assert_eq!(second.sessions(shard), [1.0, 0.0, 1.0], "shard {shard}");
    }
    second.stop().await;
}

#[tokio::test]
async fn a_broken_session_file_costs_an_identify_and_no_more() {
    let discord = Discord::start(quiet_world()).await;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { state_dir: Some(dir.path().to_owned()), ..discord.config() };
    let first = Running::start(config.clone()).await;
    first.until_guilds(&discord.control).await;
    first.stop().await;
    std::fs::write(dir.path().join("shard-0.json"), "{\"format\":1").unwrap();
    let second = Running::start(config).await;
    second.until_guilds(&discord.control).await;
    assert_eq!(second.sessions(0), [1.0, 0.0, 0.0]);
    assert_eq!(second.sessions(1), [0.0, 1.0, 0.0]);
    second.stop().await;
}

#[tokio::test]
async fn without_a_folder_the_session_is_left_resumable_but_not_saved() {
    let discord = Discord::start(quiet_world()).await;
    discord.bot().await.stop().await;
    let books = discord.shard_books(0);
    assert_eq!(books.closes_received.get(&4000), Some(&1));
    assert!(!books.newest_session().unwrap().ended);
    let second = discord.bot().await;
    assert_eq!(second.sessions(0), [1.0, 0.0, 0.0]);
    second.stop().await;
}
