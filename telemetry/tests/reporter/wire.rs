//! A network in memory, so that time can be paused, and a manager at its end that answers by itself. The network can
//! refuse, cut, or swallow what it is given.

use shardmeter_proto::v1::report_request::Message as Request;
use shardmeter_proto::v1::report_response::Message as Response;
use shardmeter_proto::v1::telemetry_service_server::{TelemetryService, TelemetryServiceServer};
use shardmeter_proto::v1::{Ack, ReportRequest, ReportResponse, Welcome};
use shardmeter_telemetry::Connection;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{DuplexStream, copy, copy_bidirectional, duplex, sink};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request as Incoming, Response as Outgoing, Status, Streaming, transport::Server};

/// Bytes on their way in one direction.
const IN_FLIGHT: usize = 16 << 10;

pub(crate) struct Wire {
    shared: Arc<Shared>,
    _manager: AbortOnDropHandle<()>,
}

struct Shared {
    arrivals: mpsc::Sender<io::Result<DuplexStream>>,
    line: Mutex<Line>,
    attempts: Mutex<Vec<Instant>>,
}

/// What becomes of connections and of attempts at one.
#[derive(Clone)]
enum Line {
    /// Carried, until the token is cancelled.
    Whole { cut: CancellationToken, swallow: CancellationToken },
    /// Attempts are refused.
    Refusing,
    /// Attempts get no answer.
    Silent,
}

impl Line {
    fn whole() -> Self {
        Self::Whole { cut: CancellationToken::new(), swallow: CancellationToken::new() }
    }
}

impl Wire {
    /// A manager that is reached at once and asks for reports at this interval.
    pub(crate) fn new(report_interval: Duration) -> Self {
        let (arrivals, incoming) = mpsc::channel(16);
        let welcome = Welcome {
            report_interval: Some(report_interval.try_into().unwrap()),
            ..Welcome::default()
        };
        let serving = Server::builder()
            .add_service(TelemetryServiceServer::new(Service(welcome)))
            .serve_with_incoming(ReceiverStream::new(incoming));
        let manager = tokio::spawn(async move { serving.await.unwrap() });
        let line = Mutex::new(Line::whole());
        let shared = Arc::new(Shared { arrivals, line, attempts: Mutex::default() });
        Self { shared, _manager: AbortOnDropHandle::new(manager) }
    }

    /// A connection of its own, like that of one more process.
    pub(crate) fn connection(&self) -> Connection {
        let shared = Arc::clone(&self.shared);
        let connect = move || Arc::clone(&shared).connect();
        Connection::with_connector("http://manager", connect).unwrap()
    }

    /// Cuts all connections and refuses others.
    pub(crate) fn refuse(&self) {
        self.become_line(Line::Refusing);
    }

    /// From here on what connections are given disappears; new ones are never made.
    pub(crate) fn swallow(&self) {
        if let Line::Whole { swallow, .. } = &*self.shared.line.lock().unwrap() {
            swallow.cancel();
        }
        // Not cut: nobody is told.
        *self.shared.line.lock().unwrap() = Line::Silent;
    }

    pub(crate) fn restore(&self) {
        self.become_line(Line::whole());
    }

    fn become_line(&self, line: Line) {
        let before = std::mem::replace(&mut *self.shared.line.lock().unwrap(), line);
        if let Line::Whole { cut, .. } = before {
            cut.cancel();
        }
    }

    /// When connections were tried since this was last asked.
    pub(crate) fn attempts(&self) -> Vec<Instant> {
        std::mem::take(&mut *self.shared.attempts.lock().unwrap())
    }
}

impl Shared {
    async fn connect(self: Arc<Self>) -> io::Result<DuplexStream> {
        self.attempts.lock().unwrap().push(Instant::now());
        let line = self.line.lock().unwrap().clone();
        match line {
            Line::Refusing => Err(io::ErrorKind::ConnectionRefused.into()),
            Line::Silent => std::future::pending().await,
            Line::Whole { cut, swallow } => {
                let (bot, bot_side) = duplex(IN_FLIGHT);
                let (manager_side, manager) = duplex(IN_FLIGHT);
                self.arrivals.send(Ok(manager)).await.unwrap();
                tokio::spawn(carry(bot_side, manager_side, cut, swallow));
                Ok(bot)
            }
        }
    }
}

async fn carry(
    mut bot: DuplexStream,
    mut manager: DuplexStream,
    cut: CancellationToken,
    swallow: CancellationToken,
) {
    tokio::select! {
        _ = copy_bidirectional(&mut bot, &mut manager) => {}
        () = cut.cancelled() => {}
        () = swallow.cancelled() => { let _ = copy(&mut bot, &mut sink()).await; }
    }
}

/// Welcomes every instance and acknowledges every frame.
struct Service(Welcome);

#[tonic::async_trait]
impl TelemetryService for Service {
    type ReportStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

    async fn report(
        &self,
        request: Incoming<Streaming<ReportRequest>>,
    ) -> Result<Outgoing<Self::ReportStream>, Status> {
        let welcome = self.0;
        let ack = |sequence| Response::Ack(Ack { sequence, durable: true, rejected: Vec::new() });
        let is_goodbye =
            |request: &ReportRequest| matches!(request.message, Some(Request::Goodbye(_)));
        let said = request.into_inner().map_while(Result::ok);
        let answers = said.take_while(move |said| !is_goodbye(said)).filter_map(move |request| {
            let answer = match request.message? {
                Request::Hello(_) => Response::Welcome(welcome),
                Request::Snapshot(part) if part.last => ack(part.sequence),
                Request::Delta(delta) => ack(delta.sequence),
                Request::Snapshot(_) | Request::Definitions(_) | Request::Goodbye(_) => {
                    return None;
                }
            };
            Some(Ok(ReportResponse { message: Some(answer) }))
        });
        Ok(Outgoing::new(Box::pin(answers)))
    }
}
