//! Many shards on one simulator.

use shardmeter_gateway_sim::{Config, Place};

use crate::raw::Raw;
use crate::{Sim, within};

#[tokio::test]
async fn a_thousand_shards_fit_on_one_simulator() {
    const SHARDS: u32 = 1_000;
    let sim = Sim::start(Config { guilds: 2 * SHARDS, ..Config::default() }).await;
    let mut shards = Vec::new();
    for shard in 0..SHARDS {
        shards.push(Raw::identified(&sim, shard, SHARDS).await);
    }
    within(sim.control.until_connected(SHARDS as usize)).await;
    for guild in sim.control.guilds() {
        sim.control.interaction(Place::Guild(guild.id), "ping").await.unwrap();
    }
    for shard in &mut shards {
        within(shard.event("INTERACTION_CREATE")).await;
        within(shard.event("INTERACTION_CREATE")).await;
    }
    let books = sim.control.books();
    assert_eq!(books.sent(), 2 * u64::from(SHARDS));
    assert!(books.shards.values().all(|shard| shard.available_guilds() == 2));
    sim.control.restart();
    assert!(sim.control.books().connected().is_empty());
}
