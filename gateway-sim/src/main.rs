//! The simulator as a process of its own.

use std::process::ExitCode;

use shardmeter_gateway_sim::{BuildError, Config, GatewaySim};
use shardmeter_process::{CancellationToken, Failure};

fn main() -> ExitCode {
    shardmeter_process::main(
        "shardmeter-gateway-sim",
        "A stand-in for Discord's gateway and REST",
        run,
    )
}

async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Failure> {
    let (guilds, seed) = (config.guilds, config.seed);
    let sim = GatewaySim::build(config).await.map_err(|error| match error {
        BuildError::Config(_) => Failure::config(error),
        BuildError::Bind { .. } => Failure::run(error),
    })?;
    tracing::info!(
        gateway = sim.gateway_url(),
        api = sim.api_url(),
        guilds,
        seed,
        "Discord is simulated"
    );
    let control = sim.control();
    sim.run(shutdown.cancelled()).await;
    let books = control.books();
    tracing::info!(sent = books.sent(), confirmed = books.confirmed(), "stopped");
    Ok(())
}
