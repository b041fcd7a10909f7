//! The store by itself, on both databases: what no route shows.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use shardmeter_api::store::{
    Batch, Executed, Expected, HOUR, HistoryQuery, Incident, Position, Presence, SettingsChange,
    Store, StoreError,
};
use shardmeter_process::testing::eventually;
use sqlx::Connection as _;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, Database, on_both};

on_both!(
    incidents_are_stored_once_with_their_position,
    what_comes_after_what_is_not_stored_is_not_stored,
    a_gap_is_stored_once_beside_the_events,
    a_history_is_read_in_pages,
    commands_are_counted_by_hour,
    a_batch_that_is_tried_again_is_counted_once,
    guilds_come_and_go,
    all_settings_are_read_in_pages,
    a_revision_is_greater_than_any_before_whatever_the_clock_says,
    what_is_too_old_goes,
    a_table_that_is_missing_is_an_outage,
);

/// A store whose database is there.
pub(crate) async fn open(database: &Database) -> Store {
    let (store, _task) = Store::open(&database.url(), CancellationToken::new()).unwrap();
    wait_until_up(&store).await;
    store
}

/// Does something with the store alone: an SQLite file is then free for an api.
pub(crate) async fn before(database: &Database, fill: impl AsyncFnOnce(&Store)) {
    let stop = CancellationToken::new();
    let (store, task) = Store::open(&database.url(), stop.clone()).unwrap();
    wait_until_up(&store).await;
    fill(&store).await;
    stop.cancel();
    task.await.unwrap();
}

pub(crate) async fn wait_until_up(store: &Store) {
    eventually("the database is up", || store.is_up()).await;
}

