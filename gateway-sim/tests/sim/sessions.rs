//! A twilight bot through all that can happen to a session.

use std::time::Duration;

use shardmeter_gateway_sim::{ActError, Books, Config, Place, ShardBooks, shard_of};
use shardmeter_process::testing::eventually;
use twilight_gateway::CloseFrame;

use crate::bot::Bot;
use crate::{Sim, within};

/// A number of one shard, or 0 while it has no books.
fn of(books: &Books, shard: u32, number: impl Fn(&ShardBooks) -> u64) -> u64 {
    books.shard(shard).map_or(0, number)
}

fn guild_of(sim: &Sim, shard: u32, shard_count: u32) -> u64 {
    let guilds = sim.control.guilds();
    guilds.iter().find(|guild| shard_of(guild.id, shard_count) == shard).unwrap().id
}

async fn all_confirmed(sim: &Sim) {
    within(sim.control.until(|books| books.confirmed() == books.sent())).await;
}

/// Starts a simulator with one guild and a bot with one shard on it.
async fn one_shard() -> (Sim, Bot, Place) {
    let sim = Sim::start(Config { guilds: 1, ..Config::default() }).await;
    let bot = Bot::start(&sim, 1);
    within(sim.control.until_connected(1)).await;
    let place = Place::Guild(sim.control.guilds()[0].id);
    (sim, bot, place)
}

#[tokio::test]
async fn a_bot_sees_its_guilds_and_confirms_every_command() {
    let sim = Sim::start(Config { guilds: 41, ..Config::default() }).await;
    let bot = Bot::start(&sim, 4);
    within(sim.control.until_connected(4)).await;
    for guild in sim.control.guilds() {
        for command in ["ping", "shards", "ping"] {
            sim.control.interaction(Place::Guild(guild.id), command).await.unwrap();
        }
    }
    sim.control.interaction(Place::Dm, "stats").await.unwrap();
    all_confirmed(&sim).await;

    let books = sim.control.books();
    assert_eq!(books.sent(), 41 * 3 + 1);
    let mut guilds = 0;
    for shard in 0..4 {
        // The callback's answer reaches the bot after the simulator has booked it.
        let booked = &books.shards[&shard];
        eventually("the bot hears of it", || bot.seen(shard).confirmed == booked.confirmed).await;
        let seen = bot.seen(shard);
        let told = booked.guilds.iter().map(|(id, guild)| (*id, u64::from(guild.members)));
        assert_eq!(seen.guilds, told.collect());
        assert!(booked.guilds.keys().all(|id| shard_of(*id, 4) == shard));
        assert_eq!(booked.available_guilds(), seen.guilds.len() as u64);
        assert_eq!(booked.members(), seen.guilds.values().sum::<u64>());
        assert_eq!(booked.events["GUILD_CREATE"], booked.available_guilds());
        assert_eq!(booked.sent.contains_key(&(Place::Dm, "stats".to_owned())), shard == 0);
        let dispatched: u64 = booked.events.values().sum();
        let session = booked.newest_session().unwrap();
        assert_eq!((session.sequence, session.shard_count), (dispatched, 4));
        assert_eq!((booked.identifies, booked.resumes), (1, 0));
        guilds += booked.guilds.len();
    }
    assert_eq!(guilds, 41);
    bot.assert_read_all();
    sim.stop().await;
}

#[tokio::test]
async fn a_cut_loses_no_interaction() {
    let (sim, bot, place) = one_shard().await;
    let control = &sim.control;
    for round in 1..=5 {
        // Some are still on their way when the connection goes, some come while there is none.
        for _ in 0..20 {
            control.interaction(place, "ping").await.unwrap();
        }
        control.cut(0).await.unwrap();
        for _ in 0..5 {
            control.interaction(place, "stats").await.unwrap();
        }
        within(control.until(|books| of(books, 0, |shard| shard.resumes) == round)).await;
        all_confirmed(&sim).await;
    }
    let books = control.books();
    let shard = &books.shards[&0];
    assert_eq!((shard.identifies, shard.cuts, shard.duplicate_callbacks), (1, 5, 0));
    assert!(shard.replayed > 0, "or this tested nothing");
    assert_eq!(shard.events["RESUMED"], 5);
    assert_eq!(books.confirmed(), 5 * 25);
    assert_eq!(bot.seen(0).received.len(), 5 * 25, "each was seen once");
    bot.assert_read_all();
}

#[tokio::test]
async fn an_invalid_session_is_resumed_or_started_anew_as_it_says() {
    let (sim, bot, place) = one_shard().await;
    let control = &sim.control;
    control.invalidate(0, true).await.unwrap();
    within(control.until(|books| of(books, 0, |shard| shard.resumes) == 1)).await;
    assert_eq!(control.books().shards[&0].identifies, 1);

    control.invalidate(0, false).await.unwrap();
    within(control.until(|books| of(books, 0, |shard| shard.identifies) == 2)).await;
    let books = control.books();
    let shard = &books.shards[&0];
    assert_eq!(shard.resumes, 1);
    assert_eq!(shard.invalid_sessions, [(false, 1), (true, 1)].into());
    let ended: Vec<_> = shard.sessions.iter().map(|session| session.ended).collect();
    assert_eq!(ended, [true, false]);

    control.interaction(place, "ping").await.unwrap();
    all_confirmed(&sim).await;
    bot.assert_read_all();
}

