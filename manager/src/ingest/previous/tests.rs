//! Bodies that repeat the one before them, and bodies that only look so.

mod differential;

use std::{sync::Barrier, thread::scope};

use super::*;
use crate::{
    exposition::{self, Coding, Exposition, Format},
    ingest::ingest,
    registry::Settings,
};

fn registry() -> Registry {
    Registry::new(Settings::default(), [])
}

fn bodies() -> PreviousBodies {
    PreviousBodies::new(PreviousBodyMetrics::new().unwrap())
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_duration(Duration::from_secs(1_700_000_000 + seconds))
}

fn page(registry: &Registry, now: UnixTime) -> String {
    let page = exposition::render(registry, &[], now, Format::TEXT);
    String::from_utf8(page.to_vec()).unwrap()
}

fn named() -> Post<'static> {
    let shards = "3".parse().unwrap();
    Post { shards, identity: Identity::Named("test"), sequence: None, interval: None }
}

/// A string somewhere in a body.
fn json(body: &str) -> Text<'_> {
    let (_, from) = body.split_once("\"metrics\":").unwrap();
    let (metrics, _) = from.rsplit_once(',').unwrap();
    Text::Json { body: body.as_bytes(), metrics: serde_json::from_str(metrics).unwrap() }
}

/// Posts one body after the other; which of them were taken as repetitions.
fn post_all(texts: &[Text<'_>]) -> Vec<bool> {
    let (registry, ordinary, bodies) = (registry(), registry(), bodies());
    let kept = Exposition::default();
    let kept_page = || {
        let page = kept.render(&registry, &[], at(0), (Format::TEXT, Coding::Identity));
        String::from_utf8(page.to_vec()).unwrap()
    };
    for _ in 0..2 {
        kept_page(); // from the second time on it is kept
    }
    let post = |text: &Text<'_>| {
        let before = bodies.repeated.get();
        let taken = bodies.ingest(&registry, &named(), *text, at(0));
        assert_eq!(taken, ingest(&ordinary, &named(), *text, at(0)));
        assert_eq!(page(&registry, at(0)), page(&ordinary, at(0)));
        assert_eq!(sorted(&kept_page()), sorted(&page(&registry, at(0))));
        bodies.repeated.get() > before
    };
    texts.iter().map(post).collect()
}

/// What differs, a body, the next one, and whether only its values are read.
const PAIRS: &[(&str, &str, &str, bool)] = &[
    ("nothing", "a 1\nb 2\n", "a 1\nb 2\n", true),
    ("nothing, and there is nothing", "", "", true),
    ("a value", "a 1\nb 2\n", "a 1\nb 3\n", true),
    ("a length", "a 1\nb 2\n", "a 100\nb -2.5e-7\n", true),
    ("a length, and the next value is the same", "a 9\nb 2\n", "a 10\nb 2\n", true),
    ("a value that begins as the old one", "a 1\nb 2\n", "a 12\nb 2\n", true),
    ("a value that the old one begins with", "a 12\nb 2\n", "a 1\nb 2\n", true),
    ("the last value, without a line feed", "a 1\nb 2", "a 1\nb 25", true),
    ("carriage returns are there", "a 1\r\nb 2\r\n", "a 1\r\nb 3\r\n", true),
    ("blanks are there", "\ta { b = \"c\" , }  1 \t\n", "\ta { b = \"c\" , }  2 \t\n", true),
    ("comments and blank lines are there", "# c\n\na 1\n#\n", "# c\n\na 2\n#\n", true),
    ("special values", "a 1\nb NaN\nc 1\n", "a NaN\nb -Inf\nc +Inf\n", true),
    ("the spelling alone", "a 1\nb 5\n", "a 1.0\nb 5e0\n", true),
    ("a name", "a 1\n", "b 1\n", false),
    ("a label", "a{l=\"1\"} 1\n", "a{l=\"2\"} 1\n", false),
    ("a help", "# HELP a x\na 1\n", "# HELP a y\na 1\n", false),
    ("a line is gone", "a 1\nb 2\n", "a 1\n", false),
    ("a line is new", "a 1\n", "a 1\nb 2\n", false),
    ("no line feed at the end any more", "a 1\n", "a 1", false),
    ("a comment that had no value", "a 1\n# b 2\n", "a 1\n# b 3\n", false),
    ("a timestamp comes", "a 1\n", "a 1 5\n", false),
    ("a timestamp is there", "a 1 5\n", "a 2 5\n", false),
    ("no value", "a 1\n", "a \n", false),
    ("no number", "a 1\n", "a x1\n", false),
    ("no number of this format", "a 1\n", "a 1_0\n", false),
    ("a value of two words", "a 1\n", "a 1 1\n", false),
    (
        "the start of the process",
        "process_start_time_seconds 5\na 1\n",
        "process_start_time_seconds 6\na 1\n",
        false,
    ),
    (
        "all of a histogram",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 4\nh_sum 5\nh_count 4\n",
        true,
    ),
    (
        "a part of a histogram",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        true,
    ),
    (
        "a bucket is over those above it",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        false,
    ),
    (
        "+Inf is not _count",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 3\nh_count 4\n",
        false,
    ),
    (
        "+Inf alone",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 3\nh_count 2\n",
        false,
    ),
    ("a count below zero", "# TYPE a counter\na 1\n", "# TYPE a counter\na -1\n", false),
    ("a count falls under an identity", "# TYPE a counter\na 5\n", "# TYPE a counter\na 3\n", true),
];

