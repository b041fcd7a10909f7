//! Properties: a page says each series and family once, in order, and reads back as what was counted, whatever shards call
//! their metrics and labels.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::ingest::{Post, ingest};

const KINDS: [MetricType; 5] = [COUNTER, GAUGE, HISTOGRAM, SUMMARY, UNTYPED];

/// Names that get in each other's way, and in the manager's.
const NAMES: [&str; 26] = [
    "a",
    "a.b",
    "a_b",
    "a-b",
    "a:b",
    "U__a_2e_b",
    "a_dot_b",
    "a__dot__b",
    "a.b_sum",
    "a_b_sum",
    "a_b.count",
    "U__a_2e_b_sum",
    "a_b_created",
    "a.b.created",
    "a.b_total",
    "a_b_total",
    "a.b.total",
    "_total",
    ".total",
    "_created",
    ".created",
    "shard.up",
    "shard_up",
    "花火",
    "__",
    "9\"\\\n",
];

const LABELS: [&str; 12] = [
    "a.b",
    "a_b",
    "a-b",
    "U__a_2e_b",
    "a_dot_b",
    "shard.id",
    "shard_id",
    "job",
    "exported.job",
    "_.a",
    "花",
    "\"\\\n",
];

/// A series: shard, family, labels, and numbers to make its values of.
#[derive(Debug, Clone)]
struct Some {
    shard_id: u32,
    name: String,
    kind: MetricType,
    labels: BTreeMap<String, String>,
    numbers: Vec<f64>,
    /// Labels of an exemplar.
    exemplar: BTreeMap<String, String>,
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
    let name = prop_oneof![
        3 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
        1 => "[a-c._ 9é]{1,3}(_total|_sum|_bucket|)",
    ];
    let label = prop_oneof![
        prop::sample::select(&LABELS[..]).prop_map(str::to_owned),
        "[a-z][a-z0-9_]{0,3}",
        "[a-b._ :9é]{1,3}",
    ];
    let anything = (
        0..3_u32,
        name,
        prop::sample::select(&KINDS[..]),
        prop::collection::btree_map(label.clone(), text(), 0..3),
    );
    // Some are too long in some format.
    let long = prop_oneof![3 => text(), 1 => "[x_.]{118,126}"];
    let exemplar = prop::collection::btree_map(label, long, 0..3);
    // Series that differ in the name of a label alone.
    let alike = prop::sample::select(&LABELS[..]).prop_map(|label| {
        (0, "alike".to_owned(), COUNTER, [(label.to_owned(), "x".to_owned())].into())
    });
    let series = prop_oneof![3 => anything, 1 => alike];
    (series, prop::collection::vec(number, 5), exemplar).prop_map(
        |((shard_id, name, kind, labels), numbers, exemplar)| Some {
            shard_id,
            name,
            kind,
            labels,
            numbers,
            exemplar,
        },
    )
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
            let labels: Vec<_> = one
                .labels
                .iter()
                .filter(|(name, value)| *name != "le" && *name != "quantile" && !value.is_empty())
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            // Senders are told of such sets, and of the rest of their frame too.
            if LabelSet::canonical(labels.iter().copied(), shard_id, None).is_err()
                || !names.insert((&one.name, labels.clone()))
            {
                continue;
            }
            let (bounds, values) = sample(one.kind, &one.numbers);
            stream.has((one.kind, &one.name, help, ""), &labels, &bounds, &values);
            let exemplar: Vec<_> =
                one.exemplar.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            match one.kind {
                COUNTER => drop(stream.exemplar(0, &exemplar, one.numbers[0], None)),
                HISTOGRAM => {
                    let inf = bounds.len() as u32;
                    stream.exemplar(0, &exemplar, one.numbers[0], None);
                    stream.exemplar(inf, &exemplar, one.numbers[0], None);
                }
                _ => {}
            }
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
                let bits = |v: &f64| (!v.is_nan()).then_some(v.to_bits());
                let values = one.values.iter().map(bits).collect();
                exposed.insert(key, (one.bounds.values().to_vec(), values));
            }
        }
    });
    exposed
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_page_is_valid(help in text(), all in prop::collection::vec(some(), 0..40)) {
        let registry = registry();
        fill(&registry, &help, &all);
        for format in page::formats() {
            let page = render(&registry, &own(), at(0), format).to_vec();
            page::check(format, &page::read(format, &page)).map_err(TestCaseError::fail)?;
        }
    }

    /// Nor do series' names and values.
    #[test]
    fn how_many_series_there_are_does_not_depend_on_the_format(all in prop::collection::vec(some(), 0..40)) {
        let registry = registry();
        fill(&registry, "", &all);
        let samples = |format| {
            let page = render(&registry, &own(), at(0), format).to_vec();
            let samples = page::read(format, &page).into_iter().flat_map(|family| family.samples);
            let mut samples: Vec<_> = samples.collect();
            samples.iter_mut().for_each(|sample| sample.labels.sort());
            samples.sort();
            samples
        };
        let count = samples(Format::TEXT).len();
        for escaping in Escaping::ALL {
            let text = samples(Format::new(Syntax::Text, escaping));
            prop_assert_eq!(text.len(), count);
            for syntax in [Syntax::OpenMetrics, Syntax::Protobuf] {
                prop_assert_eq!(&samples(Format::new(syntax, escaping)), &text);
            }
        }
    }

    #[test]
    fn families_are_in_order(all in prop::collection::vec(some(), 0..40)) {
        let registry = registry();
        fill(&registry, "", &all);
        let format = Format::new(Syntax::Text, Escaping::AllowUtf8);
        let families = page::read(format, &render(&registry, &own(), at(0), format).to_vec());
        prop_assert!(families.is_sorted_by_key(|family| family.name.clone()));
    }

    #[test]
    fn no_accept_header_panics(any in any::<String>(), mangled in "[a-z/*;=,.0-9q \"]{0,40}") {
        let _ = Negotiated::from_accept(Option::Some(&any));
        let _ = Negotiated::from_accept(Option::Some(&mangled));
    }

    #[test]
    fn a_page_reads_back_as_what_was_counted(help in text(), all in prop::collection::vec(some(), 0..40)) {
        let registry = registry();
        fill(&registry, &help, &all);
        let format = Format::new(Syntax::Text, Escaping::AllowUtf8);
        let page = render_text(&registry, &[], at(0), format);
        let again = self::registry();
        let post = Post {
            shards: "0-2".parse().unwrap(),
            identity: Some("scraper").into(),
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
