//! How often a shard may send.

use tokio::time::advance;

use super::{super::statuses::RETRY_PUSHBACK, *};

const PER_SECOND: u32 = 20;

fn limited() -> Arc<Sessions> {
    let sessions = Arc::into_inner(sessions()).unwrap();
    let rates = Arc::new(Rates::new(NonZeroU32::new(PER_SECOND).unwrap()));
    Arc::new(Sessions { rates, ..sessions })
}

fn empty(sequence: u64) -> Said {
    if sequence == 1 { snapshot(1, &[]) } else { delta(sequence, &[]) }
}

#[tokio::test(start_paused = true)]
async fn a_shard_sends_so_often_and_no_more() {
    let sessions = limited();
    let mut peer = Peer::ready(&sessions).await; // a Hello, and definitions, which do not count
    for sequence in 1..100 {
        peer.say(empty(sequence)).await;
        assert_eq!(peer.ack().await.sequence, sequence);
    }
    peer.say(empty(100)).await;
    let status = peer.refusal().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get(RETRY_PUSHBACK).unwrap(), "51");
    assert!(status.message().starts_with("shard 0 sends more than 20 reports a second"));

    // Another stream of the shard does not help, nor does another instance; after the wait it goes on.
    for instance in [1, 2] {
        let mut again = Peer::connect(&sessions);
        again.say(Said::Hello(hello(instance))).await;
        assert_eq!(again.refusal().await.code(), Code::ResourceExhausted);
    }
    advance(Duration::from_millis(51)).await;
    Peer::join(&sessions, 1).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_brings_no_series_counts() {
    let sessions = limited();
    let no_series = || Said::Definitions(v1::Definitions { families: Vec::new() });
    let goodbye = || Said::Goodbye(v1::Goodbye { sequence: 9 });
    let part = || Said::Snapshot(v1::Snapshot { sequence: 1, ..v1::Snapshot::default() });
    for said in [&no_series as &dyn Fn() -> Said, &goodbye, &part] {
        advance(Duration::from_secs(60)).await;
        let mut peer = Peer::join(&sessions, 1).await;
        for _ in 0..100 {
            peer.say(said()).await;
        }
        let status = loop {
            match peer.next().await.expect("ended without a status") {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn series_may_be_defined_one_by_one() {
    let sessions = limited();
    let mut peer = Peer::join(&sessions, 1).await;
    for id in 0..1_000 {
        peer.say(define(&format!("c_{id}_total"), v1::MetricType::Counter, id)).await;
    }
    peer.say(empty(1)).await;
    peer.ack().await;
}
