//! Golden pages, and what holds for every page.

mod every_page;
mod filter;
mod kept;
mod protobuf;

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{
    fuzzing::page,
    model::{Bounds, Escaping, Exemplar, FamilyHead, LabelSet, MetricType, Samples},
    registry::{
        FamilyDefinition, Frame, FrameKind, Hello, ReportedExemplar, SeriesDefinition, Settings,
        Writer,
    },
};

const COUNTER: MetricType = MetricType::Counter;
const GAUGE: MetricType = MetricType::Gauge;
const HISTOGRAM: MetricType = MetricType::Histogram;
const SUMMARY: MetricType = MetricType::Summary;
const UNTYPED: MetricType = MetricType::Untyped;

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_duration(Duration::from_secs(1_700_000_000 + seconds))
}

fn registry() -> Registry {
    let names = reserved(&[]);
    Registry::new(Settings::default(), names.iter().map(|(name, kind)| (name.as_str(), *kind)))
}

/// A shard's stream that sends one snapshot.
struct Stream<'r> {
    registry: &'r Registry,
    shard_id: u32,
    writer: Writer,
    ids: Vec<u32>,
    values: Vec<f64>,
    exemplars: Vec<(u32, ReportedExemplar)>,
}

impl<'r> Stream<'r> {
    fn open(registry: &'r Registry, shard_id: u32, now: UnixTime) -> Self {
        let hello =
            Hello { shard_id, shard_count: 3, instance_id: [7; 16], started_at: now, client: "" };
        Self {
            registry,
            shard_id,
            writer: registry.attach(hello, now).unwrap().writer,
            ids: Vec::new(),
            values: Vec::new(),
            exemplars: Vec::new(),
        }
    }

    fn has(
        &mut self,
        (kind, name, help, unit): (MetricType, &str, &str, &str),
        labels: &[(&str, &str)],
        bounds: &[f64],
        values: &[f64],
    ) -> &mut Self {
        let id = self.ids.len() as u32;
        let series = vec![SeriesDefinition {
            id,
            labels: LabelSet::canonical(labels.iter().copied(), self.shard_id, None).unwrap(),
            bounds: Bounds::new(bounds).unwrap(),
        }];
        let head = FamilyHead { name, kind, help, unit };
        let definition = FamilyDefinition { head, series };
        // When the first shard of a registry began to count.
        let began = UnixTime::from_duration(Duration::new(1_700_000_000, 123_456_789));
        self.registry.define(&mut self.writer, definition, began).unwrap();
        self.ids.push(id);
        self.values.extend(values);
        self
    }

    /// An exemplar of the series that was added last.
    fn exemplar(
        &mut self,
        bucket: u32,
        labels: &[(&str, &str)],
        value: f64,
        at: Option<UnixTime>,
    ) -> &mut Self {
        let exemplar = Exemplar::new(labels.iter().copied(), value, at);
        self.exemplars.push((self.ids.len() as u32 - 1, ReportedExemplar { bucket, exemplar }));
        self
    }

    fn report(&mut self, now: UnixTime) {
        let frame = Frame {
            kind: FrameKind::Snapshot,
            sequence: 1,
            samples: Samples { ids: &self.ids, values: &self.values },
            removed: Samples::default(),
            exemplars: &self.exemplars,
        };
        self.writer.apply(frame, now).unwrap();
    }
}

fn render_text(registry: &Registry, own: &[OwnFamily], now: UnixTime, format: Format) -> String {
    String::from_utf8(render(registry, own, now, format).to_vec()).unwrap()
}

