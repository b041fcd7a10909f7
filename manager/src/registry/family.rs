//! What families there are, and which names are taken: the one thing shards share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock};

use super::{
    MAX_FAMILIES, MAX_FAMILIES_OF_SHARD, Reason, Rejected,
    change::{Change, FamilyChange, Misfit, Recorder},
    events::counts_sessions,
    limits::MAX_HELP_BYTES,
    rules::{Rules, Treatment},
};
use crate::clock::UnixTime;
use crate::model::{
    Bounds, Escaping, FamilyHead, MetricType, counter_stem, is_legacy_metric_name, sample_names,
};

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
    /// What rules make of it.
    pub treatment: Treatment,
    /// Whether its series may tell followers how the shard's sessions with Discord's gateway go on.
    pub counts_sessions: bool,
    /// The shard that reported it first.
    pub first: u32,
    /// If it takes the place of a retired one: since when. Nothing of it was created before.
    since: Option<UnixTime>,
    /// What rules made of it when it was made, in words.
    made_under: Box<str>,
    standing: AtomicU8,
}

/// Who asks for a family.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    /// The family as the sender has it.
    pub(super) head: FamilyHead<'a>,
    /// Families of the same sender, by id: they do not give way to it.
    pub(super) own: &'a HashSet<usize>,
    /// The sender's shard.
    pub(super) shard_id: u32,
    /// When.
    pub(super) now: UnixTime,
}

/// What the manager's own families are called, also those of versions to come.
const OWN_PREFIX: &str = "shardmeter_manager_";

/// Standings of a family. One that was only defined gives way to another that claims its names: a stream that defines and
/// never reports must not keep a name from those who do.
const DEFINED: u8 = 0;
const REPORTED: u8 = 1;
const GAVE_WAY: u8 = 2;

impl Family {
    /// When a series of it that is counted since `created` may say so.
    pub(super) fn created(&self, created: UnixTime) -> UnixTime {
        self.since.map_or(created, |since| since.max(created))
    }

    /// Whether its series count something, so that they can be added up.
    pub(super) const fn counts(&self) -> bool {
        self.kind.count_at(0).is_some()
    }

    /// A sample of it comes. False: it gave way, and its samples are not taken.
    pub(super) fn report(&self) -> bool {
        match self.standing.compare_exchange(DEFINED, REPORTED, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(standing) => standing == REPORTED,
        }
    }

    /// What it gave way to was refused.
    fn stay(&self) {
        self.standing.store(DEFINED, Relaxed);
    }

    fn is_only_defined(&self) -> bool {
        self.standing.load(Relaxed) == DEFINED
    }

    /// Whether another took its names.
    pub(super) fn gave_way(&self) -> bool {
        self.standing.load(Relaxed) == GAVE_WAY
    }

    /// All of it, for whoever keeps changes.
    fn change<'a>(&'a self, replaces: &'a [u32]) -> Change<'a> {
        Change::Family(FamilyChange {
            id: self.id as u32,
            name: (&*self.name).into(),
            kind: self.kind,
            help: (&*self.help).into(),
            unit: (&*self.unit).into(),
            gave_way: self.gave_way(),
            replaces: replaces.into(),
            first: self.first,
            since: self.since,
            treatment: (&*self.made_under).into(),
        })
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
    rules: Rules,
    /// Families that stood in the way of another type, by id, and the shards that reported that.
    contested: Mutex<BTreeMap<usize, BTreeSet<u32>>>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Box<str>, Arc<Family>>,
    in_order: Vec<Arc<Family>>,
    /// Every name that some format uses for a known family or its samples, and that family; `None`: the manager's own.
    claimed: HashMap<String, Option<Arc<Family>>>,
    bounds: HashSet<SharedBounds>,
    /// Names of families that were retired.
    retired: HashSet<Box<str>>,
    /// How many families that are there each shard was the first to report.
    brought: HashMap<u32, usize>,
    /// Families that are no more.
    gone: usize,
}

impl FamilyTable {
    /// A table in which `reserved` are taken by the manager.
    pub(super) fn new<'a>(
        reserved: impl IntoIterator<Item = (&'a str, MetricType)>,
        rules: Rules,
    ) -> Self {
        let mut known = Known::default();
        for (name, kind) in reserved {
            for claim in claims(name, kind) {
                known.claimed.insert(claim, None);
            }
        }
        Self { known: RwLock::new(known), rules, contested: Mutex::default() }
    }

