//! Where numbers come from.

use std::collections::BTreeMap;

use super::*;
use crate::{
    model::unescape,
    registry::{Explained, Explanation, Hidden, MAX_EXPLAINED, NotExplained, Reason, Rules},
};

type Answer = Result<Explanation, NotExplained>;

fn explain(registry: &Registry, family: &str, labels: &[(&str, &str)], now: UnixTime) -> Answer {
    let labels: BTreeMap<_, _> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    registry.explain(0, family, &labels, now)
}

fn one(answer: Answer) -> Explained {
    let Explanation { mut series, more, .. } = answer.unwrap();
    assert_eq!((series.len(), more), (1, 0));
    series.remove(0)
}

/// Shown, base, and what each instance says, of each value.
fn values(series: &Explained) -> Vec<(Option<f64>, f64, Vec<f64>)> {
    series.values.iter().map(|v| (v.shown, v.base, v.of_instances.clone())).collect()
}

#[test]
fn a_count_is_what_ended_and_what_lives() {
    let registry = registry();
    let mut first = open(&registry, 1, at(0));
    let c = first.define(COUNTER, "c_total", &[("a", "x")]);
    first.snapshot(1, &[(c, &[5.0])], at(0)).unwrap();
    first.writer.goodbye(1, at(1)).unwrap();
    drop(first);
    let mut second = open(&registry, 2, at(2));
    let c = second.define(COUNTER, "c_total", &[("a", "x")]);
    second.snapshot(1, &[(c, &[2.0])], at(2)).unwrap();
    let mut third = open(&registry, 3, at(3));
    let c = third.define(COUNTER, "c_total", &[("a", "x")]);
    third.snapshot(1, &[(c, &[4.0])], at(3)).unwrap();
    let mut without = open(&registry, 4, at(3));
    let other = without.define(COUNTER, "other_total", &[]);
    without.snapshot(1, &[(other, &[9.0])], at(3)).unwrap();

    let series = one(explain(&registry, "c_total", &[("a", "x")], at(4)));
    assert_eq!(values(&series), [(Some(11.0), 5.0, vec![2.0, 4.0])]);
    assert_eq!(series.created, at(0));
    let keys: Vec<_> = series.instances.iter().map(|i| i.key.to_string()).collect();
    assert_eq!(keys, ["02".repeat(16), "03".repeat(16)]);
    assert_eq!((series.hidden, series.is_overflow, series.family.first), (None, false, 0));
}

#[test]
fn a_gauge_is_its_owner_s() {
    let registry = registry();
    let mut first = open(&registry, 1, at(0));
    let g = first.define(GAUGE, "g", &[]);
    first.snapshot(1, &[(g, &[5.0])], at(0)).unwrap();
    let mut second = open(&registry, 2, at(1));
    let g = second.define(GAUGE, "g", &[]);
    second.snapshot(1, &[(g, &[7.0])], at(1)).unwrap();
    let series = one(explain(&registry, "g", &[], at(2)));
    assert_eq!(values(&series), [(Some(7.0), 0.0, vec![5.0, 7.0])]);
    drop((first, second));
    let series = one(explain(&registry, "g", &[], at(2 + STALE)));
    assert_eq!(series.hidden, Some(Hidden::NoOwner));
    assert_eq!(values(&series), [(None, 0.0, vec![5.0, 7.0])]);
}

#[test]
fn a_count_that_left_its_registry_is_still_its_instance_s() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[]);
    stream.snapshot(1, &[(c, &[5.0])], at(0)).unwrap();
    stream.send(FrameKind::Delta, 2, &[], &[(c, &[5.0])], at(1)).unwrap();
    let series = one(explain(&registry, "c_total", &[], at(2)));
    assert_eq!(values(&series), [(Some(5.0), 0.0, vec![5.0])]);
    assert_eq!(series.instances.len(), 1);
}

