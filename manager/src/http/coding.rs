//! Bodies that come compressed (RFC 9110, section 8.4): read in a stream that stops at the limit, so that a bomb costs no
//! more than a body of that size.

use std::{
    fmt,
    io::{self, BufRead, Read as _},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
};
use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

use super::error::HttpError;

/// What zstd may look back, as a power of 2: what RFC 8878 (section 3.1.1.1.2) wants every reader to support. It is allocated as
/// soon as a body says it needs it.
const MAX_WINDOW_LOG: u32 = 23;

/// What is taken, for whoever sends something else.
const TAKEN: &str = "gzip, zstd or identity";

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Why a body cannot be unpacked.
#[derive(Debug)]
pub(super) enum Broken {
    /// It is longer than this.
    TooLong(usize),
    /// It is not what it says.
    Data(Coding, io::Error),
}

impl Coding {
    /// The coding of a request's body.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, HttpError> {
        let stated = headers.get_all(header::CONTENT_ENCODING).iter();
        let stated = stated.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let named = stated
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        let mut coding = Self::Identity;
        for name in named {
            coding = match (coding, Self::named(name)) {
                (Self::Identity, Some(known)) => known,
                (first, Some(_)) => {
                    return Err(refuse(&format!("compresses twice, first as {first}")));
                }
                (_, None) => {
                    return Err(refuse(&format!("is {:?}", String::from_utf8_lossy(name))));
                }
            };
        }
        Ok(coding)
    }

    fn named(name: &[u8]) -> Option<Self> {
        // RFC 9110, section 8.4.1.3: both are the same.
        if [&b"gzip"[..], b"x-gzip"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Some(Self::Gzip);
        }
        name.eq_ignore_ascii_case(b"zstd").then_some(Self::Zstd)
    }

    /// The body itself, if it has `limit` bytes at most.
    pub(super) fn unpack(self, body: &Bytes, limit: usize) -> Result<Bytes, Broken> {
        match self {
            Self::Identity if body.len() > limit => Err(Broken::TooLong(limit)),
            Self::Identity => Ok(body.clone()),
            packed => packed.read(&body[..], limit).map(Bytes::from),
        }
    }

    fn read(self, packed: impl BufRead, limit: usize) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        // One more tells what is too long.
        let most = limit as u64 + 1;
        let read = match self {
            Self::Identity => packed.take(most).read_to_end(&mut body),
            Self::Gzip => MultiGzDecoder::new(packed).take(most).read_to_end(&mut body),
            Self::Zstd => Decoder::with_buffer(packed).and_then(|mut decoder| {
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                decoder.take(most).read_to_end(&mut body)
            }),
        };
        match read {
            Ok(length) if length > limit => Err(Broken::TooLong(limit)),
            Ok(_) => Ok(body),
            Err(error) => Err(Broken::Data(self, error)),
        }
    }
}

fn refuse(what: &str) -> HttpError {
    let message = format!("Content-Encoding {what}; send {TAKEN}");
    HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl From<Broken> for HttpError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::TooLong(limit) => {
                let message = format!("the body is over {limit} bytes when decompressed");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            Broken::Data(coding, error) => {
                let message = format!("the body is not the {coding} that it says it is: {error}");
                Self::new(StatusCode::BAD_REQUEST, message)
            }
        }
    }
}

#[cfg(test)]
mod tests;
