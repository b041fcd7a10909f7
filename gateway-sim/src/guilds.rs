//! The seeded world: the guilds the bot is in.
//!
//! A guild's id is a snowflake whose upper bits are a millisecond, and Discord places it on shard
//! `(id >> 22) % shard_count`. The seeded guilds lie on consecutive milliseconds, so they spread evenly over the shards
//! whatever the shard count, and the ones of a shard are found without looking at the others.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::config::MAX_GUILDS;

/// Bits of a snowflake below its millisecond.
const BELOW_MILLISECOND: u32 = 22;

/// The shard that owns a guild when the bot runs with `shard_count` shards; 0 for a count of 0.
#[must_use]
pub fn shard_of(guild_id: u64, shard_count: u32) -> u32 {
    let shard = (guild_id >> BELOW_MILLISECOND).checked_rem(u64::from(shard_count));
    // The remainder of a division by a u32 fits.
    u32::try_from(shard.unwrap_or(0)).unwrap_or(0)
}

/// Whether the bot is in a guild, and sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In it, and its data is there.
    Available,
    /// In it, but the guild has an outage.
    Unavailable,
    /// No longer in it.
    Left,
}

/// A guild of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guild {
    /// Its snowflake.
    pub id: u64,
    /// How many members it has.
    pub members: u32,
    /// Whether the bot is in it.
    pub presence: Presence,
}

/// All guilds.
#[derive(Debug)]
pub(crate) struct Guilds {
    /// The millisecond of the first seeded guild.
    first: u64,
    /// The seeded guilds, one per millisecond from `first` on.
    seeded: Vec<Guild>,
    /// Guilds that joined later, by id; their milliseconds lie beyond the seeded ones.
    joined: BTreeMap<u64, Guild>,
}

impl Guilds {
    /// The world of a seed.
    pub(crate) fn new(seed: u64, count: u32, members: &RangeInclusive<u32>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // Snowflakes of the last years: 10^11 ms and more after Discord's epoch.
        let first = 100_000_000_000 + rng.u64(0..100_000_000_000);
        let seeded = (0..u64::from(count))
            .map(|index| Guild {
                id: ((first + index) << BELOW_MILLISECOND) | rng.u64(0..1 << BELOW_MILLISECOND),
                members: rng.u32(members.clone()),
                presence: Presence::Available,
            })
            .collect();
        Self { first, seeded, joined: BTreeMap::new() }
    }

    /// A guild by id.
    pub(crate) fn get(&self, id: u64) -> Option<&Guild> {
        let seeded = self.seeded_index(id).and_then(|index| self.seeded.get(index));
        seeded.filter(|guild| guild.id == id).or_else(|| self.joined.get(&id))
    }

    /// Changes a guild's presence; returns the guild as it is then.
    pub(crate) fn set_presence(&mut self, id: u64, presence: Presence) -> Option<Guild> {
        let seeded = self.seeded_index(id).and_then(|index| self.seeded.get_mut(index));
        let guild = match seeded.filter(|guild| guild.id == id) {
            Some(guild) => guild,
            None => self.joined.get_mut(&id)?,
        };
        guild.presence = presence;
        Some(*guild)
    }

    /// Lets the bot join a new guild on this shard. `None` when the world is full.
    pub(crate) fn join(&mut self, shard: u32, shard_count: u32, members: u32) -> Option<Guild> {
        if self.seeded.len() + self.joined.len() >= MAX_GUILDS as usize {
            return None;
        }
        let last = self.joined.last_key_value().map(|(id, _)| *id >> BELOW_MILLISECOND);
        let next = last.unwrap_or(self.first + self.seeded.len() as u64) + 1;
        let wait = first_from(next, shard, shard_count)?;
        let id = (next + wait) << BELOW_MILLISECOND;
        let guild = Guild { id, members, presence: Presence::Available };
        self.joined.insert(id, guild);
        Some(guild)
    }

    /// The guilds a shard owns and has not left.
    pub(crate) fn of_shard(&self, shard: u32, shard_count: u32) -> Vec<Guild> {
        let joined = self.joined.values().filter(|guild| shard_of(guild.id, shard_count) == shard);
        self.seeded_of_shard(shard, shard_count)
            .chain(joined)
            .filter(|guild| guild.presence != Presence::Left)
            .copied()
            .collect()
    }

    /// The seeded guilds of a shard, whatever became of them: what its traffic is drawn from.
    pub(crate) fn seeded_of_shard(
        &self,
        shard: u32,
        shard_count: u32,
    ) -> impl ExactSizeIterator<Item = &Guild> {
        let start = first_from(self.first, shard, shard_count)
            .and_then(|start| usize::try_from(start).ok())
            .and_then(|start| self.seeded.get(start..))
            .unwrap_or_default();
        start.iter().step_by(shard_count.max(1) as usize)
    }

    /// Every guild there ever was, by id.
    pub(crate) fn all(&self) -> Vec<Guild> {
        self.seeded.iter().chain(self.joined.values()).copied().collect()
    }

    fn seeded_index(&self, id: u64) -> Option<usize> {
        let index = (id >> BELOW_MILLISECOND).checked_sub(self.first)?;
        usize::try_from(index).ok()
    }
}

/// How many milliseconds after `start` the first one of this shard comes; `None` for a shard beyond the count.
fn first_from(start: u64, shard: u32, shard_count: u32) -> Option<u64> {
    if shard >= shard_count {
        return None;
    }
    let (shard, count) = (u64::from(shard), u64::from(shard_count));
    Some((shard + count - start % count) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(seed: u64) -> Guilds {
        Guilds::new(seed, 1_000, &(5..=50))
    }

    #[test]
    fn a_seed_is_a_world() {
        assert_eq!(world(7).all(), world(7).all());
        assert_ne!(world(7).all(), world(8).all());
        assert!(world(7).all().iter().all(|guild| (5..=50).contains(&guild.members)));
    }

    #[test]
    fn every_guild_has_one_shard_whatever_the_count() {
        let world = world(3);
        for count in [1, 2, 3, 7, 16, 999, 1_500] {
            let mut seen = Vec::new();
            for shard in 0..count {
                let owned = world.of_shard(shard, count);
                assert!(owned.iter().all(|guild| shard_of(guild.id, count) == shard));
                assert_eq!(owned.len(), world.seeded_of_shard(shard, count).len());
                assert!(owned.len().abs_diff(1_000 / count as usize) <= 1, "spread evenly");
                seen.extend(owned.iter().map(|guild| guild.id));
            }
            seen.sort_unstable();
            assert_eq!(seen, world.all().iter().map(|guild| guild.id).collect::<Vec<_>>());
        }
        assert!(world.of_shard(5, 5).is_empty());
    }

    #[test]
    fn a_guild_joins_the_shard_it_is_asked_to_and_leaves() {
        let mut world = world(3);
        let joined: Vec<_> = (0..10).filter_map(|n| world.join(n % 4, 4, 9)).collect();
        assert_eq!(joined.len(), 10);
        for (n, guild) in (0u32..).zip(&joined) {
            assert_eq!(shard_of(guild.id, 4), n % 4);
            assert_eq!(world.get(guild.id), Some(guild));
        }
        let before = world.of_shard(0, 4).len();
        let first = joined[0].id;
        assert_eq!(world.set_presence(first, Presence::Left).map(|guild| guild.id), Some(first));
        assert_eq!(world.of_shard(0, 4).len(), before - 1);
        assert_eq!(world.set_presence(1, Presence::Left), None);
        assert_eq!(world.join(4, 4, 1), None, "no such shard");
    }
}
