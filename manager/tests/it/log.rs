//! The log is no place that strangers fill.

use shardmeter_proto::v1;
use shardmeter_proto::v1::report_request::Message as Said;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::{
    process::Running,
    server::{Stream, define, delta, hello, snapshot},
};

/// How often each thing is done.
const TIMES: u32 = 150;

#[tokio::test]
async fn what_strangers_do_over_and_over_is_logged_now_and_then() {
    let began = Instant::now();
    let manager = Running::start(&[], &[("RUST_LOG", "info")]);
    let channel = Channel::from_shared(manager.grpc.clone()).unwrap().connect().await.unwrap();
    let open = || async { Stream::open(channel.clone(), None).await.unwrap() };
    for _ in 0..TIMES {
        let mut stream = open().await;
        stream.say(delta(1, &[])).await;
        stream.next().await.unwrap_err();
    }
    for shard_id in 0..TIMES {
        let mut stream = open().await;
        let hello = v1::Hello { shard_id, shard_count: TIMES, ..hello(1) };
        stream.say(Said::Hello(hello)).await;
        stream.answer().await;
        stream.say(define("shard_up", v1::MetricType::Gauge, 0)).await;
        stream.say(snapshot(1, &[(0, 1.0)])).await;
        assert_eq!(stream.ack().await.rejected.len(), 1);
        // Sequence 3 is not the next one.
        stream.say(delta(3, &[])).await;
        stream.answer().await;
    }
    // This line is always there, and all that are looked for come before it.
    let client = reqwest::Client::new();
    client.delete(format!("{}/api/v1/shards/0", manager.http)).send().await.unwrap();
    let log = manager.log_until("forget shard").await;
    let windows = 1 + began.elapsed().as_secs() as usize / 10;
    for (words, least, most) in [
        ("shard refused", 20, 20),
        ("family rejected", 20, 20),
        ("asking for a snapshot", 20, 20),
        ("shard joined", 100, 100),
        // Some are still leaving.
        ("shard left", 0, 100),
        ("shard's stream broke", 0, 100),
    ] {
        let lines = log.lines().filter(|line| line.contains(words)).count();
        assert!((least..=most * windows).contains(&lines), "{words}: {lines} lines\n{log}");
    }
    assert!(log.lines().count() <= 360 * windows, "{log}");
}
