//! What the manager counts of itself. Every label value is of a closed set and there from the start.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry as Own, core::Collector, process_collector::ProcessCollector,
};

use shardmeter_access::AccessMetrics;

use crate::exposition::{OwnFamily, Syntax};
use crate::registry::EventKind;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameOutcome {
    Applied,
    Duplicate,
    Resync,
    Invalid,
}

impl FrameOutcome {
    const ALL: [Self; 4] = [Self::Applied, Self::Duplicate, Self::Resync, Self::Invalid];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Resync => "resync",
            Self::Invalid => "invalid",
        }
    }
}

/// What became of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostOutcome {
    Applied,
    Refused,
}

impl PostOutcome {
    const ALL: [Self; 2] = [Self::Applied, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

/// Why series of families were dropped with all they counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// A rule for the family changed.
    Rule,
    /// The family yielded to another type.
    Type,
}

impl Dropped {
    const ALL: [Self; 2] = [Self::Rule, Self::Type];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Type => "type",
        }
    }
}

/// The manager's own metrics, all named `shardmeter_manager_*`.
#[derive(Debug)]
pub struct Metrics {
    own: Own,
    /// Report streams open now.
    pub(crate) streams: IntGauge,
    /// Frames received on Report streams, by what became of them.
    frames: IntCounterVec,
    /// Bodies posted, by what became of them.
    posts: IntCounterVec,
    /// Requests refused for want of a token, by the role that they needed.
    pub(crate) access: AccessMetrics,
    /// Scrapes answered, by format.
    scrapes: IntCounterVec,
    /// Answers that were given up because they were read too slowly.
    pub(crate) cut_readers: IntCounter,
    /// Time to render a page.
    pub(crate) render_seconds: Histogram,
    /// Samples applied, from frames and bodies.
    pub(crate) samples: IntCounter,
    /// Series dropped with what they counted, by reason.
    dropped: IntCounterVec,
    /// What happened to shards, by kind.
    events: IntCounterVec,
    /// Streams that follow it.
    pub(crate) watchers: IntGauge,
    pub(crate) previous_bodies: PreviousBodyMetrics,
}

/// What is counted of senders' previous bodies.
#[derive(Debug, Clone)]
pub struct PreviousBodyMetrics {
    /// The memory that they take.
    pub(crate) bytes: IntGauge,
    /// Bodies that were taken by what differs from the previous one.
    pub(crate) repeated: IntCounter,
}

impl PreviousBodyMetrics {
    /// At zero.
    ///
    /// # Errors
    /// If a name is invalid, which is a mistake of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let bytes = IntGauge::new(
            "shardmeter_manager_previous_bodies_bytes",
            "Memory of the last body of each sender, with which its next one is compared.",
        )?;
        let repeated = IntCounter::new(
            "shardmeter_manager_posts_repeated_total",
            "Bodies posted that differ from the sender's previous one in values alone, and were not read as a whole.",
        )?;
        Ok(Self { bytes, repeated })
    }
}

/// What is counted of a journal in a directory.
#[derive(Debug, Clone)]
pub(crate) struct JournalMetrics {
    /// Whether changes are durable.
    pub(crate) up: IntGauge,
    /// Size of its files.
    pub(crate) bytes: IntGauge,
    /// Checkpoints written.
    pub(crate) checkpoints: IntCounter,
    /// Checkpoints that could not be written.
    pub(crate) checkpoint_failures: IntCounter,
    /// Damaged places found at the start.
    pub(crate) damage: IntGauge,
}

impl Metrics {
    /// Adds those of a journal.
    ///
    /// # Errors
    /// If they are there already.
    pub(crate) fn of_journal(&self) -> Result<JournalMetrics, prometheus::Error> {
        let up = IntGauge::new(
            "shardmeter_manager_journal_up",
            "Whether what shards report is durable (1) or lost by a restart of the manager (0).",
        )?;
        let bytes =
            IntGauge::new("shardmeter_manager_journal_size_bytes", "Size of the journal's files.")?;
        let checkpoints = IntCounter::new(
            "shardmeter_manager_journal_checkpoints_total",
            "Checkpoints of the journal written.",
        )?;
        let checkpoint_failures = IntCounter::new(
            "shardmeter_manager_journal_checkpoint_failures_total",
            "Checkpoints of the journal that could not be written.",
        )?;
        let damage = IntGauge::new(
            "shardmeter_manager_journal_damage",
            "Damaged places that the manager found in the journal when it started; what was there is lost.",
        )?;
        Ok(JournalMetrics {
            up: add(&self.own, &up)?,
            bytes: add(&self.own, &bytes)?,
            checkpoints: add(&self.own, &checkpoints)?,
            checkpoint_failures: add(&self.own, &checkpoint_failures)?,
            damage: add(&self.own, &damage)?,
        })
    }

