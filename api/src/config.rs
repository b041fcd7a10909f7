//! The api's configuration, from flags and environment.

mod access;

use std::{net::SocketAddr, path::PathBuf};

use shardmeter_access::TlsConfig;
use shardmeter_process::{HealthAddr, Secret};

pub use access::{AccessConfig, ConfigError};

/// Where the data are kept by default.
const DEFAULT_DATABASE_URL: &str = "sqlite://shardmeter.db";

/// A manager on the same machine.
const DEFAULT_MANAGER_ENDPOINT: &str = "http://127.0.0.1:30001";

/// Flags of the api; each has an environment variable.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where HTTP listens
    #[arg(long = "addr", env = "API_ADDR", default_value = "127.0.0.1:3000")]
    pub addr: SocketAddr,
    /// The database: postgres://user:password@host/name, or sqlite://file, which is created when missing
    #[arg(long, env = "DATABASE_URL", value_name = "URL", default_value = DEFAULT_DATABASE_URL, hide_env_values = true)]
    pub database_url: Secret,
    /// Where the manager answers, by gRPC
    #[arg(long, env = "MANAGER_ENDPOINT", value_name = "URL", default_value = DEFAULT_MANAGER_ENDPOINT)]
    pub manager_endpoint: String,
    /// File with the manager's view token; read again for every call
    #[arg(long, env = "MANAGER_TOKEN_FILE", value_name = "FILE")]
    pub manager_token_file: Option<PathBuf>,
    /// Who signed the manager's certificate (PEM), for an https:// endpoint; without it, those that browsers trust
    #[arg(long, env = "MANAGER_CA_CERT", value_name = "FILE")]
    pub manager_ca_cert: Option<PathBuf>,
    /// The api's own certificate (PEM), for a manager that asks for one
    #[arg(long, env = "MANAGER_CLIENT_CERT", value_name = "FILE", requires = "manager_client_key")]
    pub manager_client_cert: Option<PathBuf>,
    /// The private key of MANAGER_CLIENT_CERT (PEM)
    #[arg(long, env = "MANAGER_CLIENT_KEY", value_name = "FILE", requires = "manager_client_cert")]
    pub manager_client_key: Option<PathBuf>,
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
            manager_endpoint: DEFAULT_MANAGER_ENDPOINT.to_owned(),
            manager_token_file: None,
            manager_ca_cert: None,
            manager_client_cert: None,
            manager_client_key: None,
            redis_url: None,
            access: AccessConfig::default(),
            tls: TlsConfig::default(),
        }
    }
}
