//! Grouping keys: who a sender is in Pushgateway's API.

use std::collections::BTreeMap;

use crate::model::put_quoted;

/// Longest grouping key, bytes: it is kept with each shard that it reports for.
const MAX_KEY: usize = 1024;

/// A grouping key but for the shard's id: a job and other labels, which all series pushed under it have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    labels: BTreeMap<String, String>,
    key: Box<str>,
}

/// A grouping key that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the grouping key has {0} bytes; {MAX_KEY} is the limit")]
pub struct GroupError(usize);

impl Group {
    /// The group with these labels. An empty value says that its series have no label of that name.
    ///
    /// # Errors
    /// If they are too long.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, GroupError> {
        let mut key = String::new();
        for (name, value) in &labels {
            if !key.is_empty() {
                key.push(',');
            }
            key.push_str(name);
            key.push('=');
            put_quoted(&mut key, value);
        }
        if key.len() > MAX_KEY {
            return Err(GroupError(key.len()));
        }
        Ok(Self { labels, key: key.into() })
    }

    /// The same for the same labels, whatever their order was.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it has this label, so that a body's own of this name does not count.
    pub(super) fn has(&self, name: &str) -> bool {
        self.labels.contains_key(name)
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