#[tokio::test]
async fn a_reconnect_request_and_a_harmless_close_are_resumed() {
    let (sim, bot, place) = one_shard().await;
    let control = &sim.control;
    control.reconnect(0).await.unwrap();
    within(control.until(|books| of(books, 0, |shard| shard.resumes) == 1)).await;
    control.close_with(0, 4000).await.unwrap();
    control.interaction(place, "ping").await.unwrap();
    within(control.until(|books| of(books, 0, |shard| shard.resumes) == 2)).await;
    all_confirmed(&sim).await;
    let books = control.books();
    let shard = &books.shards[&0];
    assert_eq!((shard.identifies, shard.reconnects), (1, 1));
    assert_eq!(shard.closes, [(4000, 1)].into());
    assert_eq!(shard.closes_received, [(4000, 1)].into(), "twilight's answer to op 7");
    assert!(bot.seen(0).closes.contains(&Some(4000)));
}

#[tokio::test]
async fn a_close_that_ends_the_session_leads_to_a_new_one() {
    let (sim, _bot, _) = one_shard().await;
    sim.control.close_with(0, 4009).await.unwrap();
    within(sim.control.until(|books| of(books, 0, |shard| shard.identifies) == 2)).await;
    let books = sim.control.books();
    assert_eq!(books.unknown_resumes, 1, "twilight tries to resume first");
    assert_eq!(books.shards[&0].resumes, 0);
}

#[tokio::test]
async fn a_fatal_close_ends_the_bot() {
    let (sim, bot, place) = one_shard().await;
    sim.control.close_with(0, 4004).await.unwrap();
    eventually("the bot ends", || bot.seen(0).ended).await;
    let refused = sim.control.interaction(place, "ping").await;
    assert_eq!(refused, Err(ActError::NoSession(0)));
    assert_eq!(sim.control.cut(0).await, Err(ActError::NoSession(0)));
    assert_eq!(sim.control.books().sent(), 0);
}

#[tokio::test]
async fn a_bot_whose_heartbeats_go_unanswered_reconnects() {
    let heartbeat_interval = Duration::from_millis(400);
    let sim = Sim::start(Config { guilds: 1, heartbeat_interval, ..Config::default() }).await;
    let control = &sim.control;
    let _bot = Bot::start(&sim, 1);
    within(control.until(|books| of(books, 0, |shard| shard.acks) >= 2)).await;
    let before = control.books().shards[&0].clone();
    assert_eq!(before.heartbeats, before.acks);
    let starts = |shard: &ShardBooks| shard.identifies + shard.resumes;

    control.mute_acks(0, true);
    let muted = control.books().shards[&0].clone();
    within(control.until(|books| of(books, 0, starts) > starts(&before))).await;
    let after = control.books().shards[&0].clone();
    assert_eq!(after.acks, muted.acks);
    assert!(after.heartbeats > muted.heartbeats);

    control.mute_acks(0, false);
    within(control.until(|books| of(books, 0, |shard| shard.acks) >= after.acks + 2)).await;
}

#[tokio::test]
async fn a_requested_heartbeat_confirms_the_sequence() {
    let (sim, _bot, place) = one_shard().await;
    for _ in 0..3 {
        sim.control.interaction(place, "ping").await.unwrap();
    }
    all_confirmed(&sim).await;
    let sequence = sim.control.books().shards[&0].newest_session().unwrap().sequence;
    // READY, a guild, three interactions.
    assert_eq!(sequence, 5);
    sim.control.request_heartbeat(0).await.unwrap();
    let confirmed = |shard: &ShardBooks| shard.newest_session().map_or(0, |s| s.confirmed);
    within(sim.control.until(|books| of(books, 0, confirmed) == sequence)).await;
}

#[tokio::test]
async fn a_restart_forgets_every_session() {
    let sim = Sim::start(Config { guilds: 8, ..Config::default() }).await;
    let bot = Bot::start(&sim, 4);
    within(sim.control.until_connected(4)).await;
    sim.control.restart();
    assert!(sim.control.books().connected().is_empty());
    within(sim.control.until_connected(4)).await;
    let books = sim.control.books();
    assert_eq!(books.unknown_resumes, 4);
    assert!(books.shards.values().all(|shard| (shard.identifies, shard.resumes) == (2, 0)));
    bot.assert_read_all();
}

#[tokio::test]
async fn while_the_gateway_is_away_nobody_gets_a_connection() {
    let sim = Sim::start(Config { guilds: 4, ..Config::default() }).await;
    let bot = Bot::start(&sim, 2);
    within(sim.control.until_connected(2)).await;
    sim.control.gateway_away(true);
    assert!(sim.control.books().connected().is_empty());
    match tokio_tungstenite::connect_async(&sim.gateway_url).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            assert_eq!(answer.status(), 503);
        }
        other => panic!("{other:?}"),
    }
    sim.control.gateway_away(false);
    within(sim.control.until_connected(2)).await;
    bot.assert_read_all();
}

