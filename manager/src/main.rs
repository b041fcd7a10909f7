//! The manager's binary: flags, logs, signals.

use std::process::ExitCode;

use shardmeter_manager::{BuildError, Config, Manager};
use shardmeter_process::Failure;

const ABOUT: &str = "Receives the metrics of all shards and exposes one page for Prometheus";

fn main() -> ExitCode {
    shardmeter_process::main("shardmeter-manager", ABOUT, |config: Config, shutdown| async move {
        let manager = Manager::build(config).await.map_err(|error| match error {
            BuildError::Config(_)
            | BuildError::File(_)
            | BuildError::Token(_)
            | BuildError::Tls(_) => Failure::config(error),
            _ => Failure::run(error),
        })?;
        manager.run(shutdown.cancelled()).await.map_err(Failure::run)
    })
}
