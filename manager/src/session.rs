//! The gRPC way in: one `Report` stream is one shard's session, run by one task that owns all of its state.
//!
//! Protobuf ends here: messages are checked and converted ([`convert`]), then given to the registry. What the registry
//! answers becomes an `Ack`, a `Resync`, or the status that ends the stream.

mod convert;
#[cfg(any(test, feature = "fuzzing"))]
mod fixture;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod lines;
mod long;
mod received;
mod snapshot;
mod statuses;

use std::{sync::Arc, time::Duration};

use shardmeter_access::{Peer, Places};
use shardmeter_process::traces::part_of_trace;
use shardmeter_proto::v1::{
    self, ReportResponse, report_request::Message as Said, report_response::Message as Answer,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, Streaming};
use tracing::info_span;

use crate::{
    clip::clip,
    clock::Clock,
    journal::Journal,
    metrics::{FrameOutcome, Metrics},
    rates::{Rate, Rates},
    registry::{
        AttachError, Attached, DefineError, Departure, Frame, FrameError, FrameKind, Outcome,
        Registry, Writer,
    },
};
pub(crate) use lines::Lines;
pub(crate) use long::Turns;
use received::{Message, unreadable};
pub(crate) use received::{Received, ReportCodec};
pub(crate) use snapshot::Room;
use snapshot::{Assembly, Part};
use statuses::{refusal, too_fast};

/// Answers waiting to be written to one stream. One frame is in flight, so more than a few mean a peer that does not
/// read; the session then waits for it.
const ANSWERS: usize = 4;

/// How long a new stream may take to say Hello.
const FIRST_MESSAGE_WITHIN: Duration = Duration::from_secs(10);

/// How long a peer may take to read why its stream ends.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);

/// Longest message on a stream, bytes; a longer snapshot goes in parts.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Series ids one stream may define: also those over the limits on series, whose counts are added up.
const MAX_SERIES_IDS: usize = 1 << 20;

/// What every session needs to know.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) registry: Arc<Registry>,
    /// Keeps what happens to the registry.
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lines: Lines,
    pub(crate) clock: Clock,
    /// For the streams that may be open.
    pub(crate) places: Arc<Places>,
    pub(crate) rates: Arc<Rates>,
    /// For snapshots that come in parts.
    pub(crate) snapshots: Room,
    /// For messages that take long.
    pub(crate) long: Turns,
    /// The fleet that senders may state; `None`: any.
    pub(crate) fleet: Option<String>,
    /// Told to shards.
    pub(crate) report_interval: Duration,
    /// Longest pause between two messages.
    pub(crate) idle_gap: Duration,
    /// Cancelled when the manager shuts down.
    pub(crate) shutdown: CancellationToken,
}

/// Begins the session of a stream, in a task of its own; what it answers.
///
/// # Errors
/// If there is no place for another.
pub(crate) fn begin(
    sessions: &Arc<Sessions>,
    request: Request<Streaming<Received>>,
) -> Result<ReceiverStream<Result<ReportResponse, Status>>, Status> {
    let peer = request.extensions().get::<Peer>();
    let place = sessions.places.take(peer.map(|peer| peer.addr.ip())).map_err(|full| {
        let what = "raise limits.streams or limits.streams_per_peer in the manager's --config";
        Status::resource_exhausted(format!("{full}; {what}"))
    })?;
    let (answers, stream) = mpsc::channel(ANSWERS);
    let peer = peer.map_or_else(String::new, Peer::to_string);
    let sessions = Arc::clone(sessions);
    let inbound = request.into_inner();
    tokio::spawn(async move {
        run(sessions, inbound, answers, peer).await;
        drop(place);
    });
    Ok(ReceiverStream::new(stream))
}

/// What a shard says: a tonic stream, or a test's.
trait Inbound: Stream<Item = Result<Received, Status>> + Send + Unpin {}

impl<S: Stream<Item = Result<Received, Status>> + Send + Unpin> Inbound for S {}

type Answers = mpsc::Sender<Result<ReportResponse, Status>>;

