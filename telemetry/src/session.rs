//! One Report stream: what goes out, what comes back, and when patience ends.

use crate::Connection;
use crate::ledger::{Frame, IdsExhausted};
use crate::trace::Sampled;
use shardmeter_proto::v1::report_request::Message as Request;
use shardmeter_proto::v1::report_response::Message as Response;
use shardmeter_proto::v1::telemetry_service_client::TelemetryServiceClient;
use shardmeter_proto::v1::{Ack, Goodbye, Hello, ReportRequest, ReportResponse, Welcome};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{Instrument as _, debug, info_span};

/// For the connection, the stream and its `Welcome`.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// For a frame to be sent and acknowledged. Shorter than the manager's patience with a silent shard.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// No manager keeps a shard away for longer.
const MAX_PUSHBACK: Duration = Duration::from_secs(60);
/// Messages that wait for HTTP/2 to take them. The parts of a snapshot come one after the other, so one is enough.
const OUTBOX: usize = 1;

/// See the module. Dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct Session {
    outbox: mpsc::Sender<ReportRequest>,
    inbox: Streaming<ReportResponse>,
    /// The `traceparent` of what is said.
    cause: String,
}

/// What the manager says to a frame.
#[derive(Debug)]
pub(crate) enum Answer {
    Ack(Ack),
    Resync,
}

/// Why a stream ended, or never began.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Status(#[from] Box<Status>),
    #[error("the manager ended the stream")]
    Ended,
    #[error("no {what} within {within:?}")]
    Silent { what: &'static str, within: Duration },
    #[error("the manager sent {0}")]
    Unexpected(&'static str),
    /// Not the manager's doing: the next stream has ids again.
    #[error("the stream's series ids are used up")]
    IdsExhausted,
}

impl Lost {
    /// Whether the manager will say the same next time, as long as nobody changes its or the bot's configuration.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status(status)
            if matches!(status.code(), Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented
                | Code::Unauthenticated | Code::PermissionDenied))
    }

    /// What the bot's operator can do about it, where the manager cannot know.
    pub(crate) fn cure(&self) -> &'static str {
        let Self::Status(status) = self else { return "" };
        match status.code() {
            Code::Unauthenticated => "; give the bot the manager's ingest token",
            Code::PermissionDenied => {
                "; give the bot the ingest token, not another of the manager's"
            }
            _ => "",
        }
    }

    /// How long the manager wants to be left alone, at least.
    pub(crate) fn pushback(&self) -> Duration {
        let Self::Status(status) = self else { return Duration::ZERO };
        let stated = status.metadata().get("grpc-retry-pushback-ms");
        let stated = stated.and_then(|stated| stated.to_str().ok()?.parse().ok());
        stated.map_or(Duration::ZERO, Duration::from_millis).min(MAX_PUSHBACK)
    }
}

impl From<IdsExhausted> for Lost {
    fn from(_: IdsExhausted) -> Self {
        Self::IdsExhausted
    }
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Session {
    /// Opens a stream and introduces the instance.
    pub(crate) async fn open(
        connection: Connection,
        hello: Hello,
    ) -> Result<(Self, Welcome), Lost> {
        let span = || info_span!(parent: None, "open stream", otel.kind = "client", shard_id = i64::from(hello.shard_id));
        let sampled = connection.sampler().sample(span);
        let cause = sampled.traceparent();
        let opening = async {
            let (outbox, requests) = mpsc::channel(OUTBOX);
            // Goes in before the call: a server may wait for it before it answers the call at all.
            let _ = outbox.try_send(request(Request::Hello(hello), &cause));
            let mut call = connection.call(ReceiverStream::new(requests));
            if let Some(cause) = cause.parse().ok().filter(|_| !cause.is_empty()) {
                call.metadata_mut().insert("traceparent", cause);
            }
            let mut client = TelemetryServiceClient::new(connection.channel());
            let inbox = client.report(call).await?.into_inner();
            let mut session = Self { outbox, inbox, cause };
            match session.receive().await? {
                Response::Welcome(welcome) => Ok((session, welcome)),
                Response::Ack(_) => Err(Lost::Unexpected("an Ack before its Welcome")),
                Response::Resync(_) => Err(Lost::Unexpected("a Resync before its Welcome")),
            }
        };
        within(WELCOME_TIMEOUT, "Welcome", opening).instrument(sampled.span()).await
    }

    /// What is said from now on is part of this.
    pub(crate) fn trace(&mut self, sampled: &Sampled) {
        self.cause = sampled.traceparent();
    }

    /// Sends a frame and waits for the answer to it.
    pub(crate) async fn deliver(&mut self, frame: Frame) -> Result<Answer, Lost> {
        let Frame { sequence, messages } = frame;
        let (outbox, cause) = (self.outbox.clone(), self.cause.clone());
        let sending = async move {
            for message in messages {
                if outbox.send(request(message, &cause)).await.is_err() {
                    break;
                }
            }
            // Why the stream broke, if it did, is what `receive` returns.
            std::future::pending::<Infallible>().await
        };
        let answer = async {
            loop {
                match self.answer().await? {
                    Answer::Ack(ack) if ack.sequence < sequence => debug!(ack.sequence, "old Ack"),
                    Answer::Ack(ack) if ack.sequence > sequence => {
                        return Err(Lost::Unexpected("an Ack of a frame that was never sent"));
                    }
                    answer => return Ok(answer),
                }
            }
        };
        let exchange = async {
            tokio::select! {
                answer = answer => answer,
                never = sending => match never {},
            }
        };
        within(ACK_TIMEOUT, "Ack", exchange).await
    }

    /// The next answer, whenever it comes. May be dropped without losing one.
    pub(crate) async fn answer(&mut self) -> Result<Answer, Lost> {
        match self.receive().await? {
            Response::Ack(ack) => Ok(Answer::Ack(ack)),
            Response::Resync(resync) => {
                debug!(reason = resync.reason, "the manager asks for a snapshot");
                Ok(Answer::Resync)
            }
            Response::Welcome(_) => Err(Lost::Unexpected("a second Welcome")),
        }
    }

    /// Says Goodbye and waits for the manager to end the stream. False: it asks for a snapshot first.
    pub(crate) async fn leave(&mut self, goodbye: Goodbye) -> Result<bool, Lost> {
        let leaving = async {
            // If the stream broke, `answer` knows why.
            let _ = self.outbox.send(request(Request::Goodbye(goodbye), &self.cause)).await;
            loop {
                match self.answer().await {
                    Ok(Answer::Ack(_)) => {}
                    Ok(Answer::Resync) => return Ok(false),
                    Err(Lost::Ended) => return Ok(true),
                    Err(lost) => return Err(lost),
                }
            }
        };
        within(ACK_TIMEOUT, "end of the stream after Goodbye", leaving).await
    }

    async fn receive(&mut self) -> Result<Response, Lost> {
        let response = self.inbox.message().await?.ok_or(Lost::Ended)?;
        response.message.ok_or(Lost::Unexpected("an empty message"))
    }
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    step: impl Future<Output = Result<T, Lost>>,
) -> Result<T, Lost> {
    let silent = Lost::Silent { what, within: limit };
    timeout(limit, step).await.unwrap_or(Err(silent))
}

fn request(message: Request, cause: &str) -> ReportRequest {
    ReportRequest { message: Some(message), traceparent: cause.to_owned() }
}