#[tokio::test]
async fn guilds_come_and_go_for_bot_and_books_alike() {
    let sim = Sim::start(Config { guilds: 6, ..Config::default() }).await;
    let control = &sim.control;
    let bot = Bot::start(&sim, 2);
    within(control.until_connected(2)).await;
    let (away, left) = (guild_of(&sim, 0, 2), guild_of(&sim, 1, 2));
    control.guild_unavailable(away).await.unwrap();
    control.guild_leave(left).await.unwrap();
    let joined = control.guild_join(1, 77).await.unwrap();
    assert_eq!(shard_of(joined, 2), 1);
    let refused = control.interaction(Place::Guild(away), "ping").await;
    assert_eq!(refused, Err(ActError::GuildAway(away)));
    assert_eq!(control.guild_unavailable(left).await, Err(ActError::GuildAway(left)));
    assert_eq!(control.guild_leave(1).await, Err(ActError::UnknownGuild(1)));
    assert_eq!(control.guild_join(2, 1).await, Err(ActError::CannotJoin));

    // A callback from either shard shows that the events before it have arrived.
    let place = Place::Guild(
        control.guilds().iter().map(|g| g.id).find(|g| shard_of(*g, 2) == 0 && *g != away).unwrap(),
    );
    control.interaction(place, "ping").await.unwrap();
    control.interaction(Place::Guild(joined), "ping").await.unwrap();
    all_confirmed(&sim).await;
    let books = control.books();
    assert_eq!(books.shards[&0].unavailable_guilds(), 1);
    assert_eq!(bot.seen(0).unavailable, [away].into());
    assert_eq!(bot.seen(1).guilds.get(&joined), Some(&77));
    assert!(!bot.seen(1).guilds.contains_key(&left));
    for shard in 0..2 {
        let booked = &books.shards[&shard];
        assert_eq!(booked.members(), bot.seen(shard).guilds.values().sum::<u64>());
        assert_eq!(booked.available_guilds(), bot.seen(shard).guilds.len() as u64);
    }

    control.guild_available(away).await.unwrap();
    assert_eq!(control.books().shards[&0].unavailable_guilds(), 0);
    // A session that starts later reads the world as it is.
    control.guild_unavailable(away).await.unwrap();
    control.restart();
    within(control.until_connected(2)).await;
    let books = control.books();
    assert_eq!(books.shards[&0].unavailable_guilds(), 1);
    assert!(!books.shards[&1].guilds.contains_key(&left));
    assert!(books.shards[&1].guilds[&joined].available);
    bot.assert_read_all();
}

#[tokio::test]
async fn in_a_rolling_restart_the_newer_bot_gets_the_commands() {
    let (sim, old, place) = one_shard().await;
    let new = Bot::start(&sim, 1);
    within(sim.control.until(|books| of(books, 0, |shard| shard.identifies) == 2)).await;
    sim.control.interaction(place, "ping").await.unwrap();
    all_confirmed(&sim).await;
    assert_eq!((old.seen(0).received.len(), new.seen(0).received.len()), (0, 1));
    // The old one still has its connection, and hears of guilds.
    let joined = sim.control.guild_join(0, 5).await.unwrap();
    eventually("the old one hears of it", || old.seen(0).guilds.contains_key(&joined)).await;

    // It says that it leaves; the newer one is not touched.
    old.senders[0].close(CloseFrame::NORMAL).unwrap();
    let ended = |books: &Books| books.shards[&0].sessions[0].ended;
    within(sim.control.until(ended)).await;
    let books = sim.control.books();
    assert_eq!(books.shards[&0].closes_received, [(1000, 1)].into());
    assert!(books.shards[&0].connected());
}

#[tokio::test]
async fn with_another_shard_count_guilds_move() {
    let sim = Sim::start(Config { guilds: 12, ..Config::default() }).await;
    let first = Bot::start(&sim, 2);
    within(sim.control.until_connected(2)).await;
    drop(first);
    within(sim.control.until_connected(0)).await;
    let second = Bot::start(&sim, 3);
    within(sim.control.until_connected(3)).await;
    for guild in sim.control.guilds() {
        sim.control.interaction(Place::Guild(guild.id), "shards").await.unwrap();
    }
    all_confirmed(&sim).await;
    for shard in 0..3 {
        assert_eq!(second.seen(shard).received.len(), 4);
        assert_eq!(sim.control.books().shards[&shard].guilds.len(), 4);
    }
}

#[tokio::test]
async fn shutdown_ends_every_connection() {
    let (sim, bot, _) = one_shard().await;
    let control = sim.control.clone();
    sim.stop().await;
    assert!(control.books().connected().is_empty());
    eventually("nobody is reached", || bot.seen(0).unreachable > 0).await;
}
