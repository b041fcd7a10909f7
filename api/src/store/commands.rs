//! How often each command was executed, by hour.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::{
    Presence, Store, StoreError, from_db, from_millis, guilds, in_time,
    rows::{self, ROWS},
    to_db, to_millis,
};

/// What counts are kept by.
pub const HOUR: Duration = Duration::from_secs(3600);

/// How often a command was executed in an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// A moment of that hour.
    pub at: SystemTime,
    /// Its name.
    pub command_name: String,
    /// How often.
    pub count: u64,
}

/// What is stored at once, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Who recorded it: another with each run of each process.
    pub recorder: String,
    /// Greater than that of the batch before; the same when it is tried again, and then nothing else of it may differ.
    pub number: u64,
    /// When the last of it was heard.
    pub at: SystemTime,
    /// To be added to the counts.
    pub executed: Vec<Executed>,
    /// Which guilds were joined and left, in order.
    pub presences: Vec<Presence>,
}

/// How often a command was executed in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandCount {
    /// Its name.
    pub command_name: String,
    /// How often.
    pub count: u64,
}

/// Changes nothing if the batch is stored. One whose commit is still under way is waited for.
const CLAIM: &str = "INSERT INTO recorders (recorder, batch, at) VALUES ($1, $2, $3) ON CONFLICT (recorder) DO UPDATE \
     SET batch = excluded.batch, at = excluded.at WHERE recorders.batch < excluded.batch";

const OTHERS: &str =
    "SELECT CAST(COALESCE(MAX(at), 0) AS BIGINT) FROM recorders WHERE recorder <> $1";

const INSERT: &str = "INSERT INTO command_counts (hour, command_name, count)";

const OR_ADD: &str =
    "ON CONFLICT (hour, command_name) DO UPDATE SET count = command_counts.count + excluded.count";

const TOP: &str = "SELECT command_name, CAST(SUM(count) AS BIGINT) FROM command_counts WHERE hour >= $1 \
     GROUP BY command_name ORDER BY SUM(count) DESC, command_name LIMIT $2";

/// When the hour of `time` began.
pub fn hour_of(time: SystemTime) -> SystemTime {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds - seconds % HOUR.as_secs())
}

impl Store {
    /// Adds to the counts, and notes which guilds were joined and left: all or nothing, and once however often it is tried.
    pub async fn record_activity(&self, batch: &Batch) -> Result<(), StoreError> {
        let Batch { recorder, number, at, executed, presences } = batch;
        let pool = self.pool()?;
        in_time(async {
            let mut transaction = pool.begin().await?;
            let claim = query(CLAIM).bind(recorder.as_str()).bind(to_db(*number));
            let claim = claim.bind(to_millis(*at));
            if claim.execute(&mut *transaction).await?.rows_affected() == 0 {
                // Its commit was done, and its answer lost.
                return transaction.rollback().await;
            }
            add(&mut transaction, executed).await?;
            guilds::note(&mut transaction, presences).await?;
            transaction.commit().await
        })
        .await
    }

    /// When other recorders than this one heard the last that they stored.
    pub async fn recorded_by_others(&self, recorder: &str) -> Result<SystemTime, StoreError> {
        let pool = self.pool()?;
        let at = in_time(query_scalar::<_, i64>(OTHERS).bind(recorder).fetch_one(&pool));
        at.await.map(from_millis)
    }

    /// The commands executed most in hours that began at `since` or later.
    pub async fn top_commands(
        &self,
        since: SystemTime,
        limit: u32,
    ) -> Result<Vec<CommandCount>, StoreError> {
        let pool = self.pool()?;
        in_time(async {
            let rows =
                query_as::<_, (String, i64)>(TOP).bind(to_millis(since)).bind(i64::from(limit));
            let counts = rows.fetch_all(&pool).await?.into_iter();
            Ok(counts
                .map(|(command_name, count)| CommandCount { command_name, count: from_db(count) })
                .collect())
        })
        .await
    }
}

/// Adds to the counts.
async fn add(transaction: &mut AnyConnection, executed: &[Executed]) -> Result<(), sqlx::Error> {
    // No statement may change a row twice.
    let mut counts = BTreeMap::<_, u64>::new();
    for executed in executed {
        let key = (to_millis(hour_of(executed.at)), executed.command_name.as_str());
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(executed.count);
    }
    let counts: Vec<_> = counts.into_iter().collect();
    for counts in counts.chunks(ROWS) {
        let statement = rows::insert(INSERT, 3, counts.len(), OR_ADD);
        let statement = counts.iter().fold(statement, |statement, ((hour, name), count)| {
            statement.bind(*hour).bind(*name).bind(to_db(*count))
        });
        statement.execute(&mut *transaction).await?;
    }
    Ok(())
}
