//! What every Shardmeter binary does alike, so that `main` only says what is its own: parse flags and environment,
//! start logs, run until SIGINT or SIGTERM, and end with an exit code that tells a bad configuration from a failed
//! start.

mod logs;
mod signals;

use std::{future::Future, process::ExitCode};

use clap::Parser;

pub use logs::{LogArgs, LogFormat};
pub use signals::shutdown_signal;

/// Exit code for a configuration that cannot work; clap uses the same for flags it cannot parse.
pub const EXIT_BAD_CONFIG: u8 = 2;

/// Why a binary ended early.
#[derive(Debug)]
pub enum Failure {
    /// The configuration cannot work; starting again changes nothing. Exit code 2.
    Config(anyhow::Error),
    /// The start or the run failed (a port in use, a peer away). Exit code 1.
    Run(anyhow::Error),
}

impl Failure {
    /// A configuration that cannot work.
    pub fn config(error: impl Into<anyhow::Error>) -> Self {
        Self::Config(error.into())
    }

    /// A start or a run that failed.
    pub fn run(error: impl Into<anyhow::Error>) -> Self {
        Self::Run(error.into())
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(EXIT_BAD_CONFIG),
            Self::Run(_) => ExitCode::FAILURE,
        }
    }
}

#[derive(Parser)]
struct Cli<C: clap::Args> {
    #[command(flatten)]
    own: C,
    #[command(flatten)]
    logs: LogArgs,
}

/// The whole of a binary's `main`: parses `C` from flags and environment, starts logs, and drives `run` on a
/// multi-threaded runtime. What `run` does about shutdown is its own: see [`shutdown_signal`].
pub fn main<C, F>(name: &'static str, about: &'static str, run: impl FnOnce(C) -> F) -> ExitCode
where
    C: clap::Args,
    F: Future<Output = Result<(), Failure>>,
{
    use clap::{CommandFactory as _, FromArgMatches as _};
    let command = Cli::<C>::command().name(name).version(env!("CARGO_PKG_VERSION")).about(about);
    let cli = match Cli::<C>::from_arg_matches(&command.get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    logs::init(&cli.logs);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime does not start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.own)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (Failure::Config(error) | Failure::Run(error)) = &failure;
            tracing::error!("{error:#}");
            failure.exit_code()
        }
    }
}
