//! Delimited messages: what is taken is shown, in every format.

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;

use super::{
    page::{
        Sample,
        protobuf::{MetricFamily, samples},
    },
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
    let Some(said) = said(input) else { return };
    let shown = shown.iter().flat_map(|family| &family.samples);
    let shown = values(shown.filter(|sample| !sample.name.starts_with("shard_")));
    for sample in &shown {
        // A histogram has its bucket of all, whether it was said or not.
        let is_implied = sample.0.ends_with("_bucket");
        assert!(said.contains(sample) || is_implied, "{sample:?} is shown, and not in {said:?}");
    }
    let is_rejected = |name: &str| {
        taken.rejected.iter().any(|r| name.starts_with(r.family.trim_end_matches('…')))
    };
    for sample in &said {
        let is_there = shown.contains(sample) || is_rejected(&sample.0);
        assert!(is_there || sample.0.starts_with("shard_"), "{sample:?} is not in {shown:?}");
    }
}

/// Names and values: labels may be others on a page, and bounds spelled otherwise.
type Values = BTreeSet<(String, u64)>;

fn values<'a>(samples: impl Iterator<Item = &'a Sample>) -> Values {
    samples.map(|s| (s.name.clone(), (f64::from_bits(s.bits) + 0.0).to_bits())).collect()
}

/// What another reader finds in a body, if it is one for pages too: fields that the manager has no use for may say anything.
fn said(mut body: &[u8]) -> Option<Values> {
    let mut said = Values::new();
    while !body.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut body).ok()?;
        let of_page = (0..=4).contains(&family.kind);
        for metric in of_page.then_some(&family.metric)? {
            said.extend(values(samples(&family.name, metric).iter()));
        }
    }
    Some(said)
}
