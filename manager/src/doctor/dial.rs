//! Connections to ports, and all that can keep one from being made: each kind has a cure of its own.

use std::{error::Error, fmt, io, net::IpAddr, sync::Arc, time::Duration};

use http::Uri;
use shardmeter_access::Protocol;
use shardmeter_process::reachable;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, AlertDescription, ClientConfig, pki_types::ServerName},
};

use super::{DoctorError, tls};

/// Whoever is well answers in a millisecond.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// A port as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The flag that names it.
    pub(super) flag: &'static str,
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl Target {
    pub(super) fn parse(flag: &'static str, url: &str) -> Result<Self, DoctorError> {
        let refused = || DoctorError::Url { flag, url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused()),
        };
        let authority = uri.authority().filter(|_| uri.path() == "/" && uri.query().is_none());
        let authority = authority.filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(refused)?;
        let host = authority.host();
        // One that is too great is none, to the crate.
        let port = match uri.port_u16() {
            None if authority.as_str() == host => {
                if tls {
                    443
                } else {
                    80
                }
            }
            port => port.ok_or_else(refused)?,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { flag, host, port, tls })
    }

    /// The same port under TLS, or without.
    pub(super) fn with_tls(&self, tls: bool) -> Self {
        Self { tls, ..self.clone() }
    }

    /// `HOST:PORT`.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The addresses of its name, as they are reached from here.
    pub(super) async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let found = lookup_host((self.host.as_str(), self.port)).await?;
        Ok(found.map(|addr| reachable(addr).ip().to_canonical()).collect())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("the name has no address ({0})")]
    Name(io::Error),
    #[error("the connection is refused")]
    Refused,
    #[error("nobody takes the connection within {ANSWERS_WITHIN:?}")]
    Unreachable,
    #[error("the connection fails ({0})")]
    Connect(io::Error),
    #[error("the connection is taken, and no answer comes within {0:?}")]
    Silent(Duration),
    #[error("TLS fails ({0})")]
    Tls(rustls::Error),
    #[error("what comes is no answer ({0})")]
    Garbled(String),
    #[error("the answer is over {0} bytes")]
    Long(usize),
}

impl Trouble {
    /// What an error of a protocol comes from.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut last = error.to_string();
        let mut next = Some(error);
        while let Some(error) = next {
            // What is in an io::Error is not its source.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(tls) = inner.or_else(|| error.downcast_ref()) {
                return Self::Tls(tls.clone());
            }
            last = error.to_string();
            next = error.source();
        }
        Self::Garbled(last)
    }

    /// Whether the peer wants a certificate that it did not get.
    pub(super) fn wants_certificate(&self) -> bool {
        let Self::Tls(rustls::Error::AlertReceived(alert)) = self else { return false };
        // TLS 1.2 knows no other word for it.
        matches!(alert, AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure)
    }

    /// What to do about it.
    pub(super) fn remedy(&self, target: &Target) -> String {
        let Target { flag, port, .. } = target;
        match self {
            Self::Name(_) => format!("correct --{flag}, or the name in DNS"),
            Self::Refused if *flag == "api" => format!("start the api; is port {port} published?"),
            Self::Refused => format!(
                "start the manager; if it runs: does it listen on an address that is reached from here \
                 (--{flag}-addr; in a container not on 127.0.0.1), and is port {port} published?"
            ),
            Self::Unreachable | Self::Connect(_) => {
                format!("look for a firewall or a wrong address between here and port {port}")
            }
            Self::Silent(_) => format!(
                "see what listens on port {port}: if it is the right one, then it hangs or has no processor time; its \
                 log and load say more"
            ),
            Self::Tls(_) if self.wants_certificate() => {
                "it asks for a client's certificate: give --client-cert and --client-key, signed by its --tls-client-ca"
                    .to_owned()
            }
            Self::Tls(rustls::Error::InvalidCertificate(reason)) => tls::cure(reason).to_owned(),
            Self::Tls(_) | Self::Garbled(_) | Self::Long(_) => {
                format!("see what listens on port {port}: it is not what --{flag} is for")
            }
        }
    }
}

/// What bytes go over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Connects, agrees on TLS by `config` if the target has it.
pub(super) async fn dial(
    target: &Target,
    protocol: Protocol,
    config: &ClientConfig,
) -> Result<Box<dyn Wire>, Trouble> {
    let stream = connect(target).await?;
    if !target.tls {
        return Ok(Box::new(stream));
    }
    let mut config = config.clone();
    config.alpn_protocols = vec![match protocol {
        Protocol::Http => b"http/1.1".to_vec(),
        Protocol::Grpc => b"h2".to_vec(),
    }];
    let name = ServerName::try_from(target.host.clone());
    let name = name.map_err(|error| Trouble::Garbled(error.to_string()))?;
    let agreed =
        timeout(ANSWERS_WITHIN, TlsConnector::from(Arc::new(config)).connect(name, stream));
    let agreed = agreed.await.map_err(|_| Trouble::Silent(ANSWERS_WITHIN))?;
    Ok(Box::new(agreed.map_err(|error| Trouble::of(&error))?))
}

/// Why a peer under TLS ends the connection, if it does so at once: h2 keeps no more than the words of that.
pub(super) async fn ends_at_once(target: &Target, config: &ClientConfig) -> Option<Trouble> {
    let mut stream = dial(target, Protocol::Grpc, config).await.ok()?;
    let read = timeout(ANSWERS_WITHIN, stream.read_u8()).await.ok()?;
    read.err().map(|error| Trouble::of(&error))
}

async fn connect(target: &Target) -> Result<TcpStream, Trouble> {
    let connected = async {
        let found = lookup_host((target.host.as_str(), target.port)).await;
        let mut last = io::Error::other("it has none");
        for addr in found.map_err(Trouble::Name)? {
            match TcpStream::connect(addr).await {
                Ok(stream) => {
                    // What is small should not wait for an answer to what was sent before.
                    stream.set_nodelay(true).map_err(Trouble::Connect)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(match last.kind() {
            io::ErrorKind::ConnectionRefused => Trouble::Refused,
            io::ErrorKind::TimedOut => Trouble::Unreachable,
            io::ErrorKind::Other => Trouble::Name(last),
            _ => Trouble::Connect(last),
        })
    };
    timeout(ANSWERS_WITHIN, connected).await.unwrap_or(Err(Trouble::Unreachable))
}