    /// The family that a sender asks for, made now if it is new and `room` says that there is room for a series of it. A
    /// new one is recorded before anybody can use it.
    pub(super) fn resolve(
        &self,
        asking: &Asking<'_>,
        recorder: &Recorder,
        room: impl FnOnce() -> Result<(), Rejected>,
    ) -> Result<Arc<Family>, Rejected> {
        let head = asking.head;
        if head.name.starts_with(OWN_PREFIX) {
            return Err(Rejected {
                family: head.name.into(),
                reason: Reason::NameCollision,
                message: format!("names that begin with {OWN_PREFIX} are the manager's"),
                series: 0,
            });
        }
        if let Some(family) = self.find(head.name, head.kind) {
            return Ok(family);
        }
        let treatment = self.rules.treatment(head.name, head.kind);
        if treatment.drop {
            return Err(Rejected {
                family: head.name.into(),
                reason: Reason::Rule,
                message: "a rule of this manager drops it".to_owned(),
                series: 0,
            });
        }
        room()?;
        let mut known = self.known.write();
        if let Some(family) = known.by_name.get(head.name).filter(|f| f.kind == head.kind) {
            return Ok(Arc::clone(family));
        }
        known.check_room(asking)?;
        let replaces = known.free(asking).map_err(|(rejected, owner)| {
            if let Some(owner) = owner {
                self.contested.lock().entry(owner).or_default().insert(asking.shard_id);
            }
            rejected
        })?;
        let since = known.retired.contains(head.name).then_some(asking.now);
        let family = Arc::new(Family {
            id: known.in_order.len(),
            name: head.name.into(),
            kind: head.kind,
            help: fitting_help(head.help).into(),
            unit: fitting_unit(head).into(),
            made_under: treatment.to_string().into(),
            treatment,
            counts_sessions: counts_sessions(head.name, head.kind),
            first: asking.shard_id,
            since,
            standing: AtomicU8::new(DEFINED),
        });
        recorder.record(&[family.change(&replaces)]);
        known.add(&family);
        Ok(family)
    }

    /// Makes a family again that was recorded.
    pub(super) fn restore(&self, change: FamilyChange<'_>) -> Result<(), Misfit> {
        let mut known = self.known.write();
        let (id, next) = (change.id as usize, known.in_order.len());
        if id < next {
            return Ok(()); // a checkpoint repeats what it finds
        }
        if id > next {
            return Err(Misfit("family"));
        }
        for replaced in change.replaces.iter() {
            if let Some(family) = known.in_order.get(*replaced as usize).cloned() {
                family.standing.store(GAVE_WAY, Relaxed);
                known.remove(&family);
            }
        }
        let treatment = self.rules.treatment(&change.name, change.kind);
        let family = Arc::new(Family {
            counts_sessions: counts_sessions(&change.name, change.kind),
            id,
            name: change.name.into(),
            kind: change.kind,
            help: change.help.into(),
            unit: change.unit.into(),
            treatment,
            first: change.first,
            since: change.since,
            made_under: change.treatment.into(),
            standing: AtomicU8::new(if change.gave_way { GAVE_WAY } else { DEFINED }),
        });
        if change.gave_way {
            // A checkpoint does not say why; who takes its name begins anew in any case.
            known.retired.insert(family.name.clone());
            known.in_order.push(family);
            known.gone += 1;
        } else {
            known.add(&family);
        }
        Ok(())
    }

