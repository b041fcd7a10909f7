//! Sessions on in-memory streams, under a paused clock.

mod any_messages;
mod frames;
mod long;
mod rates;
mod refusals;

use std::num::NonZeroU32;

use tokio::time::Instant;

use super::*;
use crate::{
    exposition::{self, Format},
    registry::Settings,
};

const STALE_AFTER: Duration = Duration::from_secs(30);

fn sessions() -> Arc<Sessions> {
    sessions_of(None)
}

fn sessions_of(fleet: Option<&str>) -> Arc<Sessions> {
    let registry = Registry::new(Settings::default(), []);
    let sessions = Sessions::of(registry, Arc::new(Metrics::new().unwrap()));
    Arc::new(Sessions { fleet: fleet.map(str::to_owned), ..sessions })
}

/// The other end of a session.
struct Peer {
    says: mpsc::Sender<Result<Received, Status>>,
    answers: mpsc::Receiver<Result<ReportResponse, Status>>,
}

impl Peer {
    fn connect(sessions: &Arc<Sessions>) -> Self {
        let (says, inbound) = mpsc::channel(64);
        let (answers, answered) = mpsc::channel(ANSWERS);
        let inbound = ReceiverStream::new(inbound);
        tokio::spawn(run(Arc::clone(sessions), inbound, answers, String::new()));
        Self { says, answers: answered }
    }

    /// Says Hello as instance `instance` of shard 0 of 2, and reads its Welcome.
    async fn join(sessions: &Arc<Sessions>, instance: u8) -> Self {
        let mut peer = Self::connect(sessions);
        peer.say(Said::Hello(hello(instance))).await;
        assert!(matches!(peer.answer().await, Answer::Welcome(_)));
        peer
    }

    /// Joins and defines id 0, a counter `c_total`, and id 1, a gauge `g`.
    async fn ready(sessions: &Arc<Sessions>) -> Self {
        let mut peer = Self::join(sessions, 1).await;
        peer.say(define("c_total", v1::MetricType::Counter, 0)).await;
        peer.say(define("g", v1::MetricType::Gauge, 1)).await;
        peer
    }

    async fn say(&mut self, said: Said) {
        // A session that ended does not listen; what it said at its end is what the test looks at.
        let _ = self.says.send(Ok(Some(said).into())).await;
    }

    async fn next(&mut self) -> Option<Result<Answer, Status>> {
        let answer = self.answers.recv().await?;
        Some(answer.map(|answer| answer.message.expect("an empty answer")))
    }

    async fn answer(&mut self) -> Answer {
        self.next().await.expect("the stream ended").unwrap()
    }

