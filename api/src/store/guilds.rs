//! The guilds that the bot is in, or was.

use std::time::SystemTime;

use sqlx::{AnyConnection, FromRow, query, query_as};

use super::{Store, StoreError, from_millis, in_time, to_db, to_millis};

/// What is known of a guild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guild {
    /// When the bot last joined it, if that was seen.
    pub joined_at: Option<SystemTime>,
    /// None while the bot is in it.
    pub left_at: Option<SystemTime>,
}

/// The bot joined a guild, or left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Which guild.
    pub guild_id: u64,
    /// Who saw it.
    pub shard_id: u32,
    /// When.
    pub at: SystemTime,
    /// Or left.
    pub joined: bool,
}

#[derive(FromRow)]
struct Row {
    joined_at: Option<i64>,
    left_at: Option<i64>,
}

const JOINED: &str = "INSERT INTO guilds (id, shard_id, joined_at, left_at) VALUES ($1, $2, $3, NULL) \
     ON CONFLICT (id) DO UPDATE SET shard_id = excluded.shard_id, joined_at = excluded.joined_at, left_at = NULL";

const LEFT: &str = "INSERT INTO guilds (id, shard_id, joined_at, left_at) VALUES ($1, $2, NULL, $3) \
     ON CONFLICT (id) DO UPDATE SET shard_id = excluded.shard_id, left_at = excluded.left_at";

impl Store {
    /// What is known of a guild, if anything.
    pub async fn guild(&self, guild_id: u64) -> Result<Option<Guild>, StoreError> {
        let pool = self.pool()?;
        in_time(async {
            let row = query_as::<_, Row>("SELECT joined_at, left_at FROM guilds WHERE id = $1");
            let row = row.bind(to_db(guild_id)).fetch_optional(&pool).await?;
            Ok(row.map(|row| Guild {
                joined_at: row.joined_at.map(from_millis),
                left_at: row.left_at.map(from_millis),
            }))
        })
        .await
    }
}

/// Notes that the bot joined or left.
pub(super) async fn note(
    transaction: &mut AnyConnection,
    presence: &Presence,
) -> Result<(), sqlx::Error> {
    query(if presence.joined { JOINED } else { LEFT })
        .bind(to_db(presence.guild_id))
        .bind(i64::from(presence.shard_id))
        .bind(to_millis(presence.at))
        .execute(transaction)
        .await
        .map(drop)
}