/// Why a session ended.
enum End {
    /// The shard said goodbye, or ended its side between two frames.
    Left(&'static str),
    /// The stream broke.
    Broken(Status),
    /// The session is refused further messages.
    Refused(Status),
    /// The manager shuts down.
    Shutdown,
}

async fn run(sessions: Arc<Sessions>, mut inbound: impl Inbound, answers: Answers, peer: String) {
    sessions.metrics.streams.inc();
    let mut session = Session { sessions: &sessions, answers: &answers, attached: None };
    let end = match session.serve(&mut inbound).await {
        End::Refused(status) => {
            let message = clip(status.message().to_owned());
            let metadata = status.metadata().clone();
            End::Refused(Status::with_metadata(status.code(), message, metadata))
        }
        end => end,
    };
    let shard_id = session.attached.as_ref().map(|a| a.shard_id);
    sessions.lines.ended(shard_id, &peer, &end);
    if let Some((reporting, why)) = session.attached.as_mut().zip(departure(&end)) {
        reporting.writer.depart(why, sessions.clock.now());
    }
    drop(session);
    let farewell = match end {
        End::Refused(status) => Some(status),
        End::Shutdown => Some(Status::unavailable("the manager is shutting down; reconnect")),
        End::Left(_) | End::Broken(_) => None,
    };
    if let Some(status) = farewell {
        // A peer that is gone or does not read learns it from the end of the stream.
        let _ = timeout(FAREWELL_WITHIN, answers.send(Err(status))).await;
    }
    sessions.metrics.streams.dec();
}

/// What followers of the shard are told of a stream's end. Nothing, if it ends with the manager: the shard will be back.
fn departure(end: &End) -> Option<Departure> {
    match end {
        End::Left(_) | End::Broken(_) => Some(Departure::Broken),
        End::Refused(status) if status.code() == Code::DeadlineExceeded => Some(Departure::Idle),
        End::Refused(_) => Some(Departure::Refused),
        End::Shutdown => None,
    }
}

/// One stream's state.
struct Session<'a> {
    sessions: &'a Arc<Sessions>,
    answers: &'a Answers,
    attached: Option<Reporting>,
}

/// The state of a stream that said Hello.
struct Reporting {
    shard_id: u32,
    rate: Arc<Rate>,
    writer: Writer,
    snapshot: Option<Assembly>,
    /// A Resync was sent; until a snapshot begins, frames are passed over.
    resyncing: bool,
}

