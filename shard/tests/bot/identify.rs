//! Turns to identify: no two processes of a bot break Discord's `max_concurrency`, which the simulator judges.

use std::time::Duration;

use shardmeter_gateway_sim as sim;
use shardmeter_process::testing::{eventually, soon};
use shardmeter_pubsub::testing::RedisServer;
use shardmeter_shard::{Config, ShardIds};

use crate::support::{Discord, Running, quiet_world};

/// Discord's 5 s and what is on top, only faster.
const INTERVAL: Duration = Duration::from_millis(400);

/// The simulator sees an identify when it arrives. Half of the interval is what a busy machine may take for the way; and two
/// processes that do not heed each other come closer than half of it, one way or the other.
const WINDOW: Duration = Duration::from_millis(200);

const SHARDS: u32 = 8;

/// 8 shards, of which 2 may identify at once.
async fn crowded_discord() -> Discord {
    let config = sim::Config {
        guilds: 8,
        shard_count: SHARDS,
        max_concurrency: 2,
        identify_window: WINDOW,
        ..quiet_world()
    };
    Discord::start(config).await
}

/// A process with some of the shards.
async fn part(discord: &Discord, ids: [u32; 2], redis: Option<&RedisServer>) -> Running {
    part_every(INTERVAL, discord, ids, redis).await
}

/// The same, whose turns are another time apart.
async fn part_every(
    interval: Duration,
    discord: &Discord,
    ids: [u32; 2],
    redis: Option<&RedisServer>,
) -> Running {
    let config = Config {
        shard_ids: Some(ShardIds::new(ids[0], ids[1]).unwrap()),
        redis_url: redis.map(|redis| redis.url().into()),
        identify_interval: interval,
        ..discord.config()
    };
    Running::start(config).await
}

/// Both at once, as after a power cut.
async fn both(discord: &Discord, redis: Option<&RedisServer>) -> [Running; 2] {
    tokio::join!(part(discord, [0, 3], redis), part(discord, [4, 7], redis)).into()
}

/// Waits until every shard has identified this often, and is connected.
async fn until_identified(discord: &Discord, times: u64) {
    let all = discord.control.until(|books| {
        books.connected().len() == SHARDS as usize
            && books.shards.values().all(|shard| shard.identifies >= times)
    });
    soon("all shards identified", all).await;
}