#[test]
fn what_differs_in_values_alone_is_taken_as_a_repetition() {
    for (what, first, second, is_repetition) in PAIRS {
        let texts = [first, second, first].map(|text| Text::Plain(text));
        let repeated = post_all(&texts);
        assert_eq!(repeated[..2], [false, *is_repetition], "{what}");
        let bodies = [first, second, first]
            .map(|text| format!("{{\"metrics\":{},\"x\":1}}", serde_json::json!(text)));
        let in_json = post_all(&bodies.each_ref().map(|body| json(body)));
        assert_eq!(in_json, repeated, "{what}, in JSON");
    }
}

#[test]
fn escapes_of_json_are_not_read() {
    for (what, first, second, is_repetition) in [
        ("nothing", r#""a 1\nb 2\n""#, r#""a 1\nb 2\n""#, true),
        ("a value", r#""a{l=\"ü\\\"\"} 1\nb 2\n""#, r#""a{l=\"ü\\\"\"} 7\nb 22\n""#, true),
        (
            "escapes are there",
            r#""a{l=\"\u00fc\ud83e\udd80\/\u0041\"} 1\nb 2\n""#,
            r#""a{l=\"\u00fc\ud83e\udd80\/\u0041\"} 1\nb 3\n""#,
            true,
        ),
        ("line feeds by number", r#""a 1\u000ab 2\u000A""#, r#""a 2\u000ab 3\u000A""#, true),
        ("an escape in a value", r#""a \u0031\nb 2\n""#, r#""a \u0031\nb 3\n""#, false),
        ("an escape comes into a value", r#""a 1\nb 2\n""#, r#""a 1\nb 2\u0031\n""#, false),
        ("an escape ends a value", r#""a 1\nb 2""#, r#""a 1\nb 21\t""#, false),
        ("another spelling", r#""a{l=\"/\"} 1\n""#, r#""a{l=\"\/\"} 1\n""#, false),
        ("tabs", r#""a\t1\nb\t2\t\n""#, r#""a\t1\nb\t3\t\n""#, true),
    ] {
        let bodies = [first, second].map(|text| format!("{{\"metrics\": {text} , \"x\":1}}"));
        let repeated = post_all(&bodies.each_ref().map(|body| json(body)));
        assert_eq!(repeated, [false, is_repetition], "{what}");
    }
    for broken in ["5", "null", "[]", r#""\ud83e""#] {
        let body = format!("{{\"metrics\":{broken},}}");
        let refused = bodies().ingest(&registry(), &named(), json(&body), at(0));
        assert_eq!(refused, Err(IngestError::NotAString), "{broken}");
    }
}

#[test]
fn every_sender_has_a_previous_body_of_its_own() {
    let (registry, bodies) = (registry(), bodies());
    let repeats = |shards: &str, instance: Option<&str>, text| {
        let shards = shards.parse().unwrap();
        let post = Post { shards, identity: instance.into(), sequence: None, interval: None };
        let before = bodies.repeated.get();
        bodies.ingest(&registry, &post, text, at(0)).unwrap();
        bodies.repeated.get() > before
    };
    let text = Text::Plain("a 1\n");
    let json = json(r#"{"metrics":"a 1\n",}"#);
    for (shards, instance) in [("3", Some("x")), ("3", Some("y")), ("4", Some("x")), ("5", None)] {
        assert!(!repeats(shards, instance, text), "{shards} {instance:?}");
        assert!(repeats(shards, instance, text), "{shards} {instance:?}");
    }
    // The same sender by another route.
    assert!(!repeats("3", Some("x"), json));
    assert!(!repeats("3", Some("x"), text));
    assert!(repeats("3", Some("x"), text));
    assert!(!repeats("3", Some("x"), json));
}

#[test]
fn a_late_body_takes_no_previous_one_s_place() {
    let (registry, bodies) = (registry(), bodies());
    let repeats = |sequence, text: &str| {
        let post = Post { sequence: Some(sequence), ..named() };
        let before = bodies.repeated.get();
        let taken = bodies.ingest(&registry, &post, text.into(), at(0)).unwrap();
        (taken.late, bodies.repeated.get() > before)
    };
    assert_eq!(repeats(5, "a 1\n"), (false, false));
    assert_eq!(repeats(4, "a 2\n"), (true, false));
    assert_eq!(repeats(6, "a 3\n"), (false, true));
}

#[test]
fn bodies_are_counted_and_forgotten() {
    let (registry, bodies) = (registry(), bodies());
    let post = |text: &str, now| bodies.ingest(&registry, &named(), text.into(), now).unwrap();
    assert_eq!(bodies.bytes.get(), 0);
    let body = |value: &str| format!("{}a {value}\n", "# a comment that is long\n".repeat(1000));
    post(&body("1"), at(0));
    let short = bodies.bytes.get();
    assert!((25_000..27_000).contains(&short), "{short}");
    post(&body(&"1".repeat(300)), at(1));
    assert_eq!((bodies.bytes.get(), bodies.repeated.get()), (short + 299, 1));
    // As long as it is used it stays.
    bodies.forget_unused(at(301));
    assert_eq!(bodies.bytes.get(), short + 299);
    bodies.forget_unused(at(302));
    assert_eq!(bodies.bytes.get(), 0);
    // One that cannot be repeated takes no memory.
    for text in ["a 1 5\n".to_owned(), format!("#{}\n", "x".repeat(MAX_BODY_BYTES))] {
        post(&body("1"), at(400));
        assert!(bodies.bytes.get() > 0);
        post(&text, at(400));
        assert_eq!(bodies.bytes.get(), 0);
    }
}

#[test]
fn no_more_is_kept_than_there_is_room_for() {
    let registry = registry();
    let bodies = PreviousBodies { max_bytes: 100_000, ..bodies() };
    let text = format!("#{}\na 1\n", "x".repeat(9_500));
    let most = 10;
    let post = |shard: usize| {
        let shards = shard.to_string().parse().unwrap();
        let post = Post { shards, ..named() };
        bodies.ingest(&registry, &post, text.as_str().into(), at(0)).unwrap();
    };
    (0..most + 3).for_each(post);
    assert_eq!(bodies.by_sender.read().len(), most);
    assert!(bodies.bytes.get() <= bodies.max_bytes);
    // Those who have one keep it.
    (0..most + 3).for_each(post);
    assert_eq!(bodies.repeated.get(), most as u64);
    bodies.forget_unused(at(400));
    assert_eq!(bodies.bytes.get(), 0);
}

/// Two bodies were read at once; the one that was applied first is kept last.
#[test]
fn a_body_that_is_not_what_was_applied_last_is_not_trusted() {
    let (registry, bodies) = (registry(), bodies());
    let texts = ["a 1\nb 1\n", "a 2\nb 2\n"].map(Text::Plain);
    let [first, second] = texts.map(|text| read(&registry, &named(), text, at(0)).unwrap());
    bodies.keep(&named(), texts[1], second, at(0));
    bodies.keep(&named(), texts[0], first, at(0));
    bodies.ingest(&registry, &named(), "a 1\nb 3\n".into(), at(0)).unwrap();
    assert!(page(&registry, at(0)).contains("\na{shard_id=\"3\"} 1\n"));
    assert_eq!(bodies.repeated.get(), 0);
    bodies.ingest(&registry, &named(), "a 1\nb 4\n".into(), at(0)).unwrap();
    assert_eq!(bodies.repeated.get(), 1);
}

/// Two connections of one sender at once, again and again: each body replaces all that was said before, in one order or
/// the other, and the next one is compared with what was really last.
#[test]
fn of_bodies_at_once_one_is_last() {
    const EACH: usize = 4;
    let (registry, bodies) = (registry(), bodies());
    let body = |n: usize| {
        (0..100).map(|gauge| format!("g{gauge} {}\n", n % (gauge + 2))).collect::<String>()
    };
    let gauges = |page: &str| {
        page.lines().filter(|l| l.starts_with('g')).map(|l| format!("{l}\n")).collect::<String>()
    };
    let shown = |n| gauges(&body(n).replace(' ', "{shard_id=\"3\"} "));
    let post = |n| bodies.ingest(&registry, &named(), body(n).as_str().into(), at(0)).unwrap();
    for round in 0..300 {
        let first = 2 * EACH * round;
        let barrier = Barrier::new(2);
        scope(|threads| {
            for thread in 0..2 {
                let (post, barrier) = (&post, &barrier);
                threads.spawn(move || {
                    barrier.wait();
                    (0..EACH).for_each(|n| drop(post(first + thread * EACH + n)));
                });
            }
        });
        let last = [first + EACH - 1, first + 2 * EACH - 1];
        let page = gauges(&page(&registry, at(0)));
        assert!(last.iter().any(|n| sorted(&shown(*n)) == sorted(&page)), "{last:?}: {page}");
        post(last[0]);
        assert_eq!(sorted(&shown(last[0])), sorted(&gauges(&self::page(&registry, at(0)))));
    }
    assert!(bodies.repeated.get() > 500, "{}", bodies.repeated.get());
}

fn sorted(lines: &str) -> Vec<&str> {
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    lines
}

/// The series of its shard have other places by then.
#[test]
fn a_shard_that_was_put_in_order_anew_is_read_as_a_whole() {
    let (registry, bodies) = (registry(), bodies());
    let dead = Post { identity: Identity::Named("dead"), ..named() };
    bodies.ingest(&registry, &dead, "old 1\nolder 2\n".into(), at(0)).unwrap();
    let post = |text: &str, now| bodies.ingest(&registry, &named(), text.into(), now).unwrap();
    post("a 1\nb 2\n", at(60));
    registry.forget(3, at(61)).unwrap();
    let before = bodies.repeated.get();
    post("a 1\nb 3\n", at(62));
    assert_eq!(bodies.repeated.get(), before, "it is not known any more where its series are");
    let page = page(&registry, at(62));
    assert!(
        page.contains("\na{shard_id=\"3\"} 1\n") && page.contains("\nb{shard_id=\"3\"} 3\n"),
        "{page}"
    );
    post("a 1\nb 4\n", at(63));
    assert_eq!(bodies.repeated.get(), before + 1);
}
