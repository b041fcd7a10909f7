//! What every Shardmeter binary does alike, so that `main` only says what is its own: parse flags and environment,
//! start logs and traces, run until SIGINT or SIGTERM, and end with an exit code that tells a bad configuration from a failed
//! start. And one that listens can ask itself whether it is well.

mod health;
mod logs;
mod manager;
pub mod metrics;
mod secret;
mod signals;
#[cfg(feature = "testing")]
pub mod testing;
pub mod traces;
#[cfg(target_os = "linux")]
mod usage;

use std::{convert::Infallible, future::Future, process::ExitCode};

use clap::Parser;

pub use health::{HealthAddr, reachable};
pub use logs::{LogArgs, LogFormat};
pub use manager::ManagerConfig;
pub use secret::Secret;
pub use tokio_util::sync::CancellationToken;
pub use traces::TraceArgs;
use traces::Traces;

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

/// What a binary is configured by.
pub trait Configuration: clap::Args {
    /// Where it says whether it is well, if it listens.
    fn health_addr(&self) -> Option<HealthAddr> {
        None
    }
}

#[derive(Parser)]
struct Cli<C: clap::Args, I: clap::Subcommand> {
    #[command(flatten)]
    own: C,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(subcommand)]
    instead: Option<Instead<I>>,
}

/// What a binary can do instead of its work.
#[derive(clap::Subcommand)]
enum Instead<I: clap::Subcommand> {
    /// Ask the one that runs on this machine with the same configuration whether it is well; exit code 1 if it is not
    Healthcheck,
    #[command(flatten)]
    Own(I),
}

impl<C: clap::Args, I: clap::Subcommand> Cli<C, I> {
    fn command(name: &'static str, about: &'static str) -> clap::Command {
        let command = <Self as clap::CommandFactory>::command().disable_help_subcommand(true);
        let command = command.name(name).version(env!("CARGO_PKG_VERSION")).about(about);
        without_empty(command)
    }
}

/// Compose's `${VARIABLE:-}` sets what nobody gave to the empty string.
fn without_empty(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None::<&str>),
        _ => arg,
    });
    command.mut_subcommands(without_empty)
}

/// The whole of a binary's `main`: parses `C` from flags and environment, starts logs, and drives `run` on a
/// multi-threaded runtime. The token that `run` gets is cancelled at the first SIGINT or SIGTERM, also one that comes
/// while it still starts; what to do then is its own.
///
/// An environment variable that is empty counts as not set. A leading `--`, as in `cargo demo -- --for 10s`, is passed
/// over.
pub fn main<C, F>(
    name: &'static str,
    about: &'static str,
    run: impl FnOnce(C, CancellationToken) -> F,
) -> ExitCode
where
    C: Configuration,
    F: Future<Output = Result<(), Failure>>,
{
    let never = |_: C, never: Infallible| async move { match never {} };
    main_or(name, about, run, never)
}

/// Like [`main`], for a binary that can do something else instead: `instead` gets the configuration too, and says how it ends.
pub fn main_or<C, I, F, G>(
    name: &'static str,
    about: &'static str,
    run: impl FnOnce(C, CancellationToken) -> F,
    instead: impl FnOnce(C, I) -> G,
) -> ExitCode
where
    C: Configuration,
    I: clap::Subcommand,
    F: Future<Output = Result<(), Failure>>,
    G: Future<Output = Result<ExitCode, Failure>>,
{
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|first| first == "--") {
        args.remove(1);
    }
    let matches = Cli::<C, I>::command(name, about).get_matches_from(args);
    let cli = match <Cli<C, I> as clap::FromArgMatches>::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logs::init(&cli.logs, None);
            tracing::error!(%error, "the runtime does not start");
            return ExitCode::FAILURE;
        }
    };
    let _within = runtime.enter();
    let is_short = cli.instead.is_some();
    let traces = if is_short { Ok(None) } else { Traces::start(name, &cli.traces) };
    let tracer = traces.as_ref().ok().and_then(Option::as_ref).map(Traces::tracer);
    logs::init(&cli.logs, tracer);
    let running = async {
        let _traces = traces.map_err(Failure::Config)?;
        match cli.instead {
            Some(Instead::Healthcheck) => {
                let health = cli.own.health_addr();
                let health = health.ok_or_else(|| anyhow::anyhow!("there is no port to ask"));
                health::check(health.map_err(Failure::Config)?).await.map_err(Failure::Run)?;
            }
            Some(Instead::Own(own)) => return instead(cli.own, own).await,
            None => {
                let shutdown = CancellationToken::new();
                signals::cancel_at_signal(&shutdown);
                run(cli.own, shutdown).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    };
    match runtime.block_on(running) {
        Ok(code) => code,
        Err(failure) => {
            let (Failure::Config(error) | Failure::Run(error)) = &failure;
            tracing::error!("{error:#}");
            failure.exit_code()
        }
    }
}
