//! Frames: applied, placed, put together.

use super::*;

#[tokio::test(start_paused = true)]
async fn frames_are_acknowledged_and_exposed() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    peer.say(snapshot(1, &[(0, 1.0), (1, 5.0)])).await;
    let expected = v1::Ack { sequence: 1, durable: false, rejected: Vec::new() };
    assert_eq!(peer.ack().await, expected);
    peer.say(delta(2, &[(0, 2.0)])).await;
    assert_eq!(peer.ack().await.sequence, 2);
    // Once more, and with another value: the first counts.
    peer.say(delta(2, &[(0, 9.0)])).await;
    assert_eq!(peer.ack().await.sequence, 2);
    assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 2", "g{shard_id=\"0\"} 5"]);
    peer.say(Said::Delta(v1::Delta {
        sequence: 3,
        samples: samples(&[(0, 4.0)]),
        removed: samples(&[(1, 6.0)]),
        exemplars: Vec::new(),
    }))
    .await;
    peer.ack().await;
    assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 4"]);
    assert_eq!(sessions.metrics.samples.get(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_placed_is_answered_with_one_resync() {
    let cases = [
        (delta(2, &[(0, 2.0), (2, 1.0)]), "series id 2 is not defined"),
        (snapshot(2, &[(0, 2.0), (9, 1.0)]), "series id 9 is not defined"),
        (delta(7, &[(0, 2.0)]), "sequence 7 where 2 is next"),
        (Said::Goodbye(v1::Goodbye { sequence: 9 }), "goodbye at sequence 9"),
        (part(2, 1, true, &[]), "part 1 of sequence 2"),
    ];
    for (said, reason) in cases {
        let sessions = sessions();
        let mut peer = Peer::ready(&sessions).await;
        peer.say(delta(1, &[(0, 1.0)])).await;
        assert!(peer.resync().await.contains("before the stream's first snapshot"));
        peer.say(snapshot(1, &[(0, 1.0)])).await;
        peer.ack().await;
        let before = exposed(&sessions);
        peer.say(said).await;
        let asked = peer.resync().await;
        assert!(asked.contains(reason), "{asked}");
        // Until the snapshot comes, nothing is answered or applied.
        peer.say(delta(2, &[(0, 5.0)])).await;
        peer.say(delta(3, &[(9, 5.0)])).await;
        peer.say(part(3, 4, true, &[(0, 5.0)])).await;
        peer.say(Said::Goodbye(v1::Goodbye { sequence: 1 })).await;
        settle().await;
        assert!(peer.answers.try_recv().is_err(), "{reason}");
        assert_eq!(exposed(&sessions), before, "{reason}");
        peer.say(snapshot(3, &[(0, 5.0)])).await;
        assert_eq!(peer.ack().await.sequence, 3);
        peer.say(delta(4, &[(0, 6.0)])).await;
        assert_eq!(peer.ack().await.sequence, 4);
        assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 6"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_in_parts_is_applied_at_once_with_its_last() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    peer.say(part(1, 0, false, &[(0, 1.0)])).await;
    peer.say(define("late", v1::MetricType::Gauge, 2)).await;
    peer.say(part(1, 1, false, &[])).await;
    settle().await;
    assert_eq!(exposed(&sessions), [""; 0]);
    peer.say(part(1, 2, true, &[(1, 2.0), (2, 3.0)])).await;
    assert_eq!(peer.ack().await.sequence, 1);
    let all = ["c_total{shard_id=\"0\"} 1", "g{shard_id=\"0\"} 2", "late{shard_id=\"0\"} 3"];
    assert_eq!(exposed(&sessions), all);
    // A gauge of an earlier part is not taken for one that left.
    peer.say(part(2, 0, false, &[(1, 4.0)])).await;
    peer.say(part(2, 1, true, &[(0, 1.0), (2, 3.0)])).await;
    peer.ack().await;
    assert_eq!(exposed(&sessions)[1], "g{shard_id=\"0\"} 4");
}

#[tokio::test(start_paused = true)]
async fn parts_that_do_not_follow_each_other_are_asked_for_anew() {
    let sessions = sessions();
    let wrong = [
        (vec![part(1, 1, true, &[])], "part 1 of sequence 1 where part 0 of sequence 1"),
        (vec![part(1, 0, false, &[]), part(1, 2, true, &[])], "part 2 of sequence 1 where part 1"),
        (
            vec![part(1, 0, false, &[]), part(2, 1, true, &[])],
            "sequence 2 where part 1 of sequence 1",
        ),
        (vec![part(1, 0, false, &[]), delta(1, &[])], "before the snapshot's last part"),
    ];
    let mut peer = Peer::ready(&sessions).await;
    for (messages, reason) in wrong {
        for message in messages {
            peer.say(message).await;
        }
        let asked = peer.resync().await;
        assert!(asked.contains(reason), "{asked}");
        // The parts so far are forgotten: the rest of them is no snapshot.
        peer.say(part(1, 1, true, &[(0, 9.0)])).await;
        settle().await;
        assert!(peer.answers.try_recv().is_err());
        assert_eq!(exposed(&sessions), [""; 0]);
    }
    // A part 0 begins anew.
    peer.say(part(1, 0, false, &[(0, 9.0)])).await;
    peer.say(part(2, 0, false, &[(0, 1.0)])).await;
    peer.say(part(2, 1, true, &[(1, 2.0)])).await;
    assert_eq!(peer.ack().await.sequence, 2);
    assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 1", "g{shard_id=\"0\"} 2"]);
}

#[tokio::test(start_paused = true)]
async fn parts_without_end_are_refused() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    let many: Vec<_> = (0..300_000).map(|_| (0, 1.0)).collect();
    for number in 0..4 {
        peer.say(part(1, number, false, &many)).await;
    }
    assert_eq!(peer.refusal().await.code(), Code::ResourceExhausted);
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_is_said_once() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    peer.say(define("g", v1::MetricType::Counter, 2)).await;
    peer.say(snapshot(1, &[(0, 1.0), (1, 2.0), (2, 3.0)])).await;
    let ack = peer.ack().await;
    assert_eq!(ack.rejected.len(), 1);
    let rejected = &ack.rejected[0];
    assert_eq!((rejected.family.as_str(), rejected.series), ("g", 1));
    assert_eq!(rejected.reason(), v1::RejectReason::TypeConflict);
    assert!(rejected.message.contains("gauge"), "{}", rejected.message);
    assert_eq!(exposed(&sessions), ["c_total{shard_id=\"0\"} 1", "g{shard_id=\"0\"} 2"]);
    peer.say(delta(2, &[(2, 4.0)])).await;
    assert_eq!(peer.ack().await.rejected, []);
    peer.say(snapshot(3, &[(2, 4.0)])).await;
    assert_eq!(peer.ack().await.rejected, []);
}

#[tokio::test(start_paused = true)]
async fn exemplars_are_carried_through() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    let exemplar = |series, name: &str, value: &str| v1::Exemplar {
        series,
        labels: vec![v1::Label { name: name.to_owned(), value: value.to_owned() }],
        value: 0.5,
        time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 250_000_000 }),
        ..v1::Exemplar::default()
    };
    let part = |part, last, samples, exemplars| {
        Said::Snapshot(v1::Snapshot { sequence: 1, part, last, samples, removed: None, exemplars })
    };
    let first = vec![exemplar(0, "trace_id", "first")];
    peer.say(part(0, false, samples(&[(0, 1.0)]), first)).await;
    let second = vec![exemplar(0, "span.id", &"long".repeat(40))];
    peer.say(part(1, true, samples(&[(1, 5.0)]), second)).await;
    let ack = peer.ack().await;
    let [rejected] = &ack.rejected[..] else { panic!("{ack:?}") };
    assert_eq!((&*rejected.family, rejected.series), ("c_total", 1));
    assert_eq!(rejected.reason(), v1::RejectReason::Limit);
    let line = |sessions: &Sessions| {
        let page =
            exposition::render(&sessions.registry, &[], sessions.clock.now(), Format::OPENMETRICS);
        let page = String::from_utf8(page.to_vec()).unwrap();
        page.lines().find(|line| line.starts_with("c_total{")).unwrap().to_owned()
    };
    let expected = "c_total{shard_id=\"0\"} 1 # {trace_id=\"first\"} 0.5 1700000000.25";
    assert_eq!(line(&sessions), expected);
    // In a delta, without a time that can be.
    let mut next = exemplar(0, "trace_id", "second");
    next.time = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    peer.say(Said::Delta(v1::Delta { sequence: 2, exemplars: vec![next], ..v1::Delta::default() }))
        .await;
    assert_eq!(peer.ack().await.rejected, []);
    assert!(line(&sessions).contains("# {trace_id=\"second\"} 0.5 "), "{}", line(&sessions));
    // A gauge has none.
    let of_gauge = vec![exemplar(1, "trace_id", "third")];
    let samples = samples(&[(0, 9.0)]);
    let said = v1::Delta { sequence: 3, samples, removed: None, exemplars: of_gauge };
    peer.say(Said::Delta(said)).await;
    let status = peer.refusal().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("an exemplar of series id 1, bucket 0: only counters"));
    assert!(line(&sessions).starts_with("c_total{shard_id=\"0\"} 1 # "));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_no_exemplars_without_end() {
    let sessions = sessions();
    let mut peer = Peer::ready(&sessions).await;
    for part in 0..3 {
        let exemplars = vec![v1::Exemplar::default(); 10_000];
        let some = v1::Snapshot { sequence: 1, part, exemplars, ..v1::Snapshot::default() };
        peer.say(Said::Snapshot(some)).await;
    }
    assert_eq!(peer.refusal().await.code(), Code::ResourceExhausted);
}
