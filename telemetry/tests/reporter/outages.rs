//! Streams that break, managers that are away, silent, or restarted.

use crate::Bot;
use crate::fake::{Fake, INTERVAL, welcome};
use prometheus::PullingGauge;
use shardmeter_process::testing::eventually;
use shardmeter_proto::v1::Welcome;
use shardmeter_proto::v1::report_response::Message as Response;
use shardmeter_telemetry::{Connection, Reporter, Shard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tonic::Status;

fn known(last_sequence: u64) -> Welcome {
    Welcome { last_sequence, ..welcome() }
}

#[tokio::test]
async fn after_a_cut_the_instance_goes_on_with_a_snapshot() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, first) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    bot.counter.inc_by(7);
    let mut lost = call.frame().await;
    while lost.values().is_empty() {
        call.ack(lost.sequence()).await;
        lost = call.frame().await;
    }
    call.fail(Status::unavailable("restarting")).await;

    let mut call = fake.accept().await;
    let second = call.hello().await;
    assert_eq!(second, first, "the same instance since the same moment");
    eventually("the status knows", || !bot.reporter.status().connected).await;
    call.welcome(known(lost.sequence() - 1)).await;
    let frame = call.frame().await;
    assert!(frame.is_snapshot());
    assert_eq!(frame.sequence(), lost.sequence() + 1);
    assert_eq!(frame.families(), ["c_total"], "ids are defined anew");
    assert_eq!(frame.values(), [7.0]);
    call.ack(frame.sequence()).await;
    eventually("the status knows", || bot.reporter.status().connected).await;
}

#[tokio::test]
async fn a_manager_that_knows_more_gets_a_greater_sequence() {
    let mut fake = Fake::start().await;
    let _bot = Bot::start(&fake);
    let mut call = fake.accept().await;
    call.hello().await;
    call.welcome(known(40)).await;
    assert_eq!(call.frame().await.sequence(), 41);
}

#[tokio::test]
async fn a_manager_may_come_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let bot = Bot::start_at(&format!("http://{addr}"));
    bot.counter.inc_by(2);
    tokio::task::yield_now().await;
    let mut fake = Fake::start_at(addr, None).await;
    let (mut call, _) = fake.accept_and_welcome().await;
    assert_eq!(call.frame().await.values(), [2.0]);
}

#[tokio::test]
async fn a_reset_while_the_manager_is_away_is_noticed() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let gathers = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&gathers);
    let count = move || counted.fetch_add(1, Relaxed) as f64 * 0.0;
    let probe = PullingGauge::new("g", "Counts gathers", Box::new(count)).unwrap();
    bot.registry.register(Box::new(probe)).unwrap();
    let gathered = async || {
        // Two: one may have begun before.
        let before = gathers.load(Relaxed);
        eventually("gathered", || gathers.load(Relaxed) >= before + 2).await;
    };

    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    drop(call);
    // The next stream is open but not welcomed.
    let mut call = fake.accept().await;
    call.hello().await;
    bot.counter.inc_by(200);
    gathered().await;
    bot.counter.reset();
    gathered().await;
    bot.counter.inc_by(300);
    call.welcome(known(1)).await;
    assert_eq!(call.frame().await.values(), [500.0, 0.0]);
}

#[tokio::test]
async fn a_closed_instance_is_succeeded_by_one_that_counts_from_there() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, old) = fake.accept_and_welcome().await;
    bot.counter.inc_by(10);
    let last = call.frame_with(|frame| frame.values() == [10.0]).await.sequence();
    drop(call);
    let mut call = fake.accept().await;
    call.hello().await;
    bot.counter.inc_by(5);
    call.welcome(Welcome { closed_at: Some(last), ..known(last) }).await;
    let (mut call, new) = fake.accept_and_welcome().await;
    assert_ne!(new.instance_id, old.instance_id);
    let frame = call.frame().await;
    assert_eq!((frame.sequence(), frame.values()), (1, vec![5.0]));
}

#[tokio::test]
async fn a_frame_nobody_acknowledges_ends_the_stream() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    let lost = call.frame().await;
    bot.counter.inc();
    tokio::time::pause();
    let mut call = fake.accept().await;
    tokio::time::resume();
    call.hello().await;
    call.welcome(welcome()).await;
    let frame = call.frame().await;
    assert!(frame.is_snapshot() && frame.sequence() > lost.sequence());
    assert_eq!(frame.values(), [1.0]);
}

#[tokio::test]
async fn a_stream_nobody_welcomes_is_opened_again() {
    let mut fake = Fake::start().await;
    let _bot = Bot::start(&fake);
    let mut silent = fake.accept().await;
    silent.hello().await;
    tokio::time::pause();
    let mut call = fake.accept().await;
    tokio::time::resume();
    call.hello().await;
}

