//! The one place with SQL: PostgreSQL or SQLite, by `DATABASE_URL`.
//!
//! Both are spoken to in the same statements, through [`sqlx::Any`]: numbers, texts and `$1` are all that is needed, and the
//! tests run every statement on both. A task of its own (`keeper`) holds a connection that tells whether the database is
//! there, brings its tables up to date, and hands out a pool while it is; without one every question fails at once.

mod commands;
mod file;
mod guilds;
mod incidents;
mod keeper;
mod retention;
mod rows;
mod settings;

use std::{
    future::Future,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use sqlx::{
    AnyConnection, AnyPool,
    any::{AnyConnectOptions, install_default_drivers},
    migrate::{MigrateError, Migrator},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use self::keeper::{Keeper, Up};
pub(crate) use self::settings::{MAX_COMMAND_NAME, is_command_name};
pub use self::{
    commands::{Batch, CommandCount, Executed, HOUR, hour_of},
    guilds::{Guild, Presence},
    incidents::{GAP, HistoryQuery, Incident, Position, Recorded},
    settings::{Expected, Settings, SettingsChange},
};
use shardmeter_process::Secret;

/// Longest that any question may take, waiting for a connection included. Statements are cut by the database itself
/// ([`STATEMENT_TIMEOUT`]); this is for one that no longer answers at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// Longest that a statement may run, or wait for another's lock.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Databases have the checksums of those that they went through, so nothing in one is changed, comments neither. What the
/// first says of `guild_settings.revision` is of before: [`Settings::revision`] says how it counts.
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");

/// The database at some URL. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    /// Nothing while the database is away.
    up: watch::Receiver<Option<Up>>,
    /// How often it came.
    comings: watch::Receiver<u64>,
}

/// Which of all apis on a database records what they all hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// One that is not this.
    Another,
    /// This one, and it came to it so many times.
    This(u64),
}

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or cannot do anything now; later it may.
    #[error("the database is away: {0}")]
    Away(String),
    /// It refused what should be right: a mistake of ours.
    #[error("the database refused: {0}")]
    Failed(#[source] sqlx::Error),
}

/// What is wrong with a `DATABASE_URL`. It may hold a password, so it is not shown.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Another scheme.
    #[error("DATABASE_URL begins with neither postgres:// nor sqlite:")]
    Scheme,
    /// In memory, or in a file without a name, each connection would have a database of its own.
    #[error("DATABASE_URL: an SQLite database needs a file, as in sqlite://shardmeter.db")]
    Memory,
    /// Part of a password may have become its path: it is not logged, and nobody is asked.
    #[error(
        "DATABASE_URL has '@', ':', '/' or '#' where no PostgreSQL URL has it: escape them in the password (%40, %3A, %2F, \
         %23), or give user and password as PGUSER and PGPASSWORD"
    )]
    Unescaped,
    /// Not a URL of its kind.
    #[error("DATABASE_URL: {0}")]
    Invalid(String),
}

/// How to connect, and with what. Without `Debug`: the URL may hold a password.
#[derive(Clone)]
struct Database {
    kind: Kind,
    options: AnyConnectOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Sqlite,
}

impl Store {
    /// The database at `url`, which need not be there yet. Until `shutdown` it is watched, brought up to date when it comes,
    /// and relieved of what is too old.
    ///
    /// # Errors
    /// If the URL is none of a database that is known.
    pub fn open(
        url: &Secret,
        shutdown: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), DatabaseUrlError> {
        let database = Database::parse(url.expose())?;
        let (ups, up) = watch::channel(None);
        let (counting, comings) = watch::channel(0);
        let store = Self { up, comings };
        let keeper = Keeper::new(database, ups, counting);
        let retention = store.clone();
        let task = tokio::spawn(async move {
            let both = async { tokio::join!(keeper.run(), retention.retain()) };
            shutdown.run_until_cancelled(both).await;
        });
        Ok((store, task))
    }

    /// Whether the database is there.
    pub fn is_up(&self) -> bool {
        self.up.borrow().is_some()
    }

    /// Which of all apis on this database records what they hear; nothing while the database is away.
    pub fn recording(&self) -> Option<Recording> {
        self.up.borrow().as_ref().map(|up| up.recording)
    }

    /// Changes each time the database comes.
    pub(crate) fn comings(&self) -> watch::Receiver<u64> {
        self.comings.clone()
    }

    /// Who to ask, unless the database is known to be away.
    fn pool(&self) -> Result<AnyPool, StoreError> {
        let pool = self.up.borrow().as_ref().map(|up| up.pool.clone());
        pool.ok_or_else(|| StoreError::Away("it cannot be reached".into()))
    }
}

/// The database's answer, or that none came.
async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(StoreError::from),
        Err(_) => Err(StoreError::Away("it does not answer".into())),
    }
}

