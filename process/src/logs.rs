//! Logs on standard error, as text for people or JSON for Loki.

mod json;
#[cfg(test)]
pub(crate) mod testing;

use std::io::IsTerminal as _;

use clap::ValueEnum;
use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, FilterFn, filter_fn},
    fmt::format::JsonFields,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

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

/// What peers do wrong is a warning of this crate, each time.
const QUIET: &str = "h2=error";

/// Starts the logs, and has the tracer record what is done. A filter that cannot be parsed is reported and replaced by `info`; a
/// second call does nothing.
pub(crate) fn init(args: &LogArgs, tracer: Option<SdkTracer>) {
    let (filter, bad_filter) = filter(&args.log);
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A closed standard error cannot be told of on standard error: trying to would be a panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let logs = match args.log_format {
        LogFormat::Text => logs.boxed(),
        LogFormat::Json => logs.fmt_fields(JsonFields::new()).event_format(json::Json).boxed(),
    };
    // Whatever is logged, it says what it is part of.
    let logs = logs.with_filter(filter.or(up_to_info(|of| of.is_span() && is_ours(of))));
    let traces = tracer.map(|tracer| {
        let traces = tracing_opentelemetry::layer().with_tracer(tracer);
        let traces = traces.with_location(false).with_threads(false).with_tracked_inactivity(false);
        traces.with_filter(up_to_info(is_ours))
    });
    // An error means that logs are running already, which is what the caller wants.
    let _already = tracing_subscriber::registry().with(logs).with(traces).try_init();
    if let Some(error) = bad_filter {
        tracing::warn!(filter = args.log, error, "RUST_LOG cannot be parsed; logging at info");
    }
}

/// Whether a crate of Shardmeter's says it: its spans make the traces, with what it logs within them.
fn is_ours(of: &Metadata<'_>) -> bool {
    of.target().starts_with("shardmeter")
}

fn up_to_info<F: Fn(&Metadata<'_>) -> bool>(which: F) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let filter = filter_fn(move |of| *of.level() <= LevelFilter::INFO && which(of));
    filter.with_max_level_hint(LevelFilter::INFO)
}

/// What to log, and why it is not what was asked for, if it is not. Who does not speak of h2 means it no louder than by default.
fn filter(asked: &str) -> (EnvFilter, Option<String>) {
    let quietly = |log: &str| format!("{QUIET},{log}");
    let filter = if asked.contains("h2") {
        EnvFilter::try_new(asked)
    } else {
        EnvFilter::try_new(quietly(asked))
    };
    match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(quietly("info")), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_fill_the_log_through_h2() {
        let filter = |asked| {
            let (filter, error) = filter(asked);
            let mut parts: Vec<_> = filter.to_string().split(',').map(str::to_owned).collect();
            parts.sort();
            (parts.join(" "), error.is_some())
        };
        for (asked, expected, is_bad) in [
            ("info", "h2=error info", false),
            ("", "h2=error", false),
            ("shardmeter_manager=debug,warn", "h2=error shardmeter_manager=debug warn", false),
            ("info,h2=debug", "h2=debug info", false),
            ("h2::proto=warn", "h2::proto=warn", false),
            ("a=b=c", "h2=error info", true),
        ] {
            assert_eq!(filter(asked), (expected.to_owned(), is_bad), "{asked:?}");
        }
    }
}
