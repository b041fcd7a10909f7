//! How a reporter ends.

use crate::Bot;
use crate::fake::{Fake, welcome};
use shardmeter_process::testing::soon;
use shardmeter_proto::v1::Welcome;
use shardmeter_telemetry::{Connection, Reporter, Shard, ShutdownError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::Status;

#[tokio::test]
async fn the_last_frame_is_acknowledged_then_goodbye_then_the_stream_ends() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let mut call = fake.accept().await;
    call.hello().await;
    // No tick comes: the last frame is sent because of the shutdown.
    let hour = Duration::from_secs(3600).try_into().unwrap();
    call.welcome(Welcome { report_interval: Some(hour), ..welcome() }).await;
    call.frame_with(|_| true).await;
    bot.counter.inc_by(9);
    let shutdown = tokio::spawn(bot.reporter.shutdown());
    let last = call.frame().await;
    assert_eq!(last.values(), [9.0]);
    call.assert_silent(Duration::from_millis(50)).await;
    call.ack(last.sequence()).await;
    assert_eq!(call.goodbye().await.sequence, last.sequence());
    call.assert_silent(Duration::from_millis(50)).await;
    assert!(!shutdown.is_finished(), "it waits for the end of the stream");
    drop(call);
    shutdown.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_goodbye_the_manager_cannot_place_is_repeated_after_a_snapshot() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    let shutdown = tokio::spawn(bot.reporter.shutdown());
    let first = call.ack_until_goodbye().await;
    call.resync().await;
    let snapshot = call.frame().await;
    assert!(snapshot.is_snapshot() && snapshot.sequence() > first);
    call.ack(snapshot.sequence()).await;
    assert_eq!(call.goodbye().await.sequence, snapshot.sequence());
    drop(call);
    shutdown.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_at_the_end_is_opened_again() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    bot.counter.inc_by(4);
    let shutdown = tokio::spawn(bot.reporter.shutdown());
    call.frame().await;
    call.fail(Status::unavailable("restarting")).await;
    let (mut call, _) = fake.accept_and_welcome().await;
    let snapshot = call.frame().await;
    assert_eq!(snapshot.values(), [4.0]);
    call.ack(snapshot.sequence()).await;
    assert!(call.ack_until_goodbye().await > snapshot.sequence());
    drop(call);
    shutdown.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_goodbye_that_was_heard_before_the_stream_broke_is_enough() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    let shutdown = tokio::spawn(bot.reporter.shutdown());
    let goodbye = call.ack_until_goodbye().await;
    call.fail(Status::unavailable("cut")).await;
    let mut call = fake.accept().await;
    call.hello().await;
    call.welcome(Welcome { closed_at: Some(goodbye), last_sequence: goodbye, ..welcome() }).await;
    shutdown.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_manager_it_tries_once() {
    let bot = Bot::start_at("http://127.0.0.1:1");
    let shutdown = timeout(Duration::from_secs(4), bot.reporter.shutdown()).await;
    let outcome = shutdown.expect("promptly");
    assert!(matches!(outcome, Err(ShutdownError::NotTaken { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_refusal_ends_it_with_the_managers_text() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame().await;
    let shutdown = tokio::spawn(bot.reporter.shutdown());
    tokio::task::yield_now().await;
    call.fail(Status::failed_precondition("this is fleet B")).await;
    match shutdown.await.unwrap() {
        Err(ShutdownError::NotTaken { reason }) => {
            assert!(reason.contains("this is fleet B"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_silent_manager_is_waited_for_until_the_deadline() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame().await;
    tokio::time::pause();
    let start = Instant::now();
    let outcome = bot.reporter.shutdown().await;
    assert!(matches!(outcome, Err(ShutdownError::Deadline(_))), "{outcome:?}");
    let took = start.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&took), "{took:?}");
    tokio::time::resume();
    assert!(call.next().await.is_none(), "the task is gone, and its stream");
}

#[tokio::test]
async fn a_manager_that_went_away_is_waited_for_until_the_deadline() {
    let mut fake = Fake::start().await;
    let (registry, _counter) = crate::registry();
    let connection = Connection::new(&fake.endpoint()).unwrap();
    let deadline = Duration::from_secs(2);
    let reporter = Reporter::builder(&connection, Shard { id: 0, count: 1 })
        .registry(registry)
        .shutdown_deadline(deadline)
        .build()
        .unwrap();
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    drop((call, fake));
    tokio::time::pause();
    let start = Instant::now();
    let outcome = reporter.shutdown().await;
    assert!(
        matches!(outcome, Err(ShutdownError::Deadline(limit)) if limit == deadline),
        "{outcome:?}"
    );
    assert!(start.elapsed() < 2 * deadline);
}

#[tokio::test]
async fn dropping_the_handle_ends_the_stream_without_goodbye() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let (mut call, _) = fake.accept_and_welcome().await;
    call.frame_with(|_| true).await;
    drop(bot.reporter);
    let ended = async {
        while let Some(message) = call.next().await {
            let goodbye =
                matches!(message, shardmeter_proto::v1::report_request::Message::Goodbye(_));
            assert!(!goodbye, "the manager must not think that this was clean");
        }
    };
    soon("the end", ended).await;
}
