//! Connections that take everything and carry nothing, and the end of a reporter without any.

use crate::registry;
use crate::wire::Wire;
use shardmeter_process::testing::eventually;
use shardmeter_telemetry::{Reporter, Shard, ShutdownError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// No report is due in these tests: what notices a dead connection is the connection.
const INTERVAL: Duration = Duration::from_secs(600);
/// What `shutdown` takes at most, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(5);

fn reporter(wire: &Wire) -> Reporter {
    let builder = Reporter::builder(&wire.connection(), Shard { id: 0, count: 1 });
    builder.registry(registry().0).build().unwrap()
}

async fn connected(wire: &Wire) -> Reporter {
    let reporter = reporter(wire);
    eventually("connected", || reporter.status().connected).await;
    reporter
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_died_is_noticed_within_20_seconds() {
    for idle in [0, 7, 3_600] {
        let wire = Wire::new(INTERVAL);
        let reporter = connected(&wire).await;
        sleep(Duration::from_secs(idle)).await;
        assert_eq!(wire.attempts().len(), 1, "a living connection stays");
        assert!(reporter.status().connected);
        wire.swallow();
        sleep(Duration::from_secs(20)).await;
        assert!(!reporter.status().connected, "after {idle} s");
        // What cannot be reached is tried again, and found when it is there.
        wire.restore();
        sleep(Duration::from_secs(21)).await;
        assert!(reporter.status().connected, "after {idle} s");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_keeps_its_deadline_when_the_connection_died() {
    let wire = Wire::new(INTERVAL);
    let reporter = connected(&wire).await;
    wire.swallow();
    let start = Instant::now();
    let outcome = reporter.shutdown().await;
    assert!(matches!(outcome, Err(ShutdownError::Deadline(DEADLINE))), "{outcome:?}");
    assert!(start.elapsed() < DEADLINE + Duration::from_millis(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn shutdown_keeps_its_deadline_when_nothing_was_ever_answered() {
    // The connection is never made; or it is, but carries nothing.
    for patience in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(12)] {
        let wire = Wire::new(INTERVAL);
        wire.swallow();
        let reporter = reporter(&wire);
        sleep(patience).await;
        let start = Instant::now();
        let outcome = reporter.shutdown().await;
        assert!(outcome.is_err());
        assert!(start.elapsed() < DEADLINE + Duration::from_millis(10), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_back_within_the_deadline_is_not_missed() {
    for _ in 0..20 {
        let wire = Wire::new(INTERVAL);
        let reporter = connected(&wire).await;
        wire.refuse();
        sleep(Duration::from_secs(600)).await; // waits have grown to their longest
        let manager = async {
            sleep(Duration::from_secs(2)).await;
            wire.restore();
        };
        let (outcome, ()) = tokio::join!(reporter.shutdown(), manager);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
