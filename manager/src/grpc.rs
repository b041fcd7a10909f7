//! The gRPC port: telemetry, health, reflection.

use std::{io, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use shardmeter_proto::{FILE_DESCRIPTOR_SET, v1::telemetry_service_server::TelemetryServiceServer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tonic::transport::{Server, server::Connected};

use crate::session::{MAX_MESSAGE_BYTES, Sessions, Telemetry};

/// Ping a silent peer after this long, and give it up after [`KEEPALIVE_TIMEOUT`] more: a half-open connection is noticed
/// within 20 s (design section 3).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Streams one connection may have open: as many shards as `shardmeter-shard` runs in a process.
const MAX_STREAMS_PER_CONNECTION: u32 = 4_096;

/// Pause after a connection could not be accepted: without descriptors the next attempt fails at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves a port until the sessions' shutdown token is cancelled and their streams have ended.
pub(crate) async fn serve(listener: TcpListener, sessions: Arc<Sessions>) -> io::Result<()> {
    serve_on(connections(listener), sessions).await
}

/// Serves connections, whatever carries them, like [`serve`].
pub(crate) async fn serve_on<IO>(
    incoming: impl Stream<Item = io::Result<IO>>,
    sessions: Arc<Sessions>,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let shutdown = sessions.shutdown.clone();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<TelemetryServiceServer<Telemetry>>().await;
    let telemetry = TelemetryServiceServer::new(Telemetry(sessions))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(MAX_STREAMS_PER_CONNECTION))
        .add_service(health)
        .add_service(describe().build_v1().map_err(io::Error::other)?)
        .add_service(describe().build_v1alpha().map_err(io::Error::other)?)
        .add_service(telemetry)
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

/// The connections that peers make.
fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    // Frames are small and answered one by one; without it each would wait for the one before. A socket
                    // that refuses works all the same.
                    let _ = connection.set_nodelay(true);
                    return Some((Ok(connection), listener));
                }
                Err(error) => {
                    tracing::warn!(%error, "a gRPC connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}
