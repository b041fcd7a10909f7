//! The ledger alone: frames are applied to a model of the receiver, which must end up with the registry's truth.

use super::model::{Key, Known, Receiver};
use super::*;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntGauge, Opts, Registry};
use shardmeter_proto::v1::report_request::Message;

/// A registry, its ledger, and a receiver that is connected.
struct Pair {
    registry: Registry,
    counter: CounterVec,
    gauge: GaugeVec,
    histogram: HistogramVec,
    ledger: Ledger,
    receiver: Receiver,
}

impl Pair {
    fn new() -> Self {
        let registry = Registry::new();
        let counter = CounterVec::new(Opts::new("c_total", "A counter"), &["k"]).unwrap();
        let gauge = GaugeVec::new(Opts::new("g", "A gauge"), &["k"]).unwrap();
        let buckets = HistogramOpts::new("h_seconds", "A histogram").buckets(vec![1.0, 2.0]);
        let histogram = HistogramVec::new(buckets, &["k"]).unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        registry.register(Box::new(histogram.clone())).unwrap();
        Self {
            registry,
            counter,
            gauge,
            histogram,
            ledger: Ledger::new([1; 16]),
            receiver: Receiver::default(),
        }
    }

    fn gather(&mut self) {
        self.ledger.gather(&self.registry.gather());
    }

    fn open(&mut self, limits: Option<Limits>) {
        self.receiver.new_stream();
        self.ledger.open(self.receiver.last_sequence, limits);
    }

    fn frame(&mut self) -> Frame {
        self.gather();
        self.ledger.frame().expect("ids are left")
    }

    /// A frame that arrives.
    fn apply(&mut self) -> Frame {
        let frame = self.frame();
        for message in &frame.messages {
            self.receiver.apply(message);
        }
        frame
    }

    /// A frame that arrives and whose acknowledgement does.
    fn report(&mut self) -> Frame {
        let frame = self.apply();
        self.ledger.acknowledge();
        frame
    }

    fn known(&self, family: &str, k: &str) -> &Known {
        let labels = if k.is_empty() { vec![] } else { vec![("k".to_owned(), k.to_owned())] };
        let key: Key = (family.to_owned(), labels);
        self.receiver.series.get(&key).unwrap_or_else(|| panic!("{key:?} is unknown"))
    }

    fn count(&self, k: &str) -> f64 {
        self.known("c_total", k).values[0]
    }
}

fn has_snapshot(frame: &Frame) -> bool {
    frame.messages.iter().any(|message| matches!(message, Message::Snapshot(_)))
}

fn delta(frame: &Frame) -> &Delta {
    match frame.messages.last() {
        Some(Message::Delta(delta)) => delta,
        other => panic!("not a delta: {other:?}"),
    }
}

#[test]
fn a_snapshot_says_everything_and_a_delta_only_what_changed() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc_by(3.0);
    pair.counter.with_label_values(&["b"]).inc_by(4.0);
    pair.gauge.with_label_values(&["a"]).set(-1.5);
    pair.histogram.with_label_values(&["a"]).observe(1.5);
    pair.histogram.with_label_values(&["a"]).observe(99.0);
    pair.open(None);
    let first = pair.report();
    assert!(has_snapshot(&first));
    assert_eq!(first.sequence, 1);
    assert_eq!(pair.receiver.named, (4, 0));
    assert_eq!(pair.known("h_seconds", "a").bounds, [1.0, 2.0]);
    assert_eq!(pair.known("h_seconds", "a").values, [0.0, 1.0, 2.0, 100.5]);

    let idle = pair.report();
    assert_eq!(delta(&idle), &Delta { sequence: 2, ..Delta::default() });
    assert_eq!(idle.messages.len(), 1, "no definitions either");

    pair.counter.with_label_values(&["b"]).inc();
    pair.counter.with_label_values(&["new"]).inc();
    let changed = pair.report();
    assert_eq!(changed.messages.len(), 2, "one series is new");
    assert_eq!(delta(&changed).samples.as_ref().unwrap().values, [5.0, 1.0]);
}

#[test]
fn nan_and_infinity_travel_and_count_as_unchanged() {
    let mut pair = Pair::new();
    pair.gauge.with_label_values(&["nan"]).set(f64::NAN);
    pair.gauge.with_label_values(&["inf"]).set(f64::NEG_INFINITY);
    pair.gauge.with_label_values(&["zero"]).set(0.0);
    pair.open(None);
    pair.report();
    assert!(pair.known("g", "nan").values[0].is_nan());
    assert_eq!(delta(&pair.report()).samples, None);
    pair.gauge.with_label_values(&["zero"]).set(-0.0);
    assert_eq!(delta(&pair.report()).samples.as_ref().unwrap().values.len(), 1);
    assert!(pair.known("g", "zero").values[0].is_sign_negative());
}

