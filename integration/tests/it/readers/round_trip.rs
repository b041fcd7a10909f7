//! Any state of a registry, rendered in any format and coding, reads back as what shards reported.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use shardmeter_manager::{
    clock::UnixTime,
    exposition::{Coding, Exposition, Format, Negotiated, Syntax, render, reserved},
    registry::{Registry, Settings},
};

use super::{
    pages::Pages,
    random::Shape,
    reported::{Reported, STALE_AFTER},
};
use crate::tools::variable;

const CODINGS: [Coding; 3] = [Coding::Identity, Coding::Gzip, Coding::Zstd];

/// Pages of one registry that are read.
const PAGES: usize = 4;

/// Any format that can be asked for, and its Content-Type.
fn any_format(rng: &mut Rng) -> (Format, String) {
    const MEDIA: [&str; 4] = [
        "text/plain;version=0.0.4",
        "text/plain;version=1.0.0",
        "application/openmetrics-text;version=1.0.0",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    ];
    const ESCAPINGS: [&str; 5] = [
        "",
        ";escaping=allow-utf-8",
        ";escaping=underscores",
        ";escaping=dots",
        ";escaping=values",
    ];
    let media = MEDIA[rng.usize(..MEDIA.len())];
    let accept = format!("{media}{}", ESCAPINGS[rng.usize(..ESCAPINGS.len())]);
    let asked = Negotiated::from_accept(Some(&accept));
    (asked.format.with_created(rng.bool()), asked.content_type())
}

/// A page that was kept, brought up to date or not between the reports; and in one format one that was rendered anew.
fn any_registry(seed: u64, pages: &mut Pages) {
    let rng = &mut Rng::with_seed(seed);
    let names = reserved(&[]);
    let settings = Settings { stale_after: STALE_AFTER, ..Settings::default() };
    let names = names.iter().map(|(name, kind)| (name.as_str(), *kind));
    let registry = Arc::new(Registry::new(settings, names));
    let is_odd = rng.bool();
    let shape = Shape {
        shards: rng.u32(1..4),
        instances: 2,
        families: rng.usize(1..9),
        series: rng.usize(1..10),
        is_odd,
        has_parts: is_odd && rng.bool(),
        is_legacy: rng.bool(),
    };
    let mut now = Duration::new(1_700_000_000, 123_456_789);
    let mut reported = Reported::random(rng, Arc::clone(&registry), shape, now);
    let kept = Exposition::default();
    let page = |rng: &mut Rng, format, now| {
        let coding = CODINGS[rng.usize(..CODINGS.len())];
        kept.render(&registry, &[], UnixTime::from_duration(now), (format, coding))
    };
    // Each format is kept as a page of its own: those that are read were asked for before.
    let formats: Vec<_> = (0..PAGES).map(|_| any_format(rng)).collect();
    for _ in 0..rng.usize(..4) {
        for (format, _) in formats.iter().filter(|_| rng.bool()).collect::<Vec<_>>() {
            page(rng, *format, now);
        }
        // Some shards die meanwhile.
        now += Duration::from_secs(if rng.bool() { 7 } else { 100 });
        reported.go_on(rng, shape, now);
    }
    pages.must_show(format!("SEED={seed}"), &reported.shown(now));
    for (format, content_type) in formats {
        if is_odd && format.syntax == Syntax::OpenMetrics {
            continue;
        }
        let page = match rng.u8(..4) {
            0 => render(&registry, &[], UnixTime::from_duration(now), format),
            _ => page(rng, format, now),
        };
        let coding = page.coding.content_encoding();
        pages.add(&content_type, format.created, coding, &page.to_vec());
    }
}

/// `SEED` repeats one registry.
#[tokio::test]
async fn any_registry_reads_back_as_it_was_reported() {
    let cases = variable("PROPTEST_CASES").unwrap_or(60).min(5_000);
    let mut pages = Pages::new("round-trip");
    let seeds = match variable("SEED") {
        Some(seed) => vec![seed],
        None => (0..cases).map(|_| fastrand::u64(..1 << 32)).collect(),
    };
    for seed in &seeds {
        any_registry(*seed, &mut pages);
    }
    let samples = pages.read().await;
    assert!(samples > 10 * seeds.len() as u64 || seeds.len() < 10, "{samples} samples are few");
}
