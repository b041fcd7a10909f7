//! Which shards a sender speaks for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};

use crate::registry::MAX_SHARD_COUNT;

/// One shard, or the range of a process that runs several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShardIds {
    lowest: u32,
    highest: u32,
}

/// Not a shard id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is no shard id: give a number such as 3, the same as a string, or a range such as \"0-3\", below {MAX_SHARD_COUNT}"
)]
pub struct ShardIdError(String);

impl ShardIds {
    /// The lowest id: what has no shard label goes there.
    #[must_use]
    pub const fn lowest(self) -> u32 {
        self.lowest
    }

    /// The highest id.
    #[must_use]
    pub const fn highest(self) -> u32 {
        self.highest
    }

    /// Whether the sender speaks for shard `id`.
    #[must_use]
    pub const fn contains(self, id: u32) -> bool {
        self.lowest <= id && id <= self.highest
    }

    fn new(lowest: u64, highest: u64) -> Option<Self> {
        let [lowest, highest] = [u32::try_from(lowest).ok()?, u32::try_from(highest).ok()?];
        (lowest <= highest && highest < MAX_SHARD_COUNT).then_some(Self { lowest, highest })
    }
}

impl FromStr for ShardIds {
    type Err = ShardIdError;

    fn from_str(text: &str) -> Result<Self, ShardIdError> {
        let digits = |t: &str| {
            t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten()
        };
        let (lowest, highest) = text.split_once('-').unwrap_or((text, text));
        digits(lowest)
            .zip(digits(highest))
            .and_then(|(lowest, highest)| Self::new(lowest, highest))
            .ok_or_else(|| ShardIdError(format!("{text:?}")))
    }
}

impl fmt::Display for ShardIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            write!(f, "{}", self.lowest)
        } else {
            write!(f, "{}-{}", self.lowest, self.highest)
        }
    }
}

impl<'de> Deserialize<'de> for ShardIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ShardIds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shard id: a number such as 3, the same as a string, or a range such as \"0-3\"")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<ShardIds, E> {
                ShardIds::new(id, id).ok_or_else(|| E::custom(ShardIdError(id.to_string())))
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<ShardIds, E> {
                Err(E::custom(ShardIdError(id.to_string())))
            }

            fn visit_f64<E: de::Error>(self, id: f64) -> Result<ShardIds, E> {
                Err(E::custom(ShardIdError(id.to_string())))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ShardIds, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_strings_and_ranges_are_shard_ids() {
        let parsed = |json: &str| serde_json::from_str::<ShardIds>(json).map(|ids| ids.to_string());
        for (json, ids) in
            [("3", "3"), ("\"3\"", "3"), ("\"0-3\"", "0-3"), ("0", "0"), ("65535", "65535")]
        {
            assert_eq!(parsed(json).unwrap(), ids, "{json}");
        }
        for json in [
            "-1", "1.5", "65536", "\"\"", "\"x\"", "\"3-1\"", "\"-3\"", "\"1-\"", "\"+1\"", "null",
            "true", "[0]", "{}",
        ] {
            let error = parsed(json).unwrap_err().to_string();
            assert!(error.contains("shard id"), "{json}: {error}");
        }
    }
}
