//! What shards reported and was not taken.

use std::collections::BTreeMap;

use super::{
    finding::Found,
    fleet::Fleet,
    ids::{folded, grouped},
};
use crate::registry::Reason;

pub(super) fn check(fleet: &Fleet) -> Found {
    let mut by_reason: BTreeMap<&str, (u64, Vec<u32>)> = BTreeMap::new();
    for shard in &fleet.shards {
        for (reason, samples) in &shard.rejected_samples {
            // That is what the rules are for.
            if *samples > 0 && reason != Reason::Rule.as_str() {
                let (all, ids) = by_reason.entry(reason).or_default();
                *all = all.saturating_add(*samples);
                ids.push(shard.shard_id);
            }
        }
    }
    if by_reason.is_empty() {
        return Found::ok("all that was reported was taken");
    }
    let (mut what, mut remedies) = (Vec::new(), Vec::new());
    for (reason, (samples, ids)) in by_reason {
        let shards = folded(ids);
        let unit = if samples == 1 { "sample" } else { "samples" };
        what.push(format!("{reason}: {} {unit} of shards {shards}", grouped(samples)));
        remedies.push(remedy(reason));
    }
    Found::warning(format!("not taken so far: {}", what.join("; ")), remedies.join("; "))
}

fn remedy(reason: &str) -> &'static str {
    let is = |of: Reason| of.as_str() == reason;
    if is(Reason::TypeConflict) {
        "type_conflict: two versions of the bot give a family different types; name one anew"
    } else if is(Reason::NameCollision) {
        "name_collision: rename the family, its name is the manager's or another family's"
    } else if is(Reason::DuplicateSeries) {
        "duplicate_series: take the label shard_id out of the bot's metrics, or names that differ in dots alone"
    } else if is(Reason::Limit) {
        "limit: take a label with many values out, by [[rules]] drop_labels, or raise [limits]"
    } else {
        "the manager's log says more"
    }
}

#[cfg(test)]
mod tests {
    use shardmeter_proto::v1::Shard;

    use super::*;

    #[test]
    fn whatever_a_manager_counts_can_be_added_up() {
        let shard = |shard_id| Shard {
            shard_id,
            rejected_samples: [("limit".to_owned(), u64::MAX)].into(),
            ..Shard::default()
        };
        let found = check(&Fleet { shards: vec![shard(3), shard(4)], ..Fleet::default() });
        let said = format!("{found:?}");
        assert!(said.contains("18,446,744,073,709,551,615 samples of shards 3-4"), "{said}");
    }
}
