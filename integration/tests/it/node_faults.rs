//! Bots on Node with the real prom-client, and the manager they post to, killed again and again. Every page is watched
//! throughout; at the end the counts are what the bots say they counted.
//!
//! `FAULTS` and `FAULT_SEED` as in `faults.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fastrand::Rng;
use shardmeter_process::testing::until;
use tokio::{
    process::Command,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    process::{ManagerProcess, Process, Scratch},
    promtool,
    scrape::{self, Samples},
    tools::{root, variable},
    watch::{UpUntil, Watch},
};

const BOTS: u32 = 4;

/// The first bots are not killed.
const KILLED_FROM: u32 = 2;

const STALE_AFTER: Duration = Duration::from_secs(10);

/// A process is known by when it started, which prom-client states in whole seconds: two in the same second are one to
/// the manager.
const LIVES_AT_LEAST: Duration = Duration::from_millis(1_500);

/// A bot that comes back as the same shard.
struct Bot {
    shard_id: u32,
    manager: String,
    folder: PathBuf,
    starts: u32,
    started: Instant,
    process: Process,
}

impl Bot {
    fn start(scratch: &Scratch, manager: &ManagerProcess, shard_id: u32) -> Self {
        let (folder, manager) = (scratch.path().to_owned(), manager.url(""));
        let process = Self::spawn(&folder, &manager, shard_id, 1);
        Self { shard_id, manager, folder, starts: 1, started: Instant::now(), process }
    }

    fn truth(folder: &Path, shard_id: u32, start: u32) -> PathBuf {
        folder.join(format!("bot-{shard_id}-{start}"))
    }

    fn spawn(folder: &Path, manager: &str, shard_id: u32, start: u32) -> Process {
        let truth = Self::truth(folder, shard_id, start);
        let mut command = Command::new("node");
        command.current_dir(root().join("integration/node"));
        command.args(["bot.mjs", manager, &shard_id.to_string()]).arg(&truth);
        Process::start(&mut command, truth.with_extension("log"))
    }

    async fn kill(&mut self) {
        sleep_until(self.started + LIVES_AT_LEAST).await;
        self.process.kill().await;
    }

    fn start_again(&mut self) {
        self.starts += 1;
        self.started = Instant::now();
        self.process = Self::spawn(&self.folder, &self.manager, self.shard_id, self.starts);
    }

    /// What all its processes together said they had counted, in the last bodies that were `sent` or `taken`.
    fn said(&self, what: &str) -> Samples {
        let mut total = Samples::new();
        for start in 1..=self.starts {
            let truth = Self::truth(&self.folder, self.shard_id, start).with_extension(what);
            // A process that was killed before its first post said nothing.
            let body = fs::read_to_string(truth).unwrap_or_default();
            for ((name, mut labels), value) in scrape::counts(&body) {
                labels.insert("shard_id".to_owned(), self.shard_id.to_string());
                *total.entry((name, labels)).or_insert(0.0) += value;
            }
        }
        total
    }
}

/// Fails unless the page shows of each bot no less than was taken and no more than was sent; that is one and the same
/// for those that were not killed.
fn assert_bounds(bots: &[Bot], page: &str) {
    let shown = scrape::counts(page);
    for bot in bots {
        let (taken, sent) = (bot.said("taken"), bot.said("sent"));
        assert!(sent.len() > 30, "{sent:?}");
        assert!(
            bot.shard_id >= KILLED_FROM || taken == sent,
            "bot {} has not settled",
            bot.shard_id
        );
        scrape::between(&shown, bot.shard_id, &taken, &sent).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_survive_kills_of_both_sides() {
    let seed = variable("FAULT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = variable("FAULTS").unwrap_or(30);
    eprintln!("FAULT_SEED={seed}, {rounds} rounds");
    let installed = root().join("integration/node/node_modules/prom-client").exists();
    assert!(installed, "prom-client is not installed; run scripts/setup");
    let mut rng = Rng::with_seed(seed);
    let scratch = Scratch::new("node-faults");
    let mut manager = ManagerProcess::start(scratch.path(), STALE_AFTER).await;
    let mut bots: Vec<_> = (0..BOTS).map(|id| Bot::start(&scratch, &manager, id)).collect();
    let watch = Watch::start(manager.url("/metrics"), UpUntil::new);

    for round in 1..=rounds {
        let (manager_dies, bot_dies) = [(true, false), (false, true), (true, true)][rng.usize(..3)];
        let bot = rng.u32(KILLED_FROM..BOTS) as usize;
        eprintln!("{round:3}  manager {manager_dies}, bot {bot} {bot_dies}");
        if bot_dies {
            bots[bot].kill().await;
        }
        if manager_dies {
            manager.process.kill().await;
            manager.start_again();
        }
        if bot_dies {
            bots[bot].start_again();
        }
        sleep(Duration::from_secs_f64(0.1 + rng.f64() * 1.4)).await;
        watch.assert_fine();
        manager.process.assert_runs();
        bots.iter_mut().for_each(|bot| bot.process.assert_runs());
    }

    for bot in &mut bots {
        // Posts until it is heard.
        bot.process.terminate().await;
    }
    let page = until("the page", || manager.page()).await;
    assert_bounds(&bots, &page);
    promtool::check(&page).await;
    watch.assert_fine();
    let reports = scrape::parse(&page).into_iter();
    let reports: f64 =
        reports.filter(|((name, _), _)| name == "shard_reports_total").map(|(_, n)| n).sum();
    assert!(reports > 10.0 * rounds as f64, "{reports} posts");
    eprintln!("{reports} posts, {} pages compared", watch.pages());
}