#[tokio::test]
async fn every_stream_brings_the_token_that_the_file_has_by_then() {
    let mut fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let connection = Connection::builder(fake.endpoint()).token_file(&file).build().unwrap();
    let (registry, _) = crate::registry();
    let builder = Reporter::builder(&connection, Shard { id: 1, count: 2 });
    let _reporter = builder.registry(registry).build().unwrap();
    for (next, expected) in [
        (Some("second"), "Bearer first"),
        (Some(""), "Bearer second"),
        (None, "Bearer second"),
        (Some("third"), "Bearer second"),
        (None, "Bearer third"),
    ] {
        let mut call = fake.accept().await;
        assert_eq!(call.authorization.as_deref(), Some(expected));
        call.hello().await;
        match next {
            Some(token) => std::fs::write(&file, token).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        call.fail(Status::unavailable("restarting")).await;
    }
}

/// A manager that is asked too often says for how long it wants to be left alone.
#[tokio::test]
async fn a_pushback_is_waited_out() {
    let mut fake = Fake::start().await;
    let _bot = Bot::start(&fake);
    let mut call = fake.accept().await;
    call.hello().await;
    let mut status = Status::resource_exhausted("too often");
    status.metadata_mut().insert("grpc-retry-pushback-ms", "700".parse().unwrap());
    let refused = Instant::now();
    call.fail(status).await;
    fake.accept().await;
    assert!(refused.elapsed() >= Duration::from_millis(700), "{:?}", refused.elapsed());
}

#[tokio::test]
async fn a_refusal_is_tried_again_later() {
    for refusal in
        [Status::failed_precondition("another fleet"), Status::invalid_argument("message 3: no")]
    {
        let mut fake = Fake::start().await;
        let _bot = Bot::start(&fake);
        let mut call = fake.accept().await;
        call.hello().await;
        call.fail(refusal).await;
        tokio::time::pause();
        let mut call = fake.accept().await;
        tokio::time::resume();
        call.hello().await;
    }
}

#[tokio::test]
async fn nonsense_from_the_manager_ends_the_stream_only() {
    let mut fake = Fake::start().await;
    let _bot = Bot::start(&fake);
    let second_welcome = Response::Welcome(welcome());
    let future_ack =
        Response::Ack(shardmeter_proto::v1::Ack { sequence: 99, ..Default::default() });
    for nonsense in [second_welcome, future_ack] {
        let (mut call, _) = fake.accept_and_welcome().await;
        call.frame().await;
        call.say(nonsense).await;
        while call.next().await.is_some() {}
    }
    // Snapshots that are never good enough.
    let (mut call, _) = fake.accept_and_welcome().await;
    for _ in 0..4 {
        assert!(call.frame().await.is_snapshot());
        call.resync().await;
    }
    assert!(call.next().await.is_none());
    // A Welcome that states nothing, or impossible things.
    let mut call = fake.accept().await;
    call.hello().await;
    call.welcome(Welcome { last_sequence: u64::MAX, ..Welcome::default() }).await;
    assert!(call.frame().await.is_snapshot());
    drop(call);
    let mut call = fake.accept().await;
    call.hello().await;
    let impossible = prost_types::Duration { seconds: -3, nanos: i32::MIN };
    call.welcome(Welcome { report_interval: Some(impossible), ..welcome() }).await;
    assert!(call.frame().await.is_snapshot());
}

#[tokio::test]
async fn an_old_ack_is_ignored() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    let second = call.frame().await;
    bot.counter.inc();
    call.ack(1).await;
    call.assert_silent(3 * INTERVAL).await;
    call.ack(second.sequence()).await;
    assert_eq!(call.frame().await.values(), [1.0]);
}

#[tokio::test]
async fn a_manager_that_disappears_with_its_connections_is_found_again() {
    let process = tokio::runtime::Runtime::new().unwrap();
    let mut fake = process.spawn(Fake::start()).await.unwrap();
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    process.shutdown_background();
    eventually("the status knows", || !bot.reporter.status().connected).await;
    let mut fake = Fake::start_at(fake.addr(), None).await;
    let (mut call, _) = fake.accept_and_welcome().await;
    assert!(call.frame().await.is_snapshot());
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_within_20_seconds() {
    let mut fake = Fake::start().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bot = Bot::start_at(&format!("http://{}", proxy.local_addr().unwrap()));
    let (mut bot_side, _) = proxy.accept().await.unwrap();
    let mut manager_side = TcpStream::connect(fake.addr()).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut bot_side, &mut manager_side) => panic!("the connection ended"),
        mut call = async { fake.accept_and_welcome().await.0 } => {
            tokio::select! {
                _ = copy_bidirectional(&mut bot_side, &mut manager_side) => panic!("the connection ended"),
                _ = call.frame_with(|_| true) => {}
            }
        }
    }
    // From here on nobody carries a byte, and nobody closes.
    tokio::time::pause();
    let start = Instant::now();
    let (_bot_side, _) = proxy.accept().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(!bot.reporter.status().connected);
}
