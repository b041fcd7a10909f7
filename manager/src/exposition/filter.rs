//! A part of the page.

use std::collections::BTreeSet;

use crate::model::{MetricType, sample_names};

/// What a scrape wants; everything by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Families that have one of these names, or samples that do: as they are, or as the format escapes them. Empty: all.
    pub names: BTreeSet<String>,
    /// Shards. Empty: all, and what the manager says of itself.
    pub shards: BTreeSet<u32>,
}

impl Filter {
    /// Whether it leaves anything out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.names.is_empty() && self.shards.is_empty()
    }

    /// Whether the family called `name`, on the page `escaped`, is wanted.
    pub(super) fn has_family(&self, name: &str, kind: MetricType, escaped: &str) -> bool {
        self.names.is_empty()
            || [name, escaped]
                .into_iter()
                .any(|name| sample_names(name, kind).iter().any(|name| self.names.contains(name)))
    }

    /// Whether what is about `shard_id` (`None`: about no shard) is wanted.
    pub(super) fn has_shard(&self, shard_id: Option<u32>) -> bool {
        self.shards.is_empty() || shard_id.is_some_and(|id| self.shards.contains(&id))
    }
}
