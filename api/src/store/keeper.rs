//! Knows whether the database is there.

use std::time::Duration;

use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Connection as _, any::AnyPoolOptions};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::Database;

/// How often the database is asked whether it is there, and tried again while it is not.
const INTERVAL: Duration = Duration::from_millis(500);

/// A database that takes longer to connect or to say that it is there is away.
const PATIENCE: Duration = Duration::from_secs(1);

/// Making the tables, or waiting for another api that makes them.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(600);

/// Connections to the database: as many questions at once; more wait for [`PATIENCE`].
const CONNECTIONS: u32 = 10;

/// Holds one connection of its own, so that a pool in heavy use does not look like a database that is away; a new pool is
/// made each time the database comes back, so that no connection of before is waited for.
pub(super) struct Keeper {
    database: Database,
    pools: watch::Sender<Option<AnyPool>>,
    /// The last thing said in the log, so that it is said once.
    said: Option<String>,
}

impl Keeper {
    pub(super) fn new(database: Database, pools: watch::Sender<Option<AnyPool>>) -> Self {
        Self { database, pools, said: None }
    }

    /// Never ends.
    pub(super) async fn run(mut self) {
        loop {
            match self.connect().await {
                Ok(mut connection) => {
                    self.up();
                    let reason = watch(&mut connection).await;
                    self.down(reason);
                }
                Err(reason) => self.down(reason),
            }
            sleep(INTERVAL).await;
        }
    }

    async fn connect(&self) -> Result<AnyConnection, String> {
        let Database { kind, options } = &self.database;
        let connect = async {
            let mut connection = options.connect().await?;
            kind.set_up(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let mut connection = match timeout(PATIENCE, connect).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer".to_owned()),
        };
        match timeout(MIGRATION_PATIENCE, kind.migrate(&mut connection)).await {
            Ok(migrated) => migrated.map_err(|error| error.to_string())?,
            Err(_) => return Err("its tables cannot be made: no answer".to_owned()),
        }
        Ok(connection)
    }

    fn up(&mut self) {
        let kind = self.database.kind;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| Box::pin(kind.set_up(connection)))
            .connect_lazy_with(self.database.options.clone());
        self.pools.send_replace(Some(pool));
        self.said = None;
        tracing::info!(database = self.database.place(), "the database is there");
    }

    fn down(&mut self, reason: String) {
        self.pools.send_replace(None);
        if self.said.as_ref() != Some(&reason) {
            let database = self.database.place();
            tracing::error!(database, reason, "the database is away; trying again");
            self.said = Some(reason);
        }
    }
}

/// Ends when the database is no longer there, with the reason.
async fn watch(connection: &mut AnyConnection) -> String {
    loop {
        sleep(INTERVAL).await;
        match timeout(PATIENCE, connection.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "no answer".to_owned(),
        }
    }
}
