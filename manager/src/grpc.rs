//! The gRPC port: telemetry, fleet, admin, health, reflection.

mod fleet;
mod telemetry;

use std::{io, sync::Arc, time::Duration};

use axum::middleware::from_fn;
use futures_util::Stream;
use shardmeter_access::{Access, Denied, Peer, Role};
use shardmeter_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        ForgetShardRequest, ForgetShardResponse,
        admin_service_server::{AdminService, AdminServiceServer},
        fleet_service_server::FleetServiceServer,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    Request, Response, Status,
    service::{Routes, interceptor::InterceptedService},
    transport::{Server, server::Connected},
};

use crate::{admin, registry::Forgotten, session::Sessions, trace};
use fleet::Fleet;
use telemetry::Telemetry;

/// Ping a silent peer after this long, and give it up after [`KEEPALIVE_TIMEOUT`] more: a half-open connection is noticed
/// within 20 s (design section 3).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Streams one connection may have open: as many shards as `shardmeter-shard` runs in a process.
const MAX_STREAMS_PER_CONNECTION: u32 = 4_096;

/// Longest headers of a call, bytes as HTTP/2 counts them: a token, and what a tracer adds.
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;

/// Streams that a peer may reset before they were looked at; more is an attack (CVE-2023-44487).
const MAX_RESET_STREAMS: usize = 50;

/// Serves connections, whatever carries them, until the sessions' shutdown token is cancelled and their streams have ended.
pub(crate) async fn serve<IO>(
    incoming: impl Stream<Item = io::Result<IO>>,
    sessions: Arc<Sessions>,
    access: &Arc<Access>,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let shutdown = sessions.shutdown.clone();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<Telemetry>().await;
    let admin = AdminServiceServer::new(Admin(Arc::clone(&sessions)));
    let fleet = FleetServiceServer::new(Fleet::new(Arc::clone(&sessions)));
    let telemetry = Telemetry(sessions);
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let only = |role| {
        let access = Arc::clone(access);
        move |call: Request<()>| {
            let peer = call.extensions().get::<Peer>();
            access.check(role, call.metadata().as_ref(), peer).map_err(denied)?;
            Ok(call)
        }
    };
    let reflection = describe().build_v1().map_err(io::Error::other)?;
    let old_reflection = describe().build_v1alpha().map_err(io::Error::other)?;
    let calls = Routes::new(health)
        .add_service(InterceptedService::new(reflection, only(Role::View)))
        .add_service(InterceptedService::new(old_reflection, only(Role::View)))
        .add_service(InterceptedService::new(fleet, only(Role::View)))
        .add_service(InterceptedService::new(telemetry, only(Role::Ingest)))
        .add_service(InterceptedService::new(admin, only(Role::Admin)))
        .into_axum_router()
        .layer(from_fn(trace::request));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
        .max_concurrent_streams(Some(MAX_STREAMS_PER_CONNECTION))
        .add_routes(calls.into())
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

fn denied(denied: Denied) -> Status {
    let message = denied.to_string();
    if denied.wants_token() {
        Status::unauthenticated(message)
    } else {
        Status::permission_denied(message)
    }
}

/// The admin service.
struct Admin(Arc<Sessions>);

#[tonic::async_trait]
impl AdminService for Admin {
    async fn forget_shard(
        &self,
        request: Request<ForgetShardRequest>,
    ) -> Result<Response<ForgetShardResponse>, Status> {
        let Sessions { registry, clock, .. } = &*self.0;
        let peer = request.extensions().get::<Peer>();
        let shard_id = request.get_ref().shard_id;
        admin::forget_shard(registry, shard_id, clock.now(), peer)
            .map(|Forgotten { series, alive }| {
                Response::new(ForgetShardResponse { series: series as u64, alive })
            })
            .ok_or_else(|| Status::not_found(format!("no shard {shard_id} has reported")))
    }
}
