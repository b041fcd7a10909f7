//! The page that is kept from one scrape to the next.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{
    Format, OwnFamily, Page,
    chunks::{Chunks, Key, Place},
    deflate::{Deflater, Gzip},
    own,
    text::Encoder,
};
use crate::{
    clock::UnixTime,
    registry::{Family, Registry, SeriesView, ShardView, SeriesId},
};

/// A page in one format, of which each scrape renders what changed.
#[derive(Debug)]
pub(super) struct KeptPage {
    encoder: Encoder,
    format: Format,
    /// How many times it was rendered.
    number: u32,
    /// By [`Family::id`].
    families: Vec<Option<KeptFamily>>,
    /// By family name: what the manager keeps of each shard.
    of_shards: HashMap<String, Series>,
    /// Kept for its memory.
    entry: Vec<u8>,
    deflater: Deflater,
}
