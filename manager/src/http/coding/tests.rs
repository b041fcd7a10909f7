//! Good bodies and bombs.

use std::{
    cell::Cell,
    io::{BufReader, Read, Write as _},
    rc::Rc,
};

use axum::http::HeaderValue;
use flate2::{Compression, write::GzEncoder};

use super::*;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, 1).unwrap()
}

fn unpack(coding: Coding, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, String> {
    match coding.unpack(&Bytes::from(body), limit) {
        Ok(body) => Ok(body.to_vec()),
        Err(broken) => Err(HttpError::from(broken).message().to_owned()),
    }
}

fn of(codings: &[&'static str]) -> Result<Coding, HttpError> {
    let mut headers = HeaderMap::new();
    for coding in codings {
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    Coding::of(&headers)
}

#[test]
fn a_header_says_the_coding() {
    for (stated, coding) in [
        (&[][..], Coding::Identity),
        (&[""], Coding::Identity),
        (&["identity"], Coding::Identity),
        (&["gzip"], Coding::Gzip),
        (&["X-GZIP"], Coding::Gzip),
        (&["zstd"], Coding::Zstd),
        (&["identity", " zstd "], Coding::Zstd),
        (&["identity, gzip"], Coding::Gzip),
    ] {
        assert_eq!(of(stated).unwrap(), coding, "{stated:?}");
    }
    for (stated, reason) in [
        (&["br"][..], "is \"br\"; send gzip, zstd or identity"),
        (&["deflate"], "is \"deflate\""),
        (&["gzip, zstd"], "compresses twice"),
        (&["gzip", "gzip"], "compresses twice"),
        (&["gzip", "br"], "is \"br\""),
    ] {
        let refused = of(stated).unwrap_err();
        assert!(refused.message().contains(reason), "{stated:?}: {refused:?}");
    }
}

#[test]
fn what_was_packed_is_unpacked() {
    let body = b"a 1\nb 2\n".repeat(1000);
    for (coding, packed) in [
        (Coding::Identity, body.clone()),
        (Coding::Gzip, gzip(&body)),
        (Coding::Zstd, zstd(&body)),
        // In parts.
        (Coding::Gzip, [gzip(&body[..100]), gzip(b""), gzip(&body[100..])].concat()),
        (Coding::Zstd, [zstd(&body[..100]), zstd(b""), zstd(&body[100..])].concat()),
    ] {
        assert_eq!(unpack(coding, packed.clone(), body.len()).unwrap(), body, "{coding:?}");
        let refused = unpack(coding, packed, body.len() - 1).unwrap_err();
        assert_eq!(refused, "the body is over 7999 bytes when decompressed", "{coding:?}");
    }
    assert_eq!(unpack(Coding::Gzip, gzip(b""), 0).unwrap(), b"");
}

#[test]
fn broken_data_is_refused() {
    let body = b"a 1\nb 2\n".repeat(1000);
    for (coding, packed, name) in
        [(Coding::Gzip, gzip(&body), "gzip"), (Coding::Zstd, zstd(&body), "zstd")]
    {
        let is_refused = |broken: Vec<u8>, what: &str| {
            let refused = unpack(coding, broken, 1 << 20).unwrap_err();
            let start = format!("the body is not the {name} that it says it is: ");
            assert!(refused.starts_with(&start), "{what}: {refused}");
        };
        for end in 1..packed.len() {
            is_refused(packed[..end].to_vec(), "cut");
        }
        is_refused([&packed[..], b"x"].concat(), "something behind it");
        is_refused(body.clone(), "text");
    }
    // An empty body is no gzip.
    assert!(unpack(Coding::Gzip, Vec::new(), 1 << 20).is_err());
    let mut damaged = gzip(&body);
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    assert!(unpack(Coding::Gzip, damaged, 1 << 20).is_err());
}

/// Says how much of it was read.
struct Counting<R> {
    inner: R,
    read: Rc<Cell<usize>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(into)?;
        self.read.set(self.read.get() + length);
        Ok(length)
    }
}

/// Of ten gigabytes of zeros, no more is unpacked than what may be taken.
#[test]
fn a_bomb_is_read_up_to_the_limit() {
    const LIMIT: usize = 1 << 20;
    for coding in [Coding::Gzip, Coding::Zstd] {
        // The same member or frame over and over: never is there more of it than this.
        let zeros = vec![0; 1 << 20];
        let part = if coding == Coding::Gzip { gzip(&zeros) } else { zstd(&zeros) };
        let parts = 10_000;
        let read = Rc::new(Cell::new(0));
        let bomb = Repeat { part: &part, at: 0, left: parts };
        let bomb = BufReader::new(Counting { inner: bomb, read: Rc::clone(&read) });
        match coding.read(bomb, LIMIT) {
            Err(Broken::TooLong(LIMIT)) => {}
            other => panic!("{coding:?}: {:?}", other.map(|body| body.len())),
        }
        let at_most = 3 * part.len() + (64 << 10);
        assert!(read.get() <= at_most, "{coding:?}: {} of {}", read.get(), part.len() * parts);
    }
}

/// The same bytes so many times.
struct Repeat<'a> {
    part: &'a [u8],
    at: usize,
    left: usize,
}

impl Read for Repeat<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let length = (&self.part[self.at..]).read(into)?;
        self.at += length;
        if self.at == self.part.len() {
            (self.at, self.left) = (0, self.left - 1);
        }
        Ok(length)
    }
}

/// What a frame claims to need is not allocated before it is known to be little.
#[test]
fn a_window_that_is_too_large_is_refused() {
    let frame = |log: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(b"a 1\n").unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(unpack(Coding::Zstd, frame(MAX_WINDOW_LOG), 100).unwrap(), b"a 1\n");
    let refused = unpack(Coding::Zstd, frame(MAX_WINDOW_LOG + 1), 100).unwrap_err();
    assert!(refused.contains("too much memory"), "{refused}");
    // A frame that says how long it is: 1 TiB.
    let claims = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0];
    assert!(unpack(Coding::Zstd, claims.to_vec(), 100).is_err());
}
