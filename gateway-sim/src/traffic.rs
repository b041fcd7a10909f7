//! The commands users send of their own accord.
//!
//! Each shard draws from its own generator, `fastrand::Rng::with_seed(mix(seed, shard))`, once per command and in the
//! shard's own order, over all of its sessions. So the order and kind of a shard's commands depend on the seed, the
//! guilds, the shard and the shard count, never on how tasks are scheduled.

use crate::books::Place;
use crate::guilds::{Guilds, Presence};

/// The slash commands that are sent.
pub const COMMANDS: [&str; 3] = ["ping", "shards", "stats"];

/// How often each of [`COMMANDS`] is sent, in sixteenths.
const WEIGHTS: [u8; 3] = [10, 4, 2];

/// One in this many commands of shard 0 comes from a direct message (Discord sends those to shard 0 only).
const DIRECT_MESSAGES: u32 = 16;

/// The command generator of one shard.
#[derive(Debug)]
pub(crate) struct Traffic {
    shard: u32,
    rng: fastrand::Rng,
}

impl Traffic {
    pub(crate) fn new(seed: u64, shard: u32) -> Self {
        Self { shard, rng: fastrand::Rng::with_seed(mix(seed, u64::from(shard))) }
    }

    /// The shard's next command. `None` when it falls on a guild that is away (the draw is used up all the same) or the
    /// shard has no guild.
    pub(crate) fn draw(
        &mut self,
        guilds: &Guilds,
        shard_count: u32,
    ) -> Option<(Place, &'static str)> {
        let direct = self.rng.u32(0..DIRECT_MESSAGES) == 0;
        let command = self.command();
        let pick = self.rng.u64(..);
        if direct && self.shard == 0 {
            return Some((Place::Dm, command));
        }
        let mut own = guilds.seeded_of_shard(self.shard, shard_count);
        let index = pick.checked_rem(own.len() as u64)?;
        let guild = own.nth(usize::try_from(index).ok()?)?;
        (guild.presence == Presence::Available).then_some((Place::Guild(guild.id), command))
    }

    fn command(&mut self) -> &'static str {
        let mut left = self.rng.u8(0..WEIGHTS.iter().sum());
        for (command, weight) in COMMANDS.into_iter().zip(WEIGHTS) {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return command,
            }
        }
        COMMANDS[0]
    }
}

/// Spreads two numbers over 64 bits (the finisher of SplitMix64), so that neighbouring shards share no sequence.
pub(crate) fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guilds::shard_of;

    fn draws(seed: u64, shard: u32, guilds: &Guilds) -> Vec<Option<(Place, &'static str)>> {
        let mut traffic = Traffic::new(seed, shard);
        (0..500).map(|_| traffic.draw(guilds, 4)).collect()
    }

    #[test]
    fn a_shards_commands_follow_from_seed_and_shard() {
        let guilds = Guilds::new(5, 40, &(1..=9));
        assert_eq!(draws(5, 2, &guilds), draws(5, 2, &guilds));
        assert_ne!(draws(5, 2, &guilds), draws(6, 2, &guilds));
        assert_ne!(
            draws(5, 2, &guilds).iter().map(|d| d.map(|(_, c)| c)).collect::<Vec<_>>(),
            draws(5, 3, &guilds).iter().map(|d| d.map(|(_, c)| c)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn commands_stay_on_their_shard_and_direct_messages_on_shard_0() {
        let guilds = Guilds::new(5, 40, &(1..=9));
        for shard in 0..4 {
            let drawn: Vec<_> = draws(5, shard, &guilds).into_iter().flatten().collect();
            assert_eq!(drawn.len(), 500);
            assert!(COMMANDS.iter().all(|name| drawn.iter().any(|(_, command)| command == name)));
            assert_eq!(drawn.iter().any(|(place, _)| *place == Place::Dm), shard == 0);
            assert!(drawn.iter().all(|(place, _)| match place {
                Place::Dm => true,
                Place::Guild(id) => shard_of(*id, 4) == shard,
            }));
        }
    }

    #[test]
    fn a_guild_that_is_away_sends_nothing_and_shifts_nothing() {
        let mut guilds = Guilds::new(5, 40, &(1..=9));
        let before = draws(5, 1, &guilds);
        let away = guilds.of_shard(1, 4)[0].id;
        guilds.set_presence(away, Presence::Unavailable);
        let after = draws(5, 1, &guilds);
        for (before, after) in before.into_iter().zip(after) {
            let gone = before.is_some_and(|(place, _)| place == Place::Guild(away));
            assert_eq!(after, if gone { None } else { before });
        }
    }

    #[test]
    fn a_shard_without_guilds_is_silent() {
        let guilds = Guilds::new(5, 0, &(1..=9));
        assert!(draws(5, 1, &guilds).iter().all(Option::is_none));
    }
}
