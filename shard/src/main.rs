//! The `shardmeter-shard` binary.

use std::process::ExitCode;

use shardmeter_process::{Failure, shutdown_signal};
use shardmeter_shard::{Bot, Config};

fn main() -> ExitCode {
    shardmeter_process::main(
        "shardmeter-shard",
        "A sharded Discord bot that streams its metrics",
        run,
    )
}

async fn run(config: Config) -> Result<(), Failure> {
    let bot = Bot::build(config).await.map_err(|error| {
        if error.is_config() { Failure::config(error) } else { Failure::run(error) }
    })?;
    bot.run(shutdown_signal()).await.map_err(|error| {
        if error.is_config() { Failure::config(error) } else { Failure::run(error) }
    })
}
