//! What a scrape gets: the registry and the manager's own metrics as one page, in the format that was asked for.

mod chunks;
mod deflate;
mod encoder;
mod filter;
mod format;
mod kept;
mod own;
mod protobuf;
mod revalue;
mod shared;
mod text;
mod zstd;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use filter::Filter;
pub use format::{Coding, Format, Negotiated, Syntax};
pub use kept::Exposition;
pub use own::{OwnFamily, OwnSeries, reserved};
use shared::SharedPages;

use crate::{
    clock::UnixTime,
    registry::{Family, Registry},
};
use deflate::Gzip;
use encoder::{Encoder, Head};

/// One rendered page.
#[derive(Debug, Clone)]
pub struct Page {
    /// How the bytes are compressed.
    pub coding: Coding,
    /// The page's bytes, in order.
    pub segments: Vec<Bytes>,
}

impl Page {
    /// The page, which is not compressed yet, in this coding.
    #[must_use]
    pub fn compressed(self, coding: Coding) -> Self {
        let segments = match coding {
            Coding::Identity => return self,
            Coding::Gzip => Gzip::of(&self.segments),
            Coding::Zstd => zstd::frame(&self.segments),
        };
        Self { coding, segments }
    }

    /// Length of the whole page, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(Bytes::is_empty)
    }

    /// The page in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.segments.concat()
    }
}

/// Renders everything: one block a family, in order of family name, shards in order of id. `own` are the manager's own
/// process-wide metrics; those it keeps of each shard are added here.
#[must_use]
pub fn render(registry: &Registry, own: &[OwnFamily], now: UnixTime, format: Format) -> Page {
    render_some(registry, own, now, format, &Filter::default())
}

/// Renders what [`render`] would, as far as `filter` wants it.
#[must_use]
pub fn render_some(
    registry: &Registry,
    own: &[OwnFamily],
    now: UnixTime,
    format: Format,
    filter: &Filter,
) -> Page {
    let encoder = Encoder::new(format);
    let wanted =
        |name: &str, kind| filter.has_family(name, kind, &format.escaping.metric_name(name));
    // By family id. Shards are read one after the other, each in one go, so that a shard's families agree.
    let mut blocks: BTreeMap<usize, Option<Block>> = BTreeMap::new();
    registry.visit(now, |shard| {
        if !filter.has_shard(shard.shard_id()) {
            return;
        }
        for (family, series) in shard.families() {
            let block = blocks.entry(family.id).or_insert_with(|| {
                let Family { name, kind, help, unit, .. } = family;
                wanted(name, *kind).then(|| Block {
                    name: name.clone(),
                    head: encoder.head(name, *kind, help, unit),
                    body: Vec::new(),
                })
            });
            if let Some(block) = block {
                for one in series {
                    encoder.series(&mut block.body, &block.head, shard.shard_id(), &one);
                }
            }
        }
    });

    let mut texts: Vec<(Box<str>, [Bytes; 2])> = Vec::new();
    for Block { name, head, body } in blocks.into_values().flatten() {
        if !body.is_empty() {
            texts.push((name, [encoder.open(&head, body.len()).into(), body.into()]));
        }
    }
    let mut shards = registry.summaries(now);
    shards.retain(|shard| filter.has_shard(Some(shard.id)));
    let of_shards = own::of_shards(&shards);
    let own = own.iter().filter(|_| filter.has_shard(None));
    for family in own.chain(&of_shards).filter(|family| wanted(&family.name, family.kind)) {
        let text = encoder.own_family(family);
        texts.push((family.name.as_str().into(), [text.into(), Bytes::new()]));
    }
    texts.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut segments: Vec<Bytes> = texts.into_iter().flat_map(|(_, texts)| texts).collect();
    segments.push(Bytes::from_static(encoder.end()));
    Page { coding: Coding::Identity, segments }
}

/// A family in the making.
struct Block {
    name: Box<str>,
    head: Head,
    body: Vec<u8>,
}

#[cfg(test)]
mod tests;
