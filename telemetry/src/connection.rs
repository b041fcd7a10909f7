//! The channel to the manager.

use crate::BuildError;
use crate::credentials::Token;
use crate::trace::Sampler;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

/// For TCP, TLS and HTTP/2 to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an HTTP/2 ping asks whether the manager is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// For a ping's answer. With the interval: a half-open connection is noticed within 18 s.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(8);

/// One HTTP/2 connection to the manager, shared by all [`Reporter`](crate::Reporter)s of a process.
///
/// Cheap to clone. It connects when a reporter first needs it, and again whenever it broke, so it can be made while the
/// manager is away. The manager limits how many streams one connection carries; each reporter is one stream.
#[derive(Clone)]
pub struct Connection {
    endpoint: String,
    channel: Channel,
    token: Option<Token>,
    sampler: Sampler,
}

impl Connection {
    /// Prepares the connection to a manager's gRPC address, for example `http://127.0.0.1:30001`. Does not connect.
    ///
    /// # Errors
    ///
    /// [`BuildError::Endpoint`] when the address is not `http://HOST[:PORT]` or `https://HOST[:PORT]`,
    /// [`BuildError::NoRuntime`] outside a tokio runtime.
    pub fn new(endpoint: &str) -> Result<Self, BuildError> {
        Self::builder(endpoint).build()
    }

    /// Begins to describe a connection to a manager that asks who one is, or shows a certificate of one's own:
    ///
    /// ```no_run
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = shardmeter_telemetry::Connection::builder("https://manager.internal:30001")
    ///     .ca_certificate(std::fs::read("ca.pem")?)
    ///     .token_file("/run/secrets/manager-token")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(endpoint: impl Into<String>) -> ConnectionBuilder {
        ConnectionBuilder { endpoint: endpoint.into(), token: None, ca: None, identity: None }
    }

    /// Like [`new`](Self::new), over byte streams that `connect` makes: a Unix socket, a tunnel, a simulated network.
    /// It is called for each attempt to connect, which may take 5 s; when to try again stays the reporters' decision.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new) has.
    pub fn with_connector<C, F, IO>(endpoint: &str, mut connect: C) -> Result<Self, BuildError>
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connector = tower::service_fn(move |_: Uri| {
            let connecting = connect();
            async move { connecting.await.map(TokioIo::new) }
        });
        let channel = Self::builder(endpoint).endpoint()?.connect_with_connector_lazy(connector);
        Ok(Self {
            endpoint: endpoint.to_owned(),
            channel,
            token: None,
            sampler: Sampler::default(),
        })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// A call that says who one is.
    pub(crate) fn call<T>(&self, messages: T) -> Request<T> {
        let mut call = Request::new(messages);
        if let Some(token) = &self.token {
            call.metadata_mut().insert("authorization", token.header());
        }
        call
    }
}

/// Describes a [`Connection`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConnectionBuilder {
    endpoint: String,
    token: Option<TokenSource>,
    ca: Option<Vec<u8>>,
    identity: Option<[Vec<u8>; 2]>,
}

/// Where the token comes from.
#[derive(Clone)]
enum TokenSource {
    Given(String),
    File(PathBuf),
}

impl ConnectionBuilder {
    /// The manager's ingest token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(TokenSource::Given(token.into()));
        self
    }

    /// A file with the manager's ingest token on its first line. It is read again for every stream, so the token may change
    /// while the bot runs.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(TokenSource::File(path.into()));
        self
    }

    /// Who signed the manager's certificate (PEM). Nobody else is trusted then; without it, those that browsers trust are.
    /// For `https://`.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// The bot's own certificate and its private key (PEM), for a manager that asks for one. For `https://`.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some([certificate.into(), key.into()]);
        self
    }

    /// Prepares the connection. Does not connect.
    ///
    /// # Errors
    ///
    /// As [`Connection::new`] has; [`BuildError::Token`] and [`BuildError::Certificate`] for what cannot be used.
    pub fn build(self) -> Result<Connection, BuildError> {
        let channel = self.endpoint()?.connect_lazy();
        let token = match self.token {
            None => None,
            Some(TokenSource::Given(token)) => Some(Token::fixed(&token)?),
            Some(TokenSource::File(path)) => Some(Token::file(path)?),
        };
        Ok(Connection { endpoint: self.endpoint, channel, token, sampler: Sampler::default() })
    }

    fn endpoint(&self) -> Result<Endpoint, BuildError> {
        let endpoint = parse(&self.endpoint)?;
        if endpoint.uri().scheme_str() != Some("https") {
            if self.ca.is_some() || self.identity.is_some() {
                let reason = "it begins with http://, and certificates are for https://".to_owned();
                return Err(BuildError::Endpoint { endpoint: self.endpoint.clone(), reason });
            }
            return Ok(endpoint);
        }
        let refused = |reason: &str| BuildError::Certificate(reason.to_owned());
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(pem) if has::<CertificateDer<'_>>(pem) => {
                tls.ca_certificate(Certificate::from_pem(pem))
            }
            Some(_) => return Err(refused("the CA's PEM has no certificate")),
            None => tls.with_webpki_roots(),
        };
        if let Some([certificate, key]) = &self.identity {
            if !has::<CertificateDer<'_>>(certificate) {
                return Err(refused("the identity's PEM has no certificate"));
            }
            if !has::<PrivateKeyDer<'_>>(key) {
                return Err(refused("the identity's key has no private key in PEM"));
            }
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint.tls_config(tls).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            BuildError::Certificate(cause.unwrap_or_else(|| error.to_string()))
        })
    }
}

/// Whether a PEM text has at least one of what is looked for, and nothing broken. tonic passes over what it cannot read.
fn has<T: PemObject>(pem: &[u8]) -> bool {
    let found: Result<Vec<T>, _> = T::pem_slice_iter(pem).collect();
    found.is_ok_and(|found| !found.is_empty())
}

impl fmt::Debug for ConnectionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionBuilder")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn parse(endpoint: &str) -> Result<Endpoint, BuildError> {
    let refused = |reason: String| BuildError::Endpoint { endpoint: endpoint.to_owned(), reason };
    if Handle::try_current().is_err() {
        return Err(BuildError::NoRuntime);
    }
    let parsed =
        Endpoint::from_shared(endpoint.to_owned()).map_err(|error| refused(error.to_string()))?;
    if !matches!(parsed.uri().scheme_str(), Some("http" | "https")) {
        return Err(refused("it must begin with http:// or https://".to_owned()));
    }
    let with_timeouts = parsed
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(with_timeouts)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
