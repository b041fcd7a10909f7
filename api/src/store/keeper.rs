//! Knows whether the database is there.

use std::{sync::Arc, time::Duration};

use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, any::AnyPoolOptions, query, query_scalar};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Database, Kind, Recording, file::OwnFile};

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

/// Fails where a table is missing: somebody dropped it, or all that there was.
const TABLES: &str = "SELECT 1 FROM guilds, guild_settings, incidents, position, command_counts, recorders WHERE 1 = 0";

/// A database that is there.
#[derive(Debug, Clone)]
pub(super) struct Up {
    pub(super) pool: AnyPool,
    /// Which of all apis on this database records what all hear.
    pub(super) recording: Recording,
    /// Of SQLite: no other api's as long as anybody here may write.
    file: Option<Arc<OwnFile>>,
}

/// Holds one connection of its own, so that a pool in heavy use does not look like a database that is away; a new pool is
/// made each time the database comes back, so that no connection of before is waited for.
///
/// On PostgreSQL the connection also holds a lock as long as it lives, if no other api has it: who has it, records.
pub(super) struct Keeper {
    database: Database,
    up: watch::Sender<Option<Up>>,
    /// How often it came.
    comings: watch::Sender<u64>,
    /// The last thing said in the log, so that it is said once.
    said: Option<String>,
    /// How often this api came to record.
    terms: u64,
}

impl Keeper {
    pub(super) fn new(
        database: Database,
        up: watch::Sender<Option<Up>>,
        comings: watch::Sender<u64>,
    ) -> Self {
        Self { database, up, comings, said: None, terms: 0 }
    }

    /// Never ends.
    pub(super) async fn run(mut self) {
        loop {
            let reason = match self.connect().await {
                Ok((mut connection, up)) => {
                    let (recording, file) = (up.recording, up.file.clone());
                    self.up(up);
                    self.watch(&mut connection, recording, file).await
                }
                Err(reason) => reason,
            };
            self.down(reason);
            sleep(INTERVAL).await;
        }
    }

    async fn connect(&mut self) -> Result<(AnyConnection, Up), String> {
        let Database { kind, options } = &self.database;
        let connect = async {
            let mut connection = options.connect().await?;
            kind.set_up(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let mut connection = in_time(PATIENCE, connect).await?;
        let file = self.database.file().map(|path| OwnFile::take(&path)).transpose()?;
        in_time(MIGRATION_PATIENCE, kind.migrate(&mut connection)).await?;
        let records = in_time(PATIENCE, look(*kind, &mut connection, false)).await?;
        let recording = if records { self.this() } else { Recording::Another };
        Ok((connection, Up { pool: self.pool(), recording, file: file.map(Arc::new) }))
    }

    /// This api comes to record.
    fn this(&mut self) -> Recording {
        self.terms += 1;
        Recording::This(self.terms)
    }

    fn pool(&self) -> AnyPool {
        let kind = self.database.kind;
        AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| Box::pin(kind.set_up(connection)))
            .connect_lazy_with(self.database.options.clone())
    }

    /// Ends when the database is no longer there, with the reason.
    async fn watch(
        &mut self,
        connection: &mut AnyConnection,
        recording: Recording,
        file: Option<Arc<OwnFile>>,
    ) -> String {
        let mut records = recording != Recording::Another;
        loop {
            sleep(INTERVAL).await;
            if let Some(Err(reason)) = file.as_ref().map(|file| file.check()) {
                return reason;
            }
            match in_time(PATIENCE, look(self.database.kind, connection, records)).await {
                Ok(true) if !records => {
                    records = true;
                    let recording = self.this();
                    self.up.send_modify(|up| {
                        if let Some(up) = up {
                            up.recording = recording;
                        }
                    });
                }
                Ok(_) => {}
                Err(reason) => return reason,
            }
        }
    }

    fn up(&mut self, up: Up) {
        self.up.send_replace(Some(up));
        self.comings.send_modify(|times| *times += 1);
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

/// Whether this api is the one that records, of a database that has all its tables. Of an SQLite file there is one api.
async fn look(
    kind: Kind,
    connection: &mut AnyConnection,
    records: bool,
) -> Result<bool, sqlx::Error> {
    query(TABLES).execute(&mut *connection).await?;
    match kind {
        Kind::Postgres if !records => {
            let lock = query_scalar("SELECT pg_try_advisory_lock($1)").bind(RECORDS);
            lock.fetch_one(connection).await
        }
        Kind::Postgres | Kind::Sqlite => Ok(true),
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
