//! What happened to shards, as the manager told it.

use std::time::SystemTime;

use sqlx::{AnyConnection, FromRow, query, query_as};

use super::{
    Store, StoreError, from_db, from_millis, in_time,
    rows::{self, ROWS},
    to_db, to_millis,
};

/// The kind of what stands for incidents that are lost.
pub const GAP: &str = "gap";

/// Something that happened to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// With `revision`, the manager's name for it. A gap has that of what comes after it.
    pub epoch: String,
    /// Counts up within an epoch.
    pub revision: u64,
    /// When, by the manager's clock.
    pub at: SystemTime,
    /// None for a gap, which concerns all.
    pub shard_id: Option<u32>,
    /// `connected`, `disconnected`, `stale`, ... or `gap`: what happened here is not known.
    pub kind: String,
    /// Of which instance.
    pub instance: Option<String>,
    /// Why, if the manager said it.
    pub reason: Option<String>,
    /// How often at once.
    pub count: u64,
}

/// An incident as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// In the order in which they were stored.
    pub id: u64,
    /// What happened.
    pub incident: Incident,
}

/// How far the manager's events are known; by default before all that ever happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Of which revisions.
    pub epoch: String,
    /// The last that is stored.
    pub revision: u64,
}

impl Position {
    /// Whether all up to `other` is known.
    pub(crate) fn is_past(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.revision >= other.revision
    }
}

/// What of a shard's history to show.
#[derive(Debug, Clone, Copy)]
pub struct HistoryQuery {
    /// Whose.
    pub shard_id: u32,
    /// Only those stored before this one.
    pub before: Option<u64>,
    /// Only those that happened since.
    pub since: Option<SystemTime>,
    /// How many at most.
    pub limit: u32,
}

#[derive(FromRow)]
struct Row {
    id: i64,
    epoch: String,
    revision: i64,
    at: i64,
    shard_id: Option<i64>,
    kind: String,
    instance: Option<String>,
    reason: Option<String>,
    count: i64,
}

impl From<Row> for Recorded {
    fn from(row: Row) -> Self {
        let incident = Incident {
            epoch: row.epoch,
            revision: from_db(row.revision),
            at: from_millis(row.at),
            shard_id: row.shard_id.map(|id| u32::try_from(id).unwrap_or(u32::MAX)),
            kind: row.kind,
            instance: row.instance,
            reason: row.reason,
            count: from_db(row.count),
        };
        Self { id: from_db(row.id), incident }
    }
}

const INSERT: &str =
    "INSERT INTO incidents (epoch, revision, at, shard_id, kind, instance, reason, count)";

const UNLESS_THERE: &str = "ON CONFLICT (epoch, revision, kind) DO NOTHING";

/// Of two apis that follow one manager the slower never takes the position back.
const MOVE: &str = "INSERT INTO position (one, epoch, revision) VALUES (1, $1, $2) ON CONFLICT (one) DO UPDATE \
     SET epoch = excluded.epoch, revision = excluded.revision \
     WHERE position.epoch <> excluded.epoch OR position.revision < excluded.revision";

/// Nobody else moves it then until the end of the transaction.
const LOCK: &str = "UPDATE position SET revision = revision RETURNING epoch, revision";

/// The shard's own, and gaps, which concern every shard: each read by the index, in order, as far as they are needed.
const HISTORY: &str = "SELECT * FROM (SELECT * FROM incidents WHERE shard_id = $1 AND id < $2 AND at >= $3 \
         ORDER BY id DESC LIMIT $4) AS own \
     UNION ALL SELECT * FROM (SELECT * FROM incidents WHERE shard_id IS NULL AND id < $2 AND at >= $3 \
         ORDER BY id DESC LIMIT $4) AS gaps \
     ORDER BY id DESC LIMIT $4";

impl Store {
    /// Stores incidents, each once however often it is given, and the position after them: all or nothing, and nothing if
    /// it is not known what happened before them, `after` being the last. Says whether they are stored.
    pub async fn record_incidents(
        &self,
        after: &Position,
        incidents: &[Incident],
        position: &Position,
    ) -> Result<bool, StoreError> {
        let pool = self.pool()?;
        in_time(async {
            let mut transaction = pool.begin().await?;
            let row = query_as(LOCK).fetch_optional(&mut *transaction).await?;
            if !come_to(row).is_past(after) {
                transaction.rollback().await?;
                return Ok(false);
            }
            // First what two apis would both write, so that one waits for the other, and neither for both.
            let incidents = uncovered(&mut transaction, incidents).await?;
            advance(&mut transaction, &position.epoch, position.revision).await?;
            for incidents in incidents.chunks(ROWS) {
                let statement = rows::insert(INSERT, 8, incidents.len(), UNLESS_THERE);
                let statement = incidents.iter().fold(statement, |statement, incident| {
                    statement
                        .bind(incident.epoch.as_str())
                        .bind(to_db(incident.revision))
                        .bind(to_millis(incident.at))
                        .bind(incident.shard_id.map(i64::from))
                        .bind(incident.kind.as_str())
                        .bind(incident.instance.as_deref())
                        .bind(incident.reason.as_deref())
                        .bind(to_db(incident.count))
                });
                statement.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    /// How far the manager's events are stored.
    pub async fn position(&self) -> Result<Position, StoreError> {
        let pool = self.pool()?;
        let row = query_as("SELECT epoch, revision FROM position");
        in_time(row.fetch_optional(&pool)).await.map(come_to)
    }

    /// What happened to a shard, the newest first.
    pub async fn history(&self, asked: HistoryQuery) -> Result<Vec<Recorded>, StoreError> {
        let pool = self.pool()?;
        in_time(async {
            let rows = query_as::<_, Row>(HISTORY)
                .bind(i64::from(asked.shard_id))
                .bind(asked.before.map_or(i64::MAX, to_db))
                .bind(asked.since.map_or(i64::MIN, to_millis))
                .bind(i64::from(asked.limit));
            Ok(rows.fetch_all(&pool).await?.into_iter().map(Recorded::from).collect())
        })
        .await
    }
}

/// The position that is stored, if there is one.
fn come_to(row: Option<(String, i64)>) -> Position {
    row.map(|(epoch, revision)| Position { epoch, revision: from_db(revision) }).unwrap_or_default()
}

/// All but the gaps that there are none of: of several apis another may have stored what one has missed. What this one
/// stored before it was cut off is stored too.
async fn uncovered<'a>(
    transaction: &mut AnyConnection,
    incidents: &'a [Incident],
) -> Result<Vec<&'a Incident>, sqlx::Error> {
    let mut uncovered = Vec::with_capacity(incidents.len());
    for incident in incidents {
        let is_gap = incident.kind == GAP;
        if !is_gap || advance(transaction, &incident.epoch, incident.revision).await? {
            uncovered.push(incident);
        }
    }
    Ok(uncovered)
}

/// Moves the position, unless it is there already.
async fn advance(
    transaction: &mut AnyConnection,
    epoch: &str,
    revision: u64,
) -> Result<bool, sqlx::Error> {
    let moved = query(MOVE).bind(epoch).bind(to_db(revision)).execute(transaction).await?;
    Ok(moved.rows_affected() > 0)
}