impl Session<'_> {
    /// Takes messages until the stream ends.
    async fn serve(&mut self, inbound: &mut impl Inbound) -> End {
        let mut within = FIRST_MESSAGE_WITHIN;
        loop {
            let step = async {
                let received = self.unless_ended(self.listen(inbound, within)).await?;
                self.answer(received).await
            };
            if let Err(end) = step.await {
                return end;
            }
            within = self.sessions.idle_gap;
        }
    }

    /// Waits for something until others end the stream.
    async fn unless_ended<T>(
        &self,
        waiting: impl Future<Output = Result<T, End>>,
    ) -> Result<T, End> {
        let superseded = self.attached.as_ref().map(|reporting| reporting.writer.superseded());
        let superseded = superseded.unwrap_or_default(); // by nobody before Hello
        tokio::select! {
            () = self.sessions.shutdown.cancelled() => Err(End::Shutdown),
            () = superseded.cancelled() => Err(self.ended_by_others()),
            waited = waiting => waited,
        }
    }

    /// Why the registry lets the stream write no more.
    fn ended_by_others(&self) -> End {
        let why = self.attached.as_ref().map(|reporting| reporting.writer.why_superseded());
        End::Refused(refusal(why.unwrap_or(FrameError::Superseded)))
    }

    /// The next message, if it comes `within` that time.
    async fn listen(&self, inbound: &mut impl Inbound, within: Duration) -> Result<Received, End> {
        match timeout(within, inbound.next()).await {
            Err(_) => Err(End::Refused(self.late(within))),
            Ok(Some(Err(status))) => Err(self.broken(status)),
            Ok(None) => Err(End::Left("ended its stream")),
            Ok(Some(Ok(received))) => Ok(received),
        }
    }

    /// Takes a message, as a whole whatever happens meanwhile, and says what is to be said to it.
    async fn answer(&mut self, received: Received) -> Result<(), End> {
        let answer = match self.take(received).await {
            Ok(Next::Answer(answer)) => answer,
            Ok(Next::Silence) => return Ok(()),
            Ok(Next::Goodbye) => return Err(End::Left("said goodbye")),
            Err(status) => {
                self.sessions.metrics.count_frame(FrameOutcome::Invalid);
                return Err(End::Refused(status));
            }
        };
        self.unless_ended(self.send(answer)).await
    }

    async fn send(&self, answer: Answer) -> Result<(), End> {
        let sent = self.answers.send(Ok(ReportResponse { message: Some(answer) }));
        match timeout(self.sessions.idle_gap, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Broken(Status::cancelled("the peer no longer reads"))),
            Err(_) => {
                let status = Status::deadline_exceeded("the peer does not read its answers");
                Err(End::Refused(status))
            }
        }
    }

    fn late(&self, within: Duration) -> Status {
        let what = if self.attached.is_some() { "frame" } else { "Hello" };
        Status::deadline_exceeded(format!("no {what} within {} s", within.as_secs_f64()))
    }

    /// tonic says a message that cannot be decoded, or is too long, like a stream that broke.
    fn broken(&self, status: Status) -> End {
        match status.code() {
            Code::OutOfRange => {
                self.sessions.metrics.count_frame(FrameOutcome::Invalid);
                End::Refused(Status::resource_exhausted(status.message()))
            }
            Code::Internal => {
                self.sessions.metrics.count_frame(FrameOutcome::Invalid);
                End::Refused(unreadable(status.message()))
            }
            _ => End::Broken(status),
        }
    }

    async fn take(&mut self, received: Received) -> Result<Next, Status> {
        let Some(mut reporting) = self.attached.take() else {
            return self.first(received).await;
        };
        let (reporting, next) = if reporting.is_long(&received) {
            reporting.take_long(self.sessions, received).await?
        } else {
            let next = received.read().and_then(|message| reporting.take(self.sessions, message));
            (reporting, next)
        };
        self.attached = Some(reporting);
        next
    }

    /// What comes first is Hello, however long it is.
    async fn first(&mut self, received: Received) -> Result<Next, Status> {
        let message = match received {
            Received::Read(_) => received.read()?,
            Received::Long(_) => self.sessions.long.take(|| received.read()).await??,
        };
        match &message.said {
            Said::Hello(hello) => {
                message.span(hello.shard_id).in_scope(|| self.hello(hello)).map(Next::Answer)
            }
            _ => Err(Status::invalid_argument("the first message must be Hello")),
        }
    }

    fn hello(&mut self, hello: &v1::Hello) -> Result<Answer, Status> {
        let sessions = self.sessions;
        if let Some(fleet) =
            sessions.fleet.as_deref().filter(|f| !hello.fleet.is_empty() && *f != hello.fleet)
        {
            let message = format!(
                "this manager serves fleet {fleet:?}, not {:?}; check the shard's endpoint",
                hello.fleet
            );
            return Err(Status::failed_precondition(message));
        }
        let rate = sessions.rates.of(hello.shard_id);
        rate.take().map_err(too_fast)?;
        let now = sessions.clock.now();
        let client = format!("{} {}", hello.client_name, hello.client_version);
        let known = convert::hello(hello, client.trim(), now)?;
        let attached = sessions.registry.attach(known, now).map_err(|e| match e {
            AttachError::TooManyInstances(_) | AttachError::FleetFull(_) => {
                Status::resource_exhausted(e.to_string())
            }
            _ => Status::invalid_argument(e.to_string()),
        })?;
        let Attached { writer, last_sequence, closed_at } = attached;
        let new = last_sequence == 0;
        sessions.lines.joined(hello.shard_id, client.trim(), new);
        let shard_id = hello.shard_id;
        self.attached =
            Some(Reporting { shard_id, rate, writer, snapshot: None, resyncing: false });
        Ok(Answer::Welcome(v1::Welcome {
            report_interval: Some(convert::duration(sessions.report_interval)),
            limits: Some(v1::Limits {
                max_message_bytes: MAX_MESSAGE_BYTES as u32,
                max_series_ids: MAX_SERIES_IDS as u32,
            }),
            last_sequence,
            closed_at,
        }))
    }
}

/// What follows a message.
enum Next {
    Answer(Answer),
    Silence,
    Goodbye,
}

impl Reporting {
    fn take(&mut self, sessions: &Sessions, message: Message) -> Result<Next, Status> {
        let _within = message.span(self.shard_id).entered();
        if !defines_series(&message.said) {
            self.rate.take().map_err(too_fast)?;
        }
        match message.said {
            Said::Hello(_) => {
                let what = "a second Hello; a stream has one, as its first message";
                Err(Status::invalid_argument(what))
            }
            Said::Definitions(definitions) => self.define(sessions, &definitions),
            Said::Snapshot(snapshot) => self.snapshot(sessions, snapshot),
            Said::Delta(delta) => self.delta(sessions, &delta),
            Said::Goodbye(goodbye) => self.goodbye(sessions, &goodbye),
        }
    }

