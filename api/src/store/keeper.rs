//! Knows whether the database is there.

use std::time::Duration;

use sqlx::{
    AnyConnection, AnyPool, ConnectOptions as _, Connection as _, any::AnyPoolOptions, query_scalar,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Database, Kind};

/// How often the database is asked whether it is there, and tried again while it is not.
const INTERVAL: Duration = Duration::from_millis(500);

/// A database that takes longer to connect or to say that it is there is away.
const PATIENCE: Duration = Duration::from_secs(1);

/// Making the tables, or waiting for another api that makes them.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(600);

/// Connections to the database: as many questions at once; more wait for [`PATIENCE`].
const CONNECTIONS: u32 = 10;

/// What PostgreSQL calls the lock of the api that records: "shardmet" in ASCII.
const RECORDS: i64 = 0x7368_6172_646d_6574;

/// A database that is there.
#[derive(Debug, Clone)]
pub(super) struct Up {
    pub(super) pool: AnyPool,
    /// Of all apis on this database, this is the one that records what all hear.
    pub(super) records: bool,
}

/// Holds one connection of its own, so that a pool in heavy use does not look like a database that is away; a new pool is
/// made each time the database comes back, so that no connection of before is waited for.
///
/// On PostgreSQL the connection also holds a lock as long as it lives, if no other api has it: who has it, records.
pub(super) struct Keeper {
    database: Database,
    up: watch::Sender<Option<Up>>,
    /// The last thing said in the log, so that it is said once.
    said: Option<String>,
}

impl Keeper {
    pub(super) fn new(database: Database, up: watch::Sender<Option<Up>>) -> Self {
        Self { database, up, said: None }
    }

    /// Never ends.
    pub(super) async fn run(mut self) {
        loop {
            let reason = match self.connect().await {
                Ok((mut connection, records)) => {
                    self.up(records);
                    self.watch(&mut connection, records).await
                }
                Err(reason) => reason,
            };
            self.down(reason);
            sleep(INTERVAL).await;
        }
    }

    async fn connect(&self) -> Result<(AnyConnection, bool), String> {
        let Database { kind, options } = &self.database;
        let connect = async {
            let mut connection = options.connect().await?;
            kind.set_up(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let mut connection = in_time(PATIENCE, connect).await?;
        in_time(MIGRATION_PATIENCE, kind.migrate(&mut connection)).await?;
        let records = in_time(PATIENCE, may_record(*kind, &mut connection)).await?;
        Ok((connection, records))
    }

    /// Ends when the database is no longer there, with the reason.
    async fn watch(&self, connection: &mut AnyConnection, mut records: bool) -> String {
        loop {
            sleep(INTERVAL).await;
            let answer = if records {
                in_time(PATIENCE, connection.ping()).await.map(|()| true)
            } else {
                in_time(PATIENCE, may_record(self.database.kind, connection)).await
            };
            match answer {
                Ok(now) if now != records => {
                    records = now;
                    self.up.send_if_modified(|up| up.as_mut().map(|up| up.records = now).is_some());
                }
                Ok(_) => {}
                Err(reason) => return reason,
            }
        }
    }

    fn up(&mut self, records: bool) {
        let kind = self.database.kind;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| Box::pin(kind.set_up(connection)))
            .connect_lazy_with(self.database.options.clone());
        self.up.send_replace(Some(Up { pool, records }));
        self.said = None;
        tracing::info!(database = self.database.place(), "the database is there");
    }

    fn down(&mut self, reason: String) {
        self.up.send_replace(None);
        if self.said.as_ref() != Some(&reason) {
            let database = self.database.place();
            tracing::error!(database, reason, "the database is away; trying again");
            self.said = Some(reason);
        }
    }
}

/// Whether this api is the one that records. Of an SQLite file there is one api.
async fn may_record(kind: Kind, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    match kind {
        Kind::Postgres => {
            let lock = query_scalar("SELECT pg_try_advisory_lock($1)").bind(RECORDS);
            lock.fetch_one(connection).await
        }
        Kind::Sqlite => connection.ping().await.map(|()| true),
    }
}

/// The answer, or why there is none.
async fn in_time<T, E: ToString>(
    patience: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
