//! A shard with a million label values: its totals are right, the manager's memory stays under a stated cap, and another
//! shard is served meanwhile.

use std::{ops::Range, time::Duration};

use shardmeter_proto::v1::{
    self, report_request::Message as Said, report_response::Message as Answer,
};
use tonic::transport::Channel;

use crate::{
    process::Running,
    server::{Stream, define, delta, hello, snapshot},
};

/// What README says that such a shard costs at most, over what the manager needs anyway, MiB: its stream with a million ids
/// included.
const CAP: u64 = 384;

const VALUES: u32 = 1_000_000;

/// How long a million definitions may take, built for debugging and beside other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// Series in one message of at most 4 MiB.
const AT_ONCE: u32 = 40_000;

/// The manager's memory now and at most so far, MiB.
fn rss(running: &Running) -> [u64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    ["VmRSS:", "VmHWM:"].map(|what| {
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    })
}

/// A label value that is no longer than ids are, and like no other.
fn random(n: u32) -> String {
    format!("{:016x}", u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn parts() -> impl Iterator<Item = Range<u32>> {
    (0..VALUES.div_ceil(AT_ONCE)).map(|n| n * AT_ONCE..VALUES.min((n + 1) * AT_ONCE))
}

async fn open(running: &Running, shard_id: u32) -> Stream {
    let channel = Channel::from_shared(running.grpc.clone()).unwrap().connect().await.unwrap();
    let mut stream = Stream::open(channel, None).await.unwrap();
    stream.say(Said::Hello(v1::Hello { shard_id, ..hello(shard_id as u8) })).await;
    assert!(matches!(stream.answer().await, Answer::Welcome(_)));
    stream
}

/// Defines all of the flood, and says how often each was counted.
async fn say_all(stream: &mut Stream, sequence: u64, count: f64) -> v1::Ack {
    for ids in parts() {
        let series = ids.map(|id| v1::SeriesDefinition {
            id,
            labels: vec![v1::Label { name: "l".into(), value: random(id) }],
            bounds: Vec::new(),
        });
        let family = v1::FamilyDefinition {
            name: "flood_total".into(),
            r#type: v1::MetricType::Counter.into(),
            series: series.collect(),
            ..v1::FamilyDefinition::default()
        };
        stream.say(Said::Definitions(v1::Definitions { families: vec![family] })).await;
    }
    for (part, ids) in (0..).zip(parts()) {
        let last = ids.end == VALUES;
        let samples = v1::Samples { values: vec![count; ids.len()], series: ids.collect() };
        let samples = Some(samples);
        let part = v1::Snapshot { sequence, part, last, samples, ..v1::Snapshot::default() };
        stream.say(Said::Snapshot(part)).await;
    }
    stream.ack_within(PATIENCE).await
}

/// What all series of the flood show together, and how many they are.
async fn total(running: &Running) -> (f64, usize) {
    let url = format!("{}/metrics?name[]=flood_total", running.http);
    let page = reqwest::get(url).await.unwrap().text().await.unwrap();
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let values: Vec<f64> =
        samples.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    (values.iter().sum(), values.len())
}

#[tokio::test]
async fn a_million_label_values_by_grpc_cost_no_more_than_stated() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("manager.toml");
    // The quiet shard is asked as fast as it answers, to tell how long that takes.
    std::fs::write(&config, "[limits]\nframes_per_second = 1_000_000\n").unwrap();
    let [dir, config] = [dir.path(), &config].map(|path| path.to_str().unwrap());
    let running = Running::start(&["--data-dir", dir, "--config", config], &[]);
    let mut quiet = open(&running, 1).await;
    quiet.say(define("quiet_total", v1::MetricType::Counter, 0)).await;
    quiet.say(snapshot(1, &[(0, 1.0)])).await;
    quiet.ack().await;
    let before = rss(&running)[0];

    let mut flood = open(&running, 0).await;
    let flooding = tokio::spawn(async move {
        let ack = say_all(&mut flood, 1, 1.0).await;
        (flood, ack)
    });
    // Meanwhile the other shard is served; how fast is the bench's to say.
    let mut sequence = 1;
    while !flooding.is_finished() {
        sequence += 1;
        quiet.say(delta(sequence, &[(0, sequence as f64)])).await;
        assert_eq!(quiet.ack().await.sequence, sequence);
    }
    let (mut flood, ack) = flooding.await.unwrap();
    assert_eq!(ack.rejected[0].reason(), v1::RejectReason::Overflow);
    assert_eq!(ack.rejected[0].series, VALUES - 2_000);
    assert_eq!(total(&running).await, (f64::from(VALUES), 2_001));
    let some: Vec<_> = (0..200_000).map(|n| (n * 5, 3.0)).collect();
    flood.say(delta(2, &some)).await;
    flood.ack_within(PATIENCE).await;
    assert_eq!(total(&running).await, (f64::from(VALUES) + 400_000.0, 2_001));

    // A cut, and everything again.
    drop(flood);
    let mut flood = open(&running, 0).await;
    say_all(&mut flood, 3, 4.0).await;
    assert_eq!(total(&running).await, (f64::from(VALUES) * 4.0, 2_001));
    let [after, most] = rss(&running);
    assert!(most - before < CAP, "{before} MiB before, {after} after, {most} at most");

    // A kill, and everything again.
    drop(running);
    let running = Running::start(&["--data-dir", dir], &[]);
    assert_eq!(total(&running).await, (f64::from(VALUES) * 4.0, 2_001));
    let mut flood = open(&running, 0).await;
    say_all(&mut flood, 4, 5.0).await;
    assert_eq!(total(&running).await, (f64::from(VALUES) * 5.0, 2_001));
}

/// Every body has other label values, as of a bot that throws its registry away.
#[tokio::test]
async fn ever_new_label_values_by_http_cost_no_more_than_stated() {
    const AT_ONCE: u32 = 25_000;
    let running = Running::start(&[], &[]);
    let client = reqwest::Client::new();
    let before = rss(&running)[0];
    for n in 0..VALUES / AT_ONCE {
        let mut metrics = "# TYPE flood_total counter\n".to_owned();
        for id in n * AT_ONCE..(n + 1) * AT_ONCE {
            metrics.push_str(&format!("flood_total{{l=\"{}\"}} 2\n", random(id)));
        }
        let body = serde_json::json!({ "shardId": 0, "metrics": metrics });
        let post = client.post(format!("{}/shard-metrics", running.http));
        let answer = post.header("X-Instance-Id", "a").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    assert_eq!(total(&running).await, (f64::from(VALUES) * 2.0, 2_001));
    let [after, most] = rss(&running);
    assert!(most - before < CAP, "{before} MiB before, {after} after, {most} at most");
}
