//! How the manager is reached, and as who.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use shardmeter_process::{
    ManagerConfig,
    traces::{TRACEPARENT, traceparent},
};
use shardmeter_proto::v1::fleet_service_client::FleetServiceClient;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// A manager that cannot be connected to within this time is away.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// How often an HTTP/2 ping asks whether the manager is still there, and how long it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest answer, bytes: a list of 65,536 shards with several instances each.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The manager; clones share one connection.
pub(crate) type Manager = FleetServiceClient<InterceptedService<Channel, Credentials>>;

/// Why the manager cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// No address, or one that certificates are not for.
    #[error("MANAGER_ENDPOINT {endpoint}: {reason}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot be used.
    #[error("MANAGER_TOKEN_FILE {}: {error}", path.display())]
    Token {
        /// As configured.
        path: PathBuf,
        /// The system's word, or what is wrong with it.
        error: io::Error,
    },
    /// A certificate or its key cannot be used.
    #[error("{variable} {}: {error}", path.display())]
    Certificate {
        /// What names it.
        variable: &'static str,
        /// As configured.
        path: PathBuf,
        /// The system's word, or what is wrong with it.
        error: io::Error,
    },
}

/// Who asks, and why.
#[derive(Clone)]
pub(crate) struct Credentials(Option<Arc<Path>>);

impl Interceptor for Credentials {
    /// Reads the token for every call: it may be replaced while the api runs.
    fn call(&mut self, mut call: Request<()>) -> Result<Request<()>, Status> {
        if let Some(path) = &self.0 {
            let token = read(path).map_err(|error| {
                Status::unauthenticated(format!("MANAGER_TOKEN_FILE {}: {error}", path.display()))
            })?;
            call.metadata_mut().insert("authorization", token);
        }
        if let Some(cause) = traceparent().and_then(|cause| cause.parse().ok()) {
            call.metadata_mut().insert(TRACEPARENT, cause);
        }
        Ok(call)
    }
}

/// Prepares the connection to the manager, which need not be there yet.
pub(super) fn connect(config: &ManagerConfig) -> Result<Manager, ManagerError> {
    let credentials = match &config.token_file {
        None => Credentials(None),
        Some(path) => match read(path) {
            Ok(_) => Credentials(Some(path.as_path().into())),
            Err(error) => return Err(ManagerError::Token { path: path.clone(), error }),
        },
    };
    let channel = endpoint(config)?
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy();
    let manager = FleetServiceClient::with_interceptor(channel, credentials);
    Ok(manager.max_decoding_message_size(MAX_ANSWER_BYTES))
}

fn endpoint(config: &ManagerConfig) -> Result<Endpoint, ManagerError> {
    let refused =
        |reason: String| ManagerError::Endpoint { endpoint: config.endpoint.clone(), reason };
    let endpoint = Endpoint::from_shared(config.endpoint.clone());
    let endpoint = endpoint.map_err(|error| refused(error.to_string()))?;
    match endpoint.uri().scheme_str() {
        Some("https") => {}
        Some("http") if config.ca_cert.is_none() => return Ok(endpoint),
        Some("http") => {
            return Err(refused(
                "it begins with http://, and MANAGER_CA_CERT is for https://".into(),
            ));
        }
        _ => return Err(refused("it is not http://HOST[:PORT] or https://HOST[:PORT]".into())),
    }
    let pem = |variable, path: &PathBuf, read: fn(&Path) -> io::Result<Vec<u8>>| {
        let refuse = |error| ManagerError::Certificate { variable, path: path.clone(), error };
        read(path).map_err(refuse)
    };
    let mut tls = match &config.ca_cert {
        None => ClientTlsConfig::new().with_webpki_roots(),
        Some(path) => {
            let pem = pem("MANAGER_CA_CERT", path, certificates)?;
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
        }
    };
    if let (Some(cert), Some(key)) = (&config.client_cert, &config.client_key) {
        let cert = pem("MANAGER_CLIENT_CERT", cert, certificates)?;
        let key = pem("MANAGER_CLIENT_KEY", key, private_key)?;
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    endpoint.tls_config(tls).map_err(|error| refused(error.to_string()))
}

/// Certificates in PEM. tonic passes over what it cannot read.
fn certificates(path: &Path) -> io::Result<Vec<u8>> {
    let pem = fs::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(pem),
        _ => Err(io::Error::other("it has no certificate in PEM")),
    }
}

fn private_key(path: &Path) -> io::Result<Vec<u8>> {
    let pem = fs::read(path)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(io::Error::other("it has no private key in PEM")),
    }
}

/// The first line that is not empty.
fn read(path: &Path) -> io::Result<MetadataValue<Ascii>> {
    let text = fs::read_to_string(path)?;
    let token = text.lines().find(|line| !line.is_empty());
    let token = token.ok_or_else(|| io::Error::other("it has no token"))?;
    let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = visible.then(|| format!("Bearer {token}").parse().ok()).flatten();
    let mut header: MetadataValue<Ascii> =
        header.ok_or_else(|| io::Error::other("its token is not visible ASCII"))?;
    // Neither HTTP/2's compression nor a Debug keeps it.
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(config: &ManagerConfig) -> String {
        connect(config).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn what_cannot_work_is_said_at_the_start() {
        let endpoint = |endpoint: &str| ManagerConfig::at(endpoint);
        assert!(error(&endpoint("")).starts_with("MANAGER_ENDPOINT "));
        assert!(error(&endpoint("manager:30001")).contains("https://HOST[:PORT]"));
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("file");
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let token = |text| ManagerConfig { token_file: file(text), ..ManagerConfig::default() };
        assert!(error(&token("\n")).ends_with("it has no token"));
        assert!(error(&token("a b")).ends_with("its token is not visible ASCII"));
        connect(&token("\nsecret\n")).unwrap();
        let ca = |url, text| ManagerConfig { ca_cert: file(text), ..endpoint(url) };
        assert!(error(&ca("http://manager:1", "")).ends_with("is for https://"));
        assert!(error(&ca("https://manager:1", "none")).ends_with("no certificate in PEM"));
        connect(&endpoint("https://manager:1")).unwrap();
        let client_cert = file("none");
        let identity = ManagerConfig {
            client_key: client_cert.clone(),
            client_cert,
            ..endpoint("https://manager:1")
        };
        assert!(error(&identity).starts_with("MANAGER_CLIENT_CERT "));
        let gone = Some(folder.path().join("gone"));
        let gone = ManagerConfig { token_file: gone, ..ManagerConfig::default() };
        assert!(error(&gone).contains("gone: No such file"));
    }
}
