//! `cargo demo`.

use std::process::ExitCode;

use shardmeter_demo::{Config, Demo};
use shardmeter_process::{Failure, shutdown_signal};

const ABOUT: &str =
    "Shardmeter in one process: a simulated Discord, a bot with its shards, and the manager";

fn main() -> ExitCode {
    shardmeter_process::main("shardmeter-demo", ABOUT, run)
}

#[expect(clippy::print_stdout, reason = "the demo speaks to a person; logs go to standard error")]
async fn run(config: Config) -> Result<(), Failure> {
    let demo = Demo::build(config).await.map_err(Failure::Run)?;
    println!("{demo}");
    let summary = demo.run(shutdown_signal()).await.map_err(Failure::Run)?;
    println!("{summary}");
    Ok(())
}
