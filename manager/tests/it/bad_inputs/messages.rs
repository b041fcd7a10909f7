//! By gRPC.

mod definitions;
mod frames;

use shardmeter_proto::v1::{
    self, MetricType, report_request::Message as Said, report_response::Message as Answer,
};
use tonic::Code;

use super::{
    Expected::{self, Partly, Refused, Taken},
    Failures, page,
};
use crate::server::{Server, Stream, hello, samples, snapshot};

/// The shard that rows are of.
const SHARD: u32 = 1;

/// The stream is asked for a snapshot.
const RESYNC: u16 = u16::MAX;

/// A message, and what was said before it.
struct Row {
    what: &'static str,
    before: Vec<Said>,
    said: Option<Said>,
    expected: Expected,
}

fn row(what: &'static str, before: Vec<Said>, said: Said, expected: Expected) -> Row {
    Row { what, before, said: Some(said), expected }
}

fn refused(code: Code, message: &'static str) -> Expected {
    Refused(code as u16, message)
}

fn invalid(message: &'static str) -> Expected {
    refused(Code::InvalidArgument, message)
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn series(id: u32, labels: Labels<'_>, bounds: &[f64]) -> v1::SeriesDefinition {
    let label =
        |(name, value): &(&str, &str)| v1::Label { name: (*name).into(), value: (*value).into() };
    v1::SeriesDefinition { id, labels: labels.iter().map(label).collect(), bounds: bounds.to_vec() }
}

fn family(name: &str, kind: MetricType, series: Vec<v1::SeriesDefinition>) -> v1::FamilyDefinition {
    v1::FamilyDefinition {
        name: name.into(),
        r#type: kind.into(),
        series,
        ..v1::FamilyDefinition::default()
    }
}

fn define(families: Vec<v1::FamilyDefinition>) -> Said {
    Said::Definitions(v1::Definitions { families })
}

fn delta(sequence: u64, changed: &[(u32, f64)]) -> Said {
    Said::Delta(v1::Delta { sequence, samples: samples(changed), ..v1::Delta::default() })
}

/// Hello, the counter `rest_total` as id 0, and a histogram with two bounds as id 1, which were reported with sequence 1.
fn begun() -> Vec<Said> {
    let first = v1::Samples { series: vec![0, 1], values: vec![5.0, 1.0, 2.0, 3.0, 4.0] };
    vec![
        Said::Hello(row_hello()),
        define(vec![
            family("rest_total", MetricType::Counter, vec![series(0, &[], &[])]),
            family("begun", MetricType::Histogram, vec![series(1, &[], &[1.0, 2.0])]),
        ]),
        Said::Snapshot(v1::Snapshot {
            sequence: 1,
            last: true,
            samples: Some(first),
            ..v1::Snapshot::default()
        }),
    ]
}

fn row_hello() -> v1::Hello {
    v1::Hello { shard_id: SHARD, ..hello(0) }
}

/// A message on a stream that was begun well.
fn bad(what: &'static str, said: Said, message: &'static str) -> Row {
    row(what, begun(), said, invalid(message))
}

async fn check(rows: Vec<Row>) {
    let server = Server::start().await;
    let mut other = known(&server).await;
    let mut failures = Failures::default();
    for (number, row) in (1..).zip(rows) {
        let Row { what, before, said, expected } = row;
        let mut stream = server.stream().await;
        for said in before {
            let said = of_instance(said, number);
            let is_answered = !matches!(
                said,
                Said::Definitions(_) | Said::Snapshot(v1::Snapshot { last: false, .. })
            );
            stream.say(said).await;
            if is_answered {
                let answer = stream.answer().await;
                failures.check(
                    !matches!(answer, Answer::Resync(_)),
                    what,
                    format_args!("{answer:?}"),
                );
            }
        }
        let before = page(&server).await;
        match said {
            Some(said) => stream.say(of_instance(said, number)).await,
            None => drop(stream.says.send(v1::ReportRequest::default()).await),
        }
        let answer = answer(&mut stream, &expected).await;
        let after = page(&server).await;
        failures.check_page(what, &expected, SHARD, (&before, &after));
        check_answer(&mut failures, what, &expected, answer);
    }
    other.say(snapshot(2, &[])).await;
    other.ack().await;
    failures.none();
    server.stop().await;
}

/// A row's instance is its own.
fn of_instance(said: Said, number: u8) -> Said {
    match said {
        Said::Hello(hello) if hello.instance_id == [0; 16] => {
            Said::Hello(v1::Hello { instance_id: vec![number; 16], ..hello })
        }
        said => said,
    }
}

/// What another shard reported before.
async fn known(server: &Server) -> Stream {
    let mut stream = server.stream().await;
    stream.say(Said::Hello(hello(0xab))).await;
    stream.answer().await;
    let one = |id, labels: Labels<'_>| vec![series(id, labels, &[])];
    stream
        .say(define(vec![
            family("known_total", MetricType::Counter, one(0, &[])),
            family("g", MetricType::Gauge, one(1, &[])),
            family("h", MetricType::Histogram, vec![series(2, &[], &[1.0])]),
            family("dotted.name", MetricType::Gauge, one(3, &[])),
        ]))
        .await;
    let first =
        v1::Samples { series: vec![0, 1, 2, 3], values: vec![5.0, 1.0, 1.0, 2.0, 3.0, 1.0] };
    stream
        .say(Said::Snapshot(v1::Snapshot {
            sequence: 1,
            last: true,
            samples: Some(first),
            ..v1::Snapshot::default()
        }))
        .await;
    assert_eq!(stream.ack().await.rejected, []);
    stream
}

/// The answer, or how the stream ends.
async fn answer(stream: &mut Stream, expected: &Expected) -> Result<Option<Answer>, tonic::Status> {
    // A definition that is fine has no answer: the one after it has.
    if matches!(expected, Taken(_)) {
        stream.say(delta(2, &[])).await;
    }
    stream.next().await
}

fn check_answer(
    failures: &mut Failures,
    what: &str,
    expected: &Expected,
    answer: Result<Option<Answer>, tonic::Status>,
) {
    let said = format!("{answer:?}");
    let is_so = match (expected, answer) {
        (Refused(RESYNC, message), Ok(Some(Answer::Resync(resync)))) => {
            resync.reason.contains(message)
        }
        (Refused(code, message), Err(status)) => {
            status.code() as u16 == *code
                && status.message().contains(message)
                && !message.is_empty()
        }
        (Partly(rejected), Ok(Some(Answer::Ack(ack)))) => {
            ack.rejected.len() == rejected.len()
                && ack.rejected.iter().zip(*rejected).all(|(said, (family, reason, message))| {
                    said.family.starts_with(family)
                        && said.reason().as_str_name() == *reason
                        && said.message.contains(message)
                        && !message.is_empty()
                })
        }
        (Taken(_), Ok(Some(Answer::Ack(ack)))) => ack.rejected.is_empty(),
        _ => false,
    };
    failures.check(is_so, what, said);
}
