//! What families there are, and which names are taken: the one thing shards share.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;

use super::{MAX_FAMILIES, Reason, Rejected};
use crate::model::{Bounds, FamilyHead, MetricType, counter_stem};

/// A metric family as it is exposed.
#[derive(Debug)]
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
    standing: AtomicU8,
}

/// Standings of a family. One that was only defined gives way to another that claims its names: a stream that defines and
/// never reports must not keep a name from those who do.
const DEFINED: u8 = 0;
const REPORTED: u8 = 1;
const GAVE_WAY: u8 = 2;

impl Family {
    /// A sample of it comes. False: it gave way, and its samples are not taken.
    pub(super) fn report(&self) -> bool {
        match self.standing.compare_exchange(DEFINED, REPORTED, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(standing) => standing == REPORTED,
        }
    }

    /// Another claims its names. False: it stays.
    fn give_way(&self) -> bool {
        self.standing.compare_exchange(DEFINED, GAVE_WAY, Relaxed, Relaxed).is_ok()
    }
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
    /// Every name that some format uses for a known family or its samples, and that family; `None`: the manager's own.
    claimed: HashMap<String, Option<Arc<Family>>>,
    bounds: HashSet<SharedBounds>,
}

impl FamilyTable {
    /// A table in which `reserved` are taken by the manager.
    pub(super) fn new<'a>(reserved: impl IntoIterator<Item = (&'a str, MetricType)>) -> Self {
        let mut known = Known::default();
        for (name, kind) in reserved {
            for claim in claims(name, kind) {
                known.claimed.insert(claim, None);
            }
        }
        Self { known: RwLock::new(known) }
    }

    /// The family that `head` names, made now if it is new and `room` says that there is room for a series of it. A family
    /// of the same sender, by id in `own`, does not give way to it.
    pub(super) fn resolve(
        &self,
        head: FamilyHead<'_>,
        own: &HashSet<usize>,
        room: impl FnOnce() -> Result<(), Rejected>,
    ) -> Result<Arc<Family>, Rejected> {
        if let Some(family) =
            self.known.read().by_name.get(head.name).filter(|f| f.kind == head.kind)
        {
            return Ok(Arc::clone(family));
        }
        room()?;
        let mut known = self.known.write();
        if let Some(family) = known.by_name.get(head.name).filter(|f| f.kind == head.kind) {
            return Ok(Arc::clone(family));
        }
        let claims = claims(head.name, head.kind);
        for claim in &claims {
            known.free(claim, head, own)?;
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
            standing: AtomicU8::new(DEFINED),
        });
        known.claimed.extend(claims.into_iter().map(|claim| (claim, Some(Arc::clone(&family)))));
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

impl Known {
    /// Makes `claim` free for `head`, if nobody has it or who has it gives way.
    fn free(
        &mut self,
        claim: &str,
        head: FamilyHead<'_>,
        own: &HashSet<usize>,
    ) -> Result<(), Rejected> {
        let Some(owner) = self.claimed.get(claim).cloned() else {
            return Ok(());
        };
        if let Some(family) = owner.as_ref().filter(|f| !own.contains(&f.id) && f.give_way()) {
            for claim in claims(&family.name, family.kind) {
                self.claimed.remove(&claim);
            }
            self.by_name.remove(&family.name);
            return Ok(());
        }
        Err(conflict(claim, owner.as_deref(), head))
    }
}

/// Why `head` cannot have a name that `owner` has (`None`: the manager).
fn conflict(claim: &str, owner: Option<&Family>, head: FamilyHead<'_>) -> Rejected {
    let kind = head.kind.as_str();
    let (reason, message) = match owner {
        Some(family) if *family.name == *head.name => (
            Reason::TypeConflict,
            format!("reported as {kind}, but the fleet reports it as {}", family.kind.as_str()),
        ),
        _ => {
            let owner = owner.map_or("the manager".into(), |f| format!("family {}", f.name));
            let message = format!("the name {claim:?} is taken by {owner}; rename this {kind}");
            (Reason::NameCollision, message)
        }
    };
    Rejected { family: head.name.into(), reason, message, series: 0 }
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
