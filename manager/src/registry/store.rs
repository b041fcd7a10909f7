//! Where a shard's series stand: which family and labels each has, and which slots of the shard's value columns.
//!
//! A series keeps its place, which streams rely on, until the shard is put in order anew and has another store. Series of one
//! label set whose bounds differ (a bot was restarted with other buckets) form a **group**, of which one is shown.

use std::{hash::BuildHasher as _, num::NonZeroU32, sync::Arc, time::Duration};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use super::{Family, change::SeriesStep};
use crate::{
    clock::UnixTime,
    model::{Bounds, Escaping, LabelSet, MetricType},
};

/// A series' place in its shard's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesId(u32);

impl SeriesId {
    pub(super) const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Dense, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// There is one for every series of the fleet, so it is small.
#[derive(Debug)]
pub(super) struct Series {
    labels: Span,
    pub(super) bounds: Arc<Bounds>,
    /// Since when it is counted, nanoseconds since the epoch.
    created: u64,
    first_slot: u32,
    block: u32,
    group: GroupId,
    pub(super) kind: MetricType,
    /// Some instance had a sample of it.
    pub(super) counted: bool,
    /// The owner has it, so the values that belong to the living are exposed.
    pub(super) owned: bool,
    /// It is among those that [`Store::take_touched`] will name.
    touched: bool,
}

/// A part of [`Store::texts`].
#[derive(Debug, Clone, Copy)]
struct Span {
    from: u32,
    length: u32,
}

/// Index of a group and one more, as most series are in none.
type GroupId = Option<NonZeroU32>;

impl Series {
    /// The first of its values' slots.
    pub(super) const fn slot(&self) -> usize {
        self.first_slot as usize
    }

    /// How many slots it has.
    pub(super) fn width(&self) -> usize {
        self.kind.width(self.bounds.len())
    }

    /// Since when it is counted.
    pub(super) const fn created(&self) -> UnixTime {
        UnixTime::from_duration(Duration::from_nanos(self.created))
    }

    /// It is counted since then.
    pub(super) fn begin(&mut self, created: UnixTime) {
        self.created = created.as_nanos();
    }

    /// Whether the same labels came with other bounds too.
    pub(super) const fn is_grouped(&self) -> bool {
        self.group.is_some()
    }
}

impl Span {
    fn append(texts: &mut String, text: &str) -> Self {
        let from = texts.len() as u32;
        texts.push_str(text);
        Self { from, length: text.len() as u32 }
    }

    fn of(self, texts: &str) -> &str {
        let from = self.from as usize;
        texts.get(from..from + self.length as usize).unwrap_or_default()
    }
}

/// Series of one family, in order of first appearance.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) family: Arc<Family>,
    pub(super) series: Vec<SeriesId>,
}

/// Series with the same family and labels, but other bounds.
#[derive(Debug)]
struct Group {
    shown: SeriesId,
    members: Vec<SeriesId>,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    series: Vec<Series>,
    /// All label sets in canonical form, one after the other.
    texts: String,
    blocks: Vec<Block>,
    /// Place in `blocks` by [`Family::id`].
    block_of: HashMap<usize, u32>,
    /// One member of each group, by family and labels.
    index: HashTable<SeriesId>,
    groups: Vec<Group>,
    /// Series that stand for those over a limit, by block: one for each set of bounds.
    overflow: HashMap<u32, Vec<SeriesId>>,
    /// What label sets with names beyond the legacy rule become once those are escaped, by block.
    escaped: HashMap<u32, HashSet<Box<str>>>,
    /// Series of which something that is exposed changed.
    touched: Vec<SeriesId>,
    hasher: DefaultHashBuilder,
    slots: usize,
    /// Bytes of names and labels on a page, about.
    text: usize,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Length of the value columns.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// How many series `family` has.
    pub(super) fn len_of(&self, family: &Family) -> usize {
        let block =
            self.block_of.get(&family.id).and_then(|block| self.blocks.get(*block as usize));
        block.map_or(0, |block| block.series.len())
    }

    pub(super) fn get(&self, id: SeriesId) -> Option<&Series> {
        self.series.get(id.index())
    }

    pub(super) fn get_mut(&mut self, id: SeriesId) -> Option<&mut Series> {
        self.series.get_mut(id.index())
    }

    /// A series' labels in canonical form.
    pub(super) fn labels(&self, series: &Series) -> &str {
        series.labels.of(&self.texts)
    }

    /// All series.
    pub(super) fn ids(&self) -> impl Iterator<Item = SeriesId> + use<> {
        (0..self.series.len() as u32).map(SeriesId)
    }

    /// The series that stands for all with these labels, whatever their bounds, and how many they are.
    pub(super) fn first_of(&self, family: &Family, labels: &LabelSet) -> Option<(SeriesId, usize)> {
        let found = self.find_any(family, labels.as_str())?;
        match self.group(found) {
            Some((_, members)) => Some((*members.first()?, members.len())),
            None => Some((found, 1)),
        }
    }

    /// All series of which a part belongs to the living instance.
    pub(super) fn with_owned(&self) -> impl Iterator<Item = (SeriesId, &Series)> {
        (0..).map(SeriesId).zip(&self.series).filter(|(_, s)| s.kind.owned(s.bounds.len()) > 0)
    }