/// Stores what was not stored before.
pub(crate) async fn record(
    store: &Store,
    executed: &[Executed],
    presences: &[Presence],
) -> Result<(), StoreError> {
    static BATCHES: AtomicU64 = AtomicU64::new(1);
    let batch = Batch {
        recorder: "this test".into(),
        number: BATCHES.fetch_add(1, Ordering::Relaxed),
        at: SystemTime::now(),
        executed: executed.to_vec(),
        presences: presences.to_vec(),
    };
    store.record_activity(&batch).await
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

pub(crate) fn incident(revision: u64, shard_id: Option<u32>) -> Incident {
    Incident {
        epoch: "e".into(),
        revision,
        at: time(revision),
        shard_id,
        kind: "disconnected".into(),
        instance: Some("00ff".into()),
        reason: revision.is_multiple_of(2).then(|| "idle".into()),
        count: 1,
    }
}

fn position(epoch: &str, revision: u64) -> Position {
    Position { epoch: epoch.into(), revision }
}

/// Stores them, whatever was before.
pub(crate) async fn record_incidents(store: &Store, incidents: &[Incident], to: &Position) {
    let after = store.position().await.unwrap();
    assert!(store.record_incidents(&after, incidents, to).await.unwrap());
}

fn all_of(shard_id: u32) -> HistoryQuery {
    HistoryQuery { shard_id, before: None, since: None, limit: 1000 }
}

async fn incidents_are_stored_once_with_their_position(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    assert_eq!(store.position().await.unwrap(), Position::default());
    let first: Vec<_> = (1..=5).map(|revision| incident(revision, Some(3))).collect();
    record_incidents(&store, &first, &position("e", 5)).await;
    let again: Vec<_> = (3..=7).map(|revision| incident(revision, Some(3))).collect();
    record_incidents(&store, &again, &position("e", 7)).await;
    assert_eq!(store.position().await.unwrap(), position("e", 7));
    // Of another api, which is slower.
    record_incidents(&store, &first, &position("e", 5)).await;
    assert_eq!(store.position().await.unwrap(), position("e", 7));
    let stored = store.history(all_of(3)).await.unwrap();
    let stored: Vec<_> = stored.into_iter().map(|recorded| recorded.incident).collect();
    let expected: Vec<_> = (1..=7).rev().map(|revision| incident(revision, Some(3))).collect();
    assert_eq!(stored, expected);
    // Another epoch counts from 1.
    record_incidents(&store, &[], &position("f", 2)).await;
    assert_eq!(store.position().await.unwrap(), position("f", 2));
}

/// It was put back meanwhile, say.
async fn what_comes_after_what_is_not_stored_is_not_stored(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    let sixth = [incident(6, Some(3))];
    let is_stored = async |epoch: &str, revision| {
        let after = position(epoch, revision);
        store.record_incidents(&after, &sixth, &position("e", 6)).await.unwrap()
    };
    assert!(!is_stored("e", 5).await, "nothing is");
    record_incidents(&store, &[incident(4, Some(3))], &position("e", 4)).await;
    for (epoch, revision) in [("e", 5), ("f", 1), ("", 0)] {
        assert!(!is_stored(epoch, revision).await, "{epoch} {revision}");
    }
    assert_eq!(store.position().await.unwrap(), position("e", 4));
    assert_eq!(store.history(all_of(3)).await.unwrap().len(), 1);
    // Another api may have come further.
    assert!(is_stored("e", 3).await);
    assert_eq!(store.history(all_of(3)).await.unwrap().len(), 2);
}

async fn a_gap_is_stored_once_beside_the_events(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    let gap = |epoch: &str, revision| Incident {
        epoch: epoch.into(),
        kind: "gap".into(),
        ..incident(revision, None)
    };
    let first: Vec<_> = (1..=5).map(|revision| incident(revision, Some(3))).collect();
    record_incidents(&store, &first, &position("e", 5)).await;
    // Another api was away, and for it there is a gap, but not for the database.
    let late = [gap("e", 5), incident(6, Some(3))];
    record_incidents(&store, &late, &position("e", 6)).await;
    // For this one there is, in a batch that it tries again.
    let lost = [gap("e", 9), incident(10, Some(3))];
    for _twice in 0..2 {
        record_incidents(&store, &lost, &position("e", 10)).await;
    }
    // The events of another epoch count from 1, and its gaps do; an event has the gap's revision.
    let event = Incident { epoch: "f".into(), ..incident(2, Some(3)) };
    record_incidents(&store, &[event], &position("f", 1)).await;
    record_incidents(&store, &[gap("f", 2)], &position("f", 2)).await;
    let stored = store.history(all_of(3)).await.unwrap();
    let stored: Vec<_> =
        stored.iter().rev().map(|r| (&*r.incident.kind, r.incident.revision)).collect();
    let d = "disconnected";
    let expected =
        [(d, 1), (d, 2), (d, 3), (d, 4), (d, 5), (d, 6), ("gap", 9), (d, 10), (d, 2), ("gap", 2)];
    assert_eq!(stored, expected);
    assert_eq!(store.position().await.unwrap(), position("f", 2));
}

async fn a_history_is_read_in_pages(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    // A gap concerns all shards, another shard's incidents do not.
    let incidents: Vec<_> = (1..=100)
        .map(|revision| incident(revision, (revision != 50).then_some((revision % 2) as u32)))
        .collect();
    record_incidents(&store, &incidents, &position("e", 100)).await;
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let query = HistoryQuery { before, limit: 7, ..all_of(1) };
        let page = store.history(query).await.unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        seen.extend(page.into_iter().map(|recorded| recorded.incident.revision));
    }
    let expected: Vec<_> = (1..=100).rev().filter(|r| r % 2 == 1 || *r == 50).collect();
    assert_eq!(seen, expected);
    let since = HistoryQuery { since: Some(time(90)), ..all_of(1) };
    let since = store.history(since).await.unwrap();
    let since: Vec<_> = since.iter().map(|recorded| recorded.incident.revision).collect();
    assert_eq!(since, [99, 97, 95, 93, 91]);
}

async fn commands_are_counted_by_hour(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    // 800 s into an hour.
    let executed = |name: &str, seconds, count| Executed {
        at: time(seconds),
        command_name: name.into(),
        count,
    };
    let batch = [executed("ping", 0, 3), executed("stats", 0, 1), executed("ping", 2799, 4)];
    record(&store, &batch, &[]).await.unwrap();
    record(&store, &[executed("ping", 2800, 10), executed("shards", 2801, 10)], &[]).await.unwrap();
    let top = async |since, limit| -> Vec<(String, u64)> {
        let top = store.top_commands(since, limit).await.unwrap();
        top.into_iter().map(|command| (command.command_name, command.count)).collect()
    };
    let expected = |counts: &[(&str, u64)]| -> Vec<(String, u64)> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let first_hour = shardmeter_api::store::hour_of(time(0));
    assert_eq!(top(first_hour, 9).await, expected(&[("ping", 17), ("shards", 10), ("stats", 1)]));
    assert_eq!(top(first_hour, 1).await, expected(&[("ping", 17)]));
    let second_hour = shardmeter_api::store::hour_of(time(2800));
    assert_eq!(top(second_hour, 9).await, expected(&[("ping", 10), ("shards", 10)]));
}

