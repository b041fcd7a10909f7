//! Two registries are told the same: one keeps previous bodies, the other reads every body as a whole. Nobody can tell them
//! apart, whatever is posted.

use std::{fmt::Write as _, sync::Arc};

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{ingest::ingest, registry::Change as Recorded};

/// Spellings of numbers that gauges have; all are in the format.
const GAUGES: [&str; 16] = [
    "0",
    "-0",
    "1.5",
    "+Inf",
    "-Inf",
    "NaN",
    "1e3",
    "5.0",
    "5",
    "007",
    "123456789012345678",
    "0.1",
    "inf",
    "1e400",
    "infinity",
    "-1700000000.123456",
];

/// What may stand where a value should; some are values.
const ODD: [&str; 16] = [
    "", "x", "1x", "1_0", "0x10", "1 2", "1 x", "--1", "1\u{e9}", "1\t", "-1", "NaN", "1\r", "1}",
    "\"1\"", "99999999",
];

/// A sender: shards, name, whether it states the start of its process, numbers its reports, and how it posts.
const SENDERS: [(&str, Option<&str>, bool, bool, Route); 8] = [
    ("0", Some("a"), false, true, Route::Plain),
    ("0", None, true, false, Route::Plain),
    ("0", None, false, false, Route::Json),
    ("0-3", Some("b"), true, true, Route::Json),
    ("0-3", None, false, false, Route::Ascii),
    // Those are others of above, by another way.
    ("2", Some("b"), false, false, Route::Json),
    ("0", Some("a"), false, true, Route::Ascii),
    ("0", None, true, false, Route::Json),
];

#[derive(Clone, Copy, PartialEq)]
enum Route {
    Plain,
    Json,
    /// JSON with all that is not ASCII escaped.
    Ascii,
}

#[derive(Debug, Clone)]
enum Event {
    Post {
        sender: usize,
        change: Change,
        /// Stands for one value, this time.
        odd: Option<(Index, usize)>,
        /// Its number is so much below the next.
        late: u64,
    },
    Pass(u64),
    /// Others come to shard 0.
    Crowd(u8),
}

/// What is other about a body than about the one before.
#[derive(Debug, Clone)]
enum Change {
    /// Every n-th value rises.
    Values {
        seed: u64,
        nth: u64,
    },
    /// All counts begin anew; the process began so much later.
    Restart(i8),
    /// One count falls.
    Fall(Index),
    Shape(Shape),
    /// The lines are as they were at first.
    Unshape,
    LineEnds(bool, bool),
    Interval(u64),
}

#[derive(Debug, Clone)]
enum Shape {
    Remove(Index),
    Repeat(Index),
    Swap(Index, Index),
    Relabel(Index),
    Comment(Index),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<Index>;
    let shape = prop_oneof![
        2 => index().prop_map(Shape::Remove),
        1 => index().prop_map(Shape::Repeat),
        2 => (index(), index()).prop_map(|(a, b)| Shape::Swap(a, b)),
        2 => index().prop_map(Shape::Relabel),
        1 => index().prop_map(Shape::Comment),
    ];
    let change = prop_oneof![
        20 => (any::<u64>(), 1..9_u64).prop_map(|(seed, nth)| Change::Values { seed, nth }),
        1 => (-2..9_i8).prop_map(Change::Restart),
        2 => index().prop_map(Change::Fall),
        2 => shape.prop_map(Change::Shape),
        3 => Just(Change::Unshape),
        1 => any::<(bool, bool)>().prop_map(|(crlf, end)| Change::LineEnds(crlf, end)),
        1 => prop_oneof![Just(0), Just(5), Just(60)].prop_map(Change::Interval),
    ];
    // Mostly a few, so that they have a previous body.
    let sender = prop_oneof![3 => 0..SENDERS.len(), 2 => Just(0), 2 => Just(3), 2 => Just(2)];
    let odd = prop::option::weighted(0.15, (index(), 0..ODD.len()));
    let late = prop_oneof![20 => Just(0), 1 => 1..5_u64, 1 => Just(50)];
    let post = (sender, change, odd, late).prop_map(|(sender, change, odd, late)| Event::Post {
        sender,
        change,
        odd,
        late,
    });
    prop_oneof![
        20 => post,
        3 => prop_oneof![4 => 1..20_u64, 2 => Just(31), 1 => Just(3601)].prop_map(Event::Pass),
        1 => (0..7_u8).prop_map(Event::Crowd),
    ]
}

/// What a line says before its value, and its value; a comment has none.
type Line = (String, String);

