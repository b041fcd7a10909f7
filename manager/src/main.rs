//! The manager's binary: flags, logs, signals.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use shardmeter_manager::{
    BuildError, Config, Manager,
    doctor::{Deployment, DoctorArgs, Instead},
};
use shardmeter_process::Failure;

const ABOUT: &str = "Receives the metrics of all shards and exposes one page for Prometheus";

fn main() -> ExitCode {
    let serve = |config: Config, shutdown: shardmeter_process::CancellationToken| async move {
        let manager = Manager::build(config).await.map_err(|error| match error {
            BuildError::Config(_)
            | BuildError::File(_)
            | BuildError::Token(_)
            | BuildError::Tls(_) => Failure::config(error),
            _ => Failure::run(error),
        })?;
        manager.run(shutdown.cancelled()).await.map_err(Failure::run)
    };
    let instead = |config: Config, Instead::Doctor(args): Instead| async move {
        examine(&config, &args).await
    };
    shardmeter_process::main_or("shardmeter-manager", ABOUT, serve, instead)
}

async fn examine(config: &Config, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let deployment = Deployment::new(args, config).map_err(Failure::config)?;
    let report = deployment.examine().await;
    let said =
        if args.json { report.to_json().map_err(Failure::run)? + "\n" } else { report.to_string() };
    io::stdout().write_all(said.as_bytes()).map_err(Failure::run)?;
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