    /// Whether a rule drops what has this name, if of one type alone.
    pub(super) fn is_dropped(&self, name: &str) -> bool {
        MetricType::ALL.into_iter().any(|kind| self.rules.treatment(name, kind).drop)
    }

    /// Whether rules put shards together.
    pub(super) fn collapses(&self) -> bool {
        self.rules.collapse()
    }

    /// Families that rules treat otherwise now than when they were made, by id.
    pub(super) fn treated_otherwise(&self) -> Vec<u32> {
        let known = self.known.read();
        let families = known.in_order.iter().filter(|family| !family.gave_way());
        let changed = families.filter(|f| f.treatment.to_string() != *f.made_under);
        changed.map(|family| family.id as u32).collect()
    }

    /// Families that have no names any more, by id.
    pub(super) fn without_names(&self) -> HashSet<u32> {
        let known = self.known.read();
        known.in_order.iter().filter(|f| f.gave_way()).map(|family| family.id as u32).collect()
    }

    /// Families that stood in the way of another type since the last call, and the shards that reported that.
    pub(super) fn take_contested(&self) -> BTreeMap<usize, BTreeSet<u32>> {
        std::mem::take(&mut self.contested.lock())
    }

    /// Frees the names of families, of which no more samples are taken.
    pub(super) fn retire(&self, ids: &[u32]) {
        let mut known = self.known.write();
        for id in ids {
            let Some(family) = known.in_order.get(*id as usize).cloned() else { continue };
            if family.standing.swap(GAVE_WAY, Relaxed) != GAVE_WAY {
                known.remove(&family);
                known.retired.insert(family.name.clone());
            }
        }
    }

