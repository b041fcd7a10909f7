//! What a scrape gets: the registry and the manager's own metrics as one page, in the format that was asked for.

mod chunks;
mod deflate;
mod encoder;
mod format;
mod kept;
mod own;
mod protobuf;
mod revalue;
mod shared;
mod text;
mod zstd;

use bytes::Bytes;

pub use format::{Coding, Format};
pub use kept::Exposition;
pub use own::{OwnFamily, OwnSeries, reserved};
pub(crate) use shared::SharedPages;

use crate::{clock::UnixTime, registry::Registry};
use deflate::Gzip;
use encoder::Encoder;

/// One rendered page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// How the bytes are compressed.
    pub coding: Coding,
    /// The page's bytes, in order.
    pub segments: Vec<Bytes>,
}

impl Page {
    fn empty(format: Format, coding: Coding) -> Self {
        Self { content_type: format.content_type(), coding, segments: Vec::new() }
    }

    /// The page, which is not compressed yet, in this coding.
    fn compressed(self, coding: Coding) -> Self {
        let segments = match coding {
            Coding::Identity => return self,
            Coding::Gzip => Gzip::of(&self.segments),
            Coding::Zstd => zstd::frame(&self.segments),
        };
        Self { coding, segments, ..self }
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
    let encoder = Encoder::new(format);
    // By family id. Shards are read one after the other, each in one go, so that a shard's families agree.
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    registry.visit(now, |shard| {
        for (family, series) in shard.families() {
            if bodies.len() <= family.id {
                bodies.resize_with(family.id + 1, Vec::new);
            }
            if let Some(body) = bodies.get_mut(family.id) {
                for one in series {
                    encoder.series(body, &family.name, family.kind, Some(shard.id()), &one);
                }
            }
        }
    });

    let families = registry.families();
    let mut blocks: Vec<(&str, Vec<Bytes>)> = Vec::new();
    for (family, body) in families.iter().zip(bodies) {
        if !body.is_empty() {
            let head = encoder.head(&family.name, family.kind, &family.help, &family.unit);
            let head = encoder.open(&head, body.len());
            blocks.push((&family.name, vec![head.into(), body.into()]));
        }
    }
    let of_shards = own::of_shards(&registry.summaries(now));
    for family in own.iter().chain(&of_shards) {
        blocks.push((family.name.as_str(), vec![encoder.own_family(family).into()]));
    }
    blocks.sort_by_key(|(name, _)| *name);
    let mut segments: Vec<Bytes> = blocks.into_iter().flat_map(|(_, block)| block).collect();
    segments.push(Bytes::from_static(encoder.end()));
    Page { content_type: format.content_type(), coding: Coding::Identity, segments }
}

#[cfg(test)]
mod tests;