    async fn ack(&mut self) -> v1::Ack {
        match self.answer().await {
            Answer::Ack(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    async fn resync(&mut self) -> String {
        match self.answer().await {
            Answer::Resync(resync) => resync.reason,
            other => panic!("{other:?}"),
        }
    }

    /// The status that ends the stream, which is the next thing said.
    async fn refusal(&mut self) -> Status {
        let status = self.next().await.expect("ended without a status").unwrap_err();
        assert!(self.next().await.is_none());
        status
    }
}

fn hello(instance: u8) -> v1::Hello {
    v1::Hello { shard_count: 2, instance_id: vec![instance; 16], ..v1::Hello::default() }
}

fn define(name: &str, kind: v1::MetricType, id: u32) -> Said {
    let series = vec![v1::SeriesDefinition { id, ..v1::SeriesDefinition::default() }];
    Said::Definitions(v1::Definitions {
        families: vec![v1::FamilyDefinition {
            name: name.to_owned(),
            r#type: kind.into(),
            series,
            ..v1::FamilyDefinition::default()
        }],
    })
}

fn samples(samples: &[(u32, f64)]) -> Option<v1::Samples> {
    Some(v1::Samples {
        series: samples.iter().map(|s| s.0).collect(),
        values: samples.iter().map(|s| s.1).collect(),
    })
}

fn delta(sequence: u64, changed: &[(u32, f64)]) -> Said {
    Said::Delta(v1::Delta { sequence, samples: samples(changed), ..v1::Delta::default() })
}

fn snapshot(sequence: u64, all: &[(u32, f64)]) -> Said {
    part(sequence, 0, true, all)
}

fn part(sequence: u64, part: u32, last: bool, some: &[(u32, f64)]) -> Said {
    Said::Snapshot(v1::Snapshot {
        sequence,
        part,
        last,
        samples: samples(some),
        ..v1::Snapshot::default()
    })
}

fn page(sessions: &Sessions) -> String {
    let now = sessions.clock.now();
    let page = exposition::render(&sessions.registry, &[], now, Format::TEXT);
    String::from_utf8(page.to_vec()).unwrap()
}

/// Sample lines of what shards reported.
fn exposed(sessions: &Sessions) -> Vec<String> {
    let page = page(sessions);
    let lines = page.lines().filter(|l| !l.starts_with('#') && !l.starts_with("shard_"));
    lines.map(str::to_owned).collect()
}

/// Lets every session run until it waits for something.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_message_comes_in_time() {
    let sessions = sessions();
    let began = Instant::now();
    let mut peer = Peer::connect(&sessions);
    let status = peer.refusal().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "no Hello within 10 s");
    assert_eq!(began.elapsed(), FIRST_MESSAGE_WITHIN);
    settle().await;
    assert_eq!(sessions.metrics.streams.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_next_frame_comes_in_time() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    peer.say(snapshot(1, &[(0, 1.0)])).await;
    peer.ack().await;
    for sequence in 2..6 {
        tokio::time::sleep(STALE_AFTER - Duration::from_millis(1)).await;
        peer.say(delta(sequence, &[])).await;
        assert_eq!(peer.ack().await.sequence, sequence);
    }
    let last = Instant::now();
    let status = peer.refusal().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "no frame within 30 s");
    assert_eq!(last.elapsed(), STALE_AFTER);
    assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    peer.say(snapshot(1, &[])).await;
    for sequence in 2..20 {
        peer.say(delta(sequence, &[])).await;
    }
    tokio::time::sleep(STALE_AFTER + FAREWELL_WITHIN + Duration::from_secs(1)).await;
    settle().await;
    assert_eq!(sessions.metrics.streams.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_newer_stream_of_the_instance_closes_the_older_at_once() {
    let sessions = sessions();
    let mut first = Peer::ready(&sessions).await;
    first.say(snapshot(1, &[(0, 1.0)])).await;
    first.ack().await;
    let mut other = Peer::join(&sessions, 2).await;
    let began = Instant::now();
    let mut second = Peer::connect(&sessions);
    second.say(Said::Hello(hello(1))).await;
    match second.answer().await {
        Answer::Welcome(welcome) => assert_eq!(welcome.last_sequence, 1),
        answer => panic!("{answer:?}"),
    }
    let status = first.refusal().await;
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(began.elapsed(), Duration::ZERO);
    other.say(snapshot(1, &[])).await;
    other.ack().await;
    second.say(snapshot(2, &[])).await;
    second.ack().await;
    assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 1"]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_every_session() {
    let sessions = sessions();
    let mut reporting = Peer::ready(&sessions).await;
    let mut silent = Peer::connect(&sessions);
    settle().await;
    assert_eq!(sessions.metrics.streams.get(), 2);
    sessions.shutdown.cancel();
    for peer in [&mut reporting, &mut silent] {
        assert_eq!(peer.refusal().await.code(), Code::Unavailable);
    }
    settle().await;
    assert_eq!(sessions.metrics.streams.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn welcome_says_what_is_expected() {
    let sessions = sessions_of(Some("blue"));
    for (instance, fleet) in [(1, "blue"), (2, "")] {
        let mut peer = Peer::connect(&sessions);
        let fleet = fleet.to_owned();
        peer.say(Said::Hello(v1::Hello { fleet, ..hello(instance) })).await;
        let expected = v1::Welcome {
            report_interval: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            limits: Some(v1::Limits { max_message_bytes: 4 << 20, max_series_ids: 1 << 20 }),
            last_sequence: 0,
            closed_at: None,
        };
        assert_eq!(peer.answer().await, Answer::Welcome(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_instance_is_told_where_it_ended() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    peer.say(snapshot(7, &[(0, 3.0), (1, 5.0)])).await;
    peer.ack().await;
    peer.say(Said::Goodbye(v1::Goodbye { sequence: 7 })).await;
    assert!(peer.next().await.is_none(), "a goodbye ends the stream well");
    assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 3"]);

    let mut again = Peer::connect(&sessions);
    again.say(Said::Hello(hello(1))).await;
    match again.answer().await {
        Answer::Welcome(welcome) => {
            assert_eq!((welcome.last_sequence, welcome.closed_at), (7, Some(7)));
        }
        answer => panic!("{answer:?}"),
    }
    again.say(snapshot(8, &[])).await;
    assert_eq!(again.refusal().await.code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_ends_only_itself() {
    let sessions = sessions();
    let mut other = Peer::ready(&sessions).await;
    let mut broken = Peer::join(&sessions, 2).await;
    broken.says.send(Err(Status::unknown("reset"))).await.unwrap();
    assert!(broken.next().await.is_none());
    let gone = Peer::join(&sessions, 3).await;
    drop(gone);
    let mut closed = Peer::join(&sessions, 4).await;
    let Peer { says, .. } = closed;
    drop(says);
    assert!(closed.answers.recv().await.is_none());
    other.say(snapshot(1, &[(0, 1.0)])).await;
    other.ack().await;
    assert_eq!(sessions.metrics.streams.get(), 1);
}
