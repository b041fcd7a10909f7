//! Where the manager answers, and as who it is asked.

use std::path::PathBuf;

/// A manager on the same machine.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:30001";

/// Flags that name a manager and whoever asks it; each has an environment variable.
#[derive(Debug, Clone, clap::Args)]
pub struct ManagerConfig {
    /// Where the manager answers, by gRPC
    #[arg(long = "manager-endpoint", env = "MANAGER_ENDPOINT", value_name = "URL", default_value = DEFAULT_ENDPOINT)]
    pub endpoint: String,
    /// File with the manager's token: for bots an ingest token, for the api a view token; read again for every call
    #[arg(long = "manager-token-file", env = "MANAGER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Who signed the manager's certificate (PEM), for an https:// endpoint; without it, those that browsers trust
    #[arg(long = "manager-ca-cert", env = "MANAGER_CA_CERT", value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// One's own certificate (PEM), for a manager that asks for one
    #[arg(
        long = "manager-client-cert",
        env = "MANAGER_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key"
    )]
    pub client_cert: Option<PathBuf>,
    /// The private key of MANAGER_CLIENT_CERT (PEM)
    #[arg(
        long = "manager-client-key",
        env = "MANAGER_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    pub client_key: Option<PathBuf>,
}

impl ManagerConfig {
    /// A manager that answers here, to anybody.
    pub fn at(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            token_file: None,
            ca_cert: None,
            client_cert: None,
            client_key: None,
        }
    }
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self::at(DEFAULT_ENDPOINT)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        manager: ManagerConfig,
    }

    fn parse(flags: &[&str]) -> Result<ManagerConfig, clap::Error> {
        Flags::try_parse_from([&["program"], flags].concat()).map(|flags| flags.manager)
    }

    #[test]
    fn flags_and_defaults_agree() {
        let defaults = format!("{:?}", ManagerConfig::default());
        assert_eq!(format!("{:?}", parse(&[]).unwrap()), defaults);
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let (cert, key) = (["--manager-client-cert", "c.pem"], ["--manager-client-key", "k.pem"]);
        for (alone, lacks) in [(cert, "--manager-client-key"), (key, "--manager-client-cert")] {
            let error = parse(&alone).unwrap_err().to_string();
            assert!(error.contains(&format!("not provided:\n  {lacks} <FILE>")), "{error}");
        }
        let both = parse(&[cert, key].concat()).unwrap();
        assert_eq!(both.client_cert, Some("c.pem".into()));
        assert_eq!(both.client_key, Some("k.pem".into()));
    }
}