struct Client {
    number: usize,
    /// By place in the body.
    counts: Vec<u64>,
    gauges: Vec<usize>,
    shapes: Vec<Shape>,
    start: i64,
    crlf: bool,
    ends: bool,
    interval: u64,
    sequence: u64,
}

impl Client {
    fn new(number: usize) -> Self {
        let (counts, gauges) = (vec![5; 20], vec![0; 20]);
        Self {
            number,
            counts,
            gauges,
            shapes: Vec::new(),
            start: 1_600_000_000,
            crlf: false,
            ends: true,
            interval: 0,
            sequence: 100,
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Values { seed, nth } => {
                let mut random = *seed;
                let mut next = || {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    random >> 33
                };
                for count in &mut self.counts {
                    *count += if next() % nth == 0 { next() % 2000 } else { 0 };
                }
                for gauge in &mut self.gauges {
                    *gauge = if next() % nth == 0 { next() as usize } else { *gauge };
                }
            }
            Change::Restart(later) => {
                self.counts.fill(1);
                self.start += i64::from(*later);
                self.sequence = if *later > 4 { 1 } else { self.sequence };
            }
            Change::Fall(which) => *which.get_mut(&mut self.counts) /= 2,
            Change::Shape(shape) => self.shapes.push(shape.clone()),
            Change::Unshape => self.shapes.clear(),
            Change::LineEnds(crlf, ends) => (self.crlf, self.ends) = (*crlf, *ends),
            Change::Interval(seconds) => self.interval = *seconds,
        }
    }

    fn lines(&self) -> Vec<Line> {
        let (shards, _, has_start, ..) = SENDERS[self.number];
        let mut lines: Vec<Line> = Vec::new();
        let mut comment = |text: &str| lines.push((text.to_owned(), String::new()));
        comment("# HELP c_total Counts.");
        comment("# TYPE c_total counter");
        let mut counts = self.counts.iter();
        let mut count = || *counts.next().unwrap();
        let mut gauges = self.gauges.iter().map(|gauge| GAUGES[gauge % GAUGES.len()].to_owned());
        let mut sample = |head: &str, value: String| lines.push((format!("{head} "), value));
        for labels in ["", "{l=\"x\"}", "{l=\"y \\\"q\\\" ü🦀/\\\\\"}", "{l=\"shard_id\",m=\"\"}"]
        {
            sample(&format!("c_total{labels}"), count().to_string());
        }
        if shards != "0" {
            sample("c_total{shard_id=\"3\",l=\"z\"}", count().to_string());
            sample("c_total{shard_id=\"1\"}", count().to_string());
        }
        for labels in ["", "k=\"v\","] {
            sample("# TYPE", if labels.is_empty() { "h histogram" } else { "other gauge" }.into());
            let (low, middle, all) = (count(), count(), count());
            let braced = if labels.is_empty() { "" } else { "{k=\"v\"}" };
            sample(&format!("h_bucket{{{labels}le=\"0.5\"}}"), low.to_string());
            sample(&format!("h_count{braced}"), (low + middle + all).to_string());
            sample(&format!("h_bucket{{{labels}le=\"1\"}}"), (low + middle).to_string());
            sample(&format!("h_bucket{{{labels}le=\"+Inf\"}}"), (low + middle + all).to_string());
            sample(&format!("h_sum{braced}"), (low as f64 * 0.3).to_string());
        }
        sample("# TYPE", "s summary".into());
        sample("s{quantile=\"0.5\"}", gauges.next().unwrap());
        sample("s_sum", gauges.next().unwrap());
        sample("s_count", count().to_string());
        sample("# TYPE", "g gauge".into());
        for labels in ["", "{shard_id=\"1\"}", "{shard_id=\"3\",l=\"x\"}", "{shard_id=\"9\"}"] {
            sample(&format!("g{labels}"), gauges.next().unwrap());
        }
        sample("untyped", gauges.next().unwrap());
        if has_start {
            sample("process_start_time_seconds", format!("{}.5", self.start));
        }
        lines.push((String::new(), String::new()));
        for shape in &self.shapes {
            reshape(&mut lines, shape);
        }
        lines
    }

    fn text(&self, odd: Option<(Index, usize)>) -> String {
        let mut lines = self.lines();
        if let Some((which, what)) = odd {
            which.get_mut(&mut lines).1 = ODD[what].to_owned();
        }
        let end = if self.crlf { "\r\n" } else { "\n" };
        let mut text: String =
            lines.iter().map(|(head, value)| format!("{head}{value}{end}")).collect();
        if !self.ends {
            text.truncate(text.trim_end().len());
        }
        text
    }
}

