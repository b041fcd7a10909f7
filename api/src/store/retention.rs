//! What is too old goes.

use std::time::{Duration, SystemTime};

use sqlx::query;
use tokio::time::sleep;

use super::{Store, StoreError, in_time, to_millis};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long incidents stay.
const INCIDENTS: Duration = Duration::from_secs(90 * DAY.as_secs());

/// How long counts of commands stay: a year can be compared with the one before.
const COMMAND_COUNTS: Duration = Duration::from_secs(400 * DAY.as_secs());

/// How long it is known what a recorder stored last: longer than any outage after which it tries again.
const RECORDERS: Duration = Duration::from_secs(30 * DAY.as_secs());

/// How long a guild is known that the bot left.
const GUILDS: Duration = Duration::from_secs(90 * DAY.as_secs());

/// How often is looked for what is too old; the first time soon after the start.
const INTERVAL: Duration = Duration::from_secs(3600);
const FIRST: Duration = Duration::from_secs(60);

/// Rows deleted in one statement, so that none takes long.
const ROWS: i64 = 1000;

/// Each as often as there is something to delete.
const IN_PARTS: [(&str, Duration); 2] = [
    (
        "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE at < $1 ORDER BY at LIMIT $2)",
        INCIDENTS,
    ),
    ("DELETE FROM guilds WHERE id IN (SELECT id FROM guilds WHERE left_at < $1 LIMIT $2)", GUILDS),
];

/// Some dozens a day: no need for parts.
const AT_ONCE: [(&str, Duration); 2] = [
    ("DELETE FROM command_counts WHERE hour < $1", COMMAND_COUNTS),
    ("DELETE FROM recorders WHERE at < $1", RECORDERS),
];

impl Store {
    /// Never ends.
    pub(super) async fn retain(self) {
        sleep(FIRST).await;
        loop {
            if let Err(error) = self.forget_old(SystemTime::now()).await {
                tracing::warn!(%error, "what is too old could not be deleted; trying again in an hour");
            }
            sleep(INTERVAL).await;
        }
    }

    /// Deletes what is too old at `now`.
    pub async fn forget_old(&self, now: SystemTime) -> Result<(), StoreError> {
        let before = |age| now.checked_sub(age).map_or(0, to_millis);
        for (delete, age) in IN_PARTS {
            loop {
                let pool = self.pool()?;
                let some =
                    async { query(delete).bind(before(age)).bind(ROWS).execute(&pool).await };
                if in_time(some).await?.rows_affected() < ROWS.unsigned_abs() {
                    break;
                }
            }
        }
        for (delete, age) in AT_ONCE {
            let pool = self.pool()?;
            in_time(async { query(delete).bind(before(age)).execute(&pool).await }).await?;
        }
        Ok(())
    }
}