#[test]
fn a_counter_that_falls_or_returns_counts_on() {
    let mut pair = Pair::new();
    pair.open(None);
    pair.counter.with_label_values(&["a"]).inc_by(10.0);
    pair.report();
    pair.counter.with_label_values(&["a"]).reset();
    pair.counter.with_label_values(&["a"]).inc_by(2.0);
    pair.report();
    assert_eq!(pair.count("a"), 12.0);

    pair.counter.remove_label_values(&["a"]).unwrap();
    let removal = pair.report();
    assert_eq!(delta(&removal).removed.as_ref().unwrap().values, [12.0], "its final value");
    assert!(!pair.known("c_total", "a").present);
    assert_eq!(delta(&pair.report()).removed, None, "said once");

    pair.counter.with_label_values(&["a"]).inc_by(5.0);
    let back = pair.report();
    assert_eq!(back.messages.len(), 1, "its id is still defined");
    assert_eq!(pair.count("a"), 17.0);
    assert!(pair.known("c_total", "a").present);
}

#[test]
fn a_histogram_that_returns_counts_on_in_every_bucket() {
    let mut pair = Pair::new();
    pair.open(None);
    pair.histogram.with_label_values(&["a"]).observe(0.5);
    pair.histogram.with_label_values(&["a"]).observe(1.5);
    pair.report();
    pair.histogram.remove_label_values(&["a"]).unwrap();
    pair.report();
    pair.histogram.with_label_values(&["a"]).observe(3.0);
    pair.report();
    assert_eq!(pair.known("h_seconds", "a").values, [1.0, 2.0, 3.0, 5.0]);
}

#[test]
fn a_gauge_that_left_returns_with_the_same_value() {
    let mut pair = Pair::new();
    pair.open(None);
    pair.gauge.with_label_values(&["a"]).set(7.0);
    pair.report();
    pair.gauge.remove_label_values(&["a"]).unwrap();
    pair.report();
    assert!(!pair.known("g", "a").present);
    pair.gauge.with_label_values(&["a"]).set(7.0);
    pair.report();
    assert!(pair.known("g", "a").present);
    assert_eq!(pair.known("g", "a").values, [7.0]);
}

#[test]
fn a_removal_is_repeated_until_it_is_acknowledged() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc();
    pair.open(None);
    pair.report();
    pair.counter.remove_label_values(&["a"]).unwrap();
    pair.frame(); // lost with its stream
    pair.open(None);
    let frame = pair.report();
    assert!(has_snapshot(&frame));
    assert_eq!(pair.receiver.named, (0, 1));
    pair.open(None);
    pair.report();
    assert_eq!(pair.receiver.named, (0, 0));
}

#[test]
fn a_manager_without_memory_learns_counts_of_series_that_left() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc_by(6.0);
    pair.open(None);
    pair.report();
    pair.counter.remove_label_values(&["a"]).unwrap();
    pair.report();
    pair.receiver = Receiver::default();
    pair.open(None);
    pair.report();
    assert_eq!(pair.count("a"), 6.0);
    assert_eq!(pair.receiver.last_sequence, 3, "the sequence goes on");
}

#[test]
fn a_reset_while_the_manager_is_away_loses_nothing() {
    let mut pair = Pair::new();
    pair.open(None);
    pair.counter.with_label_values(&["a"]).inc_by(10.0);
    pair.report();
    pair.counter.with_label_values(&["a"]).inc_by(10.0);
    pair.gather();
    pair.counter.with_label_values(&["a"]).reset();
    pair.counter.with_label_values(&["a"]).inc_by(15.0);
    pair.open(None);
    pair.report();
    assert_eq!(pair.count("a"), 35.0);
}

