//! Pages that are kept from one scrape to the next, so that each renders only what changed.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::{
    Coding, Format, OwnFamily, Page, SharedPages,
    chunks::{Chunks, Key, Place},
    deflate::{Deflated, Deflater, Gzip},
    encoder::{Encoder, Head},
    own::{self, OfShards, ValuesOfShard},
    render,
};
use crate::{
    clock::UnixTime,
    model::Bounds,
    registry::{Collected, Family, Registry, SeriesId, SeriesView, ShardSummary, ShardView},
};

/// Pages kept at most. Scrapers ask for one or two formats; who asks for all there are in turn must not fill the memory.
const MAX_PAGES: usize = 4;

/// What nobody asked for in so long is no longer kept.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// The pages of one registry. It is the registry's one keeper ([`Registry::collect`]).
#[derive(Debug, Default)]
pub struct Exposition {
    /// One page for each format that is asked for.
    kept: Mutex<Vec<KeptPage>>,
    /// Formats of which no page is kept, and when they were asked for.
    asked: Mutex<Vec<(Format, UnixTime)>>,
    /// For scrapes that come at the same time.
    pub(crate) shared: SharedPages,
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
        // Only gzip is kept.
        let kept_coding = if coding == Coding::Gzip { coding } else { Coding::Identity };
        if let Some(page) = self.render_kept(registry, own, now, (format, kept_coding)) {
            return if coding == kept_coding { page } else { page.compressed(coding) };
        }
        render(registry, own, now, format).compressed(coding)
    }

    /// The page that is kept, if one is or should be: one that was asked for twice. All pages cost something at every
    /// scrape, so one `curl` beside Prometheus should not keep one more.
    fn render_kept(
        &self,
        registry: &Registry,
        own: &[OwnFamily],
        now: UnixTime,
        (format, coding): (Format, Coding),
    ) -> Option<Page> {
        let mut kept = self.kept.lock();
        let is_new = !kept.iter().any(|page| page.format == format);
        if is_new {
            if !self.is_asked_again(format, now) {
                return None;
            }
            let oldest = (0..).zip(kept.iter()).min_by_key(|(_, page)| page.asked_at);
            if let Some((at, _)) = oldest.filter(|_| kept.len() == MAX_PAGES) {
                kept.swap_remove(at);
            }
            kept.push(KeptPage::new(format));
        }
        // All pages take what changed, for nobody will say it again.
        let collected = registry.collect(now, is_new, |shard, touched| {
            kept.iter_mut().for_each(|page| page.take(shard, touched));
        });
        kept.iter_mut().for_each(|page| page.settle(&collected));
        let asked = kept.iter_mut().find(|page| page.format == format);
        asked.map(|page| page.assemble(own, coding, now))
    }

    /// Notes that a format is asked for. Returns whether it was lately.
    fn is_asked_again(&self, format: Format, now: UnixTime) -> bool {
        let mut asked = self.asked.lock();
        asked.retain(|(_, at)| now.since(*at) < FORGET_AFTER);
        if let Some(at) = asked.iter().position(|(known, _)| *known == format) {
            asked.swap_remove(at);
            return true;
        }
        asked.push((format, now));
        false
    }

    /// Drops the pages, and the compressed forms of pages, that were not asked for in the last five minutes.
    pub fn forget_unused(&self, now: UnixTime) {
        self.shared.let_go();
        let mut kept = self.kept.lock();
        let is_used = |at: UnixTime| now.since(at) < FORGET_AFTER;
        kept.retain(|page| is_used(page.asked_at));
        for page in kept.iter_mut().filter(|page| !is_used(page.deflated_at)) {
            page.blocks().for_each(|family| family.chunks.forget_deflated());
        }
    }
}

/// One page, kept.
#[derive(Debug)]
struct KeptPage {
    format: Format,
    encoder: Encoder,
    /// When it was last asked for.
    asked_at: UnixTime,
    /// When it was last asked for in compressed form.
    deflated_at: UnixTime,
    /// What shards report, by family id.
    families: Vec<KeptFamily>,
    /// Where each series of a shard is, by its index.
    places: Places,
    /// What the manager keeps of each shard: families, which series there are, what they say, and where each is.
    of_shards: Vec<KeptFamily>,
    series_of_shards: OfShards,
    values_of_shards: HashMap<u32, ValuesOfShard>,
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
    head: Option<Head>,
    chunks: Chunks,
}

impl KeptPage {
    fn new(format: Format) -> Self {
        let encoder = Encoder::new(format);
        let of_shards = own::OF_SHARDS.iter().map(|(name, kind, help)| {
            let head = encoder.head(name, *kind, help, "");
            KeptFamily { name: (*name).into(), head: Some(head), chunks: Chunks::default() }
        });
        Self {
            format,
            encoder,
            asked_at: UnixTime::default(),
            deflated_at: UnixTime::default(),
            families: Vec::new(),
            places: Places::default(),
            of_shards: of_shards.collect(),
            series_of_shards: OfShards::new(),
            values_of_shards: HashMap::new(),
            places_of_shards: Places::default(),
            deflater: Deflater::new(),
            entry: Vec::new(),
        }
    }