    /// The series of `family` with these labels and bounds, if it is known.
    pub(super) fn find(
        &self,
        family: &Family,
        labels: &LabelSet,
        bounds: &Bounds,
    ) -> Option<SeriesId> {
        let found = self.find_any(family, labels.as_str())?;
        self.group_of(self.get(found)?)
            .map_or(&[found][..], |group| &group.members)
            .iter()
            .copied()
            .find(|id| {
                self.get(*id).is_some_and(|series| series.bounds.values() == bounds.values())
            })
    }

    /// Whether the labels become the same as those of another series of `family` where names are escaped.
    pub(super) fn has_alike(&self, family: &Family, labels: &LabelSet) -> bool {
        let Some(block) = self.block_of.get(&family.id) else { return false };
        let alike = self.escaped.get(block);
        let is_alike = |text: &str| alike.is_some_and(|alike| alike.contains(text));
        if labels.is_legacy() {
            return alike.is_some()
                && is_alike(labels.as_str())
                && self.find_any(family, labels.as_str()).is_none();
        }
        let is_taken = |text: Box<str>| is_alike(&text) || self.find_any(family, &text).is_some();
        self.find_any(family, labels.as_str()).is_none()
            && escaped(labels).into_iter().any(is_taken)
    }

    /// The series of `family` that stand for those over a limit.
    pub(super) fn overflow_of(&self, family: &Family) -> &[SeriesId] {
        // Most shards have none, and this is asked for every series that is looked up.
        if self.overflow.is_empty() {
            return &[];
        }
        let block = self.block_of.get(&family.id);
        block.and_then(|block| self.overflow.get(block)).map_or(&[], Vec::as_slice)
    }

    /// How many series stand for those over a limit.
    pub(super) fn overflowing(&self) -> usize {
        self.overflow.values().map(Vec::len).sum()
    }

    /// Bytes of names and labels on a page, about, with one more series.
    pub(super) fn text_with(&self, family: &Family, labels: &LabelSet, bounds: usize) -> usize {
        let line = family.name.len() + labels.as_str().len();
        // A histogram's +Inf has a line and no value.
        self.text + line * (family.kind.width(bounds) + 1)
    }

    /// Adds a series that [`Store::find`] does not find.
    pub(super) fn add(
        &mut self,
        family: &Arc<Family>,
        labels: &LabelSet,
        bounds: Arc<Bounds>,
        created: UnixTime,
    ) -> SeriesId {
        let id = SeriesId(self.series.len() as u32);
        let twin = self.find_any(family, labels.as_str());
        // A label set counts on when its bounds change.
        let created = twin.and_then(|twin| self.get(twin)).map_or(created, Series::created);
        let block = self.block(family);
        if let Some(block) = self.blocks.get_mut(block as usize) {
            block.series.push(id);
        }
        if is_overflow(family, labels) {
            self.overflow.entry(block).or_default().push(id);
        }
        self.text = self.text_with(family, labels, bounds.len());
        let slot = self.slots;
        self.slots += family.kind.width(bounds.len());
        if twin.is_none() {
            if !labels.is_legacy() {
                self.escaped.entry(block).or_default().extend(escaped(labels));
            }
            let (hasher, series, texts) = (&self.hasher, &self.series, &self.texts);
            self.index.insert_unique(hasher.hash_one((block, labels.as_str())), id, |known| {
                let known = series.get(known.index());
                known.map_or(0, |s| hasher.hash_one((s.block, s.labels.of(texts))))
            });
        }
        // In smaller steps than their own: there are many shards, and most get their series once.
        if self.series.len() == self.series.capacity() {
            self.series.reserve_exact(self.series.len() / 8 + 16);
        }
        if self.texts.len() + labels.as_str().len() > self.texts.capacity() {
            self.texts.reserve_exact(self.texts.len() / 8 + labels.as_str().len());
        }
        let labels = Span::append(&mut self.texts, labels.as_str());
        self.series.push(Series {
            labels,
            bounds,
            created: created.as_nanos(),
            first_slot: slot as u32,
            block,
            group: None,
            kind: family.kind,
            counted: false,
            owned: false,
            touched: false,
        });
        if let Some(twin) = twin {
            self.join(twin, id);
        }
        id
    }

    /// Something that is exposed of a series changed.
    pub(super) fn touch(&mut self, id: SeriesId) {
        if let Some(series) = self.series.get_mut(id.index()).filter(|series| !series.touched) {
            series.touched = true;
            self.touched.push(id);
        }
    }