/// A day of outage in which label sets come and go: what is kept is what the registry has, and each label set that ever
/// counted once, because the manager must still learn that count. Gathers and gauges that left leave nothing.
#[test]
fn an_outage_leaves_no_more_than_the_label_sets_that_counted() {
    const LABEL_SETS: usize = 20;
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["before"]).inc();
    pair.open(None);
    pair.report();
    for tick in 0..8_640 {
        let counted = format!("{}", tick % LABEL_SETS);
        let shown = format!("{tick}");
        pair.counter.with_label_values(&[&counted]).inc();
        pair.gauge.with_label_values(&[&shown]).set(1.0);
        pair.gather();
        pair.counter.remove_label_values(&[&counted]).unwrap();
        pair.gauge.remove_label_values(&[&shown]).unwrap();
    }
    pair.gather();
    let kept = pair.ledger.families.values().map(|family| family.series.len()).sum::<usize>();
    assert_eq!(kept, 1 + LABEL_SETS);
    pair.open(None);
    pair.report();
    assert_eq!(pair.receiver.named, (1, LABEL_SETS), "each once, in one snapshot");
    assert_eq!(pair.count("7"), 432.0);
}

#[test]
fn a_snapshot_goes_beyond_every_sequence_either_side_knows() {
    let mut pair = Pair::new();
    pair.open(None);
    pair.report();
    pair.frame();
    pair.ledger.resync();
    assert_eq!(pair.frame().sequence, 3);
    pair.ledger.open(41, None);
    assert_eq!(pair.frame().sequence, 42);
    pair.ledger.open(u64::MAX, None);
    assert_eq!(pair.frame().sequence, u64::MAX, "and does not overflow");
}

#[test]
fn a_resync_is_answered_with_a_snapshot_until_one_is_acknowledged() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc();
    pair.open(None);
    pair.report();
    pair.ledger.resync();
    let frame = pair.apply();
    assert!(has_snapshot(&frame));
    assert_eq!(frame.messages.len(), 1, "ids stay defined");
    pair.ledger.acknowledge();
    assert!(!has_snapshot(&pair.report()));
}

#[test]
fn long_frames_go_in_parts_below_the_limit() {
    use prost::Message as _;
    use shardmeter_proto::v1::ReportRequest;
    let limits = Limits { max_message_bytes: 256, max_series_ids: 1_000 };
    let mut pair = Pair::new();
    pair.open(Some(limits));
    let bump = |pair: &Pair| {
        for n in 0..100 {
            pair.counter.with_label_values(&[&format!("label-{n}")]).inc_by(f64::from(n));
            pair.histogram.with_label_values(&[&format!("label-{n}")]).observe(1.0);
        }
    };
    bump(&pair);
    let sizes = |frame: &Frame| -> Vec<usize> {
        let wrapped = |message: &Message| ReportRequest {
            message: Some(message.clone()),
            ..ReportRequest::default()
        };
        frame.messages.iter().map(|message| wrapped(message).encoded_len()).collect()
    };
    let first = pair.report();
    assert!(first.messages.len() > 20);
    assert!(sizes(&first).iter().all(|size| *size <= 256), "{:?}", sizes(&first));
    assert_eq!(pair.receiver.named, (200, 0));
    assert_eq!(pair.count("label-99"), 99.0);

    bump(&pair);
    let second = pair.report();
    assert!(has_snapshot(&second), "a delta of that length has to be a snapshot");
    assert!(sizes(&second).iter().all(|size| *size <= 256));
    assert_eq!(pair.count("label-99"), 198.0);
    assert!(!has_snapshot(&pair.report()));
}

#[test]
fn a_series_that_fits_into_no_message_stays_out_alone() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&[&"x".repeat(500)]).inc();
    pair.counter.with_label_values(&["a"]).inc();
    pair.open(Some(Limits { max_message_bytes: 300, max_series_ids: 0 }));
    pair.report();
    assert_eq!(pair.receiver.series.len(), 1);
    assert_eq!(pair.count("a"), 1.0);
}

#[test]
fn a_new_stream_is_asked_for_when_it_would_have_ids_again() {
    let limits = Some(Limits { max_message_bytes: 0, max_series_ids: 2 });
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc();
    pair.counter.with_label_values(&["b"]).inc();
    pair.open(limits);
    pair.report();
    pair.counter.with_label_values(&["c"]).inc();
    pair.report();
    assert_eq!(pair.receiver.series.len(), 2, "no stream has room for three");
    pair.counter.remove_label_values(&["a"]).unwrap();
    pair.gather();
    pair.ledger.frame().expect("the removal needs no id");
    pair.ledger.acknowledge();
    pair.gather();
    assert_eq!(pair.ledger.frame().unwrap_err(), IdsExhausted);
    pair.receiver.last_sequence = 3;
    pair.open(limits);
    pair.report();
    assert_eq!(pair.count("c"), 1.0);
    pair.report();
}

