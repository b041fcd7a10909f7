//! Bodies, well-formed and mutated, parsed by the manager and by Python's client library: both read the same, or both refuse. Where
//! they differ on purpose, the table in [`differences`] says why.

mod differences;
mod generated;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use fastrand::Rng;
use serde_json::{Value, json};
use shardmeter_manager::{
    clock::UnixTime,
    ingest::{Identity, Post, Text, ingest},
    model::{MetricType, unescape},
    registry::{Registry, SeriesView, Settings},
};

use crate::tools::{python, root, seed, variable};
use differences::{DIFFERENCES, Difference, Side, is_known};

/// Values by name and labels, as they are spelled in Rust.
type Samples = BTreeMap<(String, BTreeMap<String, String>), String>;

/// What a parser makes of a body.
#[derive(Debug, PartialEq)]
enum Parsed {
    Samples(Samples),
    Refused(String),
}

/// Whether a body is OpenMetrics: it ends as only that does.
fn is_openmetrics(body: &str) -> bool {
    let body = body.trim_ascii_end();
    body == "# EOF" || body.ends_with("\n# EOF")
}

/// Python's parsers, in one process.
struct Python {
    process: Child,
    says: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Self {
        let mut process = Command::new(python("python"))
            .arg(root().join("integration/python/parse_bodies.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("python does not start ({error}); run scripts/setup"));
        let says = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, says, answers }
    }

    fn parse(&mut self, body: &str) -> Parsed {
        writeln!(self.says, "{}", json!([is_openmetrics(body), body])).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("no answer of Python's");
        if let Some(error) = answer["error"].as_str() {
            return Parsed::Refused(error.to_owned());
        }
        let samples = answer["samples"].as_array().unwrap().iter().map(|sample| {
            let labels = sample[1].as_object().unwrap().iter();
            let labels =
                labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
            let value = sample[2].as_str().unwrap().parse().unwrap();
            let name = sample[0].as_str().unwrap();
            of(counted(name, is_openmetrics(body)), labels, value)
        });
        Parsed::Samples(samples.collect())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A sample, however its bound is spelled; a label without a value is none.
fn of(
    name: String,
    labels: impl Iterator<Item = (String, String)>,
    value: f64,
) -> ((String, BTreeMap<String, String>), String) {
    let labels = labels.filter(|(_, value)| !value.is_empty()).map(|(label, value)| {
        let bound =
            if label == "le" || label == "quantile" { value.parse::<f64>().ok() } else { None };
        (label, bound.map_or(value, |bound| format!("{:?}", bound + 0.0)))
    });
    ((name, labels.collect()), format!("{:?}", value + 0.0))
}

/// What the manager makes of a body, and whether it took all of it.
fn ours(body: &str) -> (Parsed, bool) {
    let registry = Registry::new(Settings::default(), []);
    let now = UnixTime::from_duration(Duration::from_secs(1_700_000_000));
    let post = Post {
        shards: "0".parse().unwrap(),
        identity: Identity::Named("a"),
        sequence: None,
        interval: None,
    };
    let taken = match ingest(&registry, &post, Text::Plain(body), now) {
        Ok(taken) => taken,
        Err(error) => return (Parsed::Refused(error.to_string()), true),
    };
    let mut samples = Samples::new();
    registry.visit(now, |shard| {
        for (family, series) in shard.families() {
            for one in series {
                let is_openmetrics = is_openmetrics(body);
                put(&mut samples, &family.name, family.kind, &one, |n| counted(n, is_openmetrics));
            }
        }
    });
    (Parsed::Samples(samples), taken.rejected.is_empty())
}

/// Python's parser of text gives some counters the suffix, and some not.
fn counted(name: &str, is_openmetrics: bool) -> String {
    let stem = if is_openmetrics { name } else { name.strip_suffix("_total").unwrap_or(name) };
    stem.to_owned()
}

fn put(
    samples: &mut Samples,
    name: &str,
    kind: MetricType,
    series: &SeriesView<'_>,
    counted: impl Fn(&str) -> String,
) {
    let labels: Vec<_> =
        unescape(series.labels).map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
    let mut put = |name: String, bound: Option<(&str, &str)>, value: f64| {
        let bound = bound.map(|(name, value)| (name.to_owned(), value.to_owned()));
        samples.extend([of(counted(&name), labels.iter().cloned().chain(bound), value)]);
    };
    let label = match kind {
        MetricType::Histogram => "le",
        MetricType::Summary => "quantile",
        _ => return put(name.to_owned(), None, series.values[0]),
    };
    let [bounded @ .., count, sum] = series.values else { panic!("{series:?}") };
    let of_bounds =
        if kind == MetricType::Histogram { format!("{name}_bucket") } else { name.to_owned() };
    for (bound, value) in series.bounds.spellings().zip(bounded) {
        put(of_bounds.clone(), Some((label, bound)), *value);
    }
    if kind == MetricType::Histogram {
        put(of_bounds, Some((label, "+Inf")), *count);
    }
    put(format!("{name}_count"), None, *count);
    put(format!("{name}_sum"), None, *sum);
}

/// The difference between what both make of a body, if there is one.
fn difference(body: &str, ours: &(Parsed, bool), theirs: &Parsed) -> Option<Difference> {
    let differs = |manager, says: &str| Some(Difference { manager, says: says.to_owned() });
    let (ours, complete) = ours;
    match (ours, theirs) {
        (Parsed::Refused(_), Parsed::Refused(_)) => None,
        (Parsed::Samples(_), Parsed::Refused(why)) => differs(Side::Takes, why),
        (Parsed::Refused(why), Parsed::Samples(_)) => differs(Side::Refuses, why),
        (Parsed::Samples(ours), Parsed::Samples(theirs)) => {
            // A histogram has both, whichever of them a body has.
            let is_implied = |(name, labels): &(String, BTreeMap<String, String>)| {
                name.ends_with("_count") || labels.get("le").is_some_and(|le| le == "inf")
            };
            let more = ours.iter().find(|(key, value)| match theirs.get(*key) {
                Some(other) => other != *value,
                None => !is_implied(key),
            });
            // What was rejected in part is for other tests.
            let fewer = theirs.iter().find(|(key, _)| *complete && !ours.contains_key(*key));
            let (key, _) = more.or(fewer)?;
            if is_openmetrics(body) && has_value_at_brace(body) {
                return differs(Side::Values, "a value right behind a brace");
            }
            differs(Side::Values, &format!("{key:?}: {:?}, {:?}", ours.get(key), theirs.get(key)))
        }
    }
}

/// Whether a number follows a closing brace without a blank.
fn has_value_at_brace(body: &str) -> bool {
    let begins_number = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    body.split('}').skip(1).any(|behind| behind.starts_with(begins_number))
}

/// 2,000 bodies; as many as `BODIES` says, of the numbers of `SEED`.
#[test]
fn bodies_are_read_as_python_reads_them() {
    let rng = &mut Rng::with_seed(seed());
    let mut python = Python::start();
    let (mut taken, mut refused, mut unknown) = (0, 0, BTreeMap::new());
    for _ in 0..variable("BODIES").unwrap_or(2_000) {
        let body = generated::body(rng);
        let (ours, theirs) = (ours(&body), python.parse(&body));
        match (&ours.0, difference(&body, &ours, &theirs)) {
            (Parsed::Samples(_), None) => taken += 1,
            (Parsed::Refused(_), None) => refused += 1,
            (_, Some(difference)) if is_known(&difference) => {}
            (_, Some(difference)) => drop(unknown.insert(difference, body)),
        }
    }
    assert!(
        unknown.is_empty(),
        "{} differences that are not in the table: {unknown:#?}",
        unknown.len()
    );
    eprintln!("both took {taken} bodies and refused {refused}");
    assert!(taken > 0 && refused > 0, "the bodies are all of one kind");
}

/// A row of the table that never occurs is of no use.
#[test]
fn every_difference_occurs() {
    let mut python = Python::start();
    let never: Vec<_> = DIFFERENCES
        .iter()
        .filter_map(|row| {
            let (ours, theirs) = (ours(row.example), python.parse(row.example));
            let difference = difference(row.example, &ours, &theirs);
            let is_so = difference.as_ref().is_some_and(|difference| row.is_of(difference));
            (!is_so).then_some((row.example, ours, theirs))
        })
        .collect();
    assert!(never.is_empty(), "rows that do not say what is so: {never:#?}");
}