/// As when its commit was done, and the answer to it never came.
async fn a_batch_that_is_tried_again_is_counted_once(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    let batch = |recorder: &str, number| Batch {
        recorder: recorder.into(),
        number,
        at: time(0),
        executed: vec![Executed { at: time(0), command_name: "ping".into(), count: 1 }],
        presences: vec![],
    };
    let counted = async || store.top_commands(time(0) - HOUR, 1).await.unwrap()[0].count;
    for (recorder, number, count) in
        [("a", 1, 1), ("a", 1, 1), ("a", 2, 2), ("b", 1, 3), ("a", 2, 3)]
    {
        store.record_activity(&batch(recorder, number)).await.unwrap();
        assert_eq!(counted().await, count, "{recorder} {number}");
    }
    // Both at once, as where the first is still under way.
    let twice = batch("c", 1);
    let (one, other) = tokio::join!(store.record_activity(&twice), store.record_activity(&twice));
    one.unwrap();
    other.unwrap();
    assert_eq!(counted().await, 4);
}

async fn guilds_come_and_go(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    let presence =
        |joined, seconds| Presence { guild_id: 7, shard_id: 1, at: time(seconds), joined };
    assert_eq!(store.guild(7).await.unwrap(), None);
    record(&store, &[], &[presence(true, 1), presence(false, 2)]).await.unwrap();
    let guild = store.guild(7).await.unwrap().unwrap();
    assert_eq!((guild.joined_at, guild.left_at), (Some(time(1)), Some(time(2))));
    record(&store, &[], &[presence(true, 3)]).await.unwrap();
    let guild = store.guild(7).await.unwrap().unwrap();
    assert_eq!((guild.joined_at, guild.left_at), (Some(time(3)), None));
    record(&store, &[], &[presence(false, 4)]).await.unwrap();
    let guild = store.guild(7).await.unwrap().unwrap();
    assert_eq!((guild.joined_at, guild.left_at), (Some(time(3)), Some(time(4))));
    record(&store, &[], &[presence(false, 5), presence(true, 6)]).await.unwrap();
    let guild = store.guild(7).await.unwrap().unwrap();
    assert_eq!((guild.joined_at, guild.left_at), (Some(time(6)), None));
}

async fn a_revision_is_greater_than_any_before_whatever_the_clock_says(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    let change = SettingsChange { disabled_commands: ["ping".into()].into(), command_prefix: None };
    let change = async |expected| {
        store.change_settings(1, &change, expected).await.unwrap().unwrap().revision
    };
    let now = || {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        u64::try_from(since.as_millis()).unwrap()
    };
    let before = now();
    let first = change(Expected::Revision(0)).await;
    assert!((before..=now()).contains(&first), "of a database that was lost, too: {first}");
    // Of a clock that was set back since.
    let ahead = i64::try_from(first + 3_600_000).unwrap();
    let mut other = sqlx::AnyConnection::connect(database.url().expose()).await.unwrap();
    let put = sqlx::query("UPDATE guild_settings SET revision = $1").bind(ahead);
    put.execute(&mut other).await.unwrap();
    let ahead = ahead.unsigned_abs();
    assert_eq!(change(Expected::Any).await, ahead + 1);
    assert_eq!(change(Expected::Revision(ahead + 1)).await, ahead + 2);
    for expected in [Expected::Any, Expected::Revision(7)] {
        let put = sqlx::query("UPDATE guild_settings SET revision = 7");
        put.execute(&mut other).await.unwrap();
        let revision = change(expected).await;
        assert!((before..=now()).contains(&revision), "of an earlier database: {revision}");
    }
}

