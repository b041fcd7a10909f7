//! Many processes that lose their manager at one moment.

use crate::registry;
use crate::wire::Wire;
use shardmeter_telemetry::{Reporter, Shard};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SHARDS: usize = 1_000;
const WINDOW: Duration = Duration::from_millis(100);

/// How many attempts fall into each window from `start` on.
fn histogram(attempts: &[Instant], start: Instant, length: Duration) -> Vec<usize> {
    let window = |at: Duration| (at.as_millis() / WINDOW.as_millis()) as usize;
    let mut windows = vec![0; window(length) + 1];
    for attempt in attempts {
        windows[window(attempt.duration_since(start)).min(window(length))] += 1;
    }
    windows
}

/// Waits are drawn from 0 to 500 ms at first and from 0 to 15 s in the end: the even shares of a window are a fifth of
/// all shards, and then one shard in 75.
#[tokio::test(start_paused = true)]
async fn a_thousand_shards_that_lose_their_manager_at_once_do_not_stampede() {
    const OUTAGE: Duration = Duration::from_secs(180);
    const SETTLED: usize = 600; // windows; a minute
    let wire = Wire::new(Duration::from_secs(10));
    let start = |id: usize| {
        let shard = Shard { id: id as u32, count: SHARDS as u32 };
        Reporter::builder(&wire.connection(), shard).registry(registry().0).build().unwrap()
    };
    let reporters: Vec<_> = (0..SHARDS).map(start).collect();
    let connected = || reporters.iter().filter(|reporter| reporter.status().connected).count();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(connected(), SHARDS);
    wire.attempts();

    let lost = Instant::now();
    wire.refuse();
    sleep(OUTAGE).await;
    assert_eq!(connected(), 0);
    let away = histogram(&wire.attempts(), lost, OUTAGE);
    assert!(away.iter().all(|count| *count < 2 * SHARDS / 5), "{away:?}");
    let even = SHARDS as f64 / 75.0;
    assert!(away[SETTLED..].iter().all(|count| (*count as f64) < 4.0 * even), "{away:?}");
    let all: usize = away[SETTLED..].iter().sum();
    let expected = even * (away.len() - SETTLED) as f64;
    assert!((all as f64 / expected - 1.0).abs() < 0.1, "{all} attempts, {expected} expected");

    let back = Instant::now();
    wire.restore();
    sleep(Duration::from_secs(16)).await;
    assert_eq!(connected(), SHARDS);
    let returned = wire.attempts();
    assert_eq!(returned.len(), SHARDS, "each finds it with one attempt");
    let returned = histogram(&returned, back, Duration::from_secs(16));
    assert!(returned.iter().all(|count| (*count as f64) < 4.0 * even), "{returned:?}");
}
