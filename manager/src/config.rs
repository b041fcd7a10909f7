//! The manager's configuration, from flags and environment, and limits from a file.

mod file;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use shardmeter_access::{TlsConfig, TlsIncomplete, TokenFiles};
use shardmeter_process::HealthAddr;

pub(crate) use file::File;
pub use file::{FileError, Limits};

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
    /// A TOML file with limits and rules
    #[arg(long, env = "SHARDMETER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Who may do what.
    #[command(flatten)]
    pub access: AccessConfig,
    /// How connections are secured.
    #[command(flatten)]
    pub tls: TlsConfig,
}

/// Who may do what. A token file holds a token a line, two at most, so that the one can replace the other; it is read again
/// when it changes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AccessConfig {
    /// Tokens of those that may report, one a line, two at most; without it anybody may
    #[arg(long, env = "SHARDMETER_INGEST_TOKEN_FILE", value_name = "FILE")]
    pub ingest_token_file: Option<PathBuf>,
    /// Tokens of those that may scrape and look; without it anybody may
    #[arg(long, env = "SHARDMETER_VIEW_TOKEN_FILE", value_name = "FILE")]
    pub view_token_file: Option<PathBuf>,
    /// Tokens of those that may make it forget shards, and look; without it nobody may
    #[arg(long, env = "SHARDMETER_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Let anybody report who reaches a port, also from other machines
    #[arg(long, env = "SHARDMETER_ALLOW_UNAUTHENTICATED", value_parser = clap::builder::BoolishValueParser::new())]
    pub allow_unauthenticated: bool,
}

impl AccessConfig {
    /// Where the tokens are.
    pub(crate) fn token_files(&self) -> TokenFiles {
        TokenFiles {
            ingest: self.ingest_token_file.clone(),
            view: self.view_token_file.clone(),
            admin: self.admin_token_file.clone(),
        }
    }
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
    /// Anybody on the network could report.
    #[error(
        "{flag} {addr} can be reached from other machines, and anybody could report there: give --ingest-token-file, or \
         --tls-client-ca with --tls-cert and --tls-key, or say --allow-unauthenticated"
    )]
    OpenToAnybody {
        /// The address's flag.
        flag: &'static str,
        /// As given.
        addr: SocketAddr,
    },
    /// One of the TLS flags lacks another.
    #[error(transparent)]
    Tls(#[from] TlsIncomplete),
}

impl shardmeter_process::Configuration for Config {
    fn health_addr(&self) -> Option<HealthAddr> {
        Some(HealthAddr { addr: self.http_addr, tls: self.tls.tls_cert.is_some() })
    }
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
        self.tls.validate()?;
        self.check_who_reaches_it()
    }

    fn check_who_reaches_it(&self) -> Result<(), ConfigError> {
        let asks_who = self.access.ingest_token_file.is_some() || self.tls.tls_client_ca.is_some();
        if asks_who || self.access.allow_unauthenticated {
            return Ok(());
        }
        for (flag, addr) in [("--http-addr", self.http_addr), ("--grpc-addr", self.grpc_addr)] {
            if !addr.ip().to_canonical().is_loopback() {
                return Err(ConfigError::OpenToAnybody { flag, addr });
            }
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
            config: None,
            access: AccessConfig::default(),
            tls: TlsConfig::default(),
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

    #[test]
    fn a_port_that_others_reach_asks_who_they_are() {
        let file = || Some(PathBuf::from("file"));
        let on = |http: &str, grpc: &str| Config {
            http_addr: http.parse().unwrap(),
            grpc_addr: grpc.parse().unwrap(),
            ..Config::default()
        };
        for (http, grpc, flag) in [
            ("0.0.0.0:0", "127.0.0.1:0", "--http-addr"),
            ("127.9.9.9:0", "[::]:0", "--grpc-addr"),
            ("[::1]:0", "10.0.0.1:0", "--grpc-addr"),
            ("[::ffff:10.0.0.1]:0", "127.0.0.1:0", "--http-addr"),
        ] {
            let config = on(http, grpc);
            match config.validate() {
                Err(ConfigError::OpenToAnybody { flag: named, .. }) => assert_eq!(named, flag),
                other => panic!("{http} {grpc}: {other:?}"),
            }
            let mut allowed = config.clone();
            allowed.access.allow_unauthenticated = true;
            assert_eq!(allowed.validate(), Ok(()));
            let mut with_token = config.clone();
            with_token.access.ingest_token_file = file();
            assert_eq!(with_token.validate(), Ok(()));
            let mut with_other_token = config.clone();
            with_other_token.access.view_token_file = file();
            with_other_token.access.admin_token_file = file();
            assert_eq!(with_other_token.validate(), config.validate());
            let mut tls = config.clone();
            (tls.tls.tls_cert, tls.tls.tls_key) = (file(), file());
            assert_eq!(tls.validate(), config.validate(), "TLS alone says nothing of who comes");
            tls.tls.tls_client_ca = file();
            assert_eq!(tls.validate(), Ok(()));
        }
        assert_eq!(on("[::ffff:127.0.0.1]:0", "[::1]:0").validate(), Ok(()));
    }
}
