//! A seed is a world and a traffic, whatever the scheduler does.

use std::time::Duration;

use shardmeter_gateway_sim::{Config, Guild, Place};

use crate::bot::Bot;
use crate::{Sim, within};

const COMMANDS: usize = 60;

/// A world that a slow machine keeps up with: what waits too long for its answer is never confirmed, and while all does,
/// nothing is.
fn world(seed: u64) -> Config {
    let interaction_deadline = Duration::from_secs(3600);
    Config {
        seed,
        guilds: 12,
        commands_per_second: 200.0,
        interaction_deadline,
        ..Config::default()
    }
}

/// Runs a bot until every shard received some commands; the world, and what the shards received first.
async fn run(seed: u64) -> (Vec<Guild>, Vec<Vec<(Place, String)>>) {
    let sim = Sim::start(world(seed)).await;
    let bot = Bot::start(&sim, 3);
    let enough = COMMANDS as u64;
    within(sim.control.until(|books| {
        let confirmed = |shard| {
            books.shard(shard).is_some_and(|shard| shard.confirmed.values().sum::<u64>() >= enough)
        };
        (0..3).all(confirmed)
    }))
    .await;
    sim.control.pause();
    let sent = sim.control.books().sent();
    within(sim.control.until(|books| books.confirmed() == books.sent())).await;
    assert_eq!(sim.control.books().sent(), sent, "nothing is sent after a pause");
    let received = (0..3).map(|shard| bot.seen(shard).received[..COMMANDS].to_vec()).collect();
    bot.assert_read_all();
    (sim.control.guilds(), received)
}

#[tokio::test]
async fn two_simulators_of_one_seed_send_the_same() {
    let (first, second, other) = tokio::join!(run(11), run(11), run(12));
    assert_eq!(first, second);
    assert_ne!(first.0, other.0);
    assert_ne!(first.1, other.1);
    assert_ne!(first.1[0], first.1[1]);
}

#[tokio::test]
async fn traffic_goes_on_where_it_stopped_over_cuts_and_new_sessions() {
    let steady = run(11).await;
    let sim = Sim::start(world(11)).await;
    let bot = Bot::start(&sim, 3);
    let control = &sim.control;
    within(control.until(|books| books.confirmed() > 20)).await;
    control.pause();
    within(control.until(|books| books.confirmed() == books.sent())).await;
    control.cut(0).await.unwrap();
    control.invalidate(1, false).await.unwrap();
    within(control.until_connected(3)).await;
    control.resume();
    let enough = COMMANDS as u64;
    within(control.until(|books| {
        books.shards.values().all(|shard| shard.confirmed.values().sum::<u64>() >= enough)
    }))
    .await;
    for shard in 0..3 {
        let received = bot.seen(shard).received[..COMMANDS].to_vec();
        assert_eq!(received, steady.1[shard as usize], "shard {shard}");
    }
}
