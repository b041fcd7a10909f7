//! What a guild wants otherwise than others.

use std::{collections::BTreeSet, time::SystemTime};

use sqlx::{FromRow, query_as};

use super::{Store, StoreError, from_db, from_millis, in_time, to_db, to_millis};

/// A guild's settings as they are stored; of a guild that never set any, the defaults at revision 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whose.
    pub guild_id: u64,
    /// Greater with each change, also of a database that was made anew: it goes by the time.
    pub revision: u64,
    /// Commands that the bot does not execute there.
    pub disabled_commands: BTreeSet<String>,
    /// How text commands begin there.
    pub command_prefix: Option<String>,
    /// When they became this; none: never set.
    pub updated_at: Option<SystemTime>,
}

/// What settings become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsChange {
    /// Commands that the bot does not execute there.
    pub disabled_commands: BTreeSet<String>,
    /// How text commands begin there.
    pub command_prefix: Option<String>,
}

/// What a writer believes the settings to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever they are.
    Any,
    /// Those of this revision.
    Revision(u64),
}

/// Characters of a command's name, as Discord has it.
pub(crate) const MAX_COMMAND_NAME: usize = 32;

/// Whether Discord would take it for a command's name.
pub(crate) fn is_command_name(name: &str) -> bool {
    (1..=MAX_COMMAND_NAME).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

#[derive(FromRow)]
struct Row {
    guild_id: i64,
    revision: i64,
    disabled_commands: String,
    command_prefix: Option<String>,
    updated_at: i64,
}

impl TryFrom<Row> for Settings {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let disabled_commands = serde_json::from_str(&row.disabled_commands)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Self {
            guild_id: from_db(row.guild_id),
            revision: from_db(row.revision),
            disabled_commands,
            command_prefix: row.command_prefix,
            updated_at: Some(from_millis(row.updated_at)),
        })
    }
}

const SELECT: &str = "SELECT guild_id, revision, disabled_commands, command_prefix, updated_at FROM guild_settings WHERE guild_id = $1";

const SELECT_AFTER: &str = "SELECT guild_id, revision, disabled_commands, command_prefix, updated_at FROM guild_settings \
     WHERE guild_id > $1 ORDER BY guild_id LIMIT $2";

/// Each of these is one statement, so that of two writers who saw the same revision one finds no row.
const INSERT: &str = "INSERT INTO guild_settings (guild_id, revision, disabled_commands, command_prefix, updated_at) \
     VALUES ($1, $4, $2, $3, $4) ON CONFLICT (guild_id) DO NOTHING \
     RETURNING guild_id, revision, disabled_commands, command_prefix, updated_at";

/// A revision is the time of its change, in milliseconds, unless one of before is as great. So a change wins over what Redis
/// and bots know of a database that was lost or put back since.
const UPDATE: &str = "UPDATE guild_settings SET revision = CASE WHEN revision < $4 THEN $4 ELSE revision + 1 END, \
     disabled_commands = $2, command_prefix = $3, updated_at = $4 WHERE guild_id = $1 AND revision = $5 \
     RETURNING guild_id, revision, disabled_commands, command_prefix, updated_at";

const UPSERT: &str = "INSERT INTO guild_settings (guild_id, revision, disabled_commands, command_prefix, updated_at) \
     VALUES ($1, $4, $2, $3, $4) ON CONFLICT (guild_id) DO UPDATE SET \
     revision = CASE WHEN guild_settings.revision < $4 THEN $4 ELSE guild_settings.revision + 1 END, \
     disabled_commands = excluded.disabled_commands, command_prefix = excluded.command_prefix, \
     updated_at = excluded.updated_at \
     RETURNING guild_id, revision, disabled_commands, command_prefix, updated_at";

impl Store {
    /// A guild's settings.
    pub async fn settings(&self, guild_id: u64) -> Result<Settings, StoreError> {
        let pool = self.pool()?;
        let row = in_time(async {
            let row =
                query_as::<_, Row>(SELECT).bind(to_db(guild_id)).fetch_optional(&pool).await?;
            row.map(Settings::try_from).transpose()
        })
        .await?;
        Ok(row.unwrap_or(Settings {
            guild_id,
            revision: 0,
            disabled_commands: BTreeSet::new(),
            command_prefix: None,
            updated_at: None,
        }))
    }

    /// Settings of guilds with greater ids than `after`, by id: to read them all, a page at a time.
    pub async fn settings_after(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Settings>, StoreError> {
        let pool = self.pool()?;
        in_time(async {
            let rows = query_as::<_, Row>(SELECT_AFTER).bind(to_db(after)).bind(i64::from(limit));
            rows.fetch_all(&pool).await?.into_iter().map(Settings::try_from).collect()
        })
        .await
    }

    /// Changes a guild's settings if they are what is expected; `None` if not.
    pub async fn change_settings(
        &self,
        guild_id: u64,
        change: &SettingsChange,
        expected: Expected,
    ) -> Result<Option<Settings>, StoreError> {
        let disabled = serde_json::json!(change.disabled_commands).to_string();
        let statement = match expected {
            Expected::Any => UPSERT,
            Expected::Revision(0) => INSERT,
            Expected::Revision(_) => UPDATE,
        };
        let pool = self.pool()?;
        in_time(async {
            let mut query = query_as::<_, Row>(statement)
                .bind(to_db(guild_id))
                .bind(disabled)
                .bind(change.command_prefix.clone())
                .bind(to_millis(SystemTime::now()));
            if let Expected::Revision(revision @ 1..) = expected {
                query = query.bind(to_db(revision));
            }
            query.fetch_optional(&pool).await?.map(Settings::try_from).transpose()
        })
        .await
    }
}
