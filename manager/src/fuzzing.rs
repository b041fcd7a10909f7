//! What the fuzz targets of `fuzz/` call, each with the bytes that a fuzzer made: they panic when something is not as it must
//! be. A stable test calls them with the corpus.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "whatever is wrong here is a failure to report"
)]

mod input;
pub(crate) mod page;
mod protobuf;
mod round_trip;
#[cfg(test)]
mod tests;

pub(crate) use input::Input;
pub use protobuf::protobuf;
pub use round_trip::round_trip;

use crate::{
    clock::UnixTime,
    exposition::{self, Format, reserved},
    registry::{Registry, Rules, Settings},
};

pub use crate::{
    http::fuzzing::{json_body, push},
    ingest::fuzzing::{openmetrics, text},
    journal::fuzzing::journal,
    session::fuzzing::frames,
};

/// Takes any bytes, and panics if something is wrong.
pub type Target = fn(&[u8]);

/// Each target: its name, which is that of its corpus too, and what it does.
pub const TARGETS: [(&str, Target); 8] = [
    ("text", text),
    ("openmetrics", openmetrics),
    ("protobuf", protobuf),
    ("json_body", json_body),
    ("push", push),
    ("frames", frames),
    ("journal", journal),
    ("round_trip", round_trip),
];

/// An empty registry, as a manager has it; with limits that are soon reached, or with those that it has.
pub(crate) fn registry(limits: u8) -> Registry {
    registry_with_rules(limits, Rules::default())
}

/// The same, with rules.
pub(crate) fn registry_with_rules(limits: u8, rules: Rules) -> Registry {
    let names = reserved(&[]);
    let names = names.iter().map(|(name, kind)| (name.as_str(), *kind));
    let plain = Settings::default();
    let settings = match limits % 4 {
        0 | 1 => plain,
        2 => Settings { max_series_per_family: 2, ..plain },
        _ => Settings { max_series_per_family: 3, max_series_per_shard: 5, ..plain },
    };
    Registry::with_rules(settings, names, rules)
}

/// What a page of everything shows, if it is valid.
pub(crate) fn valid_page(registry: &Registry, now: UnixTime, format: Format) -> Vec<page::Family> {
    valid(format, &exposition::render(registry, &[], now, format).to_vec())
}

/// What a page shows, if it is valid.
pub(crate) fn valid(format: Format, page: &[u8]) -> Vec<page::Family> {
    let families = page::read(format, page);
    if let Err(flaw) = page::check(format, &families) {
        panic!("{flaw}\n{}", String::from_utf8_lossy(page));
    }
    families
}
