//! What a request is called, in the log and in its answer.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

/// Where a proxy or a client says it, and the answer repeats it.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest that is taken over, bytes.
const MAX_BYTES: usize = 64;

/// The sender's own, if it can stand in a log; else a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let is_sane = |id: &&HeaderValue| {
            (1..=MAX_BYTES).contains(&id.len())
                && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        };
        match headers.get(HEADER).filter(is_sane) {
            Some(id) => Self(id.clone()),
            None => Self::new(),
        }
    }

    fn new() -> Self {
        // Digits fit any header.
        let id = HeaderValue::try_from(format!("{:016x}", fastrand::u64(..)));
        Self(id.unwrap_or_else(|_| HeaderValue::from_static("0")))
    }
}

impl From<RequestId> for HeaderValue {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_stand_in_a_log_is_taken_over() {
        let of = |id: &[u8]| {
            let headers = [(HEADER, HeaderValue::from_bytes(id).unwrap())];
            RequestId::of(&headers.into_iter().collect()).to_string()
        };
        for id in [&b"a"[..], b"7f3e-1.B_", &[b'x'; MAX_BYTES]] {
            assert_eq!(of(id).as_bytes(), id);
        }
        let mut made = Vec::new();
        for id in [&b""[..], b"a b", b"a\tb", b"id=1", b"\xc3\xbc", &[b'x'; MAX_BYTES + 1]] {
            let new = of(id);
            assert!(new.len() == 16 && new.as_bytes() != id, "{new}");
            made.push(new);
        }
        made.push(RequestId::of(&HeaderMap::new()).to_string());
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 7, "each has its own");
    }
}
