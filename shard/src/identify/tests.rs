use std::time::SystemTime;

use prometheus::Registry;
use shardmeter_process::testing::until;
use shardmeter_pubsub::testing::RedisServer;
use tokio::time::{advance, timeout};
use twilight_model::gateway::SessionStartLimit;

use super::*;

const INTERVAL: Duration = Duration::from_secs(5);

fn limit(remaining: u32) -> SessionStartLimit {
    SessionStartLimit { max_concurrency: 2, remaining, reset_after: 3_600_000, total: 1_000 }
}

/// The turns of some shards of 8, with this many identifies left.
fn queue(
    shards: std::ops::Range<u32>,
    remaining: u32,
    redis: Option<&str>,
) -> (IdentifyQueue, IdentifyMetrics) {
    let metrics = IdentifyMetrics::register(&Registry::new()).unwrap();
    let budget = Budget::new(metrics.clone());
    budget.told(&limit(remaining));
    let pace = Pace { max_concurrency: 2, shard_count: 8, interval: INTERVAL };
    (IdentifyQueue::new(shards, pace, budget, redis, metrics.clone()).unwrap(), metrics)
}

fn turns(metrics: &IdentifyMetrics) -> [u64; 3] {
    Source::ALL.map(|source| {
        metrics.gateway_identify_turns_total.with_label_values(&[source.label()]).get()
    })
}

/// When each shard had its turn, if all ask at once.
async fn all_at_once(queue: &IdentifyQueue, shards: std::ops::Range<u32>) -> Vec<(u32, Duration)> {
    let began = Instant::now();
    let asked: Vec<_> = shards.map(|shard| (shard, queue.enqueue(shard))).collect();
    let waiting = asked.into_iter().map(|(shard, turn)| async move {
        turn.await.unwrap();
        (shard, began.elapsed())
    });
    futures_util::future::join_all(waiting).await
}