fn turns(bots: &[Running; 2], source: &str) -> f64 {
    let of =
        |bot: &Running| bot.process_value("gateway_identify_turns_total", &[("source", source)]);
    bots.iter().map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_take_turns_also_while_redis_is_away() {
    let mut redis = RedisServer::start().await;
    let discord = crowded_discord().await;
    let no_breach = |when: &str| {
        let books = discord.control.books();
        assert_eq!(books.identify_breaches(), 0, "{when}: {:?}", books.identify_keys);
    };
    let bots = both(&discord, Some(&redis)).await;
    until_identified(&discord, 1).await;
    no_breach("at the start");
    // Two restarts: of Discord, and of all processes at once.
    discord.control.restart();
    until_identified(&discord, 2).await;
    for bot in bots {
        bot.stop().await;
    }
    let bots = both(&discord, Some(&redis)).await;
    until_identified(&discord, 3).await;
    no_breach("with Redis");
    assert_eq!([turns(&bots, "process"), turns(&bots, "redis")], [0.0, 8.0]);

    redis.kill();
    discord.control.restart();
    until_identified(&discord, 4).await;
    no_breach("without Redis");
    assert_eq!(turns(&bots, "clock"), 8.0);

    redis.start_again().await;
    discord.control.restart();
    until_identified(&discord, 5).await;
    no_breach("with an emptied Redis");
    assert_eq!([turns(&bots, "clock"), turns(&bots, "redis")], [8.0, 16.0]);
    for bot in bots {
        eventually("nobody waits", || bot.process_value("gateway_identifies_waiting", &[]) == 0.0)
            .await;
        bot.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_emptied_has_forgotten_who_identified_just_now() {
    let redis = RedisServer::start().await;
    let config =
        sim::Config { max_concurrency: 1, identify_window: WINDOW, guilds: 2, ..quiet_world() };
    let discord = Discord::start(config).await;
    let (first, second) =
        tokio::join!(part(&discord, [0, 0], Some(&redis)), part(&discord, [1, 1], Some(&redis)));
    soon("both shards", discord.control.until_connected(2)).await;
    let identifies = async |shard: u32, times| {
        let all = discord.control.until(|books| {
            books
                .shard(shard)
                .is_some_and(|shard| shard.identifies + shard.identifies_refused == times)
        });
        soon("an identify", all).await;
    };
    discord.control.invalidate(0, false).await.unwrap();
    identifies(0, 2).await;
    let _emptied: String = redis.ask(&["FLUSHALL"]).await;
    discord.control.invalidate(1, false).await.unwrap();
    identifies(1, 2).await;
    let books = discord.control.books();
    assert_eq!(books.identify_breaches(), 0, "{:?}", books.identify_keys);
    for bot in [first, second] {
        bot.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_do_not_overdraw_a_day_together() {
    let redis = RedisServer::start().await;
    let config = sim::Config {
        guilds: 8,
        shard_count: SHARDS,
        max_concurrency: 2,
        identify_window: WINDOW,
        identifies_per_day: 28,
        ..quiet_world()
    };
    let discord = Discord::start(config).await;
    // What a busy machine does late must not look like many turns.
    let every = INTERVAL * 3;
    let process = |ids| part_every(every, &discord, ids, Some(&redis));
    let bots: [Running; 2] = tokio::join!(process([0, 3]), process([4, 7])).into();
    let identifies =
        || -> u64 { discord.control.books().shards.values().map(|shard| shard.identifies).sum() };
    for times in 1..3 {
        until_identified(&discord, times).await;
        discord.control.restart();
    }
    let waiting = || -> f64 {
        bots.iter().map(|bot| bot.process_value("gateway_identifies_waiting", &[])).sum()
    };
    // Six are left for those whose identifies are on their way, and are spent if a process learns late what the other spent.
    // Each has spent less than half of the day's by itself, and all want to identify anew.
    eventually("some wait for tomorrow", || identifies() >= 22 && waiting() >= 2.0).await;
    discord.control.restart();
    eventually("all wait", || waiting() >= f64::from(SHARDS)).await;
    tokio::time::sleep(every * 5).await;
    assert!(waiting() >= 2.0, "{}", waiting());
    assert!(identifies() <= 28, "{}", identifies());
    assert_eq!(discord.control.books().token_resets, 0);
    for bot in bots {
        bot.stop().await;
    }
}

/// What the tests above would see, were there no coordination.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_do_not_heed_each_other_break_the_limit() {
    let discord = crowded_discord().await;
    let _bots = both(&discord, None).await;
    soon("a breach", discord.control.until(|books| books.identify_breaches() > 0)).await;
}

#[tokio::test]
async fn the_last_identifies_of_a_day_are_not_overdrawn() {
    let config = sim::Config { identifies_per_day: 3, ..quiet_world() };
    let discord = Discord::start(config).await;
    let bot = discord.bot().await;
    let budget = || {
        ["remaining", "limit", "max_concurrency"]
            .map(|what| bot.process_value(&format!("gateway_identify_{what}"), &[]))
    };
    assert_eq!(budget(), [1.0, 3.0, 0.0]);
    discord.control.invalidate(1, false).await.unwrap();
    eventually("the last identify", || bot.sessions(1)[0] == 2.0).await;
    assert_eq!(budget(), [0.0, 3.0, 0.0]);
    discord.control.invalidate(0, false).await.unwrap();
    eventually("it waits", || bot.process_value("gateway_identifies_waiting", &[]) == 1.0).await;
    assert!(bot.connected(1) && !bot.connected(0));
    assert_eq!(discord.control.books().token_resets, 0);
    bot.stop().await;
}
