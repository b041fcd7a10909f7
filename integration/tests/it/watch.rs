//! Scrapes all the time, and compares every page with all before: no count falls, none disappears, and no shard is
//! called down that reported (E2).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::scrape::{self, Samples};

const EVERY: Duration = Duration::from_millis(100);

/// A manager that is stopped may answer later; one that is down does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is wrong with a page is told once a page, and this often at most.
const TOLD: usize = 10;

/// Until when each shard must be called up.
pub(crate) type UpUntil = BTreeMap<u32, Instant>;

/// A running scraper; ends when dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What the pages said.
#[derive(Default)]
struct Seen {
    pages: u64,
    /// The newest value of every count.
    counts: Samples,
    wrong: Vec<String>,
}

impl Watch {
    /// Scrapes `url`; `up` is asked before each scrape.
    pub(crate) fn start(url: String, up: impl Fn() -> UpUntil + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let up = up();
                let page =
                    async { client.get(&url).send().await?.error_for_status()?.text().await };
                // A manager that was killed answers nothing, or half a page; that is no page.
                if let Ok(page) = page.await {
                    noted.lock().compare(&page, &up, Instant::now());
                }
            }
        });
        Self { seen, task }
    }

    /// Fails if a page said what it must not.
    pub(crate) fn assert_fine(&self) {
        let Seen { pages, wrong, .. } = &*self.seen.lock();
        assert!(wrong.is_empty(), "in {pages} pages: {wrong:#?}");
        assert!(!self.task.is_finished(), "the scraper panicked");
    }

    /// How many pages it compared.
    pub(crate) fn pages(&self) -> u64 {
        self.seen.lock().pages
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn compare(&mut self, page: &str, up: &UpUntil, now: Instant) {
        self.pages += 1;
        let mut counts = scrape::counts(page);
        // What the manager counts of itself begins anew with its process, as in every program.
        counts.retain(|(name, _), _| !name.starts_with("shardmeter_manager_"));
        let fell = self.counts.iter().find_map(|(series, before)| match counts.get(series) {
            Some(value) if value >= before => None,
            Some(value) => Some(format!("{series:?} fell from {before} to {value}")),
            None => Some(format!("{series:?} was {before} and is gone")),
        });
        let all = scrape::parse(page);
        let down = up.iter().filter(|(_, until)| now < **until).find_map(|(shard, _)| {
            let up = all.get(&scrape::series("shard_up", [("shard_id", &shard.to_string())]));
            (up != Some(&1.0)).then(|| format!("shard_up of shard {shard} is {up:?}"))
        });
        let wrong = fell.into_iter().chain(down);
        self.wrong.extend(wrong.map(|wrong| format!("page {}: {wrong}", self.pages)));
        self.wrong.truncate(TOLD);
        self.counts = counts;
    }
}
