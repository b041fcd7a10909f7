//! What families there are, and which names are taken: the one thing shards share.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;

use super::{MAX_FAMILIES, Reason, Rejected};
use crate::model::{Bounds, FamilyHead, MetricType, counter_stem};

/// A metric family as it is exposed.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Dense, from 0, in order of first appearance.
    pub id: usize,
    /// Its name; unique.
    pub name: Box<str>,
    /// Its type.
    pub kind: MetricType,
    /// The first help text reported.
    pub help: Box<str>,
    /// The first unit reported, if the name ends in it; else empty.
    pub unit: Box<str>,
}

/// All families, and what their sample names exclude.
#[derive(Debug, Default)]
pub(super) struct FamilyTable {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Box<str>, Arc<Family>>,
    in_order: Vec<Arc<Family>>,
    /// Every name that some format uses for a known family or its samples.
    claimed: HashMap<String, Box<str>>,
    bounds: HashSet<SharedBounds>,
}

impl FamilyTable {
    /// A table in which `reserved` are taken by the manager.
    pub(super) fn new<'a>(reserved: impl IntoIterator<Item = (&'a str, MetricType)>) -> Self {
        let mut known = Known::default();
        for (name, kind) in reserved {
            for claim in claims(name, kind) {
                known.claimed.insert(claim, "the manager".into());
            }
        }
        Self { known: RwLock::new(known) }
    }

    /// The family that `head` names, made now if it is new and `room` says that there is room for a series of it.
    pub(super) fn resolve(
        &self,
        head: FamilyHead<'_>,
        room: impl FnOnce() -> Result<(), Rejected>,
    ) -> Result<Arc<Family>, Rejected> {
        if let Some(family) = self.known.read().by_name.get(head.name) {
            return same_type(family, head);
        }
        room()?;
        let mut known = self.known.write();
        if let Some(family) = known.by_name.get(head.name) {
            return same_type(family, head);
        }
        let claims = claims(head.name, head.kind);
        if let Some((claim, owner)) = claims.iter().find_map(|c| known.claimed.get_key_value(c)) {
            return Err(Rejected {
                family: head.name.into(),
                reason: Reason::NameCollision,
                message: format!(
                    "the name {claim:?} is taken by {owner}; rename this {}",
                    head.kind.as_str()
                ),
                series: 0,
            });
        }
        if known.in_order.len() >= MAX_FAMILIES {
            return Err(Rejected {
                family: head.name.into(),
                reason: Reason::Limit,
                message: format!("the fleet has {MAX_FAMILIES} families, its limit"),
                series: 0,
            });
        }
        let family = Arc::new(Family {
            id: known.in_order.len(),
            name: head.name.into(),
            kind: head.kind,
            help: head.help.into(),
            unit: fitting_unit(head).into(),
        });
        let owner: Box<str> = format!("family {}", head.name).into();
        known.claimed.extend(claims.into_iter().map(|claim| (claim, owner.clone())));
        known.by_name.insert(head.name.into(), Arc::clone(&family));
        known.in_order.push(Arc::clone(&family));
        Ok(family)
    }

    /// All families, in order of first appearance.
    pub(super) fn all(&self) -> Vec<Arc<Family>> {
        self.known.read().in_order.clone()
    }

    /// The one shared copy of `bounds`.
    pub(super) fn share(&self, bounds: Bounds) -> Arc<Bounds> {
        let bounds = SharedBounds(Arc::new(bounds));
        if let Some(shared) = self.known.read().bounds.get(&bounds) {
            return Arc::clone(&shared.0);
        }
        Arc::clone(&self.known.write().bounds.get_or_insert(bounds).0)
    }
}

fn same_type(family: &Arc<Family>, head: FamilyHead<'_>) -> Result<Arc<Family>, Rejected> {
    if family.kind == head.kind {
        return Ok(Arc::clone(family));
    }
    Err(Rejected {
        family: head.name.into(),
        reason: Reason::TypeConflict,
        message: format!(
            "reported as {}, but the fleet reports it as {}",
            head.kind.as_str(),
            family.kind.as_str()
        ),
        series: 0,
    })
}

/// Names that a family and its samples use in any format: two families must not share one, or a page would be invalid.
fn claims(name: &str, kind: MetricType) -> Vec<String> {
    let suffixes: &[&str] = match kind {
        MetricType::Histogram => &["_bucket", "_sum", "_count", "_created"],
        MetricType::Summary => &["_sum", "_count", "_created"],
        // OpenMetrics names the family without the suffix of its samples.
        MetricType::Counter => {
            if let Some(stem) = counter_stem(name) {
                return vec![name.to_owned(), stem.to_owned(), format!("{stem}_created")];
            }
            &[]
        }
        MetricType::Gauge | MetricType::Untyped => &[],
    };
    let mut claims = vec![name.to_owned()];
    claims.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    claims
}

/// OpenMetrics demands that a name ends in its unit; one that does not is dropped, for it would make the page invalid.
fn fitting_unit(head: FamilyHead<'_>) -> &str {
    let stem = match head.kind {
        MetricType::Counter => counter_stem(head.name).unwrap_or(head.name),
        _ => head.name,
    };
    let fits = stem.strip_suffix(head.unit).is_some_and(|rest| rest.ends_with('_'));
    if fits && !head.unit.is_empty() { head.unit } else { "" }
}

/// Bounds hashed by their bits: they are finite and have no `-0`, so equal means equal bits.
#[derive(Debug)]
struct SharedBounds(Arc<Bounds>);

impl PartialEq for SharedBounds {
    fn eq(&self, other: &Self) -> bool {
        self.0.values() == other.0.values()
    }
}

impl Eq for SharedBounds {}

impl std::hash::Hash for SharedBounds {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for value in self.0.values() {
            value.to_bits().hash(state);
        }
    }
}