#[test]
fn of_a_summary_without_an_owner_counts_are_shown_alone() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let s = stream.define_bounded(MetricType::Summary, "s", &[], &[0.5]);
    stream.snapshot(1, &[(s, &[0.1, 2.0, 3.0])], at(0)).unwrap();
    drop(stream);
    let shown = |now| {
        let series = one(explain(&registry, "s", &[], now));
        series.values.iter().map(|value| value.shown).collect::<Vec<_>>()
    };
    assert_eq!(shown(at(1)), [Some(0.1), Some(2.0), Some(3.0)]);
    assert_eq!(shown(at(2 + STALE)), [None, Some(2.0), Some(3.0)]);
}

#[test]
fn a_family_whose_type_changed_is_explained_as_it_is_now() {
    let registry = registry();
    let mut old = open(&registry, 1, at(0));
    old.define(COUNTER, "x", &[]);
    let mut new = open(&registry, 2, at(1));
    let x = new.define(GAUGE, "x", &[]);
    new.snapshot(1, &[(x, &[7.0])], at(1)).unwrap();
    let series = one(explain(&registry, "x", &[], at(2)));
    assert_eq!((series.family.kind, values(&series)), (GAUGE, vec![(Some(7.0), 0.0, vec![7.0])]));
}

#[test]
fn labels_choose_series() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let mut samples = Vec::new();
    for n in 0..MAX_EXPLAINED + 20 {
        let id = stream.define(COUNTER, "c_total", &[("n", &n.to_string()), ("half", "a\"b")]);
        samples.push((id, &[1.0][..]));
    }
    stream.snapshot(1, &samples, at(0)).unwrap();
    let Explanation { series, more, .. } = explain(&registry, "c_total", &[], at(0)).unwrap();
    assert_eq!((series.len(), more), (MAX_EXPLAINED, 20));
    let some = [("half", "a\"b"), ("n", "7")];
    let series = one(explain(&registry, "c_total", &some, at(0)));
    let labels: Vec<_> = unescape(&series.labels).collect();
    assert_eq!(labels, [("half".into(), "a\"b".into()), ("n".into(), "7".into())]);
}

#[test]
fn large_histograms_are_as_many_as_a_client_takes() {
    let registry = registry();
    let bounds: Vec<f64> = (0..500).map(f64::from).collect();
    let values = vec![1.0; bounds.len() + 2];
    let mut streams = Vec::new();
    for instance in 1..=3 {
        let mut stream = open(&registry, instance, at(0));
        let define =
            |n: u32| stream.define_bounded(HISTOGRAM, "h", &[("n", &n.to_string())], &bounds);
        let samples: Vec<_> = (0..100).map(define).map(|id| (id, &values[..])).collect();
        stream.snapshot(1, &samples, at(0)).unwrap();
        streams.push(stream);
    }
    let Explanation { series, more, .. } = explain(&registry, "h", &[], at(0)).unwrap();
    assert_eq!(series.len() + more, 100);
    assert!((70..90).contains(&series.len()), "{}", series.len());
}

