//! One story: the hosts, the clock that steps, and the judgement at the end.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use fastrand::Rng;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use turmoil::{Builder, Sim};

use crate::{
    books::{self, End, Monotone, Runs},
    faults::Agenda,
    manager,
    network::{self, MANAGER, Open},
    process::{self, Handle},
    scrape::{self, Samples},
};

/// Steps of the clock. Whatever happens between two of them happens at once.
const TICK: Duration = Duration::from_millis(25);
/// For everything that was counted to be reported once nothing hinders it: a dead connection is noticed (20 s), a wait
/// of 15 s may have begun just before.
const SETTLE_WITHIN: Duration = Duration::from_secs(90);

/// What the story's parts share.
pub(crate) struct Shared {
    pub(crate) seed: u64,
    pub(crate) shards: u32,
    pub(crate) report_interval: Duration,
    pub(crate) stale_after: Duration,
    pub(crate) runs: Runs,
    /// Whether processes count.
    pub(crate) counting: Cell<bool>,
    /// Two for each shard, so that runs may overlap.
    pub(crate) hosts: Vec<Host>,
    /// The manager's lives; each has a directory, which begins as what the one before left.
    lives: Cell<u32>,
    dir: TempDir,
    scrapes: RefCell<Scrapes>,
}

/// Where processes of a shard run, one at a time.
#[derive(Default)]
pub(crate) struct Host {
    /// Unset: none was started yet.
    pub(crate) shard: Cell<Option<u32>>,
    /// Tells the process to stop.
    pub(crate) stop: RefCell<CancellationToken>,
    pub(crate) reporter: RefCell<Option<Handle>>,
    pub(crate) open: Open,
    /// Ports of connections that are frozen: what they carry waits.
    frozen: RefCell<BTreeSet<u16>>,
}

#[derive(Default)]
struct Scrapes {
    before: Monotone,
    last: Samples,
    /// The first breach of E2.
    breach: Option<String>,
    fingerprint: DefaultHasher,
}

impl Shared {
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join(self.lives.get().to_string())
    }

    pub(crate) fn scraped(&self, page: &str) {
        let mut scrapes = self.scrapes.borrow_mut();
        let mut counts = scrape::counts(page);
        // The manager's own counters say what this run of it did.
        counts.retain(|(name, _), _| name.starts_with("c_") || name.starts_with("h_"));
        if let Err(breach) = scrapes.before.check(counts) {
            scrapes.breach.get_or_insert(breach);
        }
        scrapes.last = scrape::parse(page);
        // Instances start at the machine's time.
        let timeless = page.lines().filter(|line| !line.contains("_timestamp_"));
        timeless.for_each(|line| line.hash(&mut scrapes.fingerprint));
    }
}

/// See the module.
pub(crate) struct Fleet {
    sim: Sim<'static>,
    pub(crate) shared: Rc<Shared>,
    pub(crate) rng: Rng,
    /// What happened, for people.
    log: Vec<String>,
}

/// What a story came to.
pub(crate) struct Told {
    pub(crate) log: Vec<String>,
    pub(crate) outcome: Result<(), String>,
    /// Of all pages.
    pub(crate) fingerprint: u64,
}

/// Tells the story of a seed.
pub(crate) fn tell(seed: u64) -> Told {
    // Reporters draw their waits from here.
    fastrand::seed(seed);
    let mut fleet = Fleet::new(seed);
    let outcome = fleet.live();
    let fingerprint = fleet.shared.scrapes.borrow().fingerprint.finish();
    Told { log: fleet.log, outcome, fingerprint }
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let shards = rng.u32(1..4);
        let report_interval = Duration::from_millis([200, 1_000, 2_500][rng.usize(..3)]);
        let stale_after = (report_interval * 3).max(Duration::from_secs([1, 8, 30][rng.usize(..3)]));
        let shared = Rc::new(Shared {
            seed,
            shards,
            report_interval,
            stale_after,
            runs: Runs::default(),
            counting: Cell::new(true),
            hosts: (0..2 * shards).map(|_| Host::default()).collect(),
            lives: Cell::default(),
            dir: TempDir::new().unwrap(),
            scrapes: RefCell::default(),
        });
        let mut sim = Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(60))
            .tcp_capacity(1_024)
            .enable_random_order()
            .enable_tokio_io() // the manager binds its real ports too, though nobody comes
            .build();
        let of_manager = Rc::clone(&shared);
        sim.host(MANAGER, move || manager::run(Rc::clone(&of_manager)));
        for host in 0..shared.hosts.len() {
            let shared = Rc::clone(&shared);
            sim.host(name(host), move || process::run(Rc::clone(&shared), host));
        }
        Self { sim, shared, rng, log: Vec::new() }
    }

    fn live(&mut self) -> Result<(), String> {
        let trouble = Duration::from_secs(self.rng.u64(30..90));
        let mut agenda = Agenda::default();
        while self.sim.elapsed() < trouble {
            agenda.go_on(self);
            self.step()?;
        }
        agenda.end(self);
        self.note("no more faults".to_owned());
        self.one_process_a_shard()?;
        self.run_for(Duration::from_secs(1))?;
        self.shared.counting.set(false);
        self.settle()?;
        self.run_for(self.shared.stale_after + Duration::from_secs(1))?;
        let scrapes = self.shared.scrapes.borrow();
        let runs = self.shared.runs.lock();
        let mut counts = scrapes.last.clone();
        counts.retain(|(name, _), _| name.starts_with("c_") || name.starts_with("h_"));
        books::check_counts(&runs, &counts)?;
        books::check_living(&runs, &scrapes.last, self.shared.shards)
    }

    /// Leaves the newest process of each shard, or starts one.
    fn one_process_a_shard(&mut self) -> Result<(), String> {
        for shard in 0..self.shared.shards {
            let running: Vec<_> =
                self.slots(shard).into_iter().filter(|host| self.is_running(*host)).collect();
            match running[..] {
                [] => self.start(shard as usize * 2),
                [one, other] => self.stop(if self.serial(one) < self.serial(other) { one } else { other }),
                _ => {}
            }
        }
        self.run_for(Duration::from_secs(6))?;
        for shard in 0..self.shared.shards {
            let [one, other] = self.slots(shard);
            if !self.is_running(one) && !self.is_running(other) {
                self.start(one);
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        let deadline = self.sim.elapsed() + SETTLE_WITHIN;
        loop {
            self.step()?;
            let mut unsettled = None;
            for host in 0..self.shared.hosts.len() {
                self.look(host);
                let serial = self.serial(host).filter(|_| self.is_running(host));
                let runs = self.shared.runs.lock();
                unsettled = unsettled.or(serial.filter(|serial| !runs[*serial].is_settled()));
            }
            match unsettled {
                None => return Ok(()),
                Some(run) if self.sim.elapsed() > deadline => {
                    return Err(format!("run {run} did not report all it counted in time"));
                }
                Some(_) => {}
            }
        }
    }

    fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("a host failed: {error}"))?;
        self.sim.links(|links| {
            for link in links {
                for sent in link {
                    let (from, to) = sent.pair();
                    let frozen = |host: &Host| {
                        let frozen = host.frozen.borrow();
                        frozen.contains(&from.port()) || frozen.contains(&to.port())
                    };
                    let _ = (sent, frozen);
                }
            }
        });
        match self.shared.scrapes.borrow_mut().breach.take() {
            Some(breach) => Err(format!("E2: {breach}")),
            None => Ok(()),
        }
    }
}

pub(crate) fn name(host: usize) -> String {
    format!("shard-{}-{}", host / 2, if host % 2 == 0 { "a" } else { "b" })
}
