//! Delimited messages: what is taken is shown, in every format.

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;

use super::{
    page::{self, protobuf::MetricFamily},
    registry, valid_page,
};
use crate::{
    clock::UnixTime,
    exposition::{Format, Syntax},
    ingest::{Identity, Post, ingest_protobuf},
    model::Escaping,
};

/// What is taken of a body of messages is on the page, with the values that another reader finds in it.
pub fn protobuf(input: &[u8]) {
    let registry = registry(0);
    let identity = Identity::Named("a");
    let shards = "1-3".parse().unwrap();
    let post = Post { shards, identity, sequence: None, interval: None };
    let now = UnixTime::from_duration(Duration::from_secs(1_700_000_000));
    let Ok(taken) = ingest_protobuf(&registry, &post, input, now) else { return };
    let shown = valid_page(&registry, now, Format::new(Syntax::Text, Escaping::AllowUtf8));
    for syntax in [Syntax::OpenMetrics, Syntax::Protobuf] {
        valid_page(&registry, now, Format::new(syntax, Escaping::Underscores));
    }
    // Labels may be others, and bounds spelled otherwise: values are not.
    let values = |families: &[page::Family]| -> BTreeSet<(String, u64)> {
        let samples = families.iter().flat_map(|family| &family.samples);
        let samples = samples.filter(|sample| !sample.name.starts_with("shard_"));
        samples.map(|s| (s.name.clone(), (f64::from_bits(s.bits) + 0.0).to_bits())).collect()
    };
    // Fields that the manager has no use for may say anything.
    let mut rest = input;
    while !rest.is_empty() {
        if MetricFamily::decode_length_delimited(&mut rest).is_err() {
            return;
        }
    }
    let said = values(&page::read(Format::PROTOBUF, input));
    for sample in values(&shown) {
        // A histogram has its bucket of all, whether it was said or not.
        let is_implied = sample.0.ends_with("_bucket");
        assert!(said.contains(&sample) || is_implied, "{sample:?} is shown, and not in {said:?}");
    }
    let shown = values(&shown);
    for sample in &said {
        let rejected = |name: &str| {
            taken.rejected.iter().any(|r| name.starts_with(r.family.trim_end_matches('…')))
        };
        let is_own = sample.0.starts_with("shard_");
        assert!(
            shown.contains(sample) || rejected(&sample.0) || is_own,
            "{sample:?} is missing of {shown:?}"
        );
    }
}
