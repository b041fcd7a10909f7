//! What the manager and the api cost, measured beside peers and the physical floor: `cargo run --release -p shardmeter-bench`.
//!
//! Every server is a process of its own. In each round all of them do each task, with the same load, one right after the
//! other; what it costs is read from the process's CPU clock. The machine's speed changes more from minute to minute than servers differ, so figures are compared
//! within a round.

mod api;
mod chart;
mod clocks;
mod config;
mod contender;
mod flood;
mod floor;
mod grpc;
mod http;
mod load;
mod report;
mod results;
mod run;
mod server;
mod shard;
mod table;
mod workload;
mod written;

use std::process::ExitCode;

use config::{Config, Part};
use floor::Floor;
use report::Report;
use shardmeter_process::{CancellationToken, Failure};

const ABOUT: &str =
    "What the manager and the api cost, measured beside peers and the physical floor";

fn main() -> ExitCode {
    shardmeter_process::main("shardmeter-bench", ABOUT, start)
}

async fn start(config: Config, shutdown: CancellationToken) -> Result<(), Failure> {
    if config.serve_floor {
        let floor = Floor::build().await.map_err(Failure::Run)?;
        return floor.run(shutdown.cancelled()).await.map_err(Failure::Run);
    }
    if let Some(addr) = &config.flood {
        let id = config.shards.first().copied().unwrap_or_default();
        return flood::flood(addr, id).await.map(|never| match never {}).map_err(Failure::Run);
    }
    let config = config.settled();
    tokio::select! {
        measured = measure(&config) => measured.map_err(Failure::Run),
        // Dropping the run kills the servers.
        () = shutdown.cancelled() => Ok(()),
    }
}

#[expect(clippy::print_stdout, reason = "tables are for a person; logs go to standard error")]
async fn measure(config: &Config) -> anyhow::Result<()> {
    if config.wants_manager() {
        let run = run::run(config).await?;
        println!("{}", Report(&run));
        if config.write {
            written::write(&run)?;
        }
    }
    if config.wants_part(Part::Sse) || config.wants_part(Part::Api) {
        let run = api::run(config).await?;
        println!("{run}");
        if config.write {
            written::write_api(&run)?;
        }
    }
    Ok(())
}