#[test]
fn a_closed_instance_is_followed_by_one_that_counts_from_there() {
    for (last_applied, rest) in [(1, 7.0), (2, 2.0)] {
        let mut pair = Pair::new();
        pair.open(None);
        pair.counter.with_label_values(&["a"]).inc_by(10.0);
        pair.histogram.with_label_values(&["a"]).observe(0.5);
        pair.gauge.with_label_values(&["a"]).set(3.0);
        pair.counter.with_label_values(&["gone"]).inc_by(4.0);
        pair.report();
        pair.counter.with_label_values(&["a"]).inc_by(5.0);
        pair.counter.remove_label_values(&["gone"]).unwrap();
        pair.frame(); // applied or not: the closing says
        pair.counter.with_label_values(&["a"]).inc_by(2.0);
        pair.histogram.with_label_values(&["a"]).observe(1.5);
        pair.gather();

        pair.receiver = Receiver::default();
        pair.ledger.restart([2; 16], last_applied);
        pair.open(None);
        let first = pair.report();
        assert_eq!(first.sequence, 1);
        assert_eq!(pair.ledger.instance_id(), &[2; 16]);
        assert_eq!(pair.count("a"), rest, "closed at {last_applied}");
        assert_eq!(pair.known("h_seconds", "a").values, [0.0, 1.0, 1.0, 1.5]);
        assert_eq!(pair.known("g", "a").values, [3.0]);
        pair.counter.with_label_values(&["gone"]).inc();
        pair.report();
        assert_eq!(pair.count("gone"), 1.0);
    }
}

#[test]
fn an_instance_closed_before_its_first_frame_starts_over_whole() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc_by(10.0);
    pair.open(None);
    pair.report();
    pair.receiver = Receiver::default();
    pair.ledger.restart([2; 16], 0);
    pair.open(None);
    pair.report();
    assert_eq!(pair.count("a"), 10.0);
}

#[test]
fn a_series_repeated_in_another_registry_is_left_out() {
    let mut pair = Pair::new();
    let other = Registry::new();
    let twin = CounterVec::new(Opts::new("c_total", "A counter"), &["k"]).unwrap();
    other.register(Box::new(twin.clone())).unwrap();
    pair.counter.with_label_values(&["a"]).inc_by(10.0);
    twin.with_label_values(&["a"]).inc_by(99.0);
    twin.with_label_values(&["b"]).inc_by(1.0);
    pair.open(None);
    for _ in 0..2 {
        let mut families = pair.registry.gather();
        families.extend(other.gather());
        pair.ledger.gather(&families);
        for message in pair.ledger.frame().unwrap().messages {
            pair.receiver.apply(&message);
        }
        pair.ledger.acknowledge();
        assert_eq!((pair.count("a"), pair.count("b")), (10.0, 1.0));
    }
}

#[test]
fn a_family_that_changes_its_type_is_left_out_while_the_old_one_counts() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc_by(2.0);
    pair.open(None);
    pair.report();
    pair.registry.unregister(Box::new(pair.counter.clone())).unwrap();
    let impostor = GaugeVec::new(Opts::new("c_total", "A counter"), &["k"]).unwrap();
    impostor.with_label_values(&["a"]).set(1.0);
    pair.registry.register(Box::new(impostor)).unwrap();
    pair.report();
    assert_eq!(pair.known("c_total", "a").kind, MetricType::Counter);
    assert_eq!(pair.known("c_total", "a").values, [2.0]);
}

#[test]
fn a_gauge_family_that_left_may_return_as_a_counter_on_the_next_stream() {
    let mut pair = Pair::new();
    let gauge = IntGauge::new("x", "First a gauge").unwrap();
    pair.registry.register(Box::new(gauge.clone())).unwrap();
    pair.open(None);
    pair.report();
    pair.registry.unregister(Box::new(gauge)).unwrap();
    let counter = prometheus::IntCounter::new("x", "First a gauge").unwrap();
    pair.registry.register(Box::new(counter)).unwrap();
    pair.report();
    pair.receiver.series.clear();
    pair.open(None);
    pair.report();
    assert_eq!(pair.known("x", "").kind, MetricType::Counter);
}

#[test]
fn a_rejection_is_news_once() {
    let mut pair = Pair::new();
    pair.counter.with_label_values(&["a"]).inc();
    pair.gather();
    assert!(pair.ledger.note_rejected("c_total"));
    assert!(!pair.ledger.note_rejected("c_total"));
    assert!(!pair.ledger.note_rejected("never_reported"), "or the manager could fill our memory");
}

mod odd;
mod properties;