impl Database {
    fn parse(url: &str) -> Result<Self, DatabaseUrlError> {
        install_default_drivers();
        let kind = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Kind::Postgres,
            Some("sqlite") => Kind::Sqlite,
            _ => return Err(DatabaseUrlError::Scheme),
        };
        let invalid = |error: sqlx::Error| DatabaseUrlError::Invalid(error.to_string());
        let mut options: AnyConnectOptions = url.parse().map_err(invalid)?;
        let url = &mut options.database_url;
        match kind {
            Kind::Postgres => {
                let name = url.path().strip_prefix('/').unwrap_or_default();
                if name.contains(['/', '@', ':'])
                    || url.fragment().is_some()
                    || url.query().is_some_and(|query| query.contains('@'))
                {
                    return Err(DatabaseUrlError::Unescaped);
                }
                drop(sqlx::postgres::PgConnectOptions::try_from(&options).map_err(invalid)?);
            }
            Kind::Sqlite => {
                if url.as_str().trim_start_matches("sqlite:").trim_matches('/').is_empty()
                    || url.as_str().contains(":memory:")
                    || url.query_pairs().any(|(key, value)| key == "mode" && value == "memory")
                {
                    return Err(DatabaseUrlError::Memory);
                }
                // Created when missing, unless the URL says otherwise.
                if !url.query_pairs().any(|(key, _)| key == "mode") {
                    url.query_pairs_mut().append_pair("mode", "rwc");
                }
                drop(sqlx::sqlite::SqliteConnectOptions::try_from(&options).map_err(invalid)?);
            }
        }
        Ok(Self { kind, options })
    }

    /// What may be said of it in a log: where it is, never who asks.
    fn place(&self) -> String {
        let url = &self.options.database_url;
        self.file().map_or_else(
            || format!("PostgreSQL {}{}", url.host_str().unwrap_or("on a socket"), url.path()),
            |path| format!("SQLite file {}", path.display()),
        )
    }

    /// Of SQLite, where it is.
    fn file(&self) -> Option<PathBuf> {
        if self.kind == Kind::Postgres {
            return None;
        }
        // Looked at when it was parsed.
        let options = sqlx::sqlite::SqliteConnectOptions::try_from(&self.options).ok()?;
        Some(options.get_filename().to_owned())
    }
}

impl Kind {
    /// Prepares a connection: what it may wait for, and how it writes.
    async fn set_up(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let milliseconds = STATEMENT_TIMEOUT.as_millis();
        let settings = match self {
            Self::Postgres => format!(
                "SET statement_timeout = {milliseconds}; SET \
                 idle_in_transaction_session_timeout = {milliseconds}; SET tcp_keepalives_idle = 5; SET \
                 tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
            ),
            // With a write-ahead log readers wait for no writer; NORMAL syncs it at checkpoints, so that a power cut may
            // cost the last writes but no consistency.
            Self::Sqlite => format!(
                "PRAGMA busy_timeout = {milliseconds}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA \
                 foreign_keys = ON"
            ),
        };
        sqlx::raw_sql(sqlx::AssertSqlSafe(settings)).execute(connection).await.map(drop)
    }

    /// Makes the tables, or brings them up to date. Several apis may do so at once: one waits for the other.
    async fn migrate(self, connection: &mut AnyConnection) -> Result<(), MigrateError> {
        match self {
            Self::Postgres => POSTGRES.run_direct(None, connection, false).await,
            Self::Sqlite => SQLITE.run_direct(None, connection, false).await,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) { Self::Away(error.to_string()) } else { Self::Failed(error) }
    }
}

/// Whether the same question may succeed later.
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // SQLSTATE classes: connection, transaction (one that was idle for too long, a server that only reads), rollback (a
            // deadlock, say), resources, limits, what is not ready or locked, the operator, the system, the server's mistakes.
            // And a table that is missing, which the keeper notices too.
            Some("42P01") => true,
            Some(code) if code.len() == 5 => ["08", "25", "40", "53", "54", "55", "57", "58", "XX"]
                .iter()
                .any(|class| code.starts_with(class)),
            // SQLite's primary code is the low byte: busy, locked, read-only, I/O, full, cannot open.
            Some("1") => error.message().starts_with("no such table"),
            Some(code) => code
                .parse::<u32>()
                .is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)),
            None => false,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// A time as it is stored: milliseconds since 1970.
fn to_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A stored time.
fn from_millis(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// An unsigned number that the database keeps signed; both ends stay below 2^63.
fn from_db(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// The same, the other way.
fn to_db(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> String {
        Database::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")).place()
    }

    #[test]
    fn what_is_said_of_a_database_has_no_password() {
        let url = "postgres://shardmeter:hunter2@db.example:5433/platform?sslmode=require";
        assert_eq!(place(url), "PostgreSQL db.example/platform");
        assert_eq!(place("sqlite://data/api.db"), "SQLite file data/api.db");
        assert_eq!(place("sqlite:///var/lib/api.db?mode=rw"), "SQLite file /var/lib/api.db");
        let error = Database::parse("postgres://me:hunter2@db.example:port/").err().unwrap();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn other_urls_are_refused() {
        for url in ["", "shardmeter.db", "mysql://db/platform", "http://db"] {
            assert!(matches!(Database::parse(url), Err(DatabaseUrlError::Scheme)), "{url}");
        }
        for url in ["sqlite::memory:", "sqlite://x.db?mode=memory", "sqlite://", "sqlite:"] {
            assert!(matches!(Database::parse(url), Err(DatabaseUrlError::Memory)), "{url}");
        }
        for url in ["sqlite://x.db?mode=odd", "postgres://db/platform?sslmode=odd"] {
            assert!(matches!(Database::parse(url), Err(DatabaseUrlError::Invalid(_))), "{url}");
        }
    }

    #[test]
    fn a_password_that_is_not_escaped_becomes_no_path() {
        for password in ["p@ss/w:rd#1", "12#3", "12/3", "12?3", "a/b"] {
            let url = format!("postgres://user:{password}@db/platform");
            let error = Database::parse(&url).err().expect("it is refused").to_string();
            assert!(!error.contains(password) && !error.contains("w:rd"), "{error}");
        }
        for url in
            ["postgres://user:p%40ss%2Fw%3Ard%231@db/platform", "postgres:///platform?host=/run"]
        {
            assert!(Database::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_sqlite_file_is_created_unless_the_url_says_otherwise() {
        let mode = |url: &str| {
            let url = Database::parse(url).unwrap().options.database_url;
            url.query_pairs().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(mode("sqlite://x.db"), ["mode=rwc"]);
        assert_eq!(mode("sqlite://x.db?mode=rw"), ["mode=rw"]);
    }
}
