//! What a body of an HTTP sender costs, with its previous one kept and without: 250 samples as 100 shards post them, in
//! turn. Medians of the rounds, which are interleaved.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../../bench/src/workload.rs"]
#[expect(dead_code, reason = "the wire's")]
mod shape;

use std::{fmt::Write as _, time::Duration};

use serde_json::value::RawValue;
use shape::{Kind, SERIES_PER_SHARD};
use shardmeter_manager::{
    clock::UnixTime,
    ingest::{IngestError, Post, PreviousBodies, Taken, Text, ingest},
    metrics::PreviousBodyMetrics,
    registry::{Registry, Settings},
};
use tokio::time::Instant;

const ROUNDS: usize = 15;
const SHARDS: u32 = 100;
/// Different bodies of each shard.
const TURNS: usize = 20;

fn main() {
    // For a profiler: one of them alone.
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    for (route, is_json) in [("text", false), ("JSON", true)] {
        for percent in [0, 10, 100] {
            let what = format!("{route}, {percent} % changed");
            if only.as_ref().is_some_and(|only| *only != what) {
                continue;
            }
            let bodies = bodies(percent, is_json);
            let [kept, whole] = [Side::new(), Side::new()];
            let (mut repeated, mut read) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let repeat = |post: &Post<'_>, body: &str| {
                    let taken = kept.previous.repeat(&kept.registry, post, body.as_bytes(), now());
                    taken.map_or_else(
                        || kept.previous.ingest(&kept.registry, post, text(body, is_json), now()),
                        Ok,
                    )
                };
                repeated.push(post_all(&bodies, repeat));
                if only.is_none() {
                    let ingest = |post: &Post<'_>, body: &str| {
                        ingest(&whole.registry, post, text(body, is_json), now())
                    };
                    read.push(post_all(&bodies, ingest));
                }
            }
            let [repeated, read] = [repeated, read].map(median);
            println!("{what}: {repeated:.1} ns a sample; read as a whole {read:.0} ns");
        }
    }
}

struct Side {
    registry: Registry,
    previous: PreviousBodies,
}

impl Side {
    fn new() -> Self {
        let metrics = PreviousBodyMetrics::new().unwrap();
        let registry = Registry::new(Settings::default(), []);
        Self { registry, previous: PreviousBodies::new(metrics) }
    }
}

/// Nanoseconds a sample.
fn post_all(
    bodies: &[Vec<String>],
    take: impl Fn(&Post<'_>, &str) -> Result<Taken, IngestError>,
) -> f64 {
    let names: Vec<_> = (0..SHARDS).map(|id| (id, format!("bench-{id}"))).collect();
    let began = Instant::now();
    for turn in bodies {
        for ((id, name), body) in names.iter().zip(turn) {
            let shards = id.to_string().parse().unwrap();
            let post = Post {
                shards,
                identity: Some(name.as_str()).into(),
                sequence: None,
                interval: None,
            };
            take(&post, body).unwrap();
        }
    }
    let samples = bodies.len() * names.len() * SERIES_PER_SHARD;
    began.elapsed().as_secs_f64() * 1e9 / samples as f64
}

fn text(body: &str, is_json: bool) -> Text<'_> {
    if !is_json {
        return Text::Plain(body);
    }
    let metrics = serde_json::from_str::<&RawValue>(body).unwrap();
    Text::Json { body: body.as_bytes(), metrics }
}

/// By turn and shard. In the next turn so many percent of the label sets have other values.
fn bodies(percent: usize, is_json: bool) -> Vec<Vec<String>> {
    let body = |turn: usize, id: u32| {
        let text = text_of(id, |n| turn.div_ceil(if n * 100 / 185 < percent { 1 } else { TURNS }));
        if is_json { serde_json::to_string(&text).unwrap() } else { text }
    };
    (0..TURNS).map(|turn| (0..SHARDS).map(|id| body(turn, id)).collect()).collect()
}

/// The text of a shard whose label set `n` counted `by(n)` more than at first.
fn text_of(id: u32, by: impl Fn(usize) -> usize) -> String {
    let (mut text, mut n) = (String::new(), 0);
    for family in shape::families(id) {
        let word = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let name = family.name;
        writeln!(text, "# HELP {name} {}\n# TYPE {name} {word}", family.help).unwrap();
        for labels in &family.series {
            let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
            let labels = labels.join(",");
            let count = 9_950 + n * 7 + by((n * 71) % 185);
            let gauge = count as f64 * 0.061_7;
            n += 1;
            match family.kind {
                Kind::Counter => writeln!(text, "{name}{{{labels}}} {count}").unwrap(),
                Kind::Gauge => writeln!(text, "{name} {gauge}").unwrap(),
                Kind::Histogram => {
                    for bound in family.kind.bounds() {
                        writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}").unwrap();
                    }
                    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}").unwrap();
                    writeln!(text, "{name}_sum{{{labels}}} {gauge}").unwrap();
                    writeln!(text, "{name}_count{{{labels}}} {count}").unwrap();
                }
            }
        }
    }
    text
}

fn now() -> UnixTime {
    UnixTime::from_duration(Duration::from_secs(1_700_000_000))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