    fn blocks(&mut self) -> impl Iterator<Item = &mut KeptFamily> {
        self.families.iter_mut().chain(&mut self.of_shards)
    }

    /// Takes what changed of a shard.
    fn take(&mut self, shard: &ShardView<'_>, touched: &[SeriesId]) {
        if let Some(before) = shard.before() {
            self.drop_series(shard.id(), before);
        }
        if touched.is_empty() {
            return;
        }
        let (encoder, families, entry) = (self.encoder, &mut self.families, &mut self.entry);
        let places = self.places.entry(shard.id()).or_default();
        fetch(families, places, shard, touched);
        for &id in touched {
            let Some(family) = shard.family(id) else {
                continue;
            };
            if places.len() <= id.index() {
                places.resize(id.index() + 1, None);
            }
            if families.len() <= family.id {
                families.resize_with(family.id + 1, KeptFamily::default);
            }
            if let (Some(kept), Some(place)) =
                (families.get_mut(family.id), places.get_mut(id.index()))
            {
                kept.take(encoder, family, shard, id, place, entry);
            }
        }
    }

    /// Drops what is kept of a shard, of whose series these are the families.
    fn drop_series(&mut self, shard_id: u32, families: &[u32]) {
        let places = self.places.remove(&shard_id).unwrap_or_default();
        for (place, family) in places.into_iter().zip(families) {
            if let (Some(place), Some(kept)) = (place, self.families.get_mut(*family as usize)) {
                kept.chunks.remove(place);
            }
        }
    }

    /// All that changed was taken.
    fn settle(&mut self, collected: &Collected) {
        for shard in &collected.summaries {
            self.take_summary(shard);
        }
        collected.unlisted.iter().for_each(|id| self.drop_summary(*id));
        if collected.complete && self.values_of_shards.len() > collected.summaries.len() {
            let listed: HashSet<_> = collected.summaries.iter().map(|shard| shard.id).collect();
            let known: Vec<_> = self.values_of_shards.keys().copied().collect();
            known
                .into_iter()
                .filter(|id| !listed.contains(id))
                .for_each(|id| self.drop_summary(id));
        }
        settle(&mut self.families, &mut self.places, Chunks::settle);
        settle(&mut self.of_shards, &mut self.places_of_shards, Chunks::settle);
    }

    fn take_summary(&mut self, shard: &ShardSummary) {
        let values = own::of_shard(shard);
        let before = self.values_of_shards.insert(shard.id, values);
        let before = before.unwrap_or_default();
        if before == values {
            return;
        }
        let places = self.places_of_shards.entry(shard.id).or_default();
        places.resize(values.len(), None);
        let changes = values.iter().zip(before).zip(places).zip(self.series_of_shards.series());
        for (at, (((value, before), place), (family, labels))) in (0..).zip(changes) {
            let Some(kept) = self.of_shards.get_mut(family).filter(|_| *value != before) else {
                continue;
            };
            self.entry.clear();
            if let Some((value, head)) = value.as_ref().zip(kept.head.as_ref()) {
                let series = SeriesView {
                    labels: labels.as_str(),
                    bounds: &Bounds::none(),
                    values: &[*value],
                    created: None,
                    owned: true,
                    exemplars: &[],
                };
                self.encoder.series(&mut self.entry, head, Some(shard.id), &series);
            }
            let key = Key { shard_id: shard.id, series: at };
            put(&mut kept.chunks, place, key, &self.entry);
        }
    }

    /// Drops what the manager keeps of a shard that is not listed.
    fn drop_summary(&mut self, id: u32) {
        self.values_of_shards.remove(&id);
        let places = self.places_of_shards.remove(&id).unwrap_or_default();
        for (place, (family, _)) in places.iter().zip(self.series_of_shards.series()) {
            if let (Some(place), Some(kept)) = (place, self.of_shards.get_mut(family)) {
                kept.chunks.remove(*place);
            }
        }
    }

    /// Puts all blocks one after the other, in order of family name.
    fn assemble(&mut self, own: &[OwnFamily], coding: Coding, now: UnixTime) -> Page {
        self.asked_at = now;
        if coding == Coding::Gzip {
            self.deflated_at = now;
            settle(&mut self.families, &mut self.places, Chunks::separate);
            settle(&mut self.of_shards, &mut self.places_of_shards, Chunks::separate);
        }
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
        if coding == Coding::Gzip {
            let mut gzip = Gzip::new();
            for (_, block) in blocks {
                block.deflate_into(&mut gzip, &mut self.deflater);
            }
            gzip.add(&Deflated::store(end));
            return Page { coding, segments: gzip.finish() };
        }
        let segments = blocks.into_iter().flat_map(|(_, block)| block.texts());
        let segments = segments.chain([Bytes::from_static(end)]).collect();
        Page { coding: Coding::Identity, segments }
    }
}