/// Every type, every escape; shard 0 lives, shard 2 has died.
fn golden_registry() -> Registry {
    let registry = registry();
    let commands =
        (COUNTER, "commands_executed_total", "Commands by \"name\", \\ and\nanother line 🦀", "");
    let summary = (SUMMARY, "gc_duration_seconds", "GC pauses.", "seconds");
    let mut dead = Stream::open(&registry, 2, at(0));
    dead.has(commands, &[("command_name", "ping")], &[], &[4.0])
        .has((GAUGE, "guild_count", "", ""), &[], &[], &[99.0])
        .has(summary, &[], &[0.5, 0.99], &[0.1, 0.2, 3.0, 0.75]);
    dead.report(at(0));
    let mut alive = Stream::open(&registry, 0, at(40));
    let histogram = (HISTOGRAM, "ack_seconds", "Time to acknowledge.", "seconds");
    let millis = |millis| Some(UnixTime::from_duration(Duration::from_millis(millis)));
    alive
        .has((GAUGE, "guild_count", "ignored", ""), &[], &[], &[-7.0])
        .has(histogram, &[("a", "x")], &[0.25, 1.0, 1e6], &[1.0, 2.0, 2.0, 3.0, 1e7])
        .exemplar(
            1,
            &[("trace_id", "q\"b\\n\nü"), ("shard_id", "7")],
            0.5,
            millis(1_700_000_000_250),
        )
        .exemplar(3, &[], 1e7, None)
        .has(histogram, &[], &[], &[0.0, 0.0])
        .has(commands, &[("guild_id", "dm"), ("command_name", "q\"b\\n\nü🦀")], &[], &[1e15])
        .exemplar(
            0,
            &[("span.id", "beyond"), ("trace_id", "plain")],
            2.0,
            millis(1_700_000_001_000),
        )
        .has((COUNTER, "uptime_seconds", "No suffix.", "seconds"), &[], &[], &[0.5])
        .exemplar(0, &[("trace_id", "of none in OpenMetrics")], 0.5, None)
        .has((COUNTER, "cpu_seconds_total", "", "seconds"), &[], &[], &[1e300])
        .has((GAUGE, "memory_bytes", "", "seconds"), &[], &[], &[f64::NAN])
        .has((GAUGE, "bytes", "", "bytes"), &[("le", "kept")], &[], &[f64::INFINITY])
        .has((UNTYPED, "mystery", "Who knows.", ""), &[], &[], &[f64::NEG_INFINITY])
        .has(summary, &[], &[0.5, 0.99], &[f64::NAN, 0.2, 3.0, 0.75]);
    let beyond = (COUNTER, "bot.commands_total", "Beyond the legacy rule.", "");
    let quoted = (HISTOGRAM, "a \"b\"\\\n.seconds", "Needs escapes.", "");
    alive
        .has(beyond, &[("guild.name", "q\"b\\n\n🦀"), ("plain", "x")], &[], &[3.0])
        .has(beyond, &[], &[], &[4.0])
        .has((COUNTER, "réponses.total", "", ""), &[("9", "a"), ("_b:c", "d")], &[], &[5.0])
        .has((SUMMARY, "pause.length_seconds", "", "seconds"), &[], &[0.5], &[0.1, 2.0, 0.5])
        .has((GAUGE, "température", "", ""), &[("ünit", "°C")], &[], &[21.5])
        .has((UNTYPED, "legacy_name", "", ""), &[("label.beyond", "1")], &[], &[1.0])
        .has(quoted, &[("x.y", "z")], &[1.0], &[1.0, 2.0, 3.0])
        .exemplar(0, &[("a.bc", &"long once escaped".repeat(7))], f64::NAN, None);
    alive.report(at(40));
    registry
}

fn own() -> [OwnFamily; 1] {
    let one = |labels: &[(&str, &str)], value| OwnSeries {
        shard_id: None,
        labels: LabelSet::canonical(labels.iter().copied(), 0, None).unwrap(),
        bounds: Bounds::none(),
        values: vec![value],
    };
    [OwnFamily {
        name: "shardmeter_manager_frames_total".into(),
        kind: COUNTER,
        help: "Frames.".into(),
        series: vec![one(&[("outcome", "applied")], 2.0), one(&[], 0.0)],
    }]
}

