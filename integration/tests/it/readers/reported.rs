//! Shards that report straight to a registry, and what a page must say of them, worked out from what they reported.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use serde_json::{Value, json};
use shardmeter_manager::{
    clock::UnixTime,
    model::{Bounds, Exemplar, FamilyHead, LabelSet, MetricType, Samples, is_legacy_label_name},
    registry::{
        FamilyDefinition, Frame, FrameKind, Hello, Outcome, Registry, ReportedExemplar,
        SeriesDefinition, Writer,
    },
};

/// As long as the registry's default says.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(30);

/// Shards that a bot may have; those that never report are exposed as well.
const SHARD_COUNT: u32 = 20;

pub(crate) type Labels = BTreeMap<String, String>;

/// A bound or quantile, and how every page spells it.
pub(crate) type Bound = (f64, &'static str);

#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: MetricType,
    pub(crate) help: String,
    pub(crate) unit: &'static str,
}

/// A series as one instance reports it. Its id is its place among the instance's series.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Its place among the families.
    pub(crate) family: usize,
    pub(crate) labels: Labels,
    pub(crate) bounds: Vec<Bound>,
    pub(crate) values: Vec<f64>,
    /// Whether it was not removed.
    pub(crate) is_here: bool,
}

/// One run of one shard.
pub(crate) struct Instance {
    pub(crate) shard_id: u32,
    writer: Writer,
    sequence: u64,
    started_at: Duration,
    reported_at: Duration,
    pub(crate) series: Vec<Sent>,
}

/// A family as a page must show it.
#[derive(Debug)]
pub(crate) struct ShownFamily {
    pub(crate) family: Family,
    pub(crate) series: BTreeMap<Labels, Shown>,
}

/// A series as a page must show it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) bounds: Vec<Bound>,
    pub(crate) values: Vec<f64>,
    /// Whether values that belong to a living instance are there.
    pub(crate) is_owned: bool,
    created: Duration,
    exemplars: BTreeMap<u32, ShownExemplar>,
}

/// A fleet and its registry. Times are since the Unix epoch.
pub(crate) struct Reported {
    pub(crate) registry: Arc<Registry>,
    pub(crate) families: Vec<Family>,
    /// In the order of their Hello.
    pub(crate) instances: Vec<Instance>,
    /// Since when each series is counted.
    created: HashMap<(usize, Labels), Duration>,
    /// The latest of each bucket (0 for a counter) of a series, by shard too.
    exemplars: HashMap<(usize, Labels), BTreeMap<u32, ShownExemplar>>,
}

/// Labels, value and time of an exemplar.
type ShownExemplar = (Labels, f64, Duration);

impl Reported {
    pub(crate) fn new(registry: Arc<Registry>, families: Vec<Family>) -> Self {
        let (created, exemplars) = (HashMap::new(), HashMap::new());
        Self { registry, families, instances: Vec::new(), created, exemplars }
    }

    /// A shard says hello.
    pub(crate) fn attach(&mut self, shard_id: u32, started_at: Duration, now: Duration) {
        let mut instance_id = [0; 16];
        fastrand::fill(&mut instance_id);
        let hello = Hello {
            shard_id,
            shard_count: SHARD_COUNT,
            instance_id,
            started_at: UnixTime::from_duration(started_at),
            client: "",
        };
        let attached = self.registry.attach(hello, UnixTime::from_duration(now)).unwrap();
        self.instances.push(Instance {
            shard_id,
            writer: attached.writer,
            sequence: 0,
            started_at,
            reported_at: now,
            series: Vec::new(),
        });
    }

    /// An instance defines a series; the values it has now are reported with the next frame.
    pub(crate) fn define(&mut self, instance: usize, sent: Sent, now: Duration) {
        let Instance { shard_id, writer, started_at, series, .. } = &mut self.instances[instance];
        let family = &self.families[sent.family];
        let labels = sent.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let bounds: Vec<f64> = sent.bounds.iter().map(|(bound, _)| *bound).collect();
        let of_instance = SeriesDefinition {
            id: u32::try_from(series.len()).unwrap(),
            labels: LabelSet::canonical(labels, *shard_id, None).unwrap(),
            bounds: Bounds::new(&bounds).unwrap(),
        };
        let definition = FamilyDefinition {
            head: FamilyHead {
                name: &family.name,
                kind: family.kind,
                help: &family.help,
                unit: family.unit,
            },
            series: vec![of_instance],
        };
        self.registry.define(writer, definition, UnixTime::from_duration(now)).unwrap();
        let key = (sent.family, shown_labels(&sent.labels, *shard_id));
        self.created.entry(key).or_insert(*started_at);
        series.push(sent);
    }