impl KeptFamily {
    /// Takes how a series is now.
    fn take(
        &mut self,
        encoder: Encoder,
        family: &Family,
        shard: &ShardView<'_>,
        id: SeriesId,
        place: &mut Option<Place>,
        entry: &mut Vec<u8>,
    ) {
        let head = self.head.get_or_insert_with(|| {
            self.name = family.name.clone();
            encoder.head(&family.name, family.kind, &family.help, &family.unit)
        });
        entry.clear();
        if let Some(series) = shard.series(id) {
            let before = place.map_or(&[][..], |place| self.chunks.text(place));
            if !encoder.revalue(entry, before, head, &series) {
                encoder.series(entry, head, shard.shard_id(), &series);
            }
        }
        let key = Key { shard_id: shard.id(), series: id.index() as u32 };
        put(&mut self.chunks, place, key, entry);
    }
}

/// Reads where the entries of these series begin and end. What changed is scattered over memory that was last used at the
/// scrape before: reading all of it at once takes a fraction of the time of waiting for one after the other.
fn fetch(
    families: &[KeptFamily],
    places: &[Option<Place>],
    shard: &ShardView<'_>,
    touched: &[SeriesId],
) {
    let read = |id: &SeriesId| {
        let place = (*places.get(id.index())?)?;
        let text = families.get(shard.family(*id)?.id)?.chunks.text(place);
        Some(text.first()? ^ text.last()?)
    };
    black_box(touched.iter().filter_map(read).fold(0, |all, one| all ^ one));
}

/// Puts a series' entry where it is, or where there is room for it; an empty one is of a series that is not exposed.
fn put(chunks: &mut Chunks, place: &mut Option<Place>, key: Key, entry: &[u8]) {
    match (*place, entry) {
        (None, []) => {}
        (None, entry) => *place = Some(chunks.add(key, entry)),
        (Some(at), []) => {
            chunks.remove(at);
            *place = None;
        }
        (Some(at), entry) => chunks.replace(at, entry),
    }
}

/// Lets the chunks of all families be moved about, and notes what moved.
fn settle(families: &mut [KeptFamily], places: &mut Places, how: fn(&mut Chunks)) {
    for family in families {
        how(&mut family.chunks);
        for (key, to) in family.chunks.take_moved() {
            let of_shard = places.get_mut(&key.shard_id);
            if let Some(place) = of_shard.and_then(|places| places.get_mut(key.series as usize)) {
                *place = Some(to);
            }
        }
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
            // Some hundred bytes that differ every time: compressing them costs more than it saves.
            Self::Own(text) => gzip.add(&Deflated::store(text)),
            Self::Kept { head, chunks } => {
                gzip.add(&Deflated::store(&head));
                chunks.deflated(deflater).for_each(|piece| gzip.add(piece));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exposition::Syntax,
        model::Escaping,
        registry::{Hello, Settings},
    };

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_duration(Duration::from_secs(1_700_000_000 + seconds))
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let registry = Registry::new(Settings::default(), []);
        registry
            .attach(
                Hello {
                    shard_id: 0,
                    shard_count: 3,
                    instance_id: [1; 16],
                    started_at: at(0),
                    client: "",
                },
                at(0),
            )
            .unwrap();
        let kept = Exposition::default();
        let scrape = |now, format, coding| kept.render(&registry, &[], at(now), (format, coding));
        scrape(0, Format::TEXT, Coding::Gzip);
        assert!(kept.kept.lock().is_empty(), "who asks once may not come back");
        scrape(0, Format::TEXT, Coding::Gzip);
        scrape(100, Format::OPENMETRICS, Coding::Gzip);
        scrape(200, Format::OPENMETRICS, Coding::Gzip);
        scrape(400, Format::OPENMETRICS, Coding::Identity);
        let compressed = |page: &mut KeptPage| page.blocks().any(|b| b.chunks.is_deflated());
        let pages = || -> Vec<_> {
            kept.kept.lock().iter_mut().map(|page| (page.format.syntax, compressed(page))).collect()
        };
        kept.forget_unused(at(299));
        assert_eq!(pages(), [(Syntax::Text, true), (Syntax::OpenMetrics, true)]);
        kept.forget_unused(at(300));
        assert_eq!(pages(), [(Syntax::OpenMetrics, true)]);
        kept.forget_unused(at(500));
        assert_eq!(pages(), [(Syntax::OpenMetrics, false)]);
        kept.forget_unused(at(700));
        assert_eq!(pages(), []);
    }

    #[test]
    fn no_more_pages_are_kept_than_scrapers_need() {
        let registry = Registry::new(Settings::default(), []);
        let kept = Exposition::default();
        let escaped = |escaping| Format::new(Syntax::Text, escaping);
        let mut asked = Escaping::ALL.map(escaped).to_vec();
        asked.extend([Format::OPENMETRICS, escaped(Escaping::ALL[0]), Format::PROTOBUF]);
        for (n, format) in (0..).zip(&asked) {
            for _ in 0..2 {
                kept.render(&registry, &[], at(n), (*format, Coding::Identity));
            }
        }
        let mut formats: Vec<_> = kept.kept.lock().iter().map(|page| page.format).collect();
        formats.sort_by_key(|format| asked.iter().rposition(|asked| asked == format));
        assert_eq!(formats, asked[3..], "those asked for last");
    }
}
