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

/// How often is looked for what is too old; the first time soon after the start.
const INTERVAL: Duration = Duration::from_secs(3600);
const FIRST: Duration = Duration::from_secs(60);

/// Rows deleted in one statement, so that none takes long.
const ROWS: i64 = 1000;

const DELETE_INCIDENTS: &str = "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE at < $1 ORDER BY at LIMIT $2)";

/// Some dozens a day: no need for parts.
const DELETE_COUNTS: &str = "DELETE FROM command_counts WHERE hour < $1";

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
        let [incidents, counts] =
            [INCIDENTS, COMMAND_COUNTS].map(|age| now.checked_sub(age).map_or(0, to_millis));
        loop {
            let pool = self.pool()?;
            let deleted = in_time(async {
                query(DELETE_INCIDENTS).bind(incidents).bind(ROWS).execute(&pool).await
            })
            .await?;
            if deleted.rows_affected() < ROWS.unsigned_abs() {
                break;
            }
        }
        let pool = self.pool()?;
        in_time(async { query(DELETE_COUNTS).bind(counts).execute(&pool).await }).await.map(drop)
    }
}
