//! The `shardmeter-api` binary.

use std::process::ExitCode;

use shardmeter_api::{Api, Config};
use shardmeter_process::{CancellationToken, Failure};

const ABOUT: &str = "The platform's HTTP API: shards, incidents, guild settings, live events";

fn main() -> ExitCode {
    shardmeter_process::main("shardmeter-api", ABOUT, run)
}

async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Failure> {
    let api = Api::build(config).await.map_err(|error| {
        if error.is_config() { Failure::config(error) } else { Failure::run(error) }
    })?;
    api.run(shutdown.cancelled_owned()).await.map_err(Failure::run)
}