/// `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn golden_pages() {
    let registry = golden_registry();
    for format in page::formats() {
        let page = render(&registry, &own(), at(40), format);
        assert_eq!(page.len(), page.to_vec().len());
        let page = match format.syntax {
            Syntax::Protobuf => protobuf::debug(&page.to_vec()),
            _ => String::from_utf8(page.to_vec()).unwrap(),
        };
        let created = if format.created { "-created" } else { "" };
        let (syntax, escaping) = (format.syntax.as_str(), format.escaping.as_str());
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/golden/page-{syntax}{created}-{escaping}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &page).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        let differs = page.lines().zip(golden.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{}\n{page}", file.display());
        assert_eq!(page, golden, "{}", file.display());
    }
}

#[test]
fn golden_pages_are_valid() {
    let registry = golden_registry();
    for format in page::formats() {
        let page = render(&registry, &own(), at(40), format).to_vec();
        page::check(format, &page::read(format, &page)).unwrap();
    }
}

/// It stands on a line of its own, and nothing is quoted there.
#[test]
fn a_unit_ends_no_line() {
    let registry = registry();
    let mut stream = Stream::open(&registry, 0, at(0));
    stream.has((GAUGE, "g_x\n# EOF", "", "x\n# EOF"), &[], &[], &[1.0]).report(at(0));
    for format in page::formats() {
        let families = page::read(format, &render(&registry, &[], at(0), format).to_vec());
        page::check(format, &families).unwrap();
        assert!(families.iter().all(|family| family.unit.is_empty()), "{families:?}");
    }
}

#[test]
fn an_empty_registry_is_a_valid_page() {
    let registry = registry();
    assert!(render(&registry, &[], at(0), Format::TEXT).is_empty());
    assert_eq!(render_text(&registry, &[], at(0), Format::OPENMETRICS), "# EOF\n");
}

#[test]
fn a_family_without_exposed_series_has_no_block() {
    let registry = registry();
    let mut stream = Stream::open(&registry, 0, at(0));
    stream.has((GAUGE, "g", "Help.", ""), &[], &[], &[1.0]);
    assert!(!render_text(&registry, &[], at(0), Format::TEXT).contains("TYPE g "));
    stream.report(at(0));
    assert!(render_text(&registry, &[], at(0), Format::TEXT).contains("\ng{shard_id=\"0\"} 1\n"));
    assert!(!render_text(&registry, &[], at(31), Format::TEXT).contains("TYPE g "));
}

#[test]
fn the_managers_own_metrics_convert_as_they_are() {
    let own = prometheus::Registry::new();
    let opts = prometheus::HistogramOpts::new("h_seconds", "Help.").buckets(vec![0.5, 1.0]);
    let histogram = prometheus::HistogramVec::new(opts, &["job"]).unwrap();
    own.register(Box::new(histogram.clone())).unwrap();
    for value in [0.1, 0.7, 9.0] {
        histogram.with_label_values(&["x"]).observe(value);
    }
    let families: Vec<_> = own.gather().iter().map(OwnFamily::from).collect();
    let page = render_text(&registry(), &families, at(0), Format::TEXT);
    assert_eq!(
        page,
        "# HELP h_seconds Help.\n\
         # TYPE h_seconds histogram\n\
         h_seconds_bucket{exported_job=\"x\",le=\"0.5\"} 1\n\
         h_seconds_bucket{exported_job=\"x\",le=\"1.0\"} 2\n\
         h_seconds_bucket{exported_job=\"x\",le=\"+Inf\"} 3\n\
         h_seconds_sum{exported_job=\"x\"} 9.8\n\
         h_seconds_count{exported_job=\"x\"} 3\n"
    );
}

#[test]
fn the_managers_metrics_of_shards_are_on_the_page() {
    let registry = golden_registry();
    let page = render_text(&registry, &[], at(40), Format::TEXT);
    for line in [
        "shard_up{shard_id=\"0\"} 1",
        "shard_up{shard_id=\"1\"} 0",
        "shard_up{shard_id=\"2\"} 0",
        "shard_last_report_timestamp_seconds{shard_id=\"0\"} 1700000040",
        "shard_instance_start_timestamp_seconds{shard_id=\"2\"} 1700000000",
        "shard_reports_total{shard_id=\"0\",transport=\"grpc\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}
