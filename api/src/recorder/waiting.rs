//! What was heard and is not stored yet, added up, and still known by when it was heard.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use crate::store::{Executed, Presence, hour_of, is_command_name};

/// Counts, and guilds joined or left, that are stored at once: few enough for a database far away.
const AT_ONCE: usize = 500;

/// Counts that wait for the database: a bot's hundred commands, for four days.
const MAX_COUNTS: usize = 10_000;

/// Guilds joined or left that wait for it: a busy bot has hundreds a day.
const MAX_PRESENCES: usize = 10_000;

/// What is heard within this time is one.
const SLOT: Duration = Duration::from_millis(100);

/// What is older is told apart less and less, to a few percent of its age.
const MAX_SLOTS: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In order of time.
    slots: VecDeque<Slot>,
    /// That all of them have.
    counts: usize,
    presences: usize,
}

/// What was heard between two moments.
#[derive(Debug)]
struct Slot {
    first: SystemTime,
    last: SystemTime,
    /// By hour and name.
    executed: BTreeMap<(SystemTime, String), u64>,
    /// In order.
    presences: Vec<Presence>,
}

impl Slot {
    fn at(now: SystemTime) -> Self {
        Self { first: now, last: now, executed: BTreeMap::new(), presences: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.executed.is_empty() && self.presences.is_empty()
    }

    /// From its begin to a moment. A clock that was set back makes it none.
    fn until(&self, moment: SystemTime) -> Duration {
        moment.duration_since(self.first).unwrap_or_default()
    }

    fn middle(&self) -> SystemTime {
        self.first + self.until(self.last) / 2
    }
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.counts == 0 && self.presences == 0
    }

    /// What is stored next, and when the last of it was heard.
    pub(super) fn take_first(&mut self) -> (Vec<Executed>, Vec<Presence>, SystemTime) {
        let mut executed = BTreeMap::<_, u64>::new();
        let mut presences = Vec::new();
        let mut heard = SystemTime::UNIX_EPOCH;
        while let Some(slot) = self.slots.front_mut() {
            while executed.len() < AT_ONCE
                && let Some((key, count)) = slot.executed.pop_first()
            {
                *executed.entry(key).or_default() += count;
                self.counts -= 1;
            }
            let some = slot.presences.len().min(AT_ONCE - presences.len());
            presences.extend(slot.presences.drain(..some));
            self.presences -= some;
            heard = slot.last;
            if !slot.is_empty() {
                break;
            }
            self.slots.pop_front();
        }
        let executed = executed.into_iter();
        let executed =
            executed.map(|((at, command_name), count)| Executed { at, command_name, count });
        (executed.collect(), presences, heard)
    }

    /// Drops what was heard before.
    pub(super) fn forget_before(&mut self, moment: SystemTime) {
        self.slots.retain(|slot| slot.middle() > moment);
        self.counts = self.slots.iter().map(|slot| slot.executed.len()).sum();
        self.presences = self.slots.iter().map(|slot| slot.presences.len()).sum();
    }

    /// Whether there was room for it.
    pub(super) fn count(&mut self, command_name: &str, now: SystemTime) -> bool {
        if !is_command_name(command_name) {
            return false;
        }
        let key = (hour_of(now), command_name.to_owned());
        let slot = self.slot(now);
        if let Some(count) = slot.executed.get_mut(&key) {
            *count += 1;
            return true;
        }
        slot.executed.insert(key.clone(), 1);
        self.counts += 1;
        self.merge();
        let fits = self.counts <= MAX_COUNTS;
        if !fits && let Some(slot) = self.slots.back_mut() {
            // All are in one slot then, and it is new there.
            slot.executed.remove(&key);
            self.counts -= 1;
        }
        fits
    }

    /// Whether there was room for it.
    pub(super) fn note(&mut self, presence: Presence) -> bool {
        let fits = self.presences < MAX_PRESENCES && i64::try_from(presence.guild_id).is_ok();
        if fits {
            self.slot(presence.at).presences.push(presence);
            self.presences += 1;
            self.merge();
        }
        fits
    }

    /// Where what is heard now belongs.
    fn slot(&mut self, now: SystemTime) -> &mut Slot {
        let mut slot = match self.slots.pop_back() {
            Some(last) if last.until(now) < SLOT => last,
            earlier => {
                self.slots.extend(earlier);
                Slot::at(now)
            }
        };
        slot.last = slot.last.max(now);
        self.slots.push_back_mut(slot)
    }

