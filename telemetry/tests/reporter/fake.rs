//! A manager whose every answer the test gives: it hands each Report stream over as a [`Call`].

use shardmeter_process::testing::{soon, until};
use shardmeter_proto::v1::report_request::Message as Request;
use shardmeter_proto::v1::report_response::Message as Response;
use shardmeter_proto::v1::telemetry_service_server::{TelemetryService, TelemetryServiceServer};
use shardmeter_proto::v1::{
    Ack, Definitions, Delta, Goodbye, Hello, Limits, ReportRequest, ReportResponse, Resync,
    Samples, Snapshot, Welcome,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request as Incoming, Response as Outgoing, Status, Streaming, transport::Server};

/// The report interval of most tests.
pub(crate) const INTERVAL: Duration = Duration::from_millis(20);

pub(crate) struct Fake {
    addr: SocketAddr,
    calls: mpsc::Receiver<Call>,
    _server: AbortOnDropHandle<()>,
}

/// One Report stream. Dropping it ends the stream cleanly.
pub(crate) struct Call {
    /// What the client said of who it is.
    pub(crate) authorization: Option<String>,
    inbox: Streaming<ReportRequest>,
    outbox: mpsc::Sender<Result<ReportResponse, Status>>,
}

/// A whole frame: all its parts, with the definitions that came before.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) definitions: Vec<Definitions>,
    pub(crate) snapshot: Vec<Snapshot>,
    pub(crate) delta: Option<Delta>,
}

struct Service(mpsc::Sender<Call>);

#[tonic::async_trait]
impl TelemetryService for Service {
    type ReportStream = ReceiverStream<Result<ReportResponse, Status>>;

