//! What a body says is what pages show.

mod said;

use std::{collections::BTreeMap, time::Duration};

use super::{
    Input,
    page::{Family, Sample},
    registry, valid_page,
};
use crate::{
    clock::UnixTime,
    exposition::{Format, Syntax},
    ingest::{Identity, Post, Taken, Text, ingest},
    model::Escaping,
};
use said::{Said, Shown, bound, said};

/// Whatever is taken, every format shows, and another reader than ours reads it back with the same values.
pub fn round_trip(input: &[u8]) {
    let mut input = Input(input);
    let shards = input.pick(&["0", "1-3"]);
    let syntax = input.pick(&Syntax::ALL);
    let format = Format::new(syntax, input.pick(&Escaping::ALL)).with_created(input.rarely(2));
    let Ok(text) = std::str::from_utf8(input.0) else { return };
    let registry = registry(0);
    let shards = shards.parse().unwrap();
    let identity = Identity::Named("a");
    let post = Post { shards, identity, sequence: None, interval: None };
    let now = UnixTime::from_duration(Duration::from_secs(1_700_000_000));
    let Ok(taken) = ingest(&registry, &post, Text::Plain(text), now) else { return };

    let plain = valid_page(&registry, now, Format::new(Syntax::Text, Escaping::AllowUtf8));
    let of_shards = |name: &str| registry.families().iter().any(|family| *family.name == *name);
    let shown: Shown = plain
        .iter()
        .filter(|family| of_shards(&family.name))
        .flat_map(|family| {
            family.samples.iter().map(|sample| {
                let key = (family.name.clone(), sample.name.clone(), labels(&family.kind, sample));
                (key, (family.kind.clone(), sample.bits))
            })
        })
        .collect();
    let Said { shown: expected } = said(text, shards.lowest(), shards.highest());
    compare(&shown, &expected, &taken);

    // Names may be escaped, but everything is there.
    let values = |families: &[Family]| {
        let mut values: Vec<u64> = families.iter().flat_map(bits).collect();
        values.sort_unstable();
        values
    };
    let other = valid_page(&registry, now, format);
    assert_eq!(values(&other), values(&plain), "{format:?}");
}

/// All values of a family, but not since when it is counted.
fn bits(family: &Family) -> Vec<u64> {
    let is_counted = ["counter", "histogram", "summary"].contains(&family.kind.as_str());
    let [created, count] = ["created", "count"].map(|suffix| format!("{}_{suffix}", family.name));
    let samples = family.samples.iter().filter(|sample| !is_counted || sample.name != created);
    let bits = samples.map(|sample| match f64::from_bits(sample.bits) + 0.0 {
        // In protobuf, summaries have whole counts alone.
        value if family.kind == "summary" && sample.name == count => value as u64,
        value => value.to_bits(),
    });
    bits.collect()
}

/// Labels by name, a bound as a number.
fn labels(kind: &str, sample: &Sample) -> BTreeMap<String, String> {
    let spelled = |(name, value): &(String, String)| match (kind, name.as_str()) {
        ("histogram", "le") | ("summary", "quantile") => (name.clone(), bound(value)),
        _ => (name.clone(), value.clone()),
    };
    sample.labels.iter().map(spelled).collect()
}

fn compare(shown: &Shown, expected: &Shown, taken: &Taken) {
    for (key, sample) in shown {
        assert_eq!(Some(sample), expected.get(key), "{key:?} is shown");
    }
    let rejected = |family: &str| {
        taken.rejected.iter().any(|r| family.starts_with(r.family.trim_end_matches('…')))
    };
    for (key, sample) in expected {
        assert!(shown.contains_key(key) || rejected(&key.0), "{key:?} is missing: {sample:?}");
    }
}
