//! A manager that says what the test wants.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use shardmeter_process::testing::eventually;
use shardmeter_proto::v1::{
    self, ExplainSeriesRequest, ExplainSeriesResponse, GetShardRequest, GetShardResponse,
    ListShardsRequest, ListShardsResponse, WatchShardsRequest, WatchShardsResponse,
    fleet_service_server::{FleetService, FleetServiceServer},
    watch_shards_response::Message,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport};

pub(crate) struct Manager {
    pub(crate) addr: SocketAddr,
    /// How often it was asked.
    pub(crate) asked: Arc<AtomicU32>,
    /// What happened to its shards.
    pub(crate) log: Log,
    stop: CancellationToken,
    running: JoinHandle<Result<(), transport::Error>>,
}

impl Manager {
    /// With `shard_count` shards: the first is up, the second stale, no other was seen.
    pub(crate) async fn start(shard_count: u32) -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into(), shard_count).await
    }

    pub(crate) async fn start_on(addr: SocketAddr, shard_count: u32) -> Self {
        Self::start_after(addr, shard_count, Log::new("first")).await
    }

    /// One that knows of what happened before.
    pub(crate) async fn start_after(addr: SocketAddr, shard_count: u32, log: Log) -> Self {
        Self::serve(transport::Server::builder(), addr, shard_count, log).await
    }

    /// One that takes TLS alone, from clients with certificates.
    pub(crate) async fn start_secured(tls: transport::ServerTlsConfig) -> Self {
        let server = transport::Server::builder().tls_config(tls).unwrap();
        Self::serve(server, ([127, 0, 0, 1], 0).into(), 1, Log::new("first")).await
    }

    async fn serve(
        mut server: transport::Server,
        addr: SocketAddr,
        shard_count: u32,
        log: Log,
    ) -> Self {
        let socket = TcpListener::bind(addr).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let asked = Arc::default();
        let stop = CancellationToken::new();
        let says = Says {
            asked: Arc::clone(&asked),
            shard_count,
            log: log.clone(),
            stopped: stop.clone(),
        };
        let stopped = stop.clone().cancelled_owned();
        let server = server
            .add_service(FleetServiceServer::new(says))
            .serve_with_incoming_shutdown(TcpListenerStream::new(socket), stopped);
        Self { addr, asked, log, stop, running: tokio::spawn(server) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until it was asked so many times to say what happens.
    pub(crate) async fn until_followed(&self, times: usize) {
        eventually("it is followed", || self.log.kept().asked.len() >= times).await;
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// The events of a manager, as it keeps them over its restarts.
#[derive(Clone)]
pub(crate) struct Log(Arc<watch::Sender<Kept>>);

pub(crate) struct Kept {
    epoch: String,
    /// Revisions up to this one are forgotten.
    forgotten: u64,
    events: Vec<v1::ShardEvent>,
    /// From where it was asked to go on, and with what authorization.
    pub(crate) asked: Vec<(String, u64, Option<String>)>,
    /// The last that it told anybody.
    pub(crate) told: u64,
    /// Whether it ends each answer where it began.
    pub(crate) ends_at_once: bool,
    /// Whether it answers nobody who asks for its shards.
    pub(crate) hangs: bool,
}

impl Log {
    pub(crate) fn new(epoch: &str) -> Self {
        let (epoch, events) = (epoch.to_owned(), Vec::new());
        Self(Arc::new(watch::Sender::new(Kept {
            epoch,
            forgotten: 0,
            events,
            asked: vec![],
            told: 0,
            ends_at_once: false,
            hangs: false,
        })))
    }

    pub(crate) fn kept(&self) -> watch::Ref<'_, Kept> {
        self.0.borrow()
    }

    /// So many more happen: shard 0 is disconnected again and again.
    pub(crate) fn happens(&self, events: u64) {
        self.happens_to("00ff", events);
    }

    /// The same of an instance.
    pub(crate) fn happens_to(&self, instance: &str, events: u64) {
        self.0.send_modify(|kept| {
            for _ in 0..events {
                let revision = kept.events.len() as u64 + 1;
                kept.events.push(v1::ShardEvent {
                    revision,
                    time: timestamp(revision as i64),
                    shard_id: 0,
                    kind: v1::ShardEventKind::Disconnected.into(),
                    instance: instance.to_owned(),
                    transport: v1::Transport::Grpc.into(),
                    reason: v1::ShardEventReason::StreamBroke.into(),
                    count: 1,
                    state: v1::ShardState::Up.into(),
                });
            }
        });
    }

    /// It behaves otherwise from now on.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Kept)) {
        self.0.send_modify(change);
    }

    /// Only what happens from now on is kept.
    pub(crate) fn forget(&self) {
        self.0.send_modify(|kept| kept.forgotten = kept.events.len() as u64);
    }

    /// What comes after a revision.
    fn after(&self, epoch: &str, revision: u64) -> Vec<Message> {
        let kept = self.kept();
        let last = kept.events.len() as u64;
        if *epoch == *kept.epoch && (kept.forgotten..=last).contains(&revision) {
            return kept.events[revision as usize..].iter().cloned().map(Message::Event).collect();
        }
        let (epoch, gap, kept_after) = (kept.epoch.clone(), !epoch.is_empty(), kept.forgotten);
        vec![Message::State(v1::FleetState {
            epoch,
            revision: last,
            gap,
            kept_after,
            ..v1::FleetState::default()
        })]
    }
}

struct Says {
    asked: Arc<AtomicU32>,
    shard_count: u32,
    log: Log,
    stopped: CancellationToken,
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
    type WatchShardsStream = ReceiverStream<Result<WatchShardsResponse, Status>>;

    async fn list_shards(
        &self,
        _: Request<ListShardsRequest>,
    ) -> Result<Response<ListShardsResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.log.0.subscribe();
        kept.wait_for(|kept| !kept.hangs).await.unwrap();
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

    async fn explain_series(
        &self,
        _: Request<ExplainSeriesRequest>,
    ) -> Result<Response<ExplainSeriesResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn watch_shards(
        &self,
        request: Request<WatchShardsRequest>,
    ) -> Result<Response<Self::WatchShardsStream>, Status> {
        let header = request.metadata().get("authorization");
        let authorization = header.map(|value| value.to_str().unwrap().to_owned());
        let WatchShardsRequest { mut epoch, mut revision } = request.into_inner();
        let (log, stopped) = (self.log.clone(), self.stopped.clone());
        log.0.send_modify(|kept| kept.asked.push((epoch.clone(), revision, authorization)));
        let (says, said) = mpsc::channel(1);
        if log.kept().ends_at_once {
            return Ok(Response::new(ReceiverStream::new(said)));
        }
        let mut changes = log.0.subscribe();
        tokio::spawn(async move {
            loop {
                changes.mark_unchanged();
                for message in log.after(&epoch, revision) {
                    match &message {
                        Message::State(state) => {
                            (epoch, revision) = (state.epoch.clone(), state.revision);
                        }
                        Message::Event(event) => revision = event.revision,
                    }
                    if says.send(Ok(WatchShardsResponse { message: Some(message) })).await.is_err()
                    {
                        return;
                    }
                    log.0.send_if_modified(|kept| {
                        kept.told = revision;
                        false
                    });
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    () = says.closed() => return,
                    () = stopped.cancelled() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(said)))
    }
}
