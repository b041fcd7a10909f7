//! The api's configuration, from flags and environment.

use std::net::SocketAddr;

use shardmeter_process::HealthAddr;

/// Flags of the api; each has an environment variable.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where HTTP listens
    #[arg(long = "addr", env = "API_ADDR", default_value = "127.0.0.1:3000")]
    pub addr: SocketAddr,
}

impl shardmeter_process::Configuration for Config {
    fn health_addr(&self) -> Option<HealthAddr> {
        Some(HealthAddr { addr: self.addr, tls: false })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { addr: SocketAddr::from(([127, 0, 0, 1], 3000)) }
    }
}
