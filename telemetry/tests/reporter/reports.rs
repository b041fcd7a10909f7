//! What one stream says while all is well.

use crate::Bot;
use crate::fake::{Fake, INTERVAL, welcome};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry};
use shardmeter_process::testing::eventually;
use shardmeter_proto::v1::report_response::Message as Response;
use shardmeter_proto::v1::{Ack, Delta, Limits, MetricType, RejectReason, Rejected};
use shardmeter_telemetry::{Connection, Reporter, Shard, Status};

#[tokio::test]
async fn the_first_frame_is_a_snapshot_and_the_next_says_what_changed() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let gauge = IntGauge::new("g", "A gauge").unwrap();
    bot.registry.register(Box::new(gauge.clone())).unwrap();
    bot.counter.inc_by(3);
    gauge.set(-8);

    let (mut call, hello) = fake.accept_and_welcome().await;
    assert_eq!((hello.shard_id, hello.shard_count), (1, 2));
    assert_eq!(hello.instance_id.len(), 16);
    assert!(hello.started_at.is_some());
    assert_eq!(hello.client_name, "shardmeter-telemetry");
    let first = call.frame().await;
    assert!(first.is_snapshot());
    assert_eq!(first.sequence(), 1);
    assert_eq!(first.families(), ["c_total", "g"]);
    assert_eq!(first.values(), [3.0, -8.0]);
    assert_eq!(bot.reporter.status(), Status::default());
    call.ack(1).await;

    let idle = call.frame().await;
    assert_eq!(bot.reporter.status(), Status { connected: true, acknowledged: 1 });
    let sign_of_life = Delta { sequence: 2, ..Delta::default() };
    assert_eq!(idle.delta, Some(sign_of_life));
    bot.counter.inc();
    call.ack(2).await;
    let delta = call.frame_with(|frame| !frame.values().is_empty()).await;
    assert_eq!(delta.values(), [4.0], "its value since the start, and no other series");
    assert!(delta.definitions.is_empty());
}

#[tokio::test]
async fn one_frame_is_in_flight_and_changes_meanwhile_are_merged() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    let first = call.frame().await;
    for _ in 0..3 {
        bot.counter.inc();
        call.assert_silent(3 * INTERVAL).await;
    }
    call.ack(first.sequence()).await;
    let second = call.frame().await;
    assert_eq!(second.sequence(), 2);
    assert_eq!(second.values(), [3.0]);
}

#[tokio::test]
async fn a_resync_is_answered_with_a_snapshot() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    let refused = call.frame().await;
    bot.counter.inc_by(5);
    call.resync().await;
    let answer = call.frame().await;
    assert!(answer.is_snapshot());
    assert_eq!(answer.sequence(), refused.sequence() + 1);
    assert_eq!(answer.values(), [5.0]);
    assert!(answer.definitions.is_empty(), "ids live as long as the stream");
    call.ack(answer.sequence()).await;
    // One that nobody waits for, too.
    call.resync().await;
    let mut frame = call.frame().await;
    if !frame.is_snapshot() {
        // A delta was on its way: the Resync is the answer to it.
        frame = call.frame().await;
    }
    assert!(frame.is_snapshot());
    call.ack(frame.sequence()).await;
    assert!(!call.frame().await.is_snapshot());
}

#[tokio::test]
async fn a_snapshot_goes_in_parts_below_the_message_limit() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let buckets = HistogramOpts::new("h_seconds", "A histogram").buckets(vec![1.0, 2.0, 3.0]);
    let histogram = HistogramVec::new(buckets, &["k"]).unwrap();
    bot.registry.register(Box::new(histogram.clone())).unwrap();
    for n in 0..50 {
        histogram.with_label_values(&[&n.to_string()]).observe(2.5);
    }
    let mut call = fake.accept().await;
    call.hello().await;
    let limits = Limits { max_message_bytes: 300, max_series_ids: 100 };
    call.welcome(shardmeter_proto::v1::Welcome { limits: Some(limits), ..welcome() }).await;
    let frame = call.frame().await;
    assert!(frame.definitions.len() > 5 && frame.snapshot.len() > 5);
    let parts: Vec<u32> = frame.snapshot.iter().map(|part| part.part).collect();
    assert_eq!(parts, (0..frame.snapshot.len() as u32).collect::<Vec<_>>());
    assert!(frame.snapshot.iter().all(|part| part.sequence == 1));
    assert_eq!(frame.values().len(), 1 + 50 * 5);
    let histograms = frame.definitions.iter().flat_map(|definitions| &definitions.families);
    assert!(histograms.filter(|family| family.name == "h_seconds").all(|family| {
        family.r#type() == MetricType::Histogram
            && family.series.iter().all(|series| series.bounds == [1.0, 2.0, 3.0])
    }));
    call.ack(1).await;
    assert!(call.frame().await.delta.is_some());
}

