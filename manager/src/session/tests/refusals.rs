//! Messages that break a rule: the stream ends with the reason, and nothing of the message stays.

use super::*;

/// Says `said` to a stream that was begun well, and returns how it ended.
async fn refused(said: Said) -> Status {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    peer.say(snapshot(1, &[(0, 1.0), (1, 2.0)])).await;
    peer.ack().await;
    let before = page(&sessions);
    let families = sessions.registry.families();
    let told = format!("{said:?}");
    peer.say(said).await;
    let status = peer.refusal().await;
    assert_eq!(page(&sessions), before, "{told}");
    assert_eq!(sessions.registry.families().len(), families.len(), "{told}");
    // Others do not notice.
    let mut other = Peer::join(&sessions, 2).await;
    other.say(snapshot(1, &[])).await;
    other.ack().await;
    status
}

#[tokio::test(start_paused = true)]
async fn hello_comes_first_and_once() {
    for said in [
        define("c_total", v1::MetricType::Counter, 0),
        snapshot(1, &[]),
        delta(1, &[]),
        Said::Goodbye(v1::Goodbye { sequence: 1 }),
    ] {
        let mut peer = Peer::connect(&sessions());
        peer.say(said).await;
        let status = peer.refusal().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "the first message must be Hello");
    }
    let status = refused(Said::Hello(hello(1))).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("a second Hello"));
    let mut peer = Peer::connect(&sessions());
    peer.says.send(Ok(None.into())).await.unwrap();
    assert_eq!(peer.refusal().await.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_makes_no_sense_is_refused() {
    let cases = [
        (
            v1::Hello { instance_id: vec![1; 15], ..hello(1) },
            Code::InvalidArgument,
            "15 bytes, not 16",
        ),
        (v1::Hello { instance_id: vec![], ..hello(1) }, Code::InvalidArgument, "0 bytes, not 16"),
        (
            v1::Hello { instance_id: vec![1; 17], ..hello(1) },
            Code::InvalidArgument,
            "17 bytes, not 16",
        ),
        (
            v1::Hello { shard_id: 2, ..hello(1) },
            Code::InvalidArgument,
            "shard_id 2 is not below shard_count 2",
        ),
        (
            v1::Hello { shard_count: 0, ..hello(1) },
            Code::InvalidArgument,
            "shard_id 0 is not below shard_count 0",
        ),
        (v1::Hello { shard_count: u32::MAX, ..hello(1) }, Code::InvalidArgument, "is over 65536"),
        (
            v1::Hello { fleet: "red".into(), ..hello(1) },
            Code::FailedPrecondition,
            "serves fleet \"blue\", not \"red\"",
        ),
        (
            v1::Hello { client_name: "x".repeat(128), client_version: "1".into(), ..hello(1) },
            Code::InvalidArgument,
            "over 128 bytes",
        ),
    ];
    for (hello, code, reason) in cases {
        let sessions = sessions_of(Some("blue"));
        let mut peer = Peer::connect(&sessions);
        peer.say(Said::Hello(hello)).await;
        let status = peer.refusal().await;
        assert_eq!(status.code(), code);
        assert!(status.message().contains(reason), "{}", status.message());
        assert_eq!(page(&sessions), "");
    }
    // No fleet of its own: any is served. A start before or after all time is none.
    let sessions = sessions();
    for (seconds, nanos) in [(i64::MIN, i32::MIN), (i64::MAX, i32::MAX), (-1, 0)] {
        let mut peer = Peer::connect(&sessions);
        let started_at = Some(prost_types::Timestamp { seconds, nanos });
        let fleet = "red".to_owned();
        peer.say(Said::Hello(v1::Hello { started_at, fleet, ..hello(1) })).await;
        assert!(matches!(peer.answer().await, Answer::Welcome(_)));
        assert!(page(&sessions).contains("shard_up"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_breaks_a_rule_ends_the_stream() {
    let cases = [
        (delta(0, &[]), "sequence 0"),
        (snapshot(0, &[]), "sequence 0"),
        (delta(2, &[(1, 5.0), (0, 0.5)]), "series id 0 (c_total{}): a count fell from 1 to 0.5"),
        (delta(2, &[(1, 5.0), (0, f64::NAN)]), "a count is NaN"),
        (delta(2, &[(1, 5.0), (0, -1.0)]), "a count is -1"),
        (delta(2, &[(1, 5.0), (1, 5.0)]), "series id 1 stands twice"),
        (snapshot(2, &[(1, 5.0), (0, 0.5)]), "a count fell"),
    ];
    for (said, reason) in cases {
        let status = refused(said).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(reason), "{}", status.message());
    }
    for (series, values) in
        [(vec![1, 0], vec![5.0]), (vec![1], vec![5.0, 6.0]), (vec![], vec![5.0])]
    {
        let frame = v1::Delta {
            sequence: 2,
            samples: Some(v1::Samples { series, values }),
            ..v1::Delta::default()
        };
        let status = refused(Said::Delta(frame)).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains("values where the named series have"),
            "{}",
            status.message()
        );
    }
}

/// Id, labels, bounds.
type Series<'a> = (u32, &'a [(&'a str, &'a str)], &'a [f64]);

fn family(name: &str, kind: v1::MetricType, series: &[Series<'_>]) -> v1::FamilyDefinition {
    let series = series.iter().map(|(id, labels, bounds)| v1::SeriesDefinition {
        id: *id,
        labels: labels
            .iter()
            .map(|(name, value)| v1::Label { name: (*name).to_owned(), value: (*value).to_owned() })
            .collect(),
        bounds: bounds.to_vec(),
    });
    v1::FamilyDefinition {
        name: name.to_owned(),
        r#type: kind.into(),
        series: series.collect(),
        ..v1::FamilyDefinition::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_definition_defines_nothing() {
    use v1::MetricType::{Counter, Gauge, Histogram, Summary, Unspecified};
    let good = || family("new", Gauge, &[(2, &[], &[])]);
    let cases = [
        (family("a\0", Gauge, &[(3, &[], &[])]), "\"a\\0\": the name is empty or has a NUL"),
        (family("", Gauge, &[(3, &[], &[])]), "the name is empty or has a NUL"),
        (family("x", Unspecified, &[(3, &[], &[])]), "no metric type has number 0"),
        (
            v1::FamilyDefinition { r#type: 77, ..family("x", Gauge, &[]) },
            "no metric type has number 77",
        ),
        (family("x", Gauge, &[(4, &[], &[])]), "series id 4 where 3 is next"),
        (family("x", Gauge, &[(3, &[], &[]), (3, &[], &[])]), "series id 3 where 4 is next"),
        (family("x", Gauge, &[(0, &[], &[])]), "series id 0 where 3 is next"),
        (family("x", Gauge, &[(3, &[("", "")], &[])]), "\"\" is no label name"),
        (family("x", Gauge, &[(3, &[("a.b", "1"), ("a_b", "2")], &[])]), "rename one"),
        (family("x", Gauge, &[(3, &[("shard.id", "3")], &[])]), "rename one"),
        (family("x", Gauge, &[(3, &[("_.a", "1")], &[])]), "begins with __ once"),
        (family("x", Gauge, &[(3, &[("a", "1"), ("a", "2")], &[])]), "label \"a\" stands twice"),
        (family("x", Gauge, &[(3, &[("__name__", "y")], &[])]), "label \"__name__\" is reserved"),
        (family("x", Histogram, &[(3, &[("le", "1")], &[])]), "label \"le\" is reserved"),
        (family("x", Summary, &[(3, &[("quantile", "1")], &[])]), "label \"quantile\" is reserved"),
        (family("x", Histogram, &[(3, &[], &[2.0, 1.0])]), "bounds must rise"),
        (family("x", Histogram, &[(3, &[], &[1.0, f64::INFINITY])]), "is not finite"),
        (family("x", Histogram, &[(3, &[], &[f64::NAN])]), "is not finite"),
        (family("x", Summary, &[(3, &[], &[0.5, 1.5])]), "quantiles are within 0 and 1"),
        (family("x", Counter, &[(3, &[], &[1.0])]), "a counter has no bounds"),
    ];
    for (bad, reason) in cases {
        let families = vec![good(), bad];
        let status = refused(Said::Definitions(v1::Definitions { families })).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(reason), "{}", status.message());
    }
}

#[tokio::test(start_paused = true)]
async fn ids_without_end_are_refused() {
    let series = (2..2 + MAX_SERIES_IDS as u32)
        .map(|id| v1::SeriesDefinition { id, ..v1::SeriesDefinition::default() });
    let family = v1::FamilyDefinition {
        series: series.collect(),
        ..family("x", v1::MetricType::Gauge, &[])
    };
    let families = vec![family];
    let status = refused(Said::Definitions(v1::Definitions { families })).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_message_is_refused() {
    for (told, code) in [
        (Status::internal("failed to decode Protobuf message"), Code::InvalidArgument),
        (Status::out_of_range("decoded message length too large"), Code::ResourceExhausted),
    ] {
        let mut peer = Peer::ready(&sessions()).await;
        let message = told.message().to_owned();
        peer.says.send(Err(told)).await.unwrap();
        let status = peer.refusal().await;
        assert_eq!(status.code(), code);
        assert!(status.message().contains(&message));
    }
}