    /// An instance reports the series with these ids, and that those of `removed` left.
    pub(crate) fn report(
        &mut self,
        instance: usize,
        changed: &[u32],
        removed: &[u32],
        now: Duration,
    ) {
        let instance = &mut self.instances[instance];
        for (ids, is_here) in [(changed, true), (removed, false)] {
            ids.iter().for_each(|id| instance.series[*id as usize].is_here = is_here);
        }
        let values = |ids: &[u32]| -> Vec<f64> {
            ids.iter().flat_map(|id| instance.series[*id as usize].values.clone()).collect()
        };
        let exemplars = exemplify(&self.families, &mut self.exemplars, instance, changed, now);
        let (values_changed, values_removed) = (values(changed), values(removed));
        instance.sequence += 1;
        let is_first = instance.sequence == 1;
        let frame = Frame {
            kind: if is_first { FrameKind::Snapshot } else { FrameKind::Delta },
            sequence: instance.sequence,
            samples: Samples { ids: changed, values: &values_changed },
            removed: Samples { ids: removed, values: &values_removed },
            exemplars: &exemplars,
        };
        let outcome = instance.writer.apply(frame, UnixTime::from_duration(now)).unwrap();
        let Outcome::Applied(applied) = outcome else { panic!("not applied: {outcome:?}") };
        assert_eq!(applied.rejected, []);
        instance.reported_at = now;
    }

    /// What a page must show now, in order of family name.
    pub(crate) fn shown(&self, now: Duration) -> Vec<ShownFamily> {
        let is_owner = |at: usize, instance: &Instance| {
            now - instance.reported_at <= STALE_AFTER
                && !self.instances[at + 1..].iter().any(|newer| {
                    newer.shard_id == instance.shard_id && now - newer.reported_at <= STALE_AFTER
                })
        };
        let mut all: BTreeMap<&str, ShownFamily> = BTreeMap::new();
        for (at, instance) in self.instances.iter().enumerate() {
            let owns = is_owner(at, instance);
            for sent in &instance.series {
                let family = &self.families[sent.family];
                let shown = all.entry(&family.name).or_insert_with(|| ShownFamily {
                    family: family.clone(),
                    series: BTreeMap::new(),
                });
                let labels = shown_labels(&sent.labels, instance.shard_id);
                let key = (sent.family, labels);
                let created = self.created[&key];
                let exemplars = self.exemplars.get(&key).cloned().unwrap_or_default();
                let series = shown.series.entry(key.1).or_insert_with(|| Shown {
                    bounds: sent.bounds.clone(),
                    values: vec![0.0; sent.values.len()],
                    is_owned: false,
                    created,
                    exemplars,
                });
                series.add(family.kind, sent, owns && sent.is_here);
            }
        }
        let shown = all.into_values().map(|mut shown| {
            let is_gauge = matches!(shown.family.kind, MetricType::Gauge | MetricType::Untyped);
            shown.series.retain(|_, series| !is_gauge || series.is_owned);
            shown
        });
        shown.filter(|shown| !shown.series.is_empty()).collect()
    }
}

/// Some exemplars of counters and histograms that changed.
fn exemplify(
    families: &[Family],
    known: &mut HashMap<(usize, Labels), BTreeMap<u32, ShownExemplar>>,
    instance: &Instance,
    changed: &[u32],
    now: Duration,
) -> Vec<(u32, ReportedExemplar)> {
    let rng = &mut Rng::with_seed(now.as_nanos() as u64 ^ instance.sequence);
    let mut reported = Vec::new();
    for id in changed {
        let sent = &instance.series[*id as usize];
        let buckets = match families[sent.family].kind {
            MetricType::Counter => 1,
            MetricType::Histogram => sent.bounds.len() as u32 + 1,
            _ => continue,
        };
        if rng.u8(..3) > 0 {
            continue;
        }
        let (bucket, value) = (rng.u32(..buckets), rng.f64());
        let mut labels = Labels::from([("trace_id".to_owned(), format!("{} \"🦀\"", rng.u64(..)))]);
        // Where a page may have such names.
        if !sent.labels.keys().all(|name| is_legacy_label_name(name)) {
            labels.insert("span.id".to_owned(), "x\\y\n".to_owned());
        }
        // One without a time is of now.
        let at = rng.bool().then_some(UnixTime::from_duration(now));
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        reported
            .push((*id, ReportedExemplar { bucket, exemplar: Exemplar::new(pairs, value, at) }));
        let key = (sent.family, shown_labels(&sent.labels, instance.shard_id));
        known.entry(key).or_default().insert(bucket, (labels, value, now));
    }
    reported
}