    async fn report(
        &self,
        request: Incoming<Streaming<ReportRequest>>,
    ) -> Result<Outgoing<Self::ReportStream>, Status> {
        let (outbox, responses) = mpsc::channel(16);
        let stated = request.metadata().get("authorization");
        let authorization = stated.map(|stated| stated.to_str().unwrap().to_owned());
        let inbox = request.into_inner();
        let call = Call { authorization, inbox, outbox };
        self.0.send(call).await.map_err(|_| Status::internal("the test is over"))?;
        Ok(Outgoing::new(ReceiverStream::new(responses)))
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), None).await
    }

    pub(crate) async fn start_at(addr: SocketAddr, max_streams: Option<u32>) -> Self {
        let listener = bind(addr).await;
        let addr = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::channel(16);
        let serving = Server::builder()
            .max_concurrent_streams(max_streams)
            .add_service(TelemetryServiceServer::new(Service(sender)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { addr, calls, _server: AbortOnDropHandle::new(server) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The next stream.
    pub(crate) async fn accept(&mut self) -> Call {
        soon("a stream", self.calls.recv()).await.unwrap()
    }

    /// The next stream, welcomed as that of a new instance.
    pub(crate) async fn accept_and_welcome(&mut self) -> (Call, Hello) {
        let mut call = self.accept().await;
        let hello = call.hello().await;
        call.welcome(welcome()).await;
        (call, hello)
    }

    /// Asserts that no stream comes for a while.
    pub(crate) async fn assert_no_stream(&mut self, within: Duration) {
        assert!(timeout(within, self.calls.recv()).await.is_err(), "a stream came");
    }
}

impl Call {
    /// The next message; none when the client ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Request> {
        let message = soon("a message", self.inbox.message()).await;
        message.ok().flatten().map(|request| request.message.expect("a message that is not empty"))
    }

    /// Asserts that nothing is said for a while.
    pub(crate) async fn assert_silent(&mut self, within: Duration) {
        let message = timeout(within, self.inbox.message()).await;
        assert!(message.is_err(), "said {message:?}");
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.next().await {
            Some(Request::Hello(hello)) => hello,
            other => panic!("not a Hello: {other:?}"),
        }
    }

    pub(crate) async fn goodbye(&mut self) -> Goodbye {
        match self.next().await {
            Some(Request::Goodbye(goodbye)) => goodbye,
            other => panic!("not a Goodbye: {other:?}"),
        }
    }

    /// The next frame, which is not acknowledged yet.
    pub(crate) async fn frame(&mut self) -> Frame {
        let mut frame = Frame::default();
        loop {
            match self.next().await {
                Some(Request::Definitions(definitions)) => frame.definitions.push(definitions),
                Some(Request::Snapshot(part)) => {
                    frame.snapshot.push(part);
                    if frame.snapshot.last().unwrap().last {
                        return frame;
                    }
                }
                Some(Request::Delta(delta)) => {
                    frame.delta = Some(delta);
                    return frame;
                }
                other => panic!("not part of a frame: {other:?}"),
            }
        }
    }

    /// Acknowledges frames until the client ends the stream.
    pub(crate) async fn ack_until_end(&mut self) {
        while let Some(message) = self.next().await {
            if let Request::Delta(delta) = message {
                self.ack(delta.sequence).await;
            }
        }
    }

    /// Acknowledges the last frame, and one that was on its way before it, until Goodbye; what Goodbye says.
    pub(crate) async fn ack_until_goodbye(&mut self) -> u64 {
        loop {
            match self.next().await {
                Some(Request::Delta(delta)) => self.ack(delta.sequence).await,
                Some(Request::Goodbye(goodbye)) => return goodbye.sequence,
                other => panic!("neither Delta nor Goodbye: {other:?}"),
            }
        }
    }

    /// Acknowledges frames until one satisfies `wanted`, which is acknowledged too.
    pub(crate) async fn frame_with(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.frame().await;
            self.ack(frame.sequence()).await;
            if wanted(&frame) {
                return frame;
            }
        }
    }

    pub(crate) async fn welcome(&mut self, welcome: Welcome) {
        self.say(Response::Welcome(welcome)).await;
    }

    pub(crate) async fn ack(&mut self, sequence: u64) {
        self.say(Response::Ack(Ack { sequence, durable: true, rejected: Vec::new() })).await;
    }

    pub(crate) async fn resync(&mut self) {
        let reason = "the test says so".to_owned();
        self.say(Response::Resync(Resync { reason })).await;
    }

    pub(crate) async fn say(&mut self, message: Response) {
        let message = Some(message);
        self.outbox.send(Ok(ReportResponse { message })).await.expect("the stream is open");
    }

    /// Ends the call with an error, and waits until the client has let go of it.
    pub(crate) async fn fail(mut self, status: Status) {
        self.outbox.send(Err(status)).await.expect("the stream is open");
        while self.next().await.is_some() {}
    }
}

impl Frame {
    pub(crate) fn sequence(&self) -> u64 {
        self.delta.as_ref().map_or_else(|| self.snapshot[0].sequence, |delta| delta.sequence)
    }

    /// Values of all samples, in order.
    pub(crate) fn values(&self) -> Vec<f64> {
        let of = |samples: &Option<Samples>| samples.clone().unwrap_or_default().values;
        match &self.delta {
            Some(delta) => of(&delta.samples),
            None => self.snapshot.iter().flat_map(|part| of(&part.samples)).collect(),
        }
    }

    pub(crate) fn is_snapshot(&self) -> bool {
        self.delta.is_none()
    }

    /// Names of the families that are defined.
    pub(crate) fn families(&self) -> Vec<&str> {
        let families = self.definitions.iter().flat_map(|definitions| &definitions.families);
        families.map(|family| family.name.as_str()).collect()
    }
}

/// Binds, once a predecessor has let go of the address.
async fn bind(addr: SocketAddr) -> TcpListener {
    until("an address", move || TcpListener::bind(addr)).await
}

/// For an instance that is new, with generous limits.
pub(crate) fn welcome() -> Welcome {
    Welcome {
        report_interval: Some(INTERVAL.try_into().unwrap()),
        limits: Some(Limits { max_message_bytes: 1 << 20, max_series_ids: 1_000 }),
        last_sequence: 0,
        closed_at: None,
    }
}
