//! One story: the hosts, the clock that steps, and the judgement at the end.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
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
    network::{MANAGER, Open},
    process::{self, Handle},
    scrape::{self, Samples},
};

/// Steps of the clock. Whatever happens between two of them happens at once.
const TICK: Duration = Duration::from_millis(50);
/// For everything that was counted to be reported once nothing hinders it: a dead connection is noticed (20 s), a wait
/// of 15 s may have begun just before.
const SETTLE_WITHIN: Duration = Duration::from_secs(90);

/// What a message takes at most, unless a line is slow.
pub(crate) const USUAL_LATENCY: Duration = Duration::from_millis(100);

/// What the story's parts share.
pub(crate) struct Shared {
    pub(crate) seed: u64,
    pub(crate) shards: u32,
    pub(crate) report_interval: Duration,
    pub(crate) stale_after: Duration,
    pub(crate) scrape_every: Duration,
    /// Of the histograms' buckets.
    pub(crate) bounds: Vec<f64>,
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

impl Scrapes {
    /// What the processes counted, as the last page has it. The manager's own counters say what this life of it did.
    fn counts(&self) -> Samples {
        let is_count = |name: &str| name == "c_total" || name.starts_with("h_seconds_");
        let counts = self.last.iter().filter(|((name, _), _)| is_count(name));
        counts.map(|(series, value)| (series.clone(), *value)).collect()
    }
}

impl Shared {
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join(self.lives.get().to_string())
    }

