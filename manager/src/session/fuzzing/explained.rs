//! What is explained of series, and what must hold for it.

use std::collections::BTreeMap;

use crate::{
    clock::UnixTime,
    registry::{Explained, Explanation, MAX_EXPLAINED, Registry},
};

/// A series on the page: shard, family, labels, and the bits of its values. Those that it does not show are none.
type Shown = (u32, String, String, Vec<Option<u64>>);

/// What is explained as shown is what the page shows, and all of it; and its parts make the whole.
pub(super) fn check(registry: &Registry, now: UnixTime) {
    let mut shown: Vec<Shown> = Vec::new();
    let mut families = Vec::new();
    registry.visit(now, |shard| {
        let Some(id) = shard.shard_id() else { return };
        for (family, series) in shard.families() {
            families.push((id, family.name.clone()));
            shown.extend(series.map(|series| {
                let owned = if series.owned { 0 } else { family.kind.owned(series.bounds.len()) };
                let value = |(at, value): (usize, &f64)| (at >= owned).then(|| value.to_bits());
                let values = series.values.iter().enumerate().map(value).collect();
                (id, family.name.to_string(), series.labels.to_owned(), values)
            }));
        }
    });
    families.sort();
    families.dedup();
    let mut explained = Vec::new();
    for (id, family) in families {
        // Of a family that gave its name away there is nothing.
        let Ok(Explanation { series: all, more, .. }) =
            registry.explain(id, &family, &BTreeMap::new(), now)
        else {
            continue;
        };
        assert_eq!((more, all.len() <= MAX_EXPLAINED), (0, true));
        for series in all {
            check_parts(&series);
            if series.hidden.is_none() {
                let values = series.values.iter().map(|value| value.shown.map(f64::to_bits));
                explained.push((
                    id,
                    family.to_string(),
                    series.labels.to_string(),
                    values.collect(),
                ));
            }
        }
    }
    shown.sort();
    explained.sort();
    assert_eq!(explained, shown, "explained, and shown");
}

/// A count is its base and what instances say.
fn check_parts(series: &Explained) {
    let kind = series.family.kind;
    let owned = kind.owned(series.bounds.len());
    for value in series.values.iter().skip(owned) {
        assert_eq!(value.of_instances.len(), series.instances.len());
        let Some(shown) = value.shown else { continue };
        let sum = value.of_instances.iter().fold(value.base, |sum, of| sum + of);
        // In what order they are added decides the last bits.
        let is_near = (sum - shown).abs() <= 1e-9 * sum.abs().max(shown.abs());
        assert!(is_near || sum.to_bits() == shown.to_bits() || !shown.is_finite(), "{series:?}");
    }
    for value in series.values.iter().take(owned) {
        let is_one =
            |shown: f64| value.of_instances.iter().any(|of| of.to_bits() == shown.to_bits());
        assert!(value.shown.is_none_or(is_one), "{series:?}");
    }
}
