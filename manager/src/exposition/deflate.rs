//! gzip of a page in parts (RFC 1951, 1952), so that a part that did not change is not compressed again.
//!
//! A part is a piece of raw deflate data that ends in a full flush: at a byte boundary, with nothing before it referred to
//! from after it. Parts can thus be put one after the other; header, an empty last block, and the checksum of all (put
//! together from those of the parts) make them **one** gzip member: several members in a row are read by few clients.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use zlib_rs::crc32::{crc32_combine_gen, crc32_combine_op};

/// A compressed piece of a page.
#[derive(Debug, Clone)]
pub(super) struct Deflated {
    bytes: Bytes,
    /// CRC-32 of the text.
    checksum: u32,
    /// What brings the checksum of what stands before behind this text.
    shift: u32,
    length: u32,
}

/// Compresses pieces.
#[derive(Debug)]
pub(super) struct Deflater {
    compress: Compress,
    /// Where a piece is made, whose length is not known before; kept for its memory.
    made: Vec<u8>,
}

impl Deflater {
    pub(super) fn new() -> Self {
        // Level 1: a page is compressed for one reader, and higher levels cost several times as much for a few percent.
        Self { compress: Compress::new(Compression::fast(), false), made: Vec::new() }
    }

    pub(super) fn deflate(&mut self, text: &[u8]) -> Deflated {
        let Self { compress, made } = self;
        compress.reset();
        made.clear();
        made.reserve(text.len() / 4 + 64);
        let mut taken = 0;
        loop {
            let rest = text.get(taken..).unwrap_or_default();
            // Compressing from memory to memory cannot fail; were it to, the checksum would tell the reader.
            let _ = compress.compress_vec(rest, made, FlushCompress::Full);
            taken = compress.total_in() as usize;
            if taken >= text.len() && made.len() < made.capacity() {
                break;
            }
            made.reserve(made.capacity().max(64));
        }
        // It is kept for long: with not a byte more than it needs.
        Deflated::new(Bytes::copy_from_slice(made), text)
    }
}

impl Deflated {
    /// For pieces too short to be worth it: the text as it is, in deflate's own terms.
    pub(super) fn store(text: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 5);
        for piece in text.chunks(usize::from(u16::MAX)) {
            let length = piece.len() as u16;
            bytes.push(0); // not the last block, stored
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&(!length).to_le_bytes());
            bytes.extend_from_slice(piece);
        }
        Self::new(bytes.into(), text)
    }

    fn new(bytes: Bytes, text: &[u8]) -> Self {
        Self {
            bytes,
            checksum: crc32fast::hash(text),
            shift: crc32_combine_gen(text.len() as u64),
            length: text.len() as u32,
        }
    }
}

/// A gzip member in the making.
#[derive(Debug)]
pub(super) struct Gzip {
    segments: Vec<Bytes>,
    checksum: u32,
    length: u32,
}

impl Gzip {
    pub(super) fn new() -> Self {
        // Deflate, no flags, no time, fastest, unknown system.
        const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
        Self { segments: vec![Bytes::from_static(HEADER)], checksum: 0, length: 0 }
    }

    pub(super) fn add(&mut self, piece: &Deflated) {
        self.segments.push(piece.bytes.clone());
        self.checksum = crc32_combine_op(self.checksum, piece.checksum, piece.shift);
        self.length = self.length.wrapping_add(piece.length);
    }

    /// All of a page that is not kept.
    pub(super) fn of(texts: &[Bytes]) -> Vec<Bytes> {
        let (mut gzip, mut deflater) = (Self::new(), Deflater::new());
        texts.iter().for_each(|text| gzip.add(&deflater.deflate(text)));
        gzip.finish()
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        // An empty last block, then the trailer.
        let mut end = vec![3, 0];
        end.extend_from_slice(&self.checksum.to_le_bytes());
        end.extend_from_slice(&self.length.to_le_bytes());
        self.segments.push(end.into());
        self.segments
    }
}
