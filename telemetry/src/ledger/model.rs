//! The receiving end, as simple as the .proto allows: what a correct manager would know from the frames it got.

use shardmeter_proto::rules::values_per_sample;
use shardmeter_proto::v1::report_request::Message;
use shardmeter_proto::v1::{Definitions, MetricType, Samples};
use std::collections::{BTreeMap, HashMap};

/// Family name and sorted labels.
pub(super) type Key = (String, Vec<(String, String)>);

/// What is known of one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) kind: MetricType,
    pub(super) bounds: Vec<f64>,
    pub(super) values: Vec<f64>,
    pub(super) present: bool,
}

/// One instance's state at the receiver, and the stream that fills it.
#[derive(Clone, Debug, Default)]
pub(super) struct Receiver {
    pub(super) last_sequence: u64,
    pub(super) series: BTreeMap<Key, Known>,
    ids: HashMap<u32, (Key, MetricType, Vec<f64>)>,
    /// Parts of a snapshot that is not complete.
    parts: Vec<(Samples, Samples)>,
    /// Series named in the last frame that was applied, without and with the removed ones.
    pub(super) named: (usize, usize),
}

impl Receiver {
    pub(super) fn new_stream(&mut self) {
        self.ids.clear();
        self.parts.clear();
    }

    pub(super) fn apply(&mut self, message: &Message) {
        match message {
            Message::Definitions(definitions) => self.define(definitions),
            Message::Snapshot(part) => {
                assert!(part.sequence > self.last_sequence, "snapshots go forward");
                assert_eq!(part.part as usize, self.parts.len(), "parts count up");
                let taken = |samples: &Option<Samples>| samples.clone().unwrap_or_default();
                self.parts.push((taken(&part.samples), taken(&part.removed)));
                if part.last {
                    let parts = std::mem::take(&mut self.parts);
                    let before = self.series.clone();
                    for known in self.series.values_mut() {
                        known.present = false;
                    }
                    self.named = (0, 0);
                    for (samples, removed) in &parts {
                        self.store(&before, samples, true);
                        self.store(&before, removed, false);
                    }
                    self.last_sequence = part.sequence;
                }
            }
            Message::Delta(delta) => {
                assert!(self.parts.is_empty(), "a delta within a snapshot");
                assert_eq!(delta.sequence, self.last_sequence + 1, "a delta without a gap");
                let before = self.series.clone();
                self.named = (0, 0);
                self.store(&before, &delta.samples.clone().unwrap_or_default(), true);
                self.store(&before, &delta.removed.clone().unwrap_or_default(), false);
                self.last_sequence = delta.sequence;
            }
            Message::Hello(_) | Message::Goodbye(_) => panic!("not a ledger's frame"),
        }
    }

    fn define(&mut self, definitions: &Definitions) {
        for family in &definitions.families {
            for series in &family.series {
                assert_eq!(series.id as usize, self.ids.len(), "ids without holes");
                let mut labels: Vec<_> = series
                    .labels
                    .iter()
                    .map(|label| (label.name.clone(), label.value.clone()))
                    .collect();
                labels.sort();
                let key = (family.name.clone(), labels);
                assert!(self.ids.values().all(|known| known.0 != key), "{key:?} defined twice");
                self.ids.insert(series.id, (key, family.r#type(), series.bounds.clone()));
            }
        }
    }

    fn store(&mut self, before: &BTreeMap<Key, Known>, samples: &Samples, present: bool) {
        let mut values = samples.values.as_slice();
        for id in &samples.series {
            let (key, kind, bounds) = self.ids.get(id).expect("a defined id").clone();
            let (own, rest) = values.split_at(values_per_sample(kind, bounds.len()).unwrap());
            values = rest;
            let known = Known { kind, bounds, values: own.to_vec(), present };
            if let Some(before) = before.get(&key) {
                assert_never_falls(&key, before, &known);
            }
            self.series.insert(key, known);
        }
        assert!(values.is_empty(), "values without a series");
        if present {
            self.named.0 += samples.series.len();
        } else {
            self.named.1 += samples.series.len();
        }
    }
}

fn assert_never_falls(key: &Key, before: &Known, after: &Known) {
    assert_eq!((before.kind, &before.bounds), (after.kind, &after.bounds), "{key:?}");
    let counts = match after.kind {
        MetricType::Counter => 0..1,
        MetricType::Histogram => 0..after.values.len() - 1,
        _ => return,
    };
    for column in counts {
        assert!(
            after.values[column] >= before.values[column],
            "{key:?} fell from {:?} to {:?}",
            before.values,
            after.values
        );
    }
}
