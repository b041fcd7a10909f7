//! The guilds that the bot is in, or was.

use std::{collections::BTreeMap, time::SystemTime};

use sqlx::{AnyConnection, FromRow, query_as};

use super::{
    Store, StoreError, from_millis, in_time,
    rows::{self, ROWS},
    to_db, to_millis,
};

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

const INSERT: &str = "INSERT INTO guilds (id, shard_id, joined_at, left_at)";

/// When it was joined stays known when it is left.
const OR_UPDATE: &str = "ON CONFLICT (id) DO UPDATE SET shard_id = excluded.shard_id, \
     joined_at = COALESCE(excluded.joined_at, guilds.joined_at), left_at = excluded.left_at";

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

/// Notes that the bot joined or left, in order.
pub(super) async fn note(
    transaction: &mut AnyConnection,
    presences: &[Presence],
) -> Result<(), sqlx::Error> {
    let last = last_of_each(presences);
    for last in last.chunks(ROWS) {
        let statement = rows::insert(INSERT, 4, last.len(), OR_UPDATE);
        let statement = last.iter().fold(statement, |statement, (guild_id, last)| {
            statement
                .bind(to_db(*guild_id))
                .bind(i64::from(last.shard_id))
                .bind(last.joined_at)
                .bind(last.left_at)
        });
        statement.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// What a guild's presences come to.
struct Last {
    shard_id: u32,
    joined_at: Option<i64>,
    left_at: Option<i64>,
}

/// Each guild once, because no statement may change a row twice.
fn last_of_each(presences: &[Presence]) -> Vec<(u64, Last)> {
    let mut guilds = BTreeMap::new();
    for presence in presences {
        let Presence { guild_id, shard_id, at, joined } = *presence;
        let guild = guilds.entry(guild_id);
        let last = guild.or_insert(Last { shard_id, joined_at: None, left_at: None });
        last.shard_id = shard_id;
        last.left_at = (!joined).then(|| to_millis(at));
        if joined {
            last.joined_at = Some(to_millis(at));
        }
    }
    guilds.into_iter().collect()
}
