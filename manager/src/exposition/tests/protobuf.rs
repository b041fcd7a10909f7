//! The protobuf format says what the text format says.

use super::*;
use crate::fuzzing::page::protobuf::{MetricFamily, families};

#[test]
fn it_has_the_exemplars_that_openmetrics_has() {
    let registry = golden_registry();
    for escaping in Escaping::ALL {
        let [protobuf, text] = [Syntax::Protobuf, Syntax::OpenMetrics].map(|syntax| {
            let format = Format::new(syntax, escaping);
            let families = page::read(format, &render(&registry, &own(), at(40), format).to_vec());
            // OpenMetrics has none of a counter that it does not call one.
            let exemplars = families.into_iter().flat_map(|family| family.exemplars);
            let exemplars =
                exemplars.filter(|e| e.name.ends_with("_total") || e.name.ends_with("_bucket"));
            exemplars.collect::<Vec<_>>()
        });
        assert!(!text.is_empty());
        assert_eq!(protobuf, text);
    }
}

#[test]
fn it_says_what_the_text_says() {
    let registry = golden_registry();
    for escaping in Escaping::ALL {
        let [protobuf, text] = [Syntax::Protobuf, Syntax::Text].map(|syntax| {
            let format = Format::new(syntax, escaping);
            page::read(format, &render(&registry, &own(), at(40), format).to_vec())
        });
        assert_eq!(protobuf.len(), text.len());
        for (protobuf, text) in protobuf.iter().zip(&text) {
            assert_eq!((&protobuf.name, &protobuf.kind), (&text.name, &text.kind));
            assert_eq!(protobuf.samples, text.samples);
        }
    }
}

/// The page's messages, a line each.
pub(super) fn debug(page: &[u8]) -> String {
    let mut lines = Vec::new();
    for MetricFamily { name, help, kind, metric, unit } in families(page) {
        lines.push(format!("{name:?} type {kind} unit {unit:?} help {help:?}\n"));
        lines.extend(metric.iter().map(|metric| format!("  {metric:?}\n")));
    }
    lines.concat()
}

#[test]
fn heads_and_times_are_there() {
    let registry = golden_registry();
    let page = render(&registry, &own(), at(40), Format::PROTOBUF).to_vec();
    let families = families(&page);
    let named = |name: &str| families.iter().find(|f| f.name == name).unwrap();
    assert_eq!(named("commands_executed_total").kind, 0);
    assert_eq!(named("ack_seconds").kind, 4);
    assert_eq!(named("ack_seconds").unit, "seconds");
    assert_eq!(named("mystery").kind, 3);
    let help = "Commands by \"name\", \\ and\nanother line 🦀";
    assert_eq!(named("commands_executed_total").help, help);
    // Since when: always there for what counts.
    let created = |name: &str| {
        let one = &named(name).metric[0];
        let counter = one.counter.as_ref().and_then(|c| c.created);
        let histogram = one.histogram.as_ref().and_then(|h| h.created);
        counter.or(histogram).or(one.summary.as_ref().and_then(|s| s.created))
    };
    let began = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 };
    for name in ["commands_executed_total", "gc_duration_seconds", "ack_seconds"] {
        assert_eq!(created(name), Some(began), "{name}");
    }
}