    /// Records every family, for a checkpoint. None is added meanwhile.
    pub(super) fn record_all(&self, mut record: impl FnMut(&[Change<'_>])) {
        for family in &self.known.read().in_order {
            record(&[family.change(&[])]);
        }
    }

    /// The family of this id.
    pub(super) fn get(&self, id: u32) -> Option<Arc<Family>> {
        self.known.read().in_order.get(id as usize).cloned()
    }

    /// The family of this name and type.
    pub(super) fn find(&self, name: &str, kind: MetricType) -> Option<Arc<Family>> {
        self.known.read().by_name.get(name).filter(|f| f.kind == kind).cloned()
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
    fn add(&mut self, family: &Arc<Family>) {
        let claims = claims(&family.name, family.kind);
        self.claimed.extend(claims.into_iter().map(|claim| (claim, Some(Arc::clone(family)))));
        self.by_name.insert(family.name.clone(), Arc::clone(family));
        *self.brought.entry(family.first).or_default() += 1;
        self.in_order.push(Arc::clone(family));
    }

    /// Whether one more can be made: no shard may bring all that there can be.
    fn check_room(&self, asking: &Asking<'_>) -> Result<(), Rejected> {
        let brought = self.brought.get(&asking.shard_id).copied().unwrap_or(0);
        let message = if self.in_order.len() - self.gone >= MAX_FAMILIES {
            format!("the fleet has {MAX_FAMILIES} families, its limit")
        } else if brought >= MAX_FAMILIES_OF_SHARD {
            format!(
                "shard {} was the first to report {brought} families, its limit",
                asking.shard_id
            )
        } else {
            return Ok(());
        };
        let family = asking.head.name.into();
        Err(Rejected { family, reason: Reason::Limit, message, series: 0 })
    }

    /// Forgets the names of a family that gave way.
    fn remove(&mut self, family: &Family) {
        for claim in claims(&family.name, family.kind) {
            self.claimed.remove(&claim);
        }
        self.by_name.remove(&family.name);
        self.gone += 1;
        if let Some(brought) = self.brought.get_mut(&family.first) {
            *brought = brought.saturating_sub(1);
        }
    }

    /// Makes the names of a family free, if nobody has them or who has them gives way: the ids of the families that did.
    /// If not, the family that stands in the way is named too.
    fn free(&mut self, asking: &Asking<'_>) -> Result<Vec<u32>, (Rejected, Option<usize>)> {
        let Asking { head, own, .. } = *asking;
        let mut in_the_way = Vec::new();
        for claim in claims(head.name, head.kind) {
            match self.claimed.get(&claim) {
                None => {}
                Some(Some(family)) if !own.contains(&family.id) && family.is_only_defined() => {
                    in_the_way.push((claim, Arc::clone(family)));
                }
                Some(owner) => {
                    let id = owner.as_ref().map(|family| family.id);
                    return Err((conflict(&claim, owner.as_deref(), head), id));
                }
            }
        }
        let mut gave_way: Vec<Arc<Family>> = Vec::new();
        for (claim, family) in in_the_way {
            if family.give_way() {
                gave_way.push(family);
            } else if !family.gave_way() {
                // It reported just now, so the others need not have given way.
                gave_way.iter().for_each(|family| family.stay());
                return Err((conflict(&claim, Some(&family), head), Some(family.id)));
            }
        }
        gave_way.iter().for_each(|family| self.remove(family));
        Ok(gave_way.iter().map(|family| family.id as u32).collect())
    }
}

/// Why `head` cannot have a name that `owner` has (`None`: the manager).
fn conflict(claim: &str, owner: Option<&Family>, head: FamilyHead<'_>) -> Rejected {
    let kind = head.kind.as_str();
    let (reason, message) = match owner {
        Some(family) if *family.name == *head.name => (
            Reason::TypeConflict,
            format!(
                "reported as {kind}, but the fleet reports it as {}: shard {} was the first to; it is taken once no \
                 living shard reports it so",
                family.kind.as_str(),
                family.first
            ),
        ),
        _ => {
            let family = |f: &Family| format!("family {} of shard {}", f.name, f.first);
            let owner = owner.map_or("the manager".into(), family);
            let message = format!("the name {claim:?} is taken by {owner}; rename this {kind}");
            (Reason::NameCollision, message)
        }
    };
    Rejected { family: head.name.into(), reason, message, series: 0 }
}

/// Names that a family and its samples have in any format, however names are escaped: two families must not share one, or a
/// page would be invalid.
///
/// Dots need no claims of their own. They write `__`, `_dot_` or a character that is no underscore for each of a name's, which
/// can be read back in one way only: so names that are the same with dots are with underscores. Behind such a name no suffix
/// can be the rest of another's (`_s` begins nothing that dots write), but `_created` can be behind what is left of a counter's
/// name, as in `a__created` of `a__total` and of `a_created`. These collide with underscores too; and where those leave nothing
/// before `_total`, the last claim sees to it.
fn claims(name: &str, kind: MetricType) -> Vec<String> {
    let mut claims = sample_names(name, kind);
    for escaping in [Escaping::Underscores, Escaping::Values] {
        let escaped = escaping.metric_name(name);
        if escaped != name {
            claims.extend(sample_names(&escaped, kind));
        }
    }
    if kind == MetricType::Counter && Escaping::Underscores.metric_name(name) == "_total" {
        claims.push("_created".to_owned());
    }
    claims
}

/// What of a help text is kept: it is for people, and stands on every page for good.
fn fitting_help(help: &str) -> &str {
    help.get(..help.floor_char_boundary(MAX_HELP_BYTES)).unwrap_or_default()
}

/// OpenMetrics demands that a name ends in its unit; one that does not is dropped, for it would make the page invalid.
fn fitting_unit(head: FamilyHead<'_>) -> &str {
    let stem = match head.kind {
        MetricType::Counter => counter_stem(head.name).unwrap_or(head.name),
        _ => head.name,
    };
    let fits = stem.strip_suffix(head.unit).is_some_and(|rest| rest.ends_with('_'));
    // It stands on a line of its own, where nothing is quoted.
    if fits && is_legacy_metric_name(head.unit) { head.unit } else { "" }
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
