//! Properties: a page says each series and family once, in order, and reads back as what was counted.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::ingest::{Post, ingest};

const KINDS: [MetricType; 5] = [COUNTER, GAUGE, HISTOGRAM, SUMMARY, UNTYPED];

/// A series: shard, family, labels, and numbers to make its values of.
#[derive(Debug, Clone)]
struct Some {
    shard_id: u32,
    family: usize,
    labels: BTreeMap<String, String>,
    numbers: Vec<f64>,
}

/// Any text but a carriage return, which ends a line for lenient readers.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,2}", "[^\r]{0,6}", r#"["\\\n{}, =#🦀]{0,5}"#]
}

fn some() -> impl Strategy<Value = Some> {
    let number = prop_oneof![
        (0..1000_u32).prop_map(f64::from),
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY)
    ];
    (
        0..3_u32,
        0..8_usize,
        prop::collection::btree_map("[a-z][a-z0-9_]{0,3}", text(), 0..3),
        prop::collection::vec(number, 5),
    )
        .prop_map(|(shard_id, family, labels, numbers)| Some {
            shard_id,
            family,
            labels,
            numbers,
        })
}

/// Bounds and values that a series of `kind` can have, made of any numbers.
fn sample(kind: MetricType, numbers: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let count = |n: &f64| {
        if n.is_finite() { n.abs().trunc() % 1e9 } else { 3.0 }
    };
    let [a, b, c, sum, other] = numbers else { panic!() };
    match kind {
        MetricType::Counter => {
            let value = if a.is_finite() { a.abs() } else { 1.0 };
            (vec![], vec![value])
        }
        MetricType::Gauge | MetricType::Untyped => (vec![], vec![*a]),
        MetricType::Summary => (vec![0.5, 0.9], vec![*a, *b, count(c), *sum]),
        MetricType::Histogram => {
            let mut bounds = vec![*other, 1.0, 250.5];
            bounds.retain(|bound| bound.is_finite());
            bounds.sort_by(f64::total_cmp);
            bounds.dedup();
            let mut values = vec![];
            let mut all = 0.0;
            for n in bounds.iter().zip([a, b, c]).map(|(_, n)| n) {
                all += count(n);
                values.push(all);
            }
            values.extend([all + 1.0, *sum]);
            (bounds, values)
        }
    }
}

/// Reports all that does not contradict itself.
fn fill(registry: &Registry, help: &str, all: &[Some]) {
    for shard_id in 0..3 {
        let mut stream = Stream::open(registry, shard_id, at(0));
        let mut names = HashSet::new();
        for one in all.iter().filter(|one| one.shard_id == shard_id) {
            let kind = KINDS[one.family % KINDS.len()];
            let labels: Vec<_> = one
                .labels
                .iter()
                .filter(|(name, value)| *name != "le" && *name != "quantile" && !value.is_empty())
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            if !names.insert((one.family, labels.clone())) {
                continue;
            }
            let name = format!("family_{}", one.family);
            let (bounds, values) = sample(kind, &one.numbers);
            stream.has((kind, &name, help, ""), &labels, &bounds, &values);
        }
        stream.report(at(0));
    }
}

/// Bits of all values by name, shard and labels.
type Exposed = BTreeMap<(String, u32, String), (Vec<f64>, Vec<Option<u64>>)>;

fn exposed(registry: &Registry) -> Exposed {
    let mut exposed = BTreeMap::new();
    registry.visit(at(0), |shard| {
        for (family, series) in shard.families() {
            for one in series {
                let key = (family.name.to_string(), shard.id(), one.labels.to_owned());
                let bits = |v: &f64| (!v.is_nan()).then_some((v + 0.0).to_bits());
                let values = one.values.iter().map(bits).collect();
                exposed.insert(key, (one.bounds.values().to_vec(), values));
            }
        }
    });
    exposed
}

/// Everything before the value: a label value may contain spaces, a value cannot.
fn key(line: &str) -> &str {
    line.rsplit_once(' ').unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_page_is_in_order_and_says_nothing_twice(help in text(), all in prop::collection::vec(some(), 0..40)) {
        let registry = registry();
        fill(&registry, &help, &all);
        let [text, open] = [Format::Text, Format::OpenMetrics].map(|format| render_text(&registry, &own(), at(0), format));
        prop_assert!(open.ends_with("\n# EOF\n") && open.matches("\n# EOF\n").count() == 1);
        prop_assert!(!text.contains("\n# EOF"));
        let samples = |page: &str| -> Vec<String> {
            page.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
        };
        // Sample lines do not depend on the format.
        prop_assert_eq!(samples(&text), samples(&open));
        let mut seen = HashSet::new();
        prop_assert!(samples(&text).iter().all(|line| seen.insert(key(line))));
        for page in [&text, &open] {
            let types: Vec<_> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")).map(key).collect();
            let distinct: HashSet<_> = types.iter().collect();
            prop_assert_eq!(distinct.len(), types.len());
        }
        let types: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).map(key).collect();
        prop_assert!(types.is_sorted(), "{:?}", types);
        // One block a family: a sample line belongs to the last TYPE line.
        let mut family = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ") {
                family = key(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let suffix = name.strip_prefix(family);
                prop_assert!(matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")), "{} in {}", name, family);
            }
        }
    }

    #[test]
    fn no_accept_header_panics(any in any::<String>(), mangled in "[a-z/*;=,.0-9q \"]{0,40}") {
        let _ = Format::negotiate(Option::Some(&any));
        let _ = Format::negotiate(Option::Some(&mangled));
    }

    #[test]
    fn a_page_reads_back_as_what_was_counted(help in text(), all in prop::collection::vec(some(), 0..40)) {
        let registry = registry();
        fill(&registry, &help, &all);
        let page = render_text(&registry, &[], at(0), Format::Text);
        let again = self::registry();
        let post = Post {
            shards: "0-2".parse().unwrap(),
            instance: Option::Some("scraper"),
            sequence: None,
            interval: None,
        };
        let taken = ingest(&again, &post, page.as_str().into(), at(0)).map_err(|e| TestCaseError::fail(format!("{e}\n{page}")))?;
        // Only the manager's own families are refused.
        prop_assert!(taken.rejected.iter().all(|r| r.family.starts_with("shard_")), "{:?}", taken.rejected);
        prop_assert_eq!(exposed(&again), exposed(&registry));
        let exposed_families = exposed(&registry);
        for family in again.families() {
            let known = registry.families().into_iter().find(|f| f.name == family.name).unwrap();
            prop_assert_eq!(known.kind, family.kind);
            prop_assert_eq!(&*family.help, known.help.trim_start_matches([' ', '\t']));
            prop_assert!(exposed_families.keys().any(|(name, ..)| **name == *family.name));
        }
    }
}
