//! zstd of a whole page (RFC 8878), for the few who ask for it: nothing of it is kept.

use std::io::Write as _;

use bytes::Bytes;
use zstd::stream::write::Encoder;

/// A page is compressed for one reader, and higher levels cost several times as much for a few percent.
const LEVEL: i32 = 1;

/// The texts one after the other, as one frame: of several in a row some readers take the first alone.
pub(super) fn frame(texts: &[Bytes]) -> Vec<Bytes> {
    let frame = || -> std::io::Result<Vec<u8>> {
        let mut encoder = Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        texts.iter().try_for_each(|text| encoder.write_all(text))?;
        encoder.finish()
    };
    // Writing to memory fails only without memory; an empty body is no frame, and every reader says so.
    vec![frame().unwrap_or_default().into()]
}
