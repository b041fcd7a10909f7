//! A server in the run with those who feed and scrape it.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    clocks::CpuClock,
    config::Effort,
    flood::flood_from_outside,
    grpc::Fleet,
    http::{Encoding, Posters, Scraper},
    load::Load,
    results::{Beside, Cost, Memory, Task, Transport, Who},
    server::Server,
    shard::Change,
};

/// Between two frames of all shards together: five times as often as 1,000 shards report.
const FRAME_EVERY: Duration = Duration::from_millis(2);

/// Between two scrapes while acks are timed: more often than anyone scrapes, so that one falls into many frames' way.
const SCRAPE_EVERY: Duration = Duration::from_millis(500);

/// What is asked of a server besides reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scrapes {
    /// Nothing.
    None,
    /// Pages, all alike: it does the same work whatever changed.
    Alike(usize),
    /// Pages, after each kind of change.
    ByChange(usize),
}

/// One server and its senders.
pub(crate) struct Contender {
    pub(crate) who: Who,
    pub(crate) server: Server,
    pub(crate) fleet: Option<Fleet>,
    /// The gRPC port that takes the flood beside it: its own. The floor's is a manager's, so that what the two share is the
    /// machine alone.
    pub(crate) floods: Option<String>,
    pub(crate) posters: Option<Posters>,
    /// Bodies that it takes in a task.
    pub(crate) posts: usize,
    pub(crate) scraper: Scraper,
    pub(crate) scrapes: Scrapes,
    /// Resident bytes when every shard had reported once.
    pub(crate) rss_filled: u64,
}

impl Contender {
    /// Does one task, if it is one of its own.
    pub(crate) async fn perform(
        &mut self,
        task: Task,
        effort: &Effort,
    ) -> anyhow::Result<Option<Cost>> {
        let cpu = self.server.cpu;
        match (task, &mut self.fleet, &mut self.posters) {
            (Task::Frames(change), Some(fleet), _) => {
                fleet.saturate(change, 1).await?; // warms the caches
                cost(cpu, fleet.saturate(change, effort.frames_a_shard)).await.map(Some)
            }
            (Task::Posts(change), _, Some(posters)) => {
                cost(cpu, posters.post(change, self.posts)).await.map(Some)
            }
            (Task::Scrape(encoding, change), ..) => match self.scrapes {
                Scrapes::Alike(pages) if change == Change::Nothing => {
                    self.scrape(encoding, change, pages).await.map(Some)
                }
                Scrapes::ByChange(pages) => self.scrape(encoding, change, pages).await.map(Some),
                Scrapes::None | Scrapes::Alike(_) => Ok(None),
            },
            (Task::Paced(beside), Some(fleet), _) => {
                let shards = fleet.shards();
                let paced = fleet.pace(Change::SameTenth, FRAME_EVERY, effort.paced_for);
                match (beside, &self.floods) {
                    (Beside::Nothing, _) => cost(cpu, paced).await.map(Some),
                    (Beside::Scrapes, _) => {
                        scraping(&self.scraper, cost(cpu, paced)).await.map(Some)
                    }
                    (Beside::Flood, Some(addr)) => {
                        flooded(addr, shards, untimed(paced)).await.map(Some)
                    }
                    (Beside::Flood, _) => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// What it keeps, and how it was fed. Of the floor, which keeps only pages, what the streams take.
    pub(crate) fn memory(&self) -> anyhow::Result<Option<(Transport, Memory)>> {
        if self.who == Who::PushgatewayAsShipped {
            return Ok(None); // It began with all of it.
        }
        let grown = |rss: u64| rss.saturating_sub(self.server.rss_at_start);
        let filled = grown(self.rss_filled);
        let used = if self.who == Who::Floor { None } else { Some(grown(self.server.rss()?)) };
        let transport = match (&self.fleet, &self.posters) {
            (Some(_), _) => Transport::Grpc,
            (None, Some(_)) => Transport::Http,
            (None, None) => return Ok(None),
        };
        Ok(Some((transport, Memory { filled, used })))
    }

    /// Scrapes some pages, each after every shard reported a change.
    async fn scrape(
        &mut self,
        encoding: Encoding,
        change: Change,
        pages: usize,
    ) -> anyhow::Result<Cost> {
        let mut cost = Cost::default();
        for page in 0..=pages {
            if let Some(fleet) = self.fleet.as_mut().filter(|_| change != Change::Nothing) {
                fleet.saturate(change, 1).await?;
            }
            let before = self.server.cpu.settled().await?;
            let wall = self.scraper.scrape(encoding).await?;
            let after = self.server.cpu.settled().await?;
            // The first one has what other changes left to do.
            if page > 0 {
                cost.cpu += after.saturating_sub(before);
                cost.latencies.push(wall);
            }
        }
        Ok(cost)
    }
}

/// Scrapes again and again until something else is done.
async fn scraping(
    scraper: &Scraper,
    meanwhile: impl Future<Output = anyhow::Result<Cost>>,
) -> anyhow::Result<Cost> {
    let scrape = async {
        let mut due = interval(SCRAPE_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for encoding in Encoding::ALL.into_iter().cycle() {
            due.tick().await;
            scraper.scrape(encoding).await?;
        }
        Ok(())
    };
    tokio::select! {
        cost = meanwhile => cost,
        failed = scrape => failed.map(|()| Cost::default()),
    }
}

/// Has another shard flood the server until something else is done.
async fn flooded(
    addr: &str,
    shards: u32,
    meanwhile: impl Future<Output = anyhow::Result<Cost>>,
) -> anyhow::Result<Cost> {
    tokio::select! {
        cost = meanwhile => cost,
        failed = flood_from_outside(addr, shards) => failed.map(|never| match never {}),
    }
}

/// How long a load takes its senders: what it costs cannot be told from what others do.
async fn untimed(load: impl Future<Output = anyhow::Result<Load>>) -> anyhow::Result<Cost> {
    let Load { latencies, wall } = load.await?;
    Ok(Cost { wall, latencies, ..Cost::default() })
}

/// What a load costs the server, until it rests again.
async fn cost(
    cpu: CpuClock,
    load: impl Future<Output = anyhow::Result<Load>>,
) -> anyhow::Result<Cost> {
    let before = cpu.settled().await?;
    let Load { latencies, wall } = load.await?;
    let after = cpu.settled().await?;
    Ok(Cost { cpu: after.saturating_sub(before), wall, latencies })
}