impl Shown {
    /// Adds what an instance counted; of what belongs to a living instance, the owner's is shown.
    fn add(&mut self, kind: MetricType, sent: &Sent, is_owner: bool) {
        let owned = match kind {
            MetricType::Gauge | MetricType::Untyped => 1,
            MetricType::Summary => sent.bounds.len(),
            MetricType::Counter | MetricType::Histogram => 0,
        };
        if is_owner {
            self.is_owned = true;
            self.values[..owned].copy_from_slice(&sent.values[..owned]);
        }
        for (sum, value) in self.values.iter_mut().zip(&sent.values).skip(owned) {
            *sum += value;
        }
    }
}

impl ShownFamily {
    /// For readers in other languages. A unit that the name does not end in is not said.
    pub(crate) fn to_json(&self) -> Value {
        let Family { name, kind, help, unit } = &self.family;
        let stem = match kind {
            MetricType::Counter => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let unit = if stem.ends_with(&format!("_{unit}")) { unit } else { "" };
        let series = self.series.iter().map(|(labels, shown)| {
            json!({
                "labels": labels,
                "bounds": shown.bounds.iter().map(|(_, spelled)| spelled).collect::<Vec<_>>(),
                "values": shown.values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>(),
                "owned": shown.is_owned,
                "exemplars": shown.exemplars.iter().map(|(bucket, (labels, value, at))| {
                    let le = shown.bounds.get(*bucket as usize).map_or("+Inf", |(_, le)| le);
                    json!([le, labels, format!("{value:?}"), at.as_millis() as u64])
                }).collect::<Vec<_>>(),
                "created": [shown.created.as_secs(), u64::from(shown.created.subsec_nanos())],
            })
        });
        json!({
            "name": name,
            "type": kind.as_str(),
            "help": help,
            "unit": unit,
            "series": series.collect::<Vec<_>>(),
        })
    }

    /// Calls `put` with each sample's name, labels and value.
    pub(crate) fn samples(&self, mut put: impl FnMut(String, Labels, f64)) {
        let Family { name, kind, .. } = &self.family;
        for (labels, Shown { bounds, values, is_owned, .. }) in &self.series {
            let with = |name: &str, spelled: &str| {
                let bound = (name.to_owned(), spelled.to_owned());
                labels.clone().into_iter().chain([bound]).collect::<Labels>()
            };
            match (kind, values.as_slice()) {
                (MetricType::Histogram | MetricType::Summary, [of_bounds @ .., count, sum]) => {
                    for ((_, spelled), value) in bounds.iter().zip(of_bounds) {
                        if *kind == MetricType::Histogram {
                            put(format!("{name}_bucket"), with("le", spelled), *value);
                        } else if *is_owned {
                            put(name.clone(), with("quantile", spelled), *value);
                        }
                    }
                    if *kind == MetricType::Histogram {
                        put(format!("{name}_bucket"), with("le", "+Inf"), *count);
                    }
                    put(format!("{name}_count"), labels.clone(), *count);
                    put(format!("{name}_sum"), labels.clone(), *sum);
                }
                (_, values) => put(name.clone(), labels.clone(), values[0]),
            }
        }
    }
}

/// Labels as a page shows them: those that the manager and Prometheus set themselves make way, and an empty label is none.
pub(crate) fn shown_labels(labels: &Labels, shard_id: u32) -> Labels {
    let shard_id = shard_id.to_string();
    let sent = labels.iter().filter(|(_, value)| !value.is_empty());
    let sent = sent.filter(|(name, value)| *name != "shard_id" || **value != shard_id);
    let renamed = sent.map(|(name, value)| match name.as_str() {
        "shard_id" | "job" | "instance" => (format!("exported_{name}"), value.clone()),
        _ => (name.clone(), value.clone()),
    });
    renamed.chain([("shard_id".to_owned(), shard_id.clone())]).collect()
}
