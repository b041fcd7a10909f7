//! What to measure, and how long.

use std::{path::PathBuf, time::Duration};

use crate::results::Task;

/// Flags of the benchmark.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Config {
    /// Sizes of the fleet, one run each; peers take part up to 1,000
    #[arg(long, value_delimiter = ',', default_value = "100,1000", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) shards: Vec<u32>,
    /// Rounds; in each, every server has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// 100 shards, two short rounds: shows that it works, not how fast
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure only these: for a profiler, or a first look at a change
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Part>,
    /// Leave the peers out
    #[arg(long)]
    pub(crate) no_peers: bool,
    /// Measure another build of the manager in the same rounds: before and after
    #[arg(long, value_name = "BINARY")]
    pub(crate) against: Option<PathBuf>,
    /// Write bench/RESULTS.md and bench/results.svg
    #[arg(long)]
    pub(crate) write: bool,
    /// Be the floor that the others are compared with
    #[arg(long, hide = true)]
    pub(crate) serve_floor: bool,
    /// Be the shard that floods this gRPC port
    #[arg(long, hide = true, value_name = "ADDR")]
    pub(crate) flood: Option<String>,
}

/// A kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// gRPC frames as fast as they are acknowledged
    Frames,
    /// HTTP bodies as fast as they are answered
    Posts,
    /// Pages
    Scrapes,
    /// gRPC frames at a fixed rate, and the time to their acks
    Acks,
    /// The api's list of shards, asked for again and again
    Api,
    /// Listeners to the api's live events
    Sse,
}

impl shardmeter_process::Configuration for Config {}

impl Config {
    /// Whether it asks for this task.
    pub(crate) fn wants(&self, task: Task) -> bool {
        let part = match task {
            Task::Frames(_) => Part::Frames,
            Task::Posts(_) => Part::Posts,
            Task::Scrape(..) => Part::Scrapes,
            Task::Paced(_) => Part::Acks,
        };
        self.wants_part(part)
    }

    /// The same, by part.
    pub(crate) fn wants_part(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Whether it asks for something of the manager.
    pub(crate) fn wants_manager(&self) -> bool {
        let of_api = |part: &Part| matches!(part, Part::Api | Part::Sse);
        self.only.is_empty() || !self.only.iter().all(of_api)
    }

    /// With what `--quick` means.
    pub(crate) fn settled(self) -> Self {
        if self.quick { Self { shards: vec![100], rounds: 2, ..self } } else { self }
    }
}

/// How much of each task a server does in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// gRPC frames of each shard.
    pub(crate) frames_a_shard: usize,
    /// Bodies, all shards together.
    pub(crate) posts: usize,
    /// Bodies for a server that reads everything it holds at each.
    pub(crate) slow_posts: usize,
    /// Pages of each kind.
    pub(crate) pages: usize,
    /// Pages of a server that takes seconds for one.
    pub(crate) slow_pages: usize,
    /// Frames at a fixed rate.
    pub(crate) paced_for: Duration,
}

impl Effort {
    pub(crate) fn of(shards: u32, quick: bool) -> Self {
        let shards = shards as usize;
        if quick {
            return Self {
                frames_a_shard: 10,
                posts: 200,
                slow_posts: 2,
                pages: 2,
                slow_pages: 1,
                paced_for: Duration::from_secs(1),
            };
        }
        Self {
            frames_a_shard: 50_000_usize.div_ceil(shards),
            posts: 2_000,
            slow_posts: 3,
            pages: 5,
            slow_pages: 2,
            paced_for: Duration::from_secs(4),
        }
    }
}