#[test]
fn what_is_not_shown_says_why() {
    let rules =
        json_rules(r#"[{ "family": "all_total", "type": "counter", "collapse_shards": true }]"#);
    let registry = Registry::with_rules(Settings::default(), [], rules);
    let mut stream = open(&registry, 1, at(0));
    let all = stream.define(COUNTER, "all_total", &[]);
    stream.define(COUNTER, "defined_total", &[]);
    let small = stream.define_bounded(HISTOGRAM, "h", &[], &[1.0]);
    stream.snapshot(1, &[(all, &[3.0]), (small, &[1.0, 2.0, 0.5])], at(0)).unwrap();
    let mut other = open(&registry, 2, at(1));
    let large = other.define_bounded(HISTOGRAM, "h", &[], &[1.0, 5.0]);
    other.snapshot(1, &[(large, &[1.0, 2.0, 3.0, 4.0])], at(1)).unwrap();

    let hidden = |family: &str| one(explain(&registry, family, &[], at(2))).hidden;
    assert_eq!(hidden("all_total"), Some(Hidden::AllShards));
    assert_eq!(hidden("defined_total"), Some(Hidden::NoSample));
    let both = explain(&registry, "h", &[], at(2)).unwrap().series;
    let shown: Vec<_> = both.iter().map(|h| (h.hidden, values(h))).collect();
    let sums = |values: [(Option<f64>, [f64; 2]); 4]| {
        values.map(|(shown, of)| (shown, 0.0, of.to_vec())).to_vec()
    };
    assert_eq!(
        shown,
        [
            (Some(Hidden::OtherBounds), [1.0, 2.0, 0.5].map(|of| (None, 0.0, vec![of])).to_vec()),
            (
                None,
                sums([
                    (Some(2.0), [1.0, 1.0]),
                    (Some(3.0), [1.0, 2.0]),
                    (Some(5.0), [2.0, 3.0]),
                    (Some(4.5), [0.5, 4.0])
                ])
            ),
        ]
    );
}

#[test]
fn what_is_not_there_says_what_is() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[("a", "x")]);
    stream.snapshot(1, &[(c, &[1.0])], at(0)).unwrap();
    let mut other = open_shard(&registry, 1, 2, at(0));
    let g = other.define(GAUGE, "only_1", &[]);
    let wrong = other.define(GAUGE, "c_total", &[]);
    other.snapshot(1, &[(g, &[1.0]), (wrong, &[1.0])], at(0)).unwrap();

    let says = |family: &str, labels: &[(&str, &str)]| {
        explain(&registry, family, labels, at(1)).unwrap_err().to_string()
    };
    let text = says("c_total", &[("a", "y")]);
    assert!(text.contains("1 series") && text.contains(r#"one has {a="x"}"#), "{text}");
    let text = says("only_1", &[]);
    assert!(text.contains("shard 1 reported first, as a gauge"), "{text}");
    let text = says("h_bucket", &[]);
    assert!(text.contains(r#"(is it "h"?)"#), "{text}");
    let text = registry.explain(1, "c_total", &BTreeMap::new(), at(1)).unwrap_err().to_string();
    assert!(text.contains("as a counter") && text.contains("type_conflict 1"), "{text}");
    let none = registry.explain(7, "c_total", &BTreeMap::new(), at(1));
    assert_eq!(none.unwrap_err(), NotExplained::NoShard(7));
    let found = registry.explain(1, "only_1", &BTreeMap::new(), at(1)).unwrap();
    let rejected: Vec<_> = found.rejected.into_iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(rejected, [(Reason::TypeConflict, 1)], "said of a series that is there, too");
}

#[test]
fn a_rule_is_named_where_it_is_the_reason() {
    let rules = r#"[
        { "family": "gone_.*", "type": "counter", "action": "drop" },
        { "family": "c_total", "type": "counter", "drop_labels": ["guild"] }
    ]"#;
    let registry = Registry::with_rules(Settings::default(), [], json_rules(rules));
    let mut stream = open(&registry, 1, at(0));
    let gone = stream.define(COUNTER, "gone_total", &[]);
    let c = stream.define(COUNTER, "c_total", &[("a", "x"), ("guild", "7")]);
    stream.snapshot(1, &[(gone, &[1.0]), (c, &[1.0])], at(0)).unwrap();
    let says = |family: &str, labels: &[(&str, &str)]| {
        explain(&registry, family, labels, at(1)).unwrap_err().to_string()
    };
    let text = says("gone_total", &[]);
    assert!(text.starts_with(r#"a rule drops family "gone_total""#), "{text}");
    let text = says("none_total", &[]);
    assert!(text.starts_with("no shard has a family"), "{text}");
    let text = says("c_total", &[("guild", "7")]);
    assert!(text.ends_with(r#"one has {a="x"}; by a rule: without guild"#), "{text}");
}

fn json_rules(text: &str) -> Rules {
    serde_json::from_str(text).unwrap()
}
