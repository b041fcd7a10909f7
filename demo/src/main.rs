//! `cargo demo`.

use std::process::ExitCode;

use shardmeter_demo::{Config, Demo};
use shardmeter_process::{CancellationToken, Failure};

const ABOUT: &str =
    "Shardmeter in one process: a simulated Discord, a bot, the manager, and the api";

fn main() -> ExitCode {
    shardmeter_process::main("shardmeter-demo", ABOUT, run)
}

#[expect(clippy::print_stdout, reason = "the demo speaks to a person; logs go to standard error")]
async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Failure> {
    config.validate().map_err(Failure::Config)?;
    let demo = Demo::build(config).await.map_err(Failure::Run)?;
    println!("{demo}");
    let summary = demo.run(shutdown.cancelled()).await.map_err(Failure::Run)?;
    println!("{summary}");
    summary.check().map_err(Failure::Run)
}