    fn define(
        &mut self,
        sessions: &Sessions,
        definitions: &v1::Definitions,
    ) -> Result<Next, Status> {
        let more: usize = definitions.families.iter().map(|f| f.series.len()).sum();
        if self.writer.ids() + more > MAX_SERIES_IDS {
            let message = format!("over {MAX_SERIES_IDS} series ids on one stream; open a new one");
            return Err(Status::resource_exhausted(message));
        }
        // All are converted and checked before the first is defined, so that a bad one leaves nothing behind.
        let refuse = |e: DefineError| match e {
            DefineError::Rearranged => Status::unavailable(e.to_string()),
            DefineError::TooManyIds => Status::resource_exhausted(e.to_string()),
            DefineError::Id { .. } | DefineError::UnexpectedBounds { .. } => {
                Status::invalid_argument(e.to_string())
            }
        };
        let families = convert::definitions(definitions, self.shard_id)?;
        self.writer.check_definitions(&families).map_err(refuse)?;
        let now = sessions.clock.now();
        for family in families {
            sessions.registry.define(&mut self.writer, family, now).map_err(refuse)?;
        }
        Ok(Next::Silence)
    }

    fn snapshot(&mut self, sessions: &Sessions, part: v1::Snapshot) -> Result<Next, Status> {
        if part.part == 0 {
            self.resyncing = false;
            self.snapshot = None;
        } else if self.resyncing {
            return Ok(Next::Silence);
        }
        match Assembly::add(self.snapshot.take(), part, &sessions.snapshots)? {
            Part::More(assembly) => {
                self.snapshot = Some(assembly);
                Ok(Next::Silence)
            }
            Part::Misplaced(reason) => Ok(self.resync(sessions, reason)),
            Part::Complete(whole) => self.apply(sessions, whole.frame()),
        }
    }

    fn delta(&mut self, sessions: &Sessions, delta: &v1::Delta) -> Result<Next, Status> {
        if self.resyncing {
            return Ok(Next::Silence);
        }
        if self.snapshot.take().is_some() {
            return Ok(self.resync(sessions, "a delta before the snapshot's last part".to_owned()));
        }
        self.apply(
            sessions,
            Frame {
                kind: FrameKind::Delta,
                sequence: delta.sequence,
                samples: convert::samples(delta.samples.as_ref()),
                removed: convert::samples(delta.removed.as_ref()),
                exemplars: &convert::exemplars(&delta.exemplars),
            },
        )
    }

    fn apply(&mut self, sessions: &Sessions, frame: Frame<'_>) -> Result<Next, Status> {
        let span = || {
            info_span!(
                "registry",
                sequence = frame.sequence as i64,
                series = frame.samples.ids.len() as i64
            )
        };
        let outcome =
            part_of_trace(span).in_scope(|| self.writer.apply(frame, sessions.clock.now()));
        let outcome = outcome.map_err(refusal)?;
        let (rejected, durable) = match outcome {
            Outcome::NotApplied(reason) => return Ok(self.resync(sessions, reason.to_string())),
            Outcome::Duplicate => {
                sessions.metrics.count_frame(FrameOutcome::Duplicate);
                (Vec::new(), sessions.journal.is_up())
            }
            Outcome::Applied(applied) => {
                sessions.metrics.count_frame(FrameOutcome::Applied);
                sessions.metrics.samples.inc_by(applied.samples as u64);
                (applied.rejected, applied.durable)
            }
        };
        for r in &rejected {
            sessions.lines.rejected(self.shard_id, r);
        }
        Ok(Next::Answer(Answer::Ack(v1::Ack {
            sequence: frame.sequence,
            durable,
            rejected: rejected.into_iter().map(convert::rejected).collect(),
        })))
    }

    fn goodbye(&mut self, sessions: &Sessions, goodbye: &v1::Goodbye) -> Result<Next, Status> {
        if self.resyncing {
            return Ok(Next::Silence);
        }
        if self.writer.goodbye(goodbye.sequence, sessions.clock.now()).map_err(refusal)? {
            return Ok(Next::Goodbye);
        }
        Ok(self.resync(
            sessions,
            format!("goodbye at sequence {}, which is not the last applied", goodbye.sequence),
        ))
    }

    fn resync(&mut self, sessions: &Sessions, reason: String) -> Next {
        sessions.metrics.count_frame(FrameOutcome::Resync);
        sessions.lines.resync(self.shard_id, &reason);
        self.resyncing = true;
        self.snapshot = None;
        Next::Answer(Answer::Resync(v1::Resync { reason }))
    }
}

/// Whether a message brings series. These are bounded by the ids that a stream has, and a client may define each in a message
/// of its own; all other messages are by the shard's rate.
fn defines_series(said: &Said) -> bool {
    matches!(said, Said::Definitions(new) if new.families.iter().any(|f| !f.series.is_empty()))
}

#[cfg(test)]
mod tests;