    pub(crate) fn scraped(&self, page: &str) {
        let mut scrapes = self.scrapes.borrow_mut();
        scrapes.last = scrape::parse(page);
        let counts = scrapes.counts();
        if let Err(breach) = scrapes.before.check(counts) {
            scrapes.breach.get_or_insert(breach);
        }
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
    /// Of the hosts.
    addresses: Vec<IpAddr>,
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
    align_task_ids();
    let mut fleet = Fleet::new(seed);
    // Reporters draw their waits from here (as do names of temporary files, so they come before).
    fastrand::seed(seed);
    let outcome = fleet.live();
    let fingerprint = fleet.shared.scrapes.borrow().fingerprint.finish();
    Told { log: fleet.log, outcome, fingerprint }
}

/// tokio drops the tasks of a runtime, here those of a host that crashes, in an order that depends on their ids, and ids
/// count up over the process.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let next = || tokio::spawn(async {}).id().to_string().parse::<u64>().unwrap();
        while !next().is_multiple_of(64) {}
    });
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        // So much to keep that the journal is compacted now and then, but then there is much to compare too.
        let wide = rng.u8(..16) == 0;
        let shards = if wide { 3 } else { rng.u32(1..4) };
        let buckets = if wide { 500 } else { 3 };
        let scrape_every = Duration::from_millis(if wide { 4_000 } else { 200 });
        let report_interval = if wide { 200 } else { [200, 1_000, 2_500][rng.usize(..3)] };
        let report_interval = Duration::from_millis(report_interval);
        let stale_after =
            (report_interval * 3).max(Duration::from_secs([1, 6, 20][rng.usize(..3)]));
        let shared = Rc::new(Shared {
            seed,
            shards,
            report_interval,
            stale_after,
            scrape_every,
            bounds: (1..=buckets).map(|bound| f64::from(bound) / 2.0).collect(),
            runs: Runs::default(),
            counting: Cell::new(true),
            hosts: (0..2 * shards).map(|_| Host::default()).collect(),
            lives: Cell::default(),
            dir: directory(),
            scrapes: RefCell::default(),
        });
        let mut sim = Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(USUAL_LATENCY)
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
        let addresses = (0..shared.hosts.len()).map(|host| sim.lookup(name(host))).collect();
        Self { sim, shared, rng, addresses, log: Vec::new() }
    }

    fn live(&mut self) -> Result<(), String> {
        let trouble = self.rng.u64(20..70) + if self.shared.bounds.len() > 3 { 40 } else { 0 };
        let trouble = Duration::from_secs(trouble);
        let mut agenda = Agenda::default();
        while self.sim.elapsed() < trouble {
            agenda.go_on(self);
            self.step()?;
        }
        agenda.end(self);
        self.note("no more faults");
        self.one_process_a_shard()?;
        self.run_for(Duration::from_secs(1))?;
        self.shared.counting.set(false);
        self.settle()?;
        // Gauges of the dead go, and there is a page after that.
        self.run_for(self.shared.stale_after + self.shared.scrape_every + Duration::from_secs(1))?;
        let scrapes = self.shared.scrapes.borrow();
        let runs = self.shared.runs.lock();
        books::check_counts(&runs, &scrapes.counts())?;
        books::check_living(&runs, &scrapes.last, self.shared.shards)
    }

    /// Leaves the newest process of each shard, or starts one.
    fn one_process_a_shard(&mut self) -> Result<(), String> {
        for shard in 0..self.shared.shards {
            let running: Vec<_> =
                self.slots(shard).into_iter().filter(|host| self.is_running(*host)).collect();
            match running[..] {
                [] => self.start(shard as usize * 2),
                [one, other] => {
                    self.stop(if self.serial(one) < self.serial(other) { one } else { other });
                }
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
        self.deliver_unfrozen();
        match self.shared.scrapes.borrow_mut().breach.take() {
            Some(breach) => Err(format!("E2: {breach}")),
            None => Ok(()),
        }
    }
}

/// What faults are made of.
impl Fleet {
    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    pub(crate) fn note(&mut self, what: &str) {
        self.log.push(format!("{:>7.3} {what}", self.sim.elapsed().as_secs_f64()));
    }

    /// Both hosts of a shard.
    pub(crate) fn slots(&self, shard: u32) -> [usize; 2] {
        [shard as usize * 2, shard as usize * 2 + 1]
    }

    pub(crate) fn is_running(&mut self, host: usize) -> bool {
        self.shared.hosts[host].shard.get().is_some() && self.sim.is_host_running(name(host))
    }

    /// The newest run of a host.
    fn serial(&self, host: usize) -> Option<usize> {
        self.shared.runs.lock().iter().rposition(|run| run.host == host)
    }

    /// Starts a process on a host without one.
    pub(crate) fn start(&mut self, host: usize) {
        self.note(&format!("{} starts", name(host)));
        let of_host = &self.shared.hosts[host];
        of_host.shard.set(Some(host as u32 / 2));
        of_host.stop.replace(CancellationToken::new());
        self.sim.bounce(name(host));
    }

    /// Asks a process to end.
    pub(crate) fn stop(&mut self, host: usize) {
        self.note(&format!("{} is told to stop", name(host)));
        self.shared.hosts[host].stop.borrow().cancel();
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, host: usize) {
        self.note(&format!("{} is killed", name(host)));
        self.look(host);
        if let Some(serial) = self.serial(host) {
            let run = &mut self.shared.runs.lock()[serial];
            if run.end == End::Running {
                run.end = End::Lost;
            }
        }
        self.sim.crash(name(host));
        self.shared.hosts[host].reporter.replace(None);
    }

    /// Notes what the process' reporter says was acknowledged.
    fn look(&mut self, host: usize) {
        let of_host = &self.shared.hosts[host];
        let handle = of_host.reporter.borrow();
        let Some(handle) = &*handle else { return };
        if let (Some(reporter), Some(serial)) = (&*handle.lock(), self.serial(host)) {
            self.shared.runs.lock()[serial].look(reporter.status().acknowledged);
        }
    }

    /// kill -9, and what it leaves on the disk.
    pub(crate) fn kill_manager(&mut self) {
        self.note("the manager is killed");
        let left = self.shared.data_dir();
        self.shared.lives.set(self.shared.lives.get() + 1);
        manager::snapshot(&left, &self.shared.data_dir()).unwrap();
        self.sim.crash(MANAGER);
    }

    pub(crate) fn start_manager(&mut self) {
        self.note("the manager starts");
        self.sim.bounce(MANAGER);
    }

    pub(crate) fn is_manager_running(&mut self) -> bool {
        self.sim.is_host_running(MANAGER)
    }

    /// The line between a host and the manager.
    pub(crate) fn line(&mut self, host: usize, line: Line) {
        self.note(&format!("{}'s line: {line:?}", name(host)));
        let host_name = name(host);
        self.shared.hosts[host].frozen.borrow_mut().clear();
        match line {
            Line::Whole => {
                self.sim.release(&*host_name, MANAGER);
                self.sim.repair(&*host_name, MANAGER);
            }
            Line::Cut => self.sim.partition(&*host_name, MANAGER),
            Line::CutTowardsManager => self.sim.partition_oneway(&*host_name, MANAGER),
            Line::CutTowardsShard => self.sim.partition_oneway(MANAGER, &*host_name),
            Line::Held => self.sim.hold(&*host_name, MANAGER),
            Line::Frozen => {
                self.sim.hold(&*host_name, MANAGER);
                let of_host = &self.shared.hosts[host];
                of_host.frozen.borrow_mut().extend(of_host.open.lock().keys());
            }
        }
    }

    /// The process sees its connections break; what they carry is not lost by that.
    pub(crate) fn reset(&mut self, host: usize) {
        self.note(&format!("{}'s connections are reset", name(host)));
        let open = std::mem::take(&mut *self.shared.hosts[host].open.lock());
        open.into_values().for_each(|connection| connection.cancel());
    }

    pub(crate) fn slow(&mut self, host: usize, latency: Duration) {
        self.note(&format!("{}'s latency is up to {latency:?}", name(host)));
        self.sim.set_link_max_message_latency(name(host), MANAGER, latency);
    }

    /// On a line that is held for its frozen connections, carries the others.
    fn deliver_unfrozen(&self) {
        let hosts = self.addresses.iter().zip(&self.shared.hosts);
        let frozen: BTreeMap<_, _> = hosts
            .map(|(address, host)| (*address, host.frozen.borrow()))
            .filter(|(_, ports)| !ports.is_empty())
            .collect();
        if frozen.is_empty() {
            return;
        }
        self.sim.links(|links| {
            for link in links {
                let (one, other) = link.pair();
                let Some(ports) = frozen.get(&one).or_else(|| frozen.get(&other)) else {
                    continue;
                };
                for sent in link {
                    let (from, to) = sent.pair();
                    if !ports.contains(&from.port()) && !ports.contains(&to.port()) {
                        sent.deliver();
                    }
                }
            }
        });
    }
}

/// In memory if that is a file system here: the manager has the disk take its journal every second.
fn directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// How a line is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    Whole,
    /// What is sent is lost; connections do not learn of it.
    Cut,
    CutTowardsManager,
    CutTowardsShard,
    /// What is sent arrives when the line is whole again.
    Held,
    /// So it is with the connections there are; new ones work.
    Frozen,
}

pub(crate) fn name(host: usize) -> String {
    format!("shard-{}-{}", host / 2, ["a", "b"][host % 2])
}