fn reshape(lines: &mut Vec<Line>, shape: &Shape) {
    match shape {
        Shape::Remove(which) => {
            lines.remove(which.index(lines.len()));
        }
        Shape::Repeat(which) => lines.push(which.get(lines).clone()),
        Shape::Swap(a, b) => {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        Shape::Relabel(which) => {
            let (head, _) = which.get_mut(lines);
            *head = head.replace("1\"", "2\"").replace("x\"", "é\"").replace("y ", "x");
        }
        Shape::Comment(which) => lines.insert(which.index(lines.len()), ("#".into(), "c".into())),
    }
}

/// A registry, and what it gave to its sink.
struct Side {
    registry: Registry,
    recorded: Arc<Mutex<String>>,
}

impl Side {
    fn new() -> Self {
        let side = Self { registry: super::registry(), recorded: Arc::default() };
        let recorded = Arc::clone(&side.recorded);
        side.registry.record_to(Box::new(move |changes| {
            let mut recorded = recorded.lock();
            writeln!(recorded, "{changes:?}").unwrap();
            // Now and then it is not durable.
            !recorded.len().is_multiple_of(7)
        }));
        side
    }

    /// All that can be told of it.
    fn told(&self, now: UnixTime) -> String {
        let mut told = std::mem::take(&mut *self.recorded.lock());
        told.push_str(&page(&self.registry, now));
        self.registry.checkpoint(|changes| match changes {
            // Of one random epoch each.
            [Recorded::Events(all)] => writeln!(told, "{} {:?}", all.revision, all.events).unwrap(),
            changes => writeln!(told, "{changes:?}").unwrap(),
        });
        told
    }
}

fn as_one(events: &[Event]) -> u64 {
    let (bodies, quick, plain) = (bodies(), Side::new(), Side::new());
    let mut clients: Vec<_> = (0..SENDERS.len()).map(Client::new).collect();
    let mut now = at(0);
    // Whose body was the last to be applied, if the next can repeat it.
    let mut can_repeat = None;
    // An earlier run may be late in one shard, and taken in another.
    let goes_back =
        |event: &Event| matches!(event, Event::Post { change: Change::Restart(..0), .. });
    let went_back = events.iter().any(goes_back);
    for event in events {
        match event {
            Event::Pass(seconds) => now = now + Duration::from_secs(*seconds),
            Event::Crowd(many) => {
                can_repeat = None;
                for side in [&quick, &plain] {
                    for n in 0..*many {
                        let name = format!("crowd {n}");
                        let shards = "0".parse().unwrap();
                        let post = Post { shards, identity: Identity::Named(&name), ..named() };
                        let _ = ingest(&side.registry, &post, "".into(), now);
                    }
                }
            }
            Event::Post { sender, change, odd, late } => {
                let client = &mut clients[*sender];
                client.change(change);
                client.sequence += 1;
                let (shards, instance, _, is_numbered, route) = SENDERS[*sender];
                let text = client.text(*odd);
                let mut json = serde_json::to_string(&text).unwrap();
                if route == Route::Ascii {
                    json = ascii(&json);
                }
                let body = format!("{{\"shardId\":\"{shards}\",\"metrics\":{json},}}");
                let text =
                    if route == Route::Plain { text.as_str().into() } else { super::json(&body) };
                let post = Post {
                    shards: shards.parse().unwrap(),
                    identity: instance.into(),
                    sequence: is_numbered.then_some(client.sequence.saturating_sub(*late).max(1)),
                    interval: (client.interval > 0).then(|| Duration::from_secs(client.interval)),
                };
                let before = bodies.repeated.get();
                let taken = bodies.ingest(&quick.registry, &post, text, now);
                let repeated = bodies.repeated.get() > before;
                let expected = ingest(&plain.registry, &post, text, now);
                assert_eq!(format!("{taken:?}"), format!("{expected:?}"), "{text:?}");
                let is_plain = odd.is_none() && *late == 0 && !went_back;
                if can_repeat == Some(*sender)
                    && is_plain
                    && matches!(change, Change::Values { .. } | Change::Interval(_))
                {
                    assert!(repeated, "{post:?}\n{text:?}");
                }
                can_repeat = taken
                    .is_ok_and(|taken| is_plain && !taken.late && taken.rejected.is_empty())
                    .then_some(*sender);
            }
        }
        assert_eq!(quick.told(now), plain.told(now), "after {event:?}");
    }
    bodies.repeated.get()
}

fn ascii(json: &str) -> String {
    let mut ascii = String::new();
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(ascii, "\\u{unit:04x}").unwrap();
            }
        }
    }
    ascii
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_previous_bodies_and_without_is_the_same(events in prop::collection::vec(event(), 1..40)) {
        as_one(&events);
    }
}
