//! The `shardmeter-shard` binary.

use std::process::ExitCode;

use shardmeter_process::{CancellationToken, Failure};
use shardmeter_shard::{Bot, Config};

const ABOUT: &str = "A sharded Discord bot that streams its metrics";

fn main() -> ExitCode {
    shardmeter_process::main("shardmeter-shard", ABOUT, run)
}

async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Failure> {
    // Discord may be away for long; SIGTERM ends the waiting.
    let Some(built) = shutdown.run_until_cancelled(Bot::build(config)).await else {
        return Ok(());
    };
    let bot = built.map_err(|error| {
        if error.is_config() { Failure::config(error) } else { Failure::run(error) }
    })?;
    bot.run(shutdown.cancelled()).await.map_err(|error| {
        if error.is_config() { Failure::config(error) } else { Failure::run(error) }
    })
}
