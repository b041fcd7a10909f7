//! The api's configuration, from flags and environment.

mod access;

use std::net::SocketAddr;

use shardmeter_access::TlsConfig;
use shardmeter_process::{HealthAddr, ManagerConfig, Secret};

pub use access::{AccessConfig, ConfigError};

/// Where the data are kept by default.
const DEFAULT_DATABASE_URL: &str = "sqlite://shardmeter.db";

/// Flags of the api; each has an environment variable.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where HTTP listens
    #[arg(long = "addr", env = "API_ADDR", default_value = "127.0.0.1:3000")]
    pub addr: SocketAddr,
    /// The database: postgres://user:password@host/name, or sqlite://file, which is created when missing
    #[arg(long, env = "DATABASE_URL", value_name = "URL", default_value = DEFAULT_DATABASE_URL, hide_env_values = true)]
    pub database_url: Secret,
    /// The manager, and as who it is asked.
    #[command(flatten)]
    pub manager: ManagerConfig,
    /// Redis that bots publish on; without it, events stay within this process
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// Who may do what.
    #[command(flatten)]
    pub access: AccessConfig,
    /// How connections are secured.
    #[command(flatten)]
    pub tls: TlsConfig,
}

impl shardmeter_process::Configuration for Config {
    fn health_addr(&self) -> Option<HealthAddr> {
        Some(HealthAddr { addr: self.addr, tls: self.tls.tls_cert.is_some() })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 3000)),
            database_url: Secret::from(DEFAULT_DATABASE_URL.to_owned()),
            manager: ManagerConfig::default(),
            redis_url: None,
            access: AccessConfig::default(),
            tls: TlsConfig::default(),
        }
    }
}
