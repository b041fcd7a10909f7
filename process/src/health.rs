//! `healthcheck`, the subcommand of every binary that listens: asks the one that runs beside it whether it is well. Containers
//! need no other program for that.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;

/// Whoever is well answers in a millisecond.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Where a binary says whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthAddr {
    /// The address of its HTTP port, as configured.
    pub addr: SocketAddr,
    /// Certificates are for other names than this one, and may be asked of the caller too: under TLS, that it accepts a
    /// connection must do.
    pub tls: bool,
}

/// Asks `GET /healthz` there.
///
/// # Errors
/// If the answer is no 200, or none comes.
pub(crate) async fn check(HealthAddr { addr, tls }: HealthAddr) -> anyhow::Result<()> {
    let addr = reachable(addr);
    let asked = async {
        let stream = TcpStream::connect(addr).await?;
        if tls {
            return Ok(StatusCode::OK);
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get("/healthz").header("host", addr.to_string());
        let request = request.body(String::new())?;
        // What ends the connection ends the request too.
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(sender.send_request(request).await?.status())
    };
    let answered = timeout(ANSWERS_WITHIN, asked).await;
    let status = answered.map_err(anyhow::Error::from).flatten();
    let status = status.with_context(|| format!("nobody is well at {addr}"))?;
    ensure!(status == StatusCode::OK, "{addr} answers {status}");
    Ok(())
}

/// Where this machine reaches what listens at `addr`: who listens everywhere listens on it too.
#[must_use]
pub fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Somebody who answers everything with this.
    async fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        addr
    }

    async fn says(addr: SocketAddr, tls: bool) -> Result<(), String> {
        check(HealthAddr { addr, tls }).await.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn well_is_who_says_so() {
        let addr = answering("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n").await;
        assert_eq!(says(addr, false).await, Ok(()));
        let addr = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let refused = says(addr, false).await.unwrap_err();
        assert_eq!(refused, format!("{addr} answers 503 Service Unavailable"));
        let addr = answering("garbage\r\n").await;
        let refused = says(addr, false).await.unwrap_err();
        assert!(refused.starts_with(&format!("nobody is well at {addr}")), "{refused}");
        let addr = answering("").await;
        assert_eq!(says(addr, true).await, Ok(()), "under TLS");
    }

    #[tokio::test]
    async fn nobody_there_is_not_well() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], gone.port()));
        let refused = says(everywhere, false).await.unwrap_err();
        assert!(refused.starts_with(&format!("nobody is well at {gone}")), "{refused}");
        assert!(says(gone, true).await.is_err());
    }
}