    /// Whether series were touched since the last call of [`Store::take_touched`].
    pub(super) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The first of `ids` that have so many values together, but at least one, and the others.
    pub(super) fn split_at_values<'a>(
        &self,
        ids: &'a [SeriesId],
        values: usize,
    ) -> (&'a [SeriesId], &'a [SeriesId]) {
        let mut sum = 0;
        let is_over = |id: &SeriesId| {
            sum += self.get(*id).map_or(0, Series::width);
            sum > values
        };
        let fitting = ids.iter().position(is_over).unwrap_or(ids.len());
        ids.split_at_checked(fitting.max(1)).unwrap_or((ids, &[]))
    }

    /// Moves to `taken` the series that were touched since the last call.
    pub(super) fn take_touched(&mut self, taken: &mut Vec<SeriesId>) {
        for id in &self.touched {
            if let Some(series) = self.series.get_mut(id.index()) {
                series.touched = false;
            }
        }
        taken.append(&mut self.touched);
    }

    /// Shows `id` rather than another series of its group.
    pub(super) fn show(&mut self, id: SeriesId) {
        if let Some(group) = self.group_mut(id) {
            group.shown = id;
        }
    }

    /// The series that stands on the page for `id`'s labels, and all of its group in the order they came.
    pub(super) fn group(&self, id: SeriesId) -> Option<(SeriesId, &[SeriesId])> {
        let group = self.group_of(self.get(id)?)?;
        Some((group.shown, &group.members))
    }

    /// `id` and all that have its labels and other bounds.
    pub(super) fn alike<'a>(&'a self, id: &'a SeriesId) -> &'a [SeriesId] {
        self.group(*id).map_or(std::slice::from_ref(id), |(_, members)| members)
    }

    /// A sample of a series comes, so its family keeps its names. False: it gave way before, and the sample is not taken.
    pub(super) fn claim(&self, id: SeriesId) -> bool {
        let Some(series) = self.get(id) else { return false };
        series.counted || self.family_of(series).is_some_and(Family::report)
    }

    /// A sample of a series was taken. Returns whether it is the first.
    pub(super) fn count(&mut self, id: SeriesId) -> bool {
        let is_new = self.get(id).is_some_and(|series| !series.counted) && self.claim(id);
        if is_new && let Some(series) = self.get_mut(id) {
            series.counted = true;
        }
        is_new
    }

    /// What is recorded of the series from `first` on.
    pub(super) fn steps(&self, first: usize) -> impl Iterator<Item = SeriesStep<'_>> {
        (first as u32..).zip(self.series.iter().skip(first)).map(|(series, s)| SeriesStep {
            series,
            family: self.family_of(s).map_or(u32::MAX, |family| family.id as u32),
            labels: self.labels(s).into(),
            bounds: s.bounds.values().into(),
            created: s.created(),
        })
    }

    /// Of series that differ in their bounds alone, those that are shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = SeriesId> {
        self.groups.iter().map(|group| group.shown)
    }

    /// The family that `series` belongs to.
    pub(super) fn family_of(&self, series: &Series) -> Option<&Family> {
        self.blocks.get(series.block as usize).map(|block| &*block.family)
    }

    /// The same, to be shared.
    pub(super) fn shared_family_of(&self, series: &Series) -> Option<&Arc<Family>> {
        self.blocks.get(series.block as usize).map(|block| &block.family)
    }

    /// The family's id of every series.
    pub(super) fn family_ids(&self) -> Box<[u32]> {
        let family = |series| self.family_of(series).map_or(u32::MAX, |f| f.id as u32);
        self.series.iter().map(family).collect()
    }

    fn find_any(&self, family: &Family, labels: &str) -> Option<SeriesId> {
        let block = *self.block_of.get(&family.id)?;
        self.index
            .find(self.hasher.hash_one((block, labels)), |id| {
                self.get(*id).is_some_and(|s| s.block == block && self.labels(s) == labels)
            })
            .copied()
    }

    fn block(&mut self, family: &Arc<Family>) -> u32 {
        *self.block_of.entry(family.id).or_insert_with(|| {
            self.blocks.push(Block { family: Arc::clone(family), series: Vec::new() });
            self.blocks.len() as u32 - 1
        })
    }

    fn join(&mut self, twin: SeriesId, id: SeriesId) {
        let group = self.get(twin).and_then(|series| series.group).or_else(|| {
            self.groups.push(Group { shown: twin, members: vec![twin] });
            NonZeroU32::new(self.groups.len() as u32)
        });
        for member in [twin, id] {
            if let Some(series) = self.get_mut(member) {
                series.group = group;
            }
        }
        if let Some(group) = self.group_mut(twin) {
            group.members.push(id);
        }
    }

    fn group_of(&self, series: &Series) -> Option<&Group> {
        self.groups.get(series.group?.get() as usize - 1)
    }

    fn group_mut(&mut self, id: SeriesId) -> Option<&mut Group> {
        let group = self.get(id)?.group?;
        self.groups.get_mut(group.get() as usize - 1)
    }
}

/// The labels of series that stand for those over a limit.
pub(super) const OVERFLOW: &str = "overflow=\"true\"";

/// Whether a series of `family` with these labels stands for those over a limit.
pub(super) fn is_overflow(family: &Family, labels: &LabelSet) -> bool {
    family.counts() && labels.as_str() == OVERFLOW
}

/// What becomes of a label set where names are escaped. Dots need no look: what is the same with them is with underscores.
fn escaped(labels: &LabelSet) -> [Box<str>; 2] {
    [Escaping::Underscores, Escaping::Values].map(|escaping| labels.escaped(escaping))
}
