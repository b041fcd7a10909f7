//! The manager's configuration, from flags and environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Shards reporting more often would be busy with nothing else,
const MIN_REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// and less often is no telemetry: `shardmeter-telemetry` reports every 10 minutes at least.
const MAX_REPORT_INTERVAL: Duration = Duration::from_secs(600);

/// Flags of the manager; each has an environment variable.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where HTTP listens: /metrics, POST /shard-metrics, /api/v1/shards, /healthz, /readyz
    #[arg(long, env = "SHARDMETER_HTTP_ADDR", default_value = "127.0.0.1:30000")]
    pub http_addr: SocketAddr,
    /// Where gRPC listens: telemetry, reflection, health
    #[arg(long, env = "SHARDMETER_GRPC_ADDR", default_value = "127.0.0.1:30001")]
    pub grpc_addr: SocketAddr,
    /// Where counts are kept over restarts; without it they start anew
    #[arg(long, env = "SHARDMETER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// How often shards are told to report
    #[arg(long, env = "SHARDMETER_REPORT_INTERVAL", default_value = "10s", value_parser = humantime::parse_duration)]
    pub report_interval: Duration,
    /// A shard silent for longer is down, and its gauges leave the scrape; at least three report intervals
    #[arg(long, env = "SHARDMETER_STALE_AFTER", default_value = "30s", value_parser = humantime::parse_duration)]
    pub stale_after: Duration,
    /// Name of the fleet; a shard that states another is refused
    #[arg(long, env = "SHARDMETER_FLEET")]
    pub fleet: Option<String>,
    /// OpenMetrics pages say when counting began, in _created samples. Prometheus 2.x stores these as series of their own:
    /// a page of counters has two thirds more lines. Protobuf pages always say it, at no such cost
    #[arg(long, env = "SHARDMETER_OPENMETRICS_CREATED", value_parser = clap::builder::BoolishValueParser::new())]
    pub openmetrics_created: bool,
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A shard would be called stale between two of its reports.
    #[error(
        "--stale-after {stale_after:?} is under three times --report-interval {report_interval:?}: a shard would go \
         stale when one report is late; raise the one or lower the other"
    )]
    StaleTooSoon {
        /// As given.
        stale_after: Duration,
        /// As given.
        report_interval: Duration,
    },
    /// Reports without pause, or hardly any.
    #[error(
        "--report-interval {0:?} is not from {MIN_REPORT_INTERVAL:?} to {MAX_REPORT_INTERVAL:?}"
    )]
    Interval(Duration),
}

impl Config {
    /// Whether the values fit each other.
    ///
    /// # Errors
    /// If they do not, saying which flags to change.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (stale_after, report_interval) = (self.stale_after, self.report_interval);
        if !(MIN_REPORT_INTERVAL..=MAX_REPORT_INTERVAL).contains(&report_interval) {
            return Err(ConfigError::Interval(report_interval));
        }
        if stale_after < report_interval * 3 {
            return Err(ConfigError::StaleTooSoon { stale_after, report_interval });
        }
        Ok(())
    }
}

/// The defaults of the flags, on free ports: what tests and the demo start from.
impl Default for Config {
    fn default() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            http_addr: any_port,
            grpc_addr: any_port,
            data_dir: None,
            report_interval: Duration::from_secs(10),
            stale_after: Duration::from_secs(30),
            fleet: None,
            openmetrics_created: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_after_leaves_room_for_a_late_report() {
        let config = |stale, interval| Config {
            stale_after: Duration::from_secs(stale),
            report_interval: Duration::from_secs(interval),
            ..Config::default()
        };
        assert_eq!(config(30, 10).validate(), Ok(()));
        assert!(matches!(config(29, 10).validate(), Err(ConfigError::StaleTooSoon { .. })));
        assert!(matches!(config(30, 0).validate(), Err(ConfigError::Interval(_))));
        assert!(matches!(config(u64::MAX, u64::MAX).validate(), Err(ConfigError::Interval(_))));
    }
}