#[tokio::test]
async fn used_up_series_ids_lead_to_a_new_stream() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let mut call = fake.accept().await;
    let hello = call.hello().await;
    let limits = Limits { max_message_bytes: 0, max_series_ids: 2 };
    let tight = shardmeter_proto::v1::Welcome { limits: Some(limits), ..welcome() };
    call.welcome(tight).await;
    call.frame_with(|_| true).await;

    let swap = |old: Option<&IntGauge>, name: &str| {
        if let Some(old) = old {
            bot.registry.unregister(Box::new(old.clone())).unwrap();
        }
        let gauge = IntGauge::new(name, "Comes and goes").unwrap();
        bot.registry.register(Box::new(gauge.clone())).unwrap();
        gauge
    };
    let first = swap(None, "first");
    call.frame_with(|frame| frame.families() == ["first"]).await;
    swap(Some(&first), "second");
    call.ack_until_end().await;
    let mut call = fake.accept().await;
    assert_eq!(call.hello().await.instance_id, hello.instance_id);
    call.welcome(tight).await;
    let frame = call.frame().await;
    assert!(frame.is_snapshot());
    assert_eq!(frame.families(), ["c_total", "second"]);
}

#[tokio::test]
async fn a_rejected_family_does_not_end_the_session() {
    let mut fake = Fake::start().await;
    let _bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    for _ in 0..3 {
        let sequence = call.frame().await.sequence();
        let rejected = Rejected {
            family: "c_total".to_owned(),
            reason: RejectReason::TypeConflict.into(),
            message: "others report a gauge".to_owned(),
            series: 1,
        };
        call.say(Response::Ack(Ack { sequence, durable: false, rejected: vec![rejected] })).await;
    }
    call.frame().await;
}

#[tokio::test]
async fn several_registries_make_one_instance() {
    let mut fake = Fake::start().await;
    let connection = Connection::new(&fake.endpoint()).unwrap();
    let mut builder = Reporter::builder(&connection, Shard { id: 0, count: 1 });
    let mut counters = Vec::new();
    for name in ["process_total", "shard_total"] {
        let registry = Registry::new();
        let counter = IntCounter::new(name, "A counter").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counters.push(counter);
        builder = builder.registry(registry);
    }
    let _reporter = builder.fleet("my-bot").client("my-bot", "9.9").build().unwrap();
    counters[1].inc_by(2);
    let (mut call, hello) = fake.accept_and_welcome().await;
    assert_eq!(hello.fleet, "my-bot");
    assert_eq!((hello.client_name.as_str(), hello.client_version.as_str()), ("my-bot", "9.9"));
    let frame = call.frame().await;
    assert_eq!(frame.families(), ["process_total", "shard_total"]);
    assert_eq!(frame.values(), [0.0, 2.0]);
}

#[tokio::test]
async fn reporters_share_a_connection_that_carries_few_streams() {
    let mut fake = Fake::start_at("127.0.0.1:0".parse().unwrap(), Some(2)).await;
    let connection = Connection::new(&fake.endpoint()).unwrap();
    let start = |id| {
        let registry = crate::registry().0;
        Reporter::builder(&connection, Shard { id, count: 3 }).registry(registry).build().unwrap()
    };
    let reporters: Vec<Reporter> = (0..3).map(start).collect();
    let mut seen = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..2 {
        let (mut call, hello) = fake.accept_and_welcome().await;
        call.frame_with(|_| true).await;
        seen.push(hello.shard_id);
        calls.push(call);
    }
    fake.assert_no_stream(5 * INTERVAL).await;
    calls.pop();
    // Whoever takes the free place, one stream or the other comes.
    fake.accept_and_welcome().await;
    eventually("two are connected", || {
        reporters.iter().filter(|reporter| reporter.status().acknowledged > 0).count() >= 2
    })
    .await;
}
