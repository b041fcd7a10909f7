//! Who may come in, and do what. Names and meaning of files and flags are the manager's.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use axum::http::{HeaderValue, Uri};
use clap::builder::BoolishValueParser;
use shardmeter_access::{TlsConfig, TlsIncomplete, TokenFiles};

/// A dashboard that loads asks for dozens of things at once, and then for a few a second.
const DEFAULT_REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Who may do what. A token file holds a token a line, two at most, so that the one can replace the other; it is read again
/// when it changes.
#[derive(Debug, Clone, clap::Args)]
pub struct AccessConfig {
    /// Tokens of those that may look, one a line, two at most; without it anybody may
    #[arg(long, env = "SHARDMETER_VIEW_TOKEN_FILE", value_name = "FILE")]
    pub view_token_file: Option<PathBuf>,
    /// Tokens of those that may change settings, and look; without it nobody may, but from this machine if there is no
    /// token file at all
    #[arg(long, env = "SHARDMETER_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Let anybody look who reaches the port, also from other machines
    #[arg(long, env = "SHARDMETER_ALLOW_UNAUTHENTICATED", value_parser = BoolishValueParser::new())]
    pub allow_unauthenticated: bool,
    /// Origin of web pages that may ask, as in `https://dashboard.example`; several by comma. Without it none may
    #[arg(long, env = "API_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub cors_origin: Vec<HeaderValue>,
    /// Requests that one address may send a second, over time; five times as many may come at once. Behind a proxy all
    /// have its address
    #[arg(long, env = "API_REQUESTS_PER_SECOND", value_name = "COUNT", default_value_t = DEFAULT_REQUESTS_PER_SECOND)]
    pub requests_per_second: NonZeroU32,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            view_token_file: None,
            admin_token_file: None,
            allow_unauthenticated: false,
            cors_origin: Vec::new(),
            requests_per_second: DEFAULT_REQUESTS_PER_SECOND,
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Anybody on the network could look.
    #[error(
        "--addr {0} can be reached from other machines, and anybody could look there: give --view-token-file, or \
         --tls-client-ca with --tls-cert and --tls-key, or say --allow-unauthenticated"
    )]
    OpenToAnybody(SocketAddr),
    /// One of the TLS flags lacks another.
    #[error(transparent)]
    Tls(#[from] TlsIncomplete),
}

impl AccessConfig {
    /// Whether an address can be opened so.
    ///
    /// # Errors
    /// If others reach it and are not asked who they are, or a TLS flag lacks another.
    pub(crate) fn check(&self, addr: SocketAddr, tls: &TlsConfig) -> Result<(), ConfigError> {
        tls.validate()?;
        let asks_who = self.view_token_file.is_some() || tls.tls_client_ca.is_some();
        if asks_who || self.allow_unauthenticated || addr.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(ConfigError::OpenToAnybody(addr))
    }

    /// Where the tokens are.
    pub(crate) fn token_files(&self) -> TokenFiles {
        TokenFiles {
            ingest: None,
            view: self.view_token_file.clone(),
            admin: self.admin_token_file.clone(),
        }
    }
}

/// An origin as browsers send it: scheme, host, and port if it is not the scheme's own.
fn origin(text: &str) -> Result<HeaderValue, String> {
    const EXPECTED: &str = "an origin is as https://dashboard.example or http://localhost:5173";
    let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
    let (Some(scheme), Some(host)) = (scheme, uri.authority()) else {
        return Err(EXPECTED.to_owned());
    };
    if text != format!("{scheme}://{host}").to_ascii_lowercase() || host.as_str().contains('@') {
        return Err(EXPECTED.to_owned());
    }
    HeaderValue::from_str(text).map_err(|_| EXPECTED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_others_reach_asks_who_they_are() {
        let check = |access: &AccessConfig, tls: &TlsConfig, addr: &str| {
            access.check(addr.parse().unwrap(), tls)
        };
        let (open, plain) = (AccessConfig::default(), TlsConfig::default());
        let file = || Some(PathBuf::from("file"));
        let view = AccessConfig { view_token_file: file(), ..open.clone() };
        let admin = AccessConfig { admin_token_file: file(), ..open.clone() };
        let allowed = AccessConfig { allow_unauthenticated: true, ..open.clone() };
        let tls = TlsConfig { tls_cert: file(), tls_key: file(), tls_client_ca: None };
        let with_ca = TlsConfig { tls_client_ca: file(), ..tls.clone() };
        for addr in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[::ffff:10.0.0.1]:0"] {
            let refused = Err(ConfigError::OpenToAnybody(addr.parse().unwrap()));
            assert_eq!(check(&open, &plain, addr), refused);
            assert_eq!(check(&admin, &plain, addr), refused, "who looks is not asked");
            assert_eq!(check(&open, &tls, addr), refused, "TLS alone says nothing of who comes");
            for access in [&view, &allowed] {
                assert_eq!(check(access, &plain, addr), Ok(()));
            }
            assert_eq!(check(&open, &with_ca, addr), Ok(()));
        }
        for addr in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert_eq!(check(&open, &plain, addr), Ok(()));
        }
        let half = TlsConfig { tls_key: None, ..tls };
        assert!(matches!(check(&view, &half, "127.0.0.1:0"), Err(ConfigError::Tls(_))));
    }

    #[test]
    fn an_origin_is_what_browsers_send() {
        for good in ["https://a.example", "http://localhost:5173", "http://[::1]:80"] {
            assert_eq!(origin(good).unwrap(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "a.example",
            "https://a.example/",
            "https://a.example/b",
            "https://A.example",
            "ftp://a.example",
            "https://u@a.example",
            "https://",
            "https://a.example, https://b.example",
        ] {
            origin(bad).unwrap_err();
        }
    }
}
