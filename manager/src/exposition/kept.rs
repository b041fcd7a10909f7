//! Pages that are kept from one scrape to the next, so that each renders only what changed.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::{
    Coding, Format, OwnFamily, Page,
    chunks::{Chunks, Key, Place},
    deflate::{Deflated, Deflater, Gzip},
    encoder::{Encoder, Head},
    own::{self, OfShards},
};
use crate::{
    clock::UnixTime,
    model::Bounds,
    registry::{Registry, SeriesId, SeriesView, ShardSummary, ShardView},
};

/// A page that nobody asked for while others were asked for so often is no longer kept.
const FORGET_AFTER: u32 = 1_000;

/// The pages of one registry. It is the registry's one keeper ([`Registry::collect`]).
#[derive(Debug, Default)]
pub struct Exposition {
    /// One page for each format that is asked for.
    kept: Mutex<Vec<KeptPage>>,
}

impl Exposition {
    /// Renders everything: one block a family, in order of family name. `own` are the manager's own process-wide metrics;
    /// those it keeps of each shard are added here. One scrape renders at a time; who waited finds most of it done.
    pub fn render(
        &self,
        registry: &Registry,
        own: &[OwnFamily],
        now: UnixTime,
        (format, coding): (Format, Coding),
    ) -> Page {
        let mut kept = self.kept.lock();
        if !kept.iter().any(|page| page.format == format) {
            kept.push(KeptPage::new(format));
        }
        // All pages take what changed, for nobody will say it again.
        let shards = registry.collect(now, |shard, touched| {
            kept.iter_mut().for_each(|page| page.take(shard, touched));
        });
        kept.iter_mut().for_each(|page| page.settle(&shards, page.format == format));
        kept.retain(|page| page.unasked < FORGET_AFTER);
        match kept.iter_mut().find(|page| page.format == format) {
            Some(page) => page.assemble(own, coding),
            None => Page { coding, segments: Vec::new() },
        }
    }
}

/// One page, kept.
#[derive(Debug)]
struct KeptPage {
    format: Format,
    encoder: Encoder,
    /// How many times it was brought up to date.
    number: u32,
    /// How many times since it was asked for.
    unasked: u32,
    /// What shards report, by family id.
    families: Vec<KeptFamily>,
    /// Where each series of a shard is, by its index.
    places: Places,
    /// What the manager keeps of each shard: families, which series there are, and where each is.
    of_shards: Vec<KeptFamily>,
    kept_of_shards: OfShards,
    places_of_shards: Places,
    deflater: Deflater,
    /// Kept for its memory.
    entry: Vec<u8>,
}

/// Places by shard and index.
type Places = HashMap<u32, Vec<Option<Place>>>;

/// One family on a page.
#[derive(Debug, Default)]
struct KeptFamily {
    name: Box<str>,
    /// There from its first series on.
    head: Option<Head>,
    chunks: Chunks,
}

impl KeptPage {
    fn new(format: Format) -> Self {
        let encoder = Encoder::new(format);
        let of_shards = own::OF_SHARDS.iter().map(|(name, kind, help)| {
            let head = Some(encoder.head(name, *kind, help, ""));
            KeptFamily { name: (*name).into(), head, chunks: Chunks::default() }
        });
        Self {
            format,
            encoder,
            number: 0,
            unasked: 0,
            families: Vec::new(),
            places: Places::default(),
            of_shards: of_shards.collect(),
            kept_of_shards: OfShards::new(),
            places_of_shards: Places::default(),
            deflater: Deflater::new(),
            entry: Vec::new(),
        }
    }

    /// Takes what changed of a shard; of one that it does not know, everything.
    fn take(&mut self, shard: &ShardView<'_>, touched: &[SeriesId]) {
        if self.places.contains_key(&shard.id()) {
            touched.iter().for_each(|id| self.take_series(shard, *id));
        } else {
            self.places.insert(shard.id(), Vec::new());
            shard.ids().for_each(|id| self.take_series(shard, id));
        }
    }

    fn take_series(&mut self, shard: &ShardView<'_>, id: SeriesId) {
        let Some(family) = shard.family(id) else {
            return;
        };
        if self.families.len() <= family.id {
            self.families.resize_with(family.id + 1, KeptFamily::default);
        }
        let Some(kept) = self.families.get_mut(family.id) else {
            return;
        };
        let encoder = self.encoder;
        let head = kept.head.get_or_insert_with(|| {
            kept.name = family.name.clone();
            encoder.head(&family.name, family.kind, &family.help, &family.unit)
        });
        self.entry.clear();
        if let Some(series) = shard.series(id) {
            encoder.series(&mut self.entry, head, Some(shard.id()), &series);
        }
        let key = Key { shard_id: shard.id(), series: id.index() as u32 };
        put(&mut kept.chunks, &mut self.places, key, &self.entry, self.number);
    }

