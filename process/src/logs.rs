//! Logs on standard error, as text for people or JSON for Loki.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Flags of the logs, the same for every binary.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// What to log, as in `info,h2=warn` or `shardmeter_manager=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
    /// How to write a log line
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, fields at its top level.
    Json,
}

/// Starts the logs. A filter that cannot be parsed is reported and replaced by `info`; a second call does nothing.
pub(crate) fn init(args: &LogArgs) {
    let filter = EnvFilter::try_new(&args.log);
    let bad_filter = filter.as_ref().err().map(ToString::to_string);
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        // A closed standard error cannot be told of on standard error: trying to would be a panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means that logs are running already, which is what the caller wants.
    let _already = match args.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    if let Some(error) = bad_filter {
        tracing::warn!(filter = args.log, error, "RUST_LOG cannot be parsed; logging at info");
    }
}