    /// All metrics at zero.
    ///
    /// # Errors
    /// If two of them have one name, which is a mistake of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let own = Own::new();
        own.register(Box::new(ProcessCollector::new(
            i32::try_from(std::process::id()).unwrap_or_default(),
            "shardmeter_manager",
        )))?;
        let info = IntGaugeVec::new(
            Opts::new(
                "shardmeter_manager_build_info",
                "Always 1; the labels say which build runs.",
            ),
            &["version"],
        )?;
        add(&own, &info)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let streams =
            add(&own, &IntGauge::new("shardmeter_manager_streams", "Report streams open now.")?)?;
        let frames = counters(
            &own,
            "shardmeter_manager_frames_total",
            "Frames received on Report streams, by what became of them.",
            "outcome",
            FrameOutcome::ALL.map(FrameOutcome::as_str),
        )?;
        let posts = counters(
            &own,
            "shardmeter_manager_posts_total",
            "Bodies posted by shards, by what became of them.",
            "outcome",
            PostOutcome::ALL.map(PostOutcome::as_str),
        )?;
        let access = AccessMetrics::register("shardmeter_manager", &own)?;
        let scrapes = counters(
            &own,
            "shardmeter_manager_scrapes_total",
            "Scrapes answered, by format.",
            "format",
            Syntax::ALL.map(Syntax::as_str),
        )?;
        let cut_readers = add(
            &own,
            &IntCounter::new(
                "shardmeter_manager_cut_readers_total",
                "Connections cut because their peers read so slowly that answers took too much memory.",
            )?,
        )?;
        let render_seconds = add(
            &own,
            &Histogram::with_opts(
                HistogramOpts::new(
                    "shardmeter_manager_render_duration_seconds",
                    "Time to render a page, in seconds.",
                )
                .buckets(vec![
                    0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
                ]),
            )?,
        )?;
        let samples = add(
            &own,
            &IntCounter::new(
                "shardmeter_manager_samples_total",
                "Samples applied to the registry.",
            )?,
        )?;
        let dropped = counters(
            &own,
            "shardmeter_manager_dropped_series_total",
            "Series dropped with what they counted: their rule changed, or their family yielded to another type.",
            "reason",
            Dropped::ALL.map(Dropped::as_str),
        )?;
        let events = counters(
            &own,
            "shardmeter_manager_shard_events_total",
            "What happened to shards, as WatchShards tells it.",
            "kind",
            EventKind::NAMES,
        )?;
        let watchers = add(
            &own,
            &IntGauge::new("shardmeter_manager_watchers", "WatchShards streams open now.")?,
        )?;
        let previous_bodies = PreviousBodyMetrics::new()?;
        add(&own, &previous_bodies.bytes)?;
        add(&own, &previous_bodies.repeated)?;
        Ok(Self {
            own,
            streams,
            frames,
            posts,
            access,
            scrapes,
            cut_readers,
            render_seconds,
            samples,
            dropped,
            events,
            watchers,
            previous_bodies,
        })
    }

    pub(crate) fn count_frame(&self, outcome: FrameOutcome) {
        self.frames.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(crate) fn count_post(&self, outcome: PostOutcome) {
        self.posts.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(crate) fn count_dropped(&self, reason: Dropped, series: usize) {
        self.dropped.with_label_values(&[reason.as_str()]).inc_by(series as u64);
    }

    /// More events of each kind, by [`EventKind::NAMES`].
    pub(crate) fn count_events(&self, more: [u64; EventKind::NAMES.len()]) {
        for (kind, more) in EventKind::NAMES.into_iter().zip(more) {
            self.events.with_label_values(&[kind]).inc_by(more);
        }
    }

    pub(crate) fn count_scrape(&self, syntax: Syntax) {
        self.scrapes.with_label_values(&[syntax.as_str()]).inc();
    }

    /// All of them, for the page.
    #[must_use]
    pub fn gather(&self) -> Vec<OwnFamily> {
        self.own.gather().iter().map(OwnFamily::from).collect()
    }
}

fn add<C: Collector + Clone + 'static>(own: &Own, metric: &C) -> Result<C, prometheus::Error> {
    own.register(Box::new(metric.clone()))?;
    Ok(metric.clone())
}

fn counters<const N: usize>(
    own: &Own,
    name: &str,
    help: &str,
    label: &str,
    values: [&str; N],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = add(own, &IntCounterVec::new(Opts::new(name, help), &[label])?)?;
    for value in values {
        counters.with_label_values(&[value]);
    }
    Ok(counters)
}
