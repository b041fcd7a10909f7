//! A manager that says what the test wants.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use shardmeter_proto::v1::{
    self, GetShardRequest, GetShardResponse, ListShardsRequest, ListShardsResponse,
    WatchShardsRequest, WatchShardsResponse,
    fleet_service_server::{FleetService, FleetServiceServer},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::sleep};
use tokio_stream::{Pending, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport};

pub(crate) struct Manager {
    pub(crate) addr: SocketAddr,
    /// How often it was asked.
    pub(crate) asked: Arc<AtomicU32>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), transport::Error>>,
}

impl Manager {
    /// With `shard_count` shards: the first is up, the second stale, no other was seen.
    pub(crate) async fn start(shard_count: u32) -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into(), shard_count).await
    }

    pub(crate) async fn start_on(addr: SocketAddr, shard_count: u32) -> Self {
        let socket = TcpListener::bind(addr).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let asked = Arc::default();
        let says = Says { asked: Arc::clone(&asked), shard_count };
        let (stop, stopped) = oneshot::channel();
        let server = transport::Server::builder()
            .add_service(FleetServiceServer::new(says))
            .serve_with_incoming_shutdown(TcpListenerStream::new(socket), async {
                let _ = stopped.await;
            });
        Self { addr, asked, stop, running: tokio::spawn(server) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.running.await.unwrap().unwrap();
    }
}

struct Says {
    asked: Arc<AtomicU32>,
    shard_count: u32,
}

fn timestamp(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
}

fn shard(shard_id: u32) -> v1::Shard {
    let state = match shard_id {
        0 => v1::ShardState::Up,
        1 => v1::ShardState::Stale,
        _ => v1::ShardState::NeverSeen,
    };
    let instance = v1::Instance {
        instance: "00ff".into(),
        transport: v1::Transport::Grpc.into(),
        client: "test 1".into(),
        started_at: timestamp(0),
        last_report: timestamp(60),
        last_sequence: 7,
        connected: true,
        owns_gauges: true,
    };
    v1::Shard {
        shard_id,
        state: state.into(),
        last_report: timestamp(60).filter(|_| shard_id < 2),
        series: 3,
        instances: if shard_id < 2 { vec![instance] } else { vec![] },
        ..v1::Shard::default()
    }
}

#[tonic::async_trait]
impl FleetService for Says {
    type WatchShardsStream = Pending<Result<WatchShardsResponse, Status>>;

    async fn list_shards(
        &self,
        _: Request<ListShardsRequest>,
    ) -> Result<Response<ListShardsResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // So that others come meanwhile.
        sleep(Duration::from_millis(100)).await;
        let shards = (0..self.shard_count).map(shard).collect();
        let list =
            ListShardsResponse { shards, shard_count: self.shard_count, time: timestamp(61) };
        Ok(Response::new(list))
    }

    async fn get_shard(
        &self,
        _: Request<GetShardRequest>,
    ) -> Result<Response<GetShardResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn watch_shards(
        &self,
        _: Request<WatchShardsRequest>,
    ) -> Result<Response<Self::WatchShardsStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }
}
