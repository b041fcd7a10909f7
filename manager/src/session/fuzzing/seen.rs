//! What pages show, and what must hold from one to the next.

use std::collections::BTreeMap;

use super::*;
use crate::fuzzing::page::Sample;

/// What shards show.
pub(super) struct Seen {
    pub(super) text: Vec<u8>,
    families: Vec<Family>,
}

/// Name and labels of a sample.
type Key = (String, Vec<(String, String)>);

impl Seen {
    /// The page now, if it is another than before.
    pub(super) fn after(before: Option<&Self>, sessions: &Sessions) -> Option<Self> {
        let text = page(&sessions.registry, sessions.clock.now());
        if before.is_some_and(|before| before.text == text) {
            return None;
        }
        Some(Self { families: valid(FORMAT, &text), text })
    }

    /// Samples of what only rises.
    fn counts(&self) -> impl Iterator<Item = &Sample> {
        // What the manager says of a shard goes with the shard, when the bot has fewer.
        let of_shards = self.families.iter().filter(|family| !family.name.starts_with("shard_"));
        of_shards.flat_map(|family| {
            family.samples.iter().filter(|sample| match family.kind.as_str() {
                "counter" => true,
                "histogram" => !sample.name.ends_with("_sum"),
                "summary" => sample.name == format!("{}_count", family.name),
                _ => false,
            })
        })
    }

    fn by_series(&self) -> BTreeMap<Key, f64> {
        let counts = self.counts();
        counts.map(|s| ((s.name.clone(), s.labels.clone()), f64::from_bits(s.bits))).collect()
    }

    /// All that a shard counted in a family.
    fn by_shard(&self) -> BTreeMap<Key, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.counts().filter(|sample| !sample.labels.iter().any(|(l, _)| l == "le")) {
            let shard = sample.labels.iter().find(|(name, _)| name == "shard_id").cloned();
            let key = (sample.name.clone(), shard.into_iter().collect());
            *sums.entry(key).or_default() += f64::from_bits(sample.bits);
        }
        sums
    }

    /// No count is lower; one that is gone went to overflow, or its family to another type.
    pub(super) fn check_none_fell(&self, before: &Self, told: &str) {
        let now = self.by_series();
        for (key, count) in before.by_series() {
            if let Some(now) = now.get(&key) {
                assert!(*now >= count, "{key:?} fell from {count} to {now}: {told}");
            }
        }
        let now = self.by_shard();
        for (key, count) in before.by_shard() {
            let Some(now) = now.get(&key) else {
                assert!(!self.has(&key.0), "{key:?} is gone, and was {count}: {told}");
                continue;
            };
            // The order in which they are added may be another.
            assert!(*now >= count * (1.0 - 1e-9), "{key:?} fell from {count} to {now}: {told}");
        }
    }

    /// Whether anybody has such samples.
    fn has(&self, name: &str) -> bool {
        self.counts().any(|sample| sample.name == name)
    }

    /// Only the lines of `shard_id` may differ, and of what all shards are put together in.
    pub(super) fn check_others(&self, before: &Self, shard_id: u32, told: &str) {
        let own = shard_id.to_string();
        let others = |seen: &Self| {
            let samples = seen.families.iter().flat_map(|family| &family.samples);
            // What the manager says of shards that never reported comes and goes with the size of the bot.
            let samples = samples.filter(|sample| {
                let shard = sample.labels.iter().find(|(name, _)| name == "shard_id");
                shard.is_some_and(|(_, id)| *id != own) && !sample.name.starts_with("shard_")
            });
            samples.cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(self), others(before), "shard {shard_id}: {told}");
    }
}
