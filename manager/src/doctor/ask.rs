//! Questions by HTTP and gRPC, each on a connection of its own.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use shardmeter_access::Protocol;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::dial::{ANSWERS_WITHIN, Target, Trouble, dial};

/// Longest answer, bytes, but for a page: all are a line of JSON.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Longest page, bytes: of a million series it has a hundred million.
pub(super) const MAX_PAGE_BYTES: usize = 1 << 30;

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// How long it took, with the connection.
    pub(super) took: Duration,
}

impl Answer {
    /// `error` of a JSON that says no, else its status.
    pub(super) fn reason(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
        }
        let refusal = serde_json::from_slice(&self.body);
        refusal.map_or_else(|_| self.status.to_string(), |Refusal { error }| error)
    }

    /// A field of its JSON that is a string.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        body.get(name)?.as_str().map(str::to_owned)
    }
}

/// Whether it is ready, and what it says of its parts.
pub(super) async fn readiness(target: &Target, config: &ClientConfig) -> Result<Answer, Trouble> {
    let mut request = Request::new(String::new());
    *request.uri_mut() = Uri::from_static("/readyz");
    http(target, config, request, ANSWERS_WITHIN).await
}

/// Asks by HTTP/1.1.
pub(super) async fn http(
    target: &Target,
    config: &ClientConfig,
    request: Request<String>,
    within: Duration,
) -> Result<Answer, Trouble> {
    http_long(target, config, request, within, MAX_ANSWER_BYTES).await
}

/// The same, for an answer that may have so many bytes.
pub(super) async fn http_long(
    target: &Target,
    config: &ClientConfig,
    mut request: Request<String>,
    within: Duration,
    longest: usize,
) -> Result<Answer, Trouble> {
    let began = Instant::now();
    let stream = dial(target, Protocol::Http, config).await?;
    let asked = async {
        let garbled = |error: hyper::Error| Trouble::of(&error);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
        // What ends the connection ends the request too.
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let host = target.authority().parse();
        let host = host.map_err(|_| Trouble::Garbled("the host is no header".into()))?;
        request.headers_mut().insert(header::HOST, host);
        let (head, body) = sender.send_request(request).await.map_err(garbled)?.into_parts();
        let body =
            Limited::new(body, longest).collect().await.map_err(|error| match error
                .downcast::<LengthLimitError>()
            {
                Ok(_) => Trouble::Long(longest),
                Err(error) => Trouble::of(&*error),
            })?;
        let (status, headers, body) = (head.status, head.headers, body.to_bytes());
        Ok(Answer { status, headers, body, took: began.elapsed() })
    };
    timeout(within, asked).await.unwrap_or(Err(Trouble::Silent(within)))
}

/// A channel on a connection that is made here and now.
pub(super) async fn grpc(target: &Target, config: &ClientConfig) -> Result<Channel, Trouble> {
    let stream = Mutex::new(Some(TokioIo::new(dial(target, Protocol::Grpc, config).await?)));
    let garbled = |error: tonic::transport::Error| Trouble::of(&error);
    // TLS is the stream's; the endpoint must not know.
    let plain = Endpoint::from_shared(target.with_tls(false).to_string()).map_err(garbled)?;
    let origin = target.to_string().parse();
    let origin = origin.map_err(|_| Trouble::Garbled("the host is no URI".into()))?;
    let once = service_fn(move |_| {
        let stream = stream.lock().take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection ended")) }
    });
    plain.origin(origin).connect_with_connector(once).await.map_err(garbled)
}