async fn all_settings_are_read_in_pages(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    for guild_id in 1..=10 {
        let change = SettingsChange {
            disabled_commands: [format!("c{guild_id}")].into(),
            command_prefix: None,
        };
        store.change_settings(guild_id, &change, Expected::Any).await.unwrap().unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = store.settings_after(after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.guild_id;
        seen.extend(page.into_iter().map(|settings| settings.guild_id));
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
}

async fn what_is_too_old_goes(backend: Backend) {
    const DAYS: u64 = 24 * 3600;
    let database = Database::start(backend).await;
    let store = open(&database).await;
    // More than are deleted at once.
    let old =
        (1..=2500).map(|revision| Incident { at: time(revision), ..incident(revision, Some(1)) });
    let young = (2501..=2510)
        .map(|revision| Incident { at: time(90 * DAYS), ..incident(revision, Some(1)) });
    let incidents: Vec<_> = old.chain(young).collect();
    record_incidents(&store, &incidents, &position("e", 2510)).await;
    let executed = |seconds| Executed { at: time(seconds), command_name: "ping".into(), count: 1 };
    record(&store, &[executed(0), executed(310 * DAYS)], &[]).await.unwrap();
    let presence = |guild_id, joined| Presence { guild_id, shard_id: 0, at: time(0), joined };
    let left: Vec<_> = (1..=2500).map(|guild_id| presence(guild_id, false)).collect();
    let back = [presence(1, true)];
    record(&store, &[], &[left, back.to_vec()].concat()).await.unwrap();
    store.forget_old(time(90 * DAYS - 1)).await.unwrap();
    assert!(store.guild(2).await.unwrap().is_some());
    store.forget_old(time(90 * DAYS + 2501)).await.unwrap();
    assert!(store.guild(1).await.unwrap().is_some(), "the bot is in it");
    for guild_id in [2, 2500] {
        assert_eq!(store.guild(guild_id).await.unwrap(), None);
    }
    assert_eq!(store.history(all_of(1)).await.unwrap().len(), 10);
    assert_eq!(
        store.top_commands(time(0) - Duration::from_secs(DAYS), 1).await.unwrap()[0].count,
        2
    );
    store.forget_old(time(401 * DAYS)).await.unwrap();
    assert_eq!(store.history(all_of(1)).await.unwrap().len(), 0);
    assert_eq!(
        store.top_commands(time(0) - Duration::from_secs(DAYS), 1).await.unwrap()[0].count,
        1
    );
    assert_eq!(store.position().await.unwrap(), position("e", 2510), "it stays");
}

#[tokio::test]
async fn migrations_run_once_and_twice_at_once() {
    let database = Database::start(Backend::Postgres).await;
    let (one, _task) = Store::open(&database.url(), CancellationToken::new()).unwrap();
    let (other, _task) = Store::open(&database.url(), CancellationToken::new()).unwrap();
    wait_until_up(&one).await;
    wait_until_up(&other).await;
    let change = SettingsChange { disabled_commands: ["ping".into()].into(), command_prefix: None };
    one.change_settings(1, &change, Expected::Revision(0)).await.unwrap().unwrap();
    let later = open(&database).await;
    assert_eq!(later.settings(1).await.unwrap(), other.settings(1).await.unwrap());
    assert_eq!(later.settings(1).await.unwrap().disabled_commands, ["ping".into()].into());
}

/// Else both would count what both hear.
#[tokio::test]
async fn an_sqlite_file_is_one_apis_after_the_other() {
    let database = Database::start(Backend::Sqlite).await;
    let stop = CancellationToken::new();
    let (first, task) = Store::open(&database.url(), stop.clone()).unwrap();
    wait_until_up(&first).await;
    let (second, _task) = Store::open(&database.url(), CancellationToken::new()).unwrap();
    // In the time in which others come up twice, it does not.
    for _ in 0..2 {
        open(&Database::start(Backend::Sqlite).await).await;
    }
    assert!(!second.is_up() && first.is_up());
    assert!(matches!(second.settings(1).await, Err(StoreError::Away(_))));
    stop.cancel();
    task.await.unwrap();
    drop(first);
    wait_until_up(&second).await;
    second.settings(1).await.unwrap();
}

#[tokio::test]
async fn an_sqlite_file_that_is_deleted_is_noticed_by_itself() {
    let database = Database::start(Backend::Sqlite).await;
    let store = open(&database).await;
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let path = folder.path().join("api.db");
    std::fs::remove_file(&path).unwrap();
    eventually("it is noticed", || !store.is_up()).await;
    wait_until_up(&store).await;
    assert!(path.exists());
}

/// Somebody dropped it, or is about to put back all there was.
async fn a_table_that_is_missing_is_an_outage(backend: Backend) {
    let database = Database::start(backend).await;
    let store = open(&database).await;
    let executed = [Executed { at: time(0), command_name: "ping".into(), count: 1 }];
    record(&store, &executed, &[]).await.unwrap();
    let mut other = sqlx::AnyConnection::connect(database.url().expose()).await.unwrap();
    for (from, to) in [("command_counts", "elsewhere"), ("elsewhere", "command_counts")] {
        let rename = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
        sqlx::raw_sql(rename).execute(&mut other).await.unwrap();
        if to == "elsewhere" {
            // Before the keeper looks, and after.
            let refused = record(&store, &executed, &[]).await.unwrap_err();
            assert!(matches!(refused, StoreError::Away(_)), "{refused}");
            eventually("it is noticed", || !store.is_up()).await;
        }
    }
    wait_until_up(&store).await;
    record(&store, &executed, &[]).await.unwrap();
    assert_eq!(store.top_commands(time(0) - HOUR, 1).await.unwrap()[0].count, 2);
}
