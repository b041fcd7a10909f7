//! The channel to the manager.

use crate::BuildError;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint, Uri};

/// For TCP and HTTP/2 to be set up.
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
}

impl Connection {
    /// Prepares the connection to a manager's gRPC address, for example `http://127.0.0.1:30001`. Does not connect.
    ///
    /// # Errors
    ///
    /// [`BuildError::Endpoint`] when the address is not `http://HOST[:PORT]`, [`BuildError::NoRuntime`] outside a tokio
    /// runtime.
    pub fn new(endpoint: &str) -> Result<Self, BuildError> {
        let channel = parse(endpoint)?.connect_lazy();
        Ok(Self { endpoint: endpoint.to_owned(), channel })
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
        let channel = parse(endpoint)?.connect_with_connector_lazy(connector);
        Ok(Self { endpoint: endpoint.to_owned(), channel })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

fn parse(endpoint: &str) -> Result<Endpoint, BuildError> {
    let refused = |reason: String| BuildError::Endpoint { endpoint: endpoint.to_owned(), reason };
    if Handle::try_current().is_err() {
        return Err(BuildError::NoRuntime);
    }
    let parsed =
        Endpoint::from_shared(endpoint.to_owned()).map_err(|error| refused(error.to_string()))?;
    if parsed.uri().scheme_str() != Some("http") {
        return Err(refused("it must begin with http://".to_owned()));
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