#[tokio::test(start_paused = true)]
async fn a_key_has_one_turn_in_an_interval_and_keys_do_not_wait_for_each_other() {
    let (queue, metrics) = queue(0..8, 1_000, None);
    let near = |at: Duration, turn: u32| {
        (INTERVAL * turn..INTERVAL * turn + Duration::from_millis(20)).contains(&at)
    };
    for (shard, at) in all_at_once(&queue, 0..8).await {
        assert!(near(at, shard / 2), "{shard} at {at:?}");
    }
    assert_eq!(turns(&metrics), [8, 0, 0]);
    assert_eq!(metrics.gateway_identify_remaining.get(), 992);
    assert_eq!(metrics.gateway_identifies_waiting.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_left_the_queue_holds_nobody_up() {
    let (queue, metrics) = queue(0..8, 1_000, None);
    queue.enqueue(0).await.unwrap();
    let began = Instant::now();
    let left: Vec<_> = [2, 4, 6].map(|shard| queue.enqueue(shard)).into();
    let stays = queue.enqueue(0);
    assert_eq!(metrics.gateway_identifies_waiting.get(), 4);
    drop(left);
    stays.await.unwrap();
    assert!(began.elapsed() < INTERVAL + Duration::from_millis(20), "{:?}", began.elapsed());
    assert_eq!(metrics.gateway_identify_remaining.get(), 998, "a turn not taken costs nothing");
    assert_eq!(metrics.gateway_identifies_waiting.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_identifies_beyond_the_budget_before_its_reset() {
    let (queue, metrics) = queue(0..8, 1, None);
    queue.enqueue(0).await.unwrap();
    let began = Instant::now();
    let (next, other) = (queue.enqueue(2), queue.enqueue(1));
    next.await.unwrap();
    other.await.unwrap();
    let waited = began.elapsed();
    let reset = Duration::from_secs(3_600);
    assert!((reset - INTERVAL..reset + INTERVAL).contains(&waited), "{waited:?}");
    assert_eq!(metrics.gateway_identify_remaining.get(), 998);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_discord_raises_is_used_at_once() {
    let (queue, _) = queue(0..8, 0, None);
    let waiting = queue.enqueue(0);
    let mut waiting = std::pin::pin!(waiting);
    assert!(timeout(Duration::from_secs(60), &mut waiting).await.is_err());
    queue.0.budget.told(&limit(5));
    timeout(LONGEST_BUDGET_PAUSE, waiting).await.unwrap().unwrap();
}

/// A Redis that is nowhere.
const AWAY: Option<&str> = Some("redis://127.0.0.1:1");

#[tokio::test(start_paused = true)]
async fn without_redis_a_lone_process_paces_itself_and_says_so_once() {
    let logs = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(logs.reopen().unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(writer).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (queue, metrics) = queue(0..8, 1_000, AWAY);
    let last = all_at_once(&queue, 0..8).await.into_iter().map(|(_, at)| at).max().unwrap();
    assert!((INTERVAL * 3..INTERVAL * 4).contains(&last), "{last:?}");
    assert_eq!(turns(&metrics), [8, 0, 0]);
    let logs = std::fs::read_to_string(logs.path()).unwrap();
    assert_eq!(logs.matches("Redis is away").count(), 1, "{logs}");
}

#[tokio::test(start_paused = true)]
async fn without_redis_one_of_several_processes_goes_by_the_clock() {
    let (queue, metrics) = queue(4..8, 1_000, AWAY);
    let last = all_at_once(&queue, 4..8).await.into_iter().map(|(_, at)| at).max().unwrap();
    // A time without anybody's turn, and a cycle.
    assert!((INTERVAL..INTERVAL * 6).contains(&last), "{last:?}");
    assert_eq!(turns(&metrics), [0, 0, 4]);
}

#[tokio::test(start_paused = true)]
async fn who_was_stopped_and_missed_its_turn_by_the_clock_waits_for_the_next() {
    let (queue, metrics) = queue(4..8, 100_000, AWAY);
    let (unix, began) = (SystemTime::UNIX_EPOCH.elapsed().unwrap(), Instant::now());
    let cycle = INTERVAL * 4;
    for _ in 0..20 {
        let turn = queue.enqueue(4);
        let mut turn = std::pin::pin!(turn);
        while timeout(Duration::from_millis(1_500), &mut turn).await.is_err() {
            advance(Duration::from_millis(2_300)).await; // it is stopped
        }
        let wait = queue.0.pace.by_clock(4, unix + began.elapsed(), Duration::ZERO);
        let late = (cycle - wait).min(wait);
        // And what the test itself takes.
        assert!(late < INTERVAL / 5, "{late:?} late");
    }
    assert_eq!(turns(&metrics), [0, 0, 20]);
}

#[tokio::test]
async fn a_redis_that_has_its_keys_from_disk_does_not_know_what_was_while_it_was_away() {
    let interval = Duration::from_millis(200);
    let mut redis = RedisServer::start().await;
    let lease = Lease::at(&redis.url(), interval).unwrap();
    let first = lease.take(0).await.unwrap();
    assert!(first > Some(interval), "a new one waits for those who went by the clock");
    until("a turn", async || match lease.take(0).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    redis.kill();
    redis.start_again().await;
    let _: () = redis.ask(&["SET", "shardmeter:{identify}:known", "1"]).await;
    lease.take(0).await.unwrap_err();
    let left = lease.take(0).await.unwrap();
    assert!(left > Some(interval), "{left:?}");
    let other = Lease::at(&redis.url(), interval).unwrap();
    assert!(other.take(1).await.unwrap() <= left, "the next one does not begin it anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_turn_that_was_given_while_the_process_was_stopped_is_not_taken() {
    let interval = Duration::from_secs(3);
    let redis = RedisServer::start().await;
    let lease = Lease::at(&redis.url(), interval).unwrap();
    lease.take(0).await.unwrap();
    let _: () = redis.ask(&["DEL", "shardmeter:{identify}:quiet"]).await;
    let stop = async {
        tokio::task::yield_now().await;
        #[expect(clippy::disallowed_methods, reason = "as one that is stopped")]
        std::thread::sleep(Duration::from_millis(700));
    };
    let (left, ()) = tokio::join!(lease.take(0), stop);
    assert!(!matches!(left, Ok(None)), "the turn is old");
    assert_eq!(redis.ask::<u64>(&["EXISTS", "shardmeter:{identify}:0"]).await, 1, "it was given");
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_hangs_holds_nobody_up_for_long() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", mute.local_addr().unwrap());
    let (queue, metrics) = queue(0..8, 1_000, Some(&url));
    let last = all_at_once(&queue, 0..4).await.into_iter().map(|(_, at)| at).max().unwrap();
    assert!((INTERVAL..INTERVAL * 2).contains(&last), "{last:?}");
    assert_eq!(turns(&metrics), [4, 0, 0]);
}

#[test]
fn by_the_clock_processes_that_cannot_talk_do_not_meet() {
    let nowhere_near = Duration::from_secs(1_700_000_000);
    for (max_concurrency, shard_count) in [(1, 1), (1, 7), (2, 8), (3, 8), (16, 1_000), (16, 5)] {
        let pace = Pace { max_concurrency, shard_count, interval: INTERVAL };
        let cycle = INTERVAL * shard_count.div_ceil(max_concurrency.into());
        let mut turns: BTreeMap<u32, Vec<Duration>> = BTreeMap::new();
        for shard in 0..shard_count {
            // Each asks at another time, and may not have a turn at once.
            let asked = nowhere_near + Duration::from_millis(1_234) * shard;
            let quiet = Duration::from_millis(777) * (shard % 9);
            let wait = pace.by_clock(shard, asked, quiet);
            assert!((quiet..quiet + cycle).contains(&wait), "{shard}: {wait:?}");
            turns.entry(pace.key(shard).unwrap()).or_default().push(asked + wait);
        }
        for of_key in turns.values_mut() {
            of_key.sort();
            let gaps = of_key.windows(2).map(|two| two[1] - two[0]);
            assert!(gaps.clone().all(|gap| gap >= INTERVAL), "{:?}", gaps.min());
        }
    }
}
