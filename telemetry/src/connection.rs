//! The channel to the manager.

use crate::BuildError;
use std::fmt;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

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
        let refused =
            |reason: String| BuildError::Endpoint { endpoint: endpoint.to_owned(), reason };
        if Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime);
        }
        let parsed = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|error| refused(error.to_string()))?;
        if parsed.uri().scheme_str() != Some("http") {
            return Err(refused("it must begin with http://".to_owned()));
        }
        Ok(Self { endpoint: endpoint.to_owned(), channel: with_timeouts(parsed).connect_lazy() })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

fn with_timeouts(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