    /// Makes neighbours one until there is room: first those whose span is least beside their age.
    fn merge(&mut self) {
        while self.slots.len() > MAX_SLOTS || (self.counts > MAX_COUNTS && self.slots.len() > 1) {
            let Some(now) = self.slots.back().map(|slot| slot.last) else { return };
            let pairs = self.slots.iter().zip(self.slots.iter().skip(1));
            let spans = pairs.map(|(earlier, later)| {
                let age = now.duration_since(later.last).unwrap_or_default() + SLOT;
                earlier.until(later.last).as_secs_f64() / age.as_secs_f64()
            });
            let least = spans.enumerate().min_by(|(_, one), (_, other)| one.total_cmp(other));
            let Some((index, _)) = least else { return };
            let Some(later) = self.slots.remove(index + 1) else { return };
            let Some(earlier) = self.slots.get_mut(index) else { return };
            let before = earlier.executed.len() + later.executed.len();
            for (key, count) in later.executed {
                *earlier.executed.entry(key).or_default() += count;
            }
            self.counts -= before - earlier.executed.len();
            earlier.presences.extend(later.presences);
            earlier.last = earlier.last.max(later.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn presence(guild_id: u64) -> Presence {
        Presence { guild_id, shard_id: 0, at: time(0), joined: true }
    }

    /// All that waits: how often `ping` was executed, and how many guilds were joined.
    fn drain(waiting: &mut Waiting) -> (u64, usize) {
        let (mut pings, mut joined) = (0, 0);
        while !waiting.is_empty() {
            let (executed, presences, _) = waiting.take_first();
            pings += executed.iter().map(|executed| executed.count).sum::<u64>();
            joined += presences.len();
        }
        assert!(waiting.slots.is_empty());
        (pings, joined)
    }

    /// PostgreSQL would refuse them, and all that came with them.
    #[test]
    fn what_is_no_name_is_not_kept() {
        let mut waiting = Waiting::default();
        for name in ["", "bad\0name", "two words", &"x".repeat(33)] {
            assert!(!waiting.count(name, time(0)), "{name:?}");
        }
        assert!(waiting.is_empty());
        assert!(waiting.count("größe-2", time(0)));
    }

    #[test]
    fn commands_are_added_up_by_hour() {
        let mut waiting = Waiting::default();
        for seconds in [0, 1, 3599, 3600] {
            assert!(waiting.count("ping", time(seconds)));
        }
        let (executed, _, heard) = waiting.take_first();
        let counts: Vec<_> = executed.into_iter().map(|ping| (ping.at, ping.count)).collect();
        assert_eq!(counts, [(time(0), 3), (time(3600), 1)]);
        assert_eq!(heard, time(3600));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        for i in 0..MAX_COUNTS {
            // In many slots.
            assert!(waiting.count(&format!("c{i}"), time(i as u64 / 100)));
        }
        let last = time(MAX_COUNTS as u64 / 100);
        assert!(!waiting.count("another", last));
        assert!(waiting.count("c0", last), "what is there goes on");
        assert!(!waiting.count("another", last));
        for _ in 0..MAX_PRESENCES {
            assert!(waiting.note(presence(1)));
        }
        assert!(!waiting.note(presence(1)));
        assert_eq!(drain(&mut waiting), (MAX_COUNTS as u64 + 1, MAX_PRESENCES));
    }

    #[test]
    fn everything_is_stored_once_in_parts_and_in_order() {
        let mut waiting = Waiting::default();
        let many = 2 * AT_ONCE as u64 + 1;
        for i in 0..many {
            assert!(waiting.count(&format!("c{i}"), time(0)) && waiting.note(presence(i)));
        }
        let (mut names, mut guilds) = (Vec::new(), Vec::new());
        while !waiting.is_empty() {
            let (executed, presences, _) = waiting.take_first();
            assert!(executed.len() <= AT_ONCE && presences.len() <= AT_ONCE);
            names.extend(executed.into_iter().map(|executed| executed.command_name));
            guilds.extend(presences.iter().map(|presence| presence.guild_id));
        }
        assert!(guilds.into_iter().eq(0..many));
        names.sort();
        names.dedup();
        assert_eq!(names.len() as u64, many);
    }

    #[test]
    fn what_discord_cannot_have_said_is_not_stored() {
        let mut waiting = Waiting::default();
        assert!(!waiting.count(&"x".repeat(33), time(0)));
        assert!(!waiting.note(presence(u64::MAX)));
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_was_heard_before_a_moment_can_be_forgotten() {
        let mut waiting = Waiting::default();
        for seconds in 0..100 {
            assert!(waiting.count("ping", time(seconds)));
        }
        waiting.forget_before(time(89));
        assert_eq!(drain(&mut waiting), (10, 0));
    }

    /// Half an hour of ten events a second.
    #[test]
    fn what_is_recent_is_told_apart_however_much_waits() {
        const TENTHS: u64 = 20_000;
        let begin = time(1_700_000_000);
        let mut waiting = Waiting::default();
        for tenth in 0..TENTHS {
            let now = begin + Duration::from_millis(100 * tenth);
            assert!(waiting.count("ping", now));
            assert!(waiting.slots.len() <= MAX_SLOTS);
        }
        let end = begin + Duration::from_millis(100 * TENTHS);
        waiting.forget_before(end - Duration::from_secs(20));
        let (kept, _) = drain(&mut waiting);
        assert!((190..=210).contains(&kept), "{kept} of the last 200");
    }
}
