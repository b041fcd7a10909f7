//! What was measured: by server and task, one cost a round. Ratios and differences are taken within a round, and then the
//! median over the rounds, because the machine's speed differs more between rounds than servers may.

use std::{collections::BTreeMap, time::Duration};

use crate::{http::Encoding, shard::Change};

/// Who was measured, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Floor,
    Manager,
    ManagerJournal,
    /// Another build of the manager (`--against`).
    Against,
    AgainstJournal,
    Joiner,
    Pushgateway,
    PushgatewayAsShipped,
}

impl Who {
    pub(crate) const ALL: [Self; 8] = [
        Self::Floor,
        Self::Manager,
        Self::ManagerJournal,
        Self::Against,
        Self::AgainstJournal,
        Self::Joiner,
        Self::Pushgateway,
        Self::PushgatewayAsShipped,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Manager => "manager",
            Self::ManagerJournal => "manager, journal",
            Self::Against => "manager before",
            Self::AgainstJournal => "manager before, journal",
            Self::Joiner => "Node, texts joined",
            Self::Pushgateway => "Pushgateway, no check",
            Self::PushgatewayAsShipped => "Pushgateway as shipped",
        }
    }
}

/// What it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// gRPC frames, as fast as they are acknowledged.
    Frames(Change),
    /// Bodies, as fast as they are answered.
    Posts(Change),
    /// gRPC frames at a fixed rate.
    Paced(Beside),
    /// Pages; what changed before each.
    Scrape(Encoding, Change),
}

/// What a server does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Beside {
    Nothing,
    /// Two pages a second.
    Scrapes,
    /// Another shard brings a million label values.
    Flood,
}

impl Beside {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::Scrapes, Self::Flood];
}

impl Task {
    /// All, in the order in which they are done.
    pub(crate) fn all() -> Vec<Self> {
        const INGESTED: [Change; 2] = [Change::SameTenth, Change::All];
        let scrapes = Encoding::ALL.into_iter().flat_map(|encoding| {
            Change::BEFORE_A_SCRAPE.into_iter().map(move |change| Self::Scrape(encoding, change))
        });
        let paced = Beside::ALL.map(Self::Paced);
        let ingest = INGESTED.map(Self::Frames).into_iter().chain(INGESTED.map(Self::Posts));
        ingest.chain(scrapes).chain(paced).collect()
    }
}

/// What a task cost a server in one round.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// CPU time of the server, for all of it.
    pub(crate) cpu: Duration,
    /// From first to last, if the load was given without pause.
    pub(crate) wall: Duration,
    /// How long each frame, body or page took its sender.
    pub(crate) latencies: Vec<Duration>,
}

impl Cost {
    /// CPU time a frame, body or page; microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        micros(self.cpu) / self.latencies.len().max(1) as f64
    }

    /// That percentile of the latencies; microseconds.
    pub(crate) fn percentile_us(&self, percent: f64) -> f64 {
        percentile(self.latencies.iter().copied().map(micros).collect(), percent)
    }

    /// Frames, bodies or pages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}

/// Resident bytes of a server, beyond what it had at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// When every shard had reported once.
    pub(crate) filled: u64,
    /// At the end of the last round, if that says anything.
    pub(crate) used: Option<u64>,
}

/// All that was measured with so many shards.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) shards: u32,
    /// One entry a round.
    pub(crate) rounds: Vec<BTreeMap<(Who, Task), Cost>>,
    /// Servers that take posts, and servers that take frames, are different processes.
    pub(crate) memory: BTreeMap<(Who, Transport), Memory>,
    /// CPU time of a pass over a shard's body, each round; microseconds.
    pub(crate) scans: Vec<f64>,
    /// Bytes of the manager's page, by encoding.
    pub(crate) page_bytes: [usize; 2],
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

/// How a server is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Grpc,
    Http,
}

impl Results {
    pub(crate) fn has(&self, who: Who) -> bool {
        self.rounds.iter().flat_map(BTreeMap::keys).any(|(w, _)| *w == who)
    }

    /// Median over the rounds.
    pub(crate) fn median(&self, who: Who, task: Task, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        let costs = self.rounds.iter().filter_map(|round| round.get(&(who, task)));
        median(costs.map(of).collect())
    }

    /// Median over the rounds of something that two costs of one round say together.
    pub(crate) fn within(
        &self,
        one: (Who, Task),
        other: (Who, Task),
        of: impl Fn(&Cost, &Cost) -> f64,
    ) -> Option<f64> {
        let pairs = self.rounds.iter().filter_map(|r| Some(of(r.get(&one)?, r.get(&other)?)));
        median(pairs.collect())
    }

    /// That percentile of the latencies of all rounds together, for what is done too seldom to have one in each;
    /// microseconds.
    pub(crate) fn pooled_us(&self, who: Who, task: Task, percent: f64) -> Option<f64> {
        let costs = self.rounds.iter().filter_map(|round| round.get(&(who, task)));
        let all: Vec<f64> = costs.flat_map(|c| c.latencies.iter().copied().map(micros)).collect();
        (!all.is_empty()).then(|| percentile(all, percent))
    }
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The middle value; of two, the mean.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// By nearest rank; 0 of nothing.
fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(cpu_us: u64) -> Cost {
        Cost {
            cpu: Duration::from_micros(cpu_us),
            wall: Duration::from_secs(1),
            latencies: vec![Duration::from_micros(1); 2],
        }
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let task = Task::Frames(Change::All);
        // The machine was three times slower in the second round, and the manager absent in the third.
        let rounds = vec![
            BTreeMap::from([((Who::Floor, task), cost(10)), ((Who::Manager, task), cost(20))]),
            BTreeMap::from([((Who::Floor, task), cost(30)), ((Who::Manager, task), cost(60))]),
            BTreeMap::from([((Who::Floor, task), cost(90))]),
        ];
        let results = Results { rounds, ..Results::default() };
        let ratio = results.within((Who::Manager, task), (Who::Floor, task), |manager, floor| {
            manager.cpu_us() / floor.cpu_us()
        });
        assert_eq!(ratio, Some(2.0));
        assert_eq!(results.median(Who::Floor, task, Cost::cpu_us), Some(15.0));
        assert_eq!(results.median(Who::Joiner, task, Cost::cpu_us), None);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(hundred.clone(), 99.0), 99.0);
        assert_eq!(percentile(hundred, 50.0), 50.0);
        assert_eq!(percentile(vec![7.0, 3.0], 99.0), 7.0);
        assert_eq!(percentile(Vec::new(), 99.0), 0.0);
    }
}
