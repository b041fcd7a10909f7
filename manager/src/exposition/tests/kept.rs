//! A page that is kept says the same as one that is rendered anew, whatever happened in between and however it is sent.

use std::io::Read as _;

use flate2::read::GzDecoder;
use proptest::prelude::*;

use super::*;
use crate::registry::{self, InstanceKey, Report, ReportedFamily, ReportedSeries, Rules, Scope};

/// Something that changes the page.
#[derive(Debug, Clone)]
enum Event {
    /// A sender posts everything it has: which sender, how far its counters are, which gauges it has.
    Post {
        sender: u8,
        counts: u32,
        spread: u8,
        gauges: u8,
    },
    /// A new stream says how many shards the bot has, and sends this many observations, if any; then it ends, with a
    /// goodbye or without.
    Stream {
        shard_count: u32,
        observed: u32,
        goodbye: bool,
    },
    Pass(u64),
    Forget,
    /// Someone reports one of the families with another type, and it may have it once nobody living reports the first.
    OtherType,
    ForgetShard(u32),
    Scrape(Format, Coding),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Most scrapers ask for the same each time.
    let format = prop_oneof![
        Just(Format::TEXT),
        Just(Format::OPENMETRICS),
        prop::sample::select(page::formats().collect::<Vec<_>>())
    ];
    let scrape = (format, prop::sample::select(vec![Coding::Identity, Coding::Gzip, Coding::Zstd]))
        .prop_map(|(format, coding)| Event::Scrape(format, coding));
    let post = (0..6_u8, 0..2_000_u32, any::<u8>(), any::<u8>()).prop_map(
        |(sender, counts, spread, gauges)| Event::Post { sender, counts, spread, gauges },
    );
    let stream =
        (1..6_u32, 0..3_u32, any::<bool>()).prop_map(|(shard_count, observed, goodbye)| {
            Event::Stream { shard_count, observed, goodbye }
        });
    let event = prop_oneof![
        6 => post,
        2 => stream,
        1 => Just(Event::Forget),
        1 => Just(Event::OtherType),
        1 => (0..3_u32).prop_map(Event::ForgetShard),
        1 => prop_oneof![1..40_u64, 290..400_u64].prop_map(Event::Pass),
        5 => scrape,
    ];
    prop::collection::vec(event, 1..60)
}

/// A body of some hundred series, of which `spread` decides which have changed.
fn body(counts: u32, spread: u8, gauges: u8) -> Vec<ReportedFamily> {
    let series = |label: u32, bounds: &[f64], values: Vec<f64>| ReportedSeries {
        labels: LabelSet::canonical([("l", label.to_string().as_str())], 0, None).unwrap(),
        bounds: Bounds::new(bounds).unwrap(),
        values,
        exemplars: Vec::new(),
        place: registry::BodyPlace::Line(1),
    };
    let family = |name: &str, kind, series| ReportedFamily {
        name: name.into(),
        kind,
        help: "What it is.".into(),
        unit: String::new(),
        series,
    };
    let grows = |n: u32| if n % 7 == u32::from(spread % 7) { counts } else { 5 };
    // Some with an exemplar, that comes and changes.
    let exemplify = |n: u32, bucket, mut series: ReportedSeries| {
        if spread.is_multiple_of(3) && n % 11 == u32::from(spread % 11) {
            let count = counts.to_string();
            let labels = [("trace.id", count.as_str()), ("span", "x")].into_iter();
            let exemplar = Exemplar::new(labels, f64::from(counts) / 3.0, None);
            series.exemplars.push(ReportedExemplar { bucket, exemplar });
        }
        series
    };
    let counters =
        (0..300).map(|n| exemplify(n, 0, series(n, &[], vec![f64::from(grows(n))]))).collect();
    let histograms = (0..9)
        .map(|n| {
            let count = f64::from(grows(n));
            let bounds: &[f64] = if spread > 250 { &[0.5, 1.0, 2.0] } else { &[1.0, 2.0] };
            let mut values = vec![count; bounds.len() + 1];
            values.push(count / 3.0);
            exemplify(n, 1, series(n, bounds, values))
        })
        .collect();
    let held = (0..8).filter(|n| gauges & (1 << n) != 0);
    let beyond = (0..30).map(|n| ReportedSeries {
        labels: LabelSet::canonical([("l.l", n.to_string().as_str()), ("l", "x")], 0, None)
            .unwrap(),
        ..series(n, &[], vec![f64::from(grows(n))])
    });
    let beyond = (0..).zip(beyond).map(|(n, series)| exemplify(n, 0, series)).collect();
    let gauges = held.map(|n| series(n, &[], vec![f64::from(counts) / 7.0])).collect();
    vec![
        family("c_total", COUNTER, counters),
        family("h", HISTOGRAM, histograms),
        family("g", GAUGE, gauges),
        family("utf8.c_total", COUNTER, beyond),
    ]
}

