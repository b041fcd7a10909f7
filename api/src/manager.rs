//! The way to the manager: who signed its certificate, and who the api is to it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// Who the api is to the manager, as the bot's flags say it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ManagerAccess {
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
}

/// Why the manager cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The endpoint is no URL, or what is to secure it is of no use.
    #[error("MANAGER_ENDPOINT {endpoint:?}: {error}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        error: tonic::transport::Error,
    },
    /// A file cannot be used.
    #[error("{flag} {}: {error}", path.display())]
    File {
        /// What names the file.
        flag: &'static str,
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
}

/// Calls to the manager, each of which says who the api is.
pub(crate) type ManagerChannel = InterceptedService<Channel, ViewToken>;

impl ManagerAccess {
    /// The manager at `endpoint`, which need not be there yet. Connecting is given up after `patience`.
    ///
    /// # Errors
    /// If the endpoint is no URL, or a file cannot be used.
    pub(crate) fn channel(
        &self,
        endpoint: &str,
        patience: Duration,
    ) -> Result<ManagerChannel, ManagerError> {
        let refuse = |error| ManagerError::Endpoint { endpoint: endpoint.to_owned(), error };
        let mut channel =
            Endpoint::from_shared(endpoint.to_owned()).map_err(refuse)?.connect_timeout(patience);
        if channel.uri().scheme_str() == Some("https") {
            channel = channel.tls_config(self.tls()?).map_err(refuse)?;
        }
        let token = match &self.manager_token_file {
            None => None,
            Some(path) => {
                let header = read_token(path).map_err(in_file("--manager-token-file", path))?;
                Some((path.clone(), Arc::new(Mutex::new(header))))
            }
        };
        Ok(InterceptedService::new(channel.connect_lazy(), ViewToken(token)))
    }

    fn tls(&self) -> Result<ClientTlsConfig, ManagerError> {
        let read = |flag, path: &Path| fs::read(path).map_err(in_file(flag, path));
        let tls = match &self.manager_ca_cert {
            Some(path) => {
                let pem = read("--manager-ca-cert", path)?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        let (Some(cert), Some(key)) = (&self.manager_client_cert, &self.manager_client_key) else {
            return Ok(tls);
        };
        let cert = read("--manager-client-cert", cert)?;
        let key = read("--manager-client-key", key)?;
        Ok(tls.identity(Identity::from_pem(cert, key)))
    }
}

fn in_file<'a>(flag: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ManagerError + 'a {
    move |error| ManagerError::File { flag, path: path.to_owned(), error }
}

/// What a call begins with, if the manager asks: its token file, and what was in it last.
#[derive(Clone)]
pub(crate) struct ViewToken(Option<(PathBuf, Arc<Mutex<MetadataValue<Ascii>>>)>);

/// Without the token.
impl std::fmt::Debug for ViewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ViewToken").field(&self.0.as_ref().map(|(path, _)| path)).finish()
    }
}

impl Interceptor for ViewToken {
    fn call(&mut self, mut call: Request<()>) -> Result<Request<()>, Status> {
        if let Some((path, last)) = &self.0 {
            let mut last = last.lock();
            // Calls are few, and so short a file is in memory.
            match read_token(path) {
                Ok(token) => *last = token,
                Err(error) => {
                    tracing::debug!(%error, file = %path.display(), "the token stays as it was");
                }
            }
            call.metadata_mut().insert("authorization", last.clone());
        }
        Ok(call)
    }
}

/// The first line that is not empty.
fn read_token(path: &Path) -> io::Result<MetadataValue<Ascii>> {
    let text = fs::read_to_string(path)?;
    let token = text.lines().find(|line| !line.is_empty());
    let token = token.ok_or_else(|| io::Error::other("it has no token"))?;
    let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = is_visible.then(|| format!("Bearer {token}").parse().ok()).flatten();
    let mut header: MetadataValue<Ascii> =
        header.ok_or_else(|| io::Error::other("its token is not visible ASCII"))?;
    // Neither HTTP/2's compression nor a Debug keeps it.
    header.set_sensitive(true);
    Ok(header)
}