    /// All shards were taken; `shards` says how they are.
    fn settle(&mut self, shards: &[ShardSummary], asked: bool) {
        self.unasked = if asked { 0 } else { self.unasked + 1 };
        for shard in shards {
            self.take_summary(shard);
        }
        if self.places_of_shards.len() > shards.len() {
            self.drop_summaries(shards);
        }
        settle(&mut self.families, &mut self.places, self.number);
        settle(&mut self.of_shards, &mut self.places_of_shards, self.number);
        self.number = self.number.wrapping_add(1);
    }

    fn take_summary(&mut self, shard: &ShardSummary) {
        let values = own::of_shard(shard);
        for (at, ((family, labels), value)) in (0..).zip(self.kept_of_shards.series().zip(values)) {
            let Some(kept) = self.of_shards.get_mut(family) else {
                continue;
            };
            self.entry.clear();
            if let Some((value, head)) = value.zip(kept.head.as_ref()) {
                let series = SeriesView {
                    labels: labels.as_str(),
                    bounds: &Bounds::none(),
                    values: &[value],
                    created: None,
                    owned: true,
                };
                self.encoder.series(&mut self.entry, head, Some(shard.id), &series);
            }
            let key = Key { shard_id: shard.id, series: at };
            put(&mut kept.chunks, &mut self.places_of_shards, key, &self.entry, self.number);
        }
    }

    /// Drops the series of shards that are no longer listed.
    fn drop_summaries(&mut self, shards: &[ShardSummary]) {
        let listed: HashSet<_> = shards.iter().map(|shard| shard.id).collect();
        let gone: Vec<_> =
            self.places_of_shards.keys().copied().filter(|id| !listed.contains(id)).collect();
        for shard_id in gone {
            for (series, (family, _)) in (0..).zip(self.kept_of_shards.series()) {
                if let Some(kept) = self.of_shards.get_mut(family) {
                    let key = Key { shard_id, series };
                    put(&mut kept.chunks, &mut self.places_of_shards, key, &[], self.number);
                }
            }
            self.places_of_shards.remove(&shard_id);
        }
    }

    /// Puts all blocks one after the other, in order of family name.
    fn assemble(&mut self, own: &[OwnFamily], coding: Coding) -> Page {
        let encoder = self.encoder;
        let own: Vec<_> =
            own.iter().map(|family| (family.name.as_str(), encoder.own_family(family))).collect();
        let mut blocks: Vec<(&str, Block<'_>)> =
            own.iter().map(|(name, text)| (*name, Block::Own(text))).collect();
        let kept = self.families.iter_mut().chain(&mut self.of_shards);
        let shown = kept.filter(|family| !family.chunks.is_empty());
        blocks.extend(shown.filter_map(|KeptFamily { name, head, chunks }| {
            let head = encoder.open(head.as_ref()?, chunks.len());
            Some((&**name, Block::Kept { head, chunks }))
        }));
        blocks.sort_by_key(|(name, _)| *name);
        let end = encoder.end();
        let segments = match coding {
            Coding::Identity => {
                let segments = blocks.into_iter().flat_map(|(_, block)| block.texts());
                segments.chain([Bytes::from_static(end)]).collect()
            }
            Coding::Gzip => {
                let mut gzip = Gzip::new();
                for (_, block) in blocks {
                    block.deflate_into(&mut gzip, &mut self.deflater);
                }
                gzip.add(&Deflated::store(end));
                gzip.finish()
            }
        };
        Page { coding, segments }
    }
}

/// The lines of one family on the page.
enum Block<'a> {
    Own(&'a [u8]),
    Kept { head: Vec<u8>, chunks: &'a mut Chunks },
}

impl Block<'_> {
    fn texts(self) -> Vec<Bytes> {
        match self {
            Self::Own(text) => vec![Bytes::copy_from_slice(text)],
            Self::Kept { head, chunks } => {
                std::iter::once(head.into()).chain(chunks.texts()).collect()
            }
        }
    }

    fn deflate_into(self, gzip: &mut Gzip, deflater: &mut Deflater) {
        match self {
            Self::Own(text) => gzip.add(&deflater.deflate(text)),
            Self::Kept { head, chunks } => {
                gzip.add(&Deflated::store(&head));
                chunks.deflated(deflater).for_each(|piece| gzip.add(piece));
            }
        }
    }
}

/// Puts an entry where its series is, or where there is room for it.
fn put(chunks: &mut Chunks, places: &mut Places, key: Key, text: &[u8], page: u32) {
    let of_shard = places.entry(key.shard_id).or_default();
    let index = key.series as usize;
    if of_shard.len() <= index {
        if text.is_empty() {
            return;
        }
        of_shard.resize(index + 1, None);
    }
    if let Some(place) = of_shard.get_mut(index) {
        *place = chunks.put(key, *place, text, page);
    }
}

/// Settles the chunks of all families, and notes what moved.
fn settle(families: &mut [KeptFamily], places: &mut Places, page: u32) {
    for family in families {
        family.chunks.settle(page);
        for (key, to) in family.chunks.take_moved() {
            let of_shard = places.get_mut(&key.shard_id);
            if let Some(place) = of_shard.and_then(|places| places.get_mut(key.series as usize)) {
                *place = Some(to);
            }
        }
    }
}