/// What is on a page: per family one block, in which series may come in any order.
fn sorted(format: Format, page: &[u8]) -> Vec<page::Family> {
    let mut families = page::read(format, page);
    for family in &mut families {
        family.samples.sort();
        family.exemplars.sort();
    }
    families
}

fn read(page: &Page) -> Vec<u8> {
    let bytes = page.to_vec();
    match page.coding {
        Coding::Identity => bytes,
        Coding::Gzip => {
            let mut plain = Vec::new();
            let mut decoder = GzDecoder::new(&bytes[..]);
            decoder.read_to_end(&mut plain).unwrap();
            assert!(decoder.into_inner().is_empty(), "one member, and nothing after it");
            plain
        }
        Coding::Zstd => ::zstd::decode_all(&bytes[..]).unwrap(),
    }
}

/// What [`Event::Stream`] says, on the bot's last shard.
fn stream(
    registry: &Registry,
    n: u8,
    shard_count: u32,
    observed: u32,
    goodbye: bool,
    now: UnixTime,
) {
    let (shard_id, instance_id) = (shard_count - 1, [n; 16]);
    let hello = Hello { shard_id, shard_count, instance_id, started_at: now, client: "" };
    // A shard may have as many instances as it can.
    let Ok(attached) = registry.attach(hello, now) else { return };
    let mut writer = attached.writer;
    if observed > 0 {
        let head = FamilyHead { name: "s_total", kind: COUNTER, help: "", unit: "" };
        let bounds = Bounds::none();
        let series = vec![SeriesDefinition { id: 0, labels: LabelSet::default(), bounds }];
        if registry.define(&mut writer, FamilyDefinition { head, series }, now).is_err() {
            return; // the shard's series have other places now
        }
        let samples = Samples { ids: &[0], values: &[f64::from(observed)] };
        let frame = Frame {
            kind: FrameKind::Snapshot,
            sequence: 1,
            samples,
            removed: Samples::default(),
            exemplars: &[],
        };
        writer.apply(frame, now).unwrap();
    }
    if goodbye {
        writer.goodbye(u64::from(observed > 0), now).unwrap();
    }
}

/// A report that says nothing.
fn report_of(shard_id: u32, sender: &str) -> Report<'static> {
    Report {
        shard_id,
        sender: InstanceKey::Named(sender.into()),
        sequence: None,
        started_at: None,
        interval: None,
        scope: Scope::Everything,
        families: &[],
    }
}

/// A family of [`body`] with another type.
fn other_type() -> Vec<ReportedFamily> {
    let mut families = body(7, 0, 1);
    families.retain(|family| family.name == "g");
    for family in &mut families {
        family.name = "h".into();
    }
    families
}

