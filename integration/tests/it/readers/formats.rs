//! The real Prometheus reads every format it can ask for, round after round, and stores the same of each: what shards
//! reported, by the same names.

use std::collections::BTreeMap;

use fastrand::Rng;
use shardmeter_process::testing::until;

use super::{
    accept::{
        self, OPENMETRICS, PROMETHEUS_2_42, PROMETHEUS_2_42_NATIVE, PROMETHEUS_3, PROMETHEUS_3_0,
        PROMETHEUS_3_NATIVE, PROTOBUF, TEXT,
    },
    disguise::Disguise,
    random::Shape,
    reported::Reported,
};
use crate::{prometheus::Prometheus, scrape::Samples, tools::seed};

/// A job: its name, the `Accept` in place of Prometheus' own, and the format that is answered.
type Job = (&'static str, Option<&'static str>, &'static str);

/// Of a Prometheus as it comes.
const JOBS: [Job; 4] = [
    ("openmetrics", None, OPENMETRICS),
    ("text", Some(TEXT), TEXT),
    ("as-3-0", Some(PROMETHEUS_3_0), OPENMETRICS),
    ("as-3", Some(PROMETHEUS_3), OPENMETRICS),
];

/// Of one with native histograms enabled.
const JOBS_NATIVE: [Job; 2] =
    [("protobuf", None, PROTOBUF), ("as-3-native", Some(PROMETHEUS_3_NATIVE), PROTOBUF)];

/// A Prometheus and what stands between it and the manager.
struct Scraper {
    prometheus: Prometheus,
    jobs: Vec<(Job, Disguise)>,
}

impl Scraper {
    async fn start(target: std::net::SocketAddr, jobs: &[Job], flags: &[&str]) -> Self {
        let mut disguised = Vec::new();
        for job in jobs {
            disguised.push((*job, Disguise::start(target, job.1).await));
        }
        let targets: Vec<_> =
            disguised.iter().map(|((name, ..), line)| (*name, line.addr)).collect();
        Self { prometheus: Prometheus::start_with(&targets, flags).await, jobs: disguised }
    }

    /// Waits until it has of every job what the shards reported, and nothing else. Returns what it has of the manager's
    /// own word on shards, by job.
    async fn has(&self, reported: &Samples) -> Vec<Samples> {
        let mut of_shards = Vec::new();
        for ((job, ..), _) in &self.jobs {
            let what = format!("Prometheus has what shards reported, as {job}");
            let own = until(&what, || async {
                let seen = self.prometheus.query(&format!("{{job={job:?}}}")).await?;
                let (seen, own) = without_target(seen);
                let error = self.prometheus.scrape_error(job).await?;
                same(reported, &seen).map(|()| own).map_err(|differs| format!("{error} {differs}"))
            });
            of_shards.push(own.await);
        }
        of_shards
    }

    /// Fails unless it asked as `accept` for compressed pages, and got the formats that were meant.
    fn assert_asked(&self, accept: &str) {
        for ((job, _, format), line) in &self.jobs {
            let scrape = line.last().unwrap();
            assert_eq!(scrape.accept, accept, "{job}");
            assert_eq!(scrape.accept_encoding, "gzip", "{job}");
            assert!(scrape.content_type.starts_with(format), "{job}: {}", scrape.content_type);
            assert_eq!(scrape.content_encoding, "gzip", "{job}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_every_format() {
    let rng = &mut Rng::with_seed(seed());
    let shape = Shape {
        shards: 8,
        instances: 2,
        families: 5,
        series: 80,
        is_odd: true,
        has_parts: false,
        is_legacy: true,
    };
    let (manager, mut reported) = accept::reported(rng, shape).await;
    let (of_text, of_protobuf) = tokio::join!(
        Scraper::start(manager.http, &JOBS, &[]),
        Scraper::start(manager.http, &JOBS_NATIVE, &["--enable-feature=native-histograms"]),
    );
    for round in 0..3 {
        if round > 0 {
            reported.go_on(rng, shape, accept::now());
        }
        let samples = samples(&reported);
        assert!(samples.len() > 1_500, "{} samples are few", samples.len());
        let (text, protobuf) = tokio::join!(of_text.has(&samples), of_protobuf.has(&samples));
        let own: Vec<_> = text.into_iter().chain(protobuf).collect();
        for pair in own.windows(2) {
            same(&pair[0], &pair[1]).unwrap();
        }
        assert!(own[0].len() > 50, "{:?}", own[0]);
    }
    of_text.assert_asked(PROMETHEUS_2_42);
    of_protobuf.assert_asked(PROMETHEUS_2_42_NATIVE);
    for scraper in [of_text, of_protobuf] {
        scraper.prometheus.assert_targets_healthy().await;
    }
    manager.stop().await;
}

fn samples(reported: &Reported) -> Samples {
    let mut samples = Samples::new();
    for family in reported.shown(accept::now()) {
        family.samples(|name, labels, value| {
            assert_eq!(samples.insert((name, labels), value), None);
        });
    }
    samples
}

/// Series without the target's labels: those of the fleet, and those that the manager keeps of each shard. What Prometheus
/// says of the scrape and the manager of itself is of no job's format.
fn without_target(seen: Samples) -> (Samples, Samples) {
    let seen = seen.into_iter().filter(|((name, labels), _)| {
        let is_scrapes = name == "up" || name.starts_with("scrape_");
        !(name.starts_with("shardmeter_manager_") || is_scrapes && !labels.contains_key("shard_id"))
    });
    let seen = seen.map(|((name, mut labels), value)| {
        assert!(labels.remove("job").is_some() && labels.remove("instance").is_some());
        ((name, labels), value)
    });
    let all: BTreeMap<_, _> = seen.collect();
    all.into_iter().partition(|((name, _), _)| !name.starts_with("shard_"))
}

/// As [`crate::system::same`], for values that may be NaN. 0 and -0 are equal.
fn same(left: &Samples, right: &Samples) -> Result<(), String> {
    let comparable = |samples: &Samples| -> Samples {
        let value = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
        samples.iter().map(|(series, v)| (series.clone(), value(*v))).collect()
    };
    crate::system::same(&comparable(left), &comparable(right))
}