/// Registries with room for all, or not, and with rules.
fn registries() -> impl Strategy<Value = Registry> {
    const RULES: &str = r#"
        [[rules]]
        family = "h|s_total"
        collapse_shards = true
        gauges = "min"
        [[rules]]
        family = "g"
        drop_labels = ["l"]
        gauges = "avg"
        [[rules]]
        family = "utf8.*"
        drop_labels = ["l.l"]
        collapse_shards = true
        type = "counter"
    "#;
    (0..3).prop_map(|kind| {
        let small = Settings {
            max_series_per_family: 290,
            max_series_per_shard: 320,
            ..Settings::default()
        };
        let settings = if kind == 1 { small } else { Settings::default() };
        let rules: BTreeMap<String, Rules> = toml::from_str(RULES).unwrap();
        let rules = rules.into_values().next().filter(|_| kind == 2).unwrap_or_default();
        let names = reserved(&own());
        let names = names.iter().map(|(name, kind)| (name.as_str(), *kind));
        Registry::with_rules(settings, names, rules)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_kept_page_is_the_page(events in events(), registry in registries()) {
        let kept = Exposition::default();
        let mut now = at(0);
        for (n, event) in (0..).zip(&events) {
            match event {
                Event::Stream { shard_count, observed, goodbye } => {
                    stream(&registry, n, *shard_count, *observed, *goodbye, now);
                }
                Event::Forget => kept.forget_unused(now),
                Event::ForgetShard(id) => drop(registry.forget(*id, now)),
                Event::OtherType => {
                    registry.yield_types(now);
                    let families = other_type();
                    let report = Report { families: &families, ..report_of(2, "other") };
                    let _ = registry.report(&[report], now);
                }
                Event::Pass(seconds) => now = now + Duration::from_secs(*seconds),
                Event::Post { sender, counts, spread, gauges } => {
                    let families = body(*counts, *spread, *gauges);
                    let report = Report {
                        // Some are heard of for longer than others.
                        interval: (sender % 3 == 1).then_some(Duration::from_secs(25)),
                        families: &families,
                        ..report_of(u32::from(sender / 2), &sender.to_string())
                    };
                    // One that was folded is refused; that changes nothing either.
                    let _ = registry.report(&[report], now);
                }
                Event::Scrape(format, coding) => {
                    let page = kept.render(&registry, &own(), now, (*format, *coding));
                    let fresh = render(&registry, &own(), now, *format).to_vec();
                    let read = read(&page);
                    prop_assert_eq!(sorted(*format, &read), sorted(*format, &fresh));
                    prop_assert_eq!(read.len(), fresh.len());
                }
            }
        }
    }
}

/// The lines of a histogram stand together even when their chunk is put together anew.
#[test]
fn a_page_that_is_being_sent_does_not_change() {
    let registry = registry();
    let kept = Exposition::default();
    let scrape = |now| kept.render(&registry, &[], now, (Format::TEXT, Coding::Identity));
    let post = |count: u32| {
        let families = body(count, 0, 1);
        let report = Report { families: &families, ..report_of(0, "a") };
        registry.report(&[report], at(0)).unwrap();
    };
    post(10);
    let first = scrape(at(0));
    let before = first.to_vec();
    for count in [11, 12, 100, 101] {
        post(count);
        scrape(at(0));
    }
    assert_eq!(first.to_vec(), before);
    assert_ne!(scrape(at(0)).to_vec(), before);
}

/// Frames come while a large shard is looked at, some of whose series were looked at already.
#[test]
fn what_changes_during_a_scrape_is_on_the_next() {
    let registry = registry();
    let kept = Exposition::default();
    let hello =
        Hello { shard_id: 0, shard_count: 1, instance_id: [1; 16], started_at: at(0), client: "" };
    let mut writer = registry.attach(hello, at(0)).unwrap().writer;
    for (n, name) in (0..).zip(["a_total", "b_total", "c_total"]) {
        let series = (0..1_600).map(|id| SeriesDefinition {
            id: n * 1_600 + id,
            labels: LabelSet::canonical([("l", id.to_string().as_str())], 0, None).unwrap(),
            bounds: Bounds::none(),
        });
        let head = FamilyHead { name, kind: COUNTER, help: "", unit: "" };
        let definition = FamilyDefinition { head, series: series.collect() };
        registry.define(&mut writer, definition, at(0)).unwrap();
    }
    let ids: Vec<_> = (0..writer.ids() as u32).collect();
    let mut apply = |sequence: u64| {
        let values = vec![sequence as f64; ids.len()];
        let frame = Frame {
            kind: if sequence == 1 { FrameKind::Snapshot } else { FrameKind::Delta },
            sequence,
            samples: Samples { ids: &ids, values: &values },
            removed: Samples::default(),
            exemplars: &[],
        };
        writer.apply(frame, at(0)).unwrap();
    };
    let page = || kept.render(&registry, &[], at(0), (Format::TEXT, Coding::Identity)).to_vec();
    for round in 0..20 {
        std::thread::scope(|scope| {
            let frames = scope.spawn(|| (1..=5).for_each(|n| apply(round * 5 + n)));
            while !frames.is_finished() {
                page();
            }
        });
        let fresh = render(&registry, &[], at(0), Format::TEXT).to_vec();
        assert!(sorted(Format::TEXT, &page()) == sorted(Format::TEXT, &fresh), "round {round}");
    }
}
