//! Real processes under faults: a manager with its journal and eight shards, killed, stopped and cut off again and again
//! while Discord sends commands. Every page is watched throughout; at the end the counts are what was counted.
//!
//! `FAULTS=1000` makes it long; `FAULT_SEED` replays a schedule.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use parking_lot::Mutex;
use shardmeter_gateway_sim::{COMMANDS, ShardBooks};
use shardmeter_process::testing::until;
use tokio::time::{Instant, sleep_until};

use crate::{
    process::{ManagerProcess, Scratch, ShardProcess},
    prometheus::Prometheus,
    promtool,
    proxy::Proxy,
    scrape::{self, Samples},
    system::{Discord, confirmed, named, same},
    tools::variable,
    watch::{UpUntil, Watch},
    wire::Wire,
};

const SHARDS: u32 = 8;

/// Shards from here on are killed hard; the others suffer everything else, and lose nothing.
const KILLED_FROM: u32 = 4;

/// Commands a second: few enough that those of the longest stop are answered at once after it.
const COMMANDS_PER_SECOND: f64 = 100.0;

/// Longer than most shards take to come back after a fault.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// A shard gives up an answer after 3 s, whether Discord has taken it or not. It is never stopped for so long, so that it
/// counts what Discord confirmed, unless the machine is very slow.
const LONGEST_SHARD_STOP: f64 = 2.0;

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// kill -9, back at once.
    KillManager,
    KillShard(u32),
    /// kill -9, back when all reports are older than `stale-after`.
    LoseManager,
    /// Both are dead before either is back.
    KillBoth(u32),
    /// SIGTERM, its end, back at once.
    RestartManager,
    RestartShard(u32),
    /// SIGSTOP, and SIGCONT after that time.
    StopManager(Duration),
    StopShard(u32, Duration),
    /// The shard's connection to the manager breaks.
    Cut(u32),
    /// Nothing passes between the shard and the manager for that time.
    Swallow(u32, Duration),
}

/// Each kind of fault equally often, in any order, and the pause after each; some faults outlast it.
fn schedule(rng: &mut Rng, faults: usize) -> Vec<(Fault, Duration)> {
    let seconds =
        |rng: &mut Rng, from: f64, to: f64| Duration::from_secs_f64(from + rng.f64() * (to - from));
    let mut schedule = Vec::new();
    while schedule.len() < faults {
        let any = |rng: &mut Rng| rng.u32(..SHARDS);
        let mortal = |rng: &mut Rng| rng.u32(KILLED_FROM..SHARDS);
        let mut round = [
            Fault::KillManager,
            Fault::KillShard(mortal(rng)),
            Fault::LoseManager,
            Fault::KillBoth(mortal(rng)),
            Fault::RestartManager,
            Fault::RestartShard(any(rng)),
            Fault::StopManager(seconds(rng, 0.1, 3.0)),
            Fault::StopShard(any(rng), seconds(rng, 0.1, LONGEST_SHARD_STOP)),
            Fault::Cut(any(rng)),
            Fault::Swallow(any(rng), seconds(rng, 0.5, 4.0)),
        ];
        rng.shuffle(&mut round);
        schedule.extend(round.map(|fault| (fault, seconds(rng, 0.1, 2.0))));
    }
    schedule.truncate(faults);
    schedule
}

/// What has to be ended after its time.
#[derive(Debug, Clone, Copy)]
enum Ongoing {
    ManagerStopped,
    ShardStopped(u32),
    Swallowed(u32),
}

/// When the manager's last end and start were.
#[derive(Default)]
struct Life {
    ended: Option<Instant>,
    started: Option<Instant>,
}

struct System {
    discord: Discord,
    manager: ManagerProcess,
    shards: Vec<ShardProcess>,
    proxies: Vec<Proxy>,
    wires: Vec<Arc<Wire>>,
    life: Arc<Mutex<Life>>,
    ongoing: Vec<(Instant, Ongoing)>,
    _scratch: Scratch,
}

impl System {
    async fn start() -> Self {
        let scratch = Scratch::new("faults");
        let discord = Discord::start(SHARDS, 40, COMMANDS_PER_SECOND).await;
        let manager = ManagerProcess::start(scratch.path(), STALE_AFTER).await;
        let (mut shards, mut proxies, mut wires) = (Vec::new(), Vec::new(), Vec::new());
        for id in 0..SHARDS {
            let wire = Arc::new(Wire::default());
            let proxy = Proxy::tapped(manager.grpc, Arc::clone(&wire)).await;
            shards.push(ShardProcess::start(scratch.path(), &discord, id, SHARDS, proxy.addr));
            proxies.push(proxy);
            wires.push(wire);
        }
        let (life, ongoing) = (Arc::default(), Vec::new());
        Self { discord, manager, shards, proxies, wires, life, ongoing, _scratch: scratch }
    }

    /// Until when each shard must be called up: it was within `stale-after` of its last report, and a manager that
    /// starts knows nothing worse of it for as long.
    fn up_until(&self) -> impl Fn() -> UpUntil + Send + 'static {
        let (wires, life) = (self.wires.clone(), Arc::clone(&self.life));
        move || {
            let life = life.lock();
            let reported = (0..).zip(&wires).filter_map(|(id, wire)| Some((id, wire.reported()?)));
            let until = reported.map(|(id, reported)| {
                let was_up = life.ended.is_some_and(|ended| ended < reported + STALE_AFTER);
                let from = life.started.filter(|_| was_up).map_or(reported, |s| s.max(reported));
                (id, from + STALE_AFTER)
            });
            until.collect()
        }
    }

    fn shard(&mut self, id: u32) -> &mut ShardProcess {
        &mut self.shards[id as usize]
    }

    fn manager_ended(&mut self) {
        self.life.lock().ended = Some(Instant::now());
    }

    fn start_manager(&mut self) {
        self.life.lock().started = Some(Instant::now());
        self.manager.start_again();
    }

    async fn inflict(&mut self, fault: Fault) {
        let mut goes_on = |for_: Duration, what| self.ongoing.push((Instant::now() + for_, what));
        match fault {
            Fault::KillManager => {
                self.manager.process.kill().await;
                self.manager_ended();
                self.start_manager();
            }
            Fault::KillShard(id) => {
                self.shard(id).process.kill().await;
                self.shard(id).start_again();
            }
            Fault::LoseManager => {
                self.rest(Duration::ZERO, true).await;
                self.manager.process.kill().await;
                self.manager_ended();
                self.rest(STALE_AFTER + Duration::from_millis(500), false).await;
                self.start_manager();
            }
            Fault::KillBoth(id) => {
                self.manager.process.kill().await;
                self.manager_ended();
                self.shard(id).process.kill().await;
                self.start_manager();
                self.shard(id).start_again();
            }
            Fault::RestartManager => self.restart_manager().await,
            Fault::RestartShard(id) => self.restart_shard(id).await,
            Fault::StopManager(for_) => {
                goes_on(for_, Ongoing::ManagerStopped);
                self.manager.process.signal("STOP");
            }
            Fault::StopShard(id, for_) => {
                goes_on(for_, Ongoing::ShardStopped(id));
                self.shard(id).process.signal("STOP");
            }
            Fault::Cut(id) => self.proxies[id as usize].cut(),
            Fault::Swallow(id, for_) => {
                goes_on(for_, Ongoing::Swallowed(id));
                self.proxies[id as usize].swallow();
            }
        }
    }

    async fn restart_manager(&mut self) {
        self.rest(Duration::ZERO, true).await;
        self.manager.process.says("manager listens").await;
        self.manager.process.terminate().await;
        self.manager_ended();
        self.start_manager();
    }

    /// A shard that is asked to end has seconds to deliver its last counts. Here it can: its way is free, and the
    /// manager is there.
    async fn restart_shard(&mut self, id: u32) {
        self.rest(Duration::ZERO, true).await;
        self.manager.process.says("manager listens").await;
        let shard = self.shard(id);
        shard.process.says("the bot is ready to connect").await;
        shard.process.terminate().await;
        let log = shard.process.log();
        assert!(!log.contains("may lack the last counts"), "shard {id}: {log}");
        shard.start_again();
    }

    /// Lets time pass, and ends what is due meanwhile; if `all`, everything that goes on.
    async fn rest(&mut self, pause: Duration, all: bool) {
        let end = Instant::now() + pause;
        loop {
            let next = (0..self.ongoing.len()).min_by_key(|at| self.ongoing[*at].0);
            let Some(next) = next.filter(|at| all || self.ongoing[*at].0 < end) else {
                break;
            };
            let (due, what) = self.ongoing.swap_remove(next);
            sleep_until(due).await;
            match what {
                Ongoing::ManagerStopped => self.manager.process.signal("CONT"),
                Ongoing::ShardStopped(id) => self.shard(id).process.signal("CONT"),
                Ongoing::Swallowed(id) => self.proxies[id as usize].heal(),
            }
        }
        sleep_until(end).await;
    }

    fn assert_all_run(&mut self) {
        self.manager.process.assert_runs();
        self.shards.iter_mut().for_each(|shard| shard.process.assert_runs());
    }

    /// Waits until everything counted was reported, and is on the page.
    async fn settle(&self) {
        self.discord.control.pause();
        until("the page equals the books of the shards that were not killed", || async {
            let page = scrape::parse(&self.manager.page().await?);
            let books = self.discord.control.books().shards;
            books.range(..KILLED_FROM).try_for_each(|(id, books)| equals(&page, *id, books))
        })
        .await;
        let acks: Vec<_> = self.wires.iter().map(|wire| wire.acks()).collect();
        until("every shard has reported since", || async {
            let late = (0..).zip(&self.wires).zip(&acks);
            match late.into_iter().find(|((_, wire), acks)| wire.acks() < **acks + 3) {
                Some(((id, _), _)) => Err(format!("shard {id} has not")),
                None => Ok(()),
            }
        })
        .await;
    }

    /// Whether what the page shows of each shard lies between what was acknowledged and what was sent, which is one and
    /// the same for those that were not killed.
    async fn bounds(&self) -> Result<(), String> {
        let acked: Vec<_> = self.wires.iter().map(|wire| wire.acknowledged()).collect();
        let shown = scrape::counts(&self.manager.page().await?);
        let sent: Vec<_> = self.wires.iter().map(|wire| wire.sent()).collect();
        for (id, (acked, sent)) in acked.iter().zip(&sent).enumerate() {
            if id < KILLED_FROM as usize {
                same(acked, sent)?;
            }
            assert!(sent.len() > 60, "shard {id} sent {sent:?}");
            scrape::between(&shown, id as u32, acked, sent)?;
        }
        Ok(())
    }
}

/// Whether the page shows of a shard what its books say was confirmed. What the shard gave up waiting for, Discord may
/// have confirmed or not.
fn equals(page: &Samples, shard: u32, books: &ShardBooks) -> Result<(), String> {
    let shard = shard.to_string();
    let sum = |name: &str, labels: &[(&str, &str)]| -> f64 {
        let has = |(label, value): &(&str, &str), of: &BTreeMap<String, String>| {
            of.get(*label).is_some_and(|found| found == value)
        };
        let own = page.iter().filter(|((n, _), _)| n == name);
        let own = own.filter(|((_, of), _)| labels.iter().all(|label| has(label, of)));
        own.map(|(_, value)| value).sum()
    };
    let mut all = 0.0;
    for command in COMMANDS {
        let of_command = [("shard_id", shard.as_str()), ("command_name", command)];
        let (executed, given_up) =
            (sum("commands_executed_total", &of_command), sum("command_errors_total", &of_command));
        let confirmed = books.confirmed.iter().filter(|((_, name), _)| name == command);
        let confirmed: f64 = confirmed.map(|(_, count)| *count as f64).sum();
        let last = [of_command[0], of_command[1], ("le", "inf")];
        let timed = sum("command_execution_duration_seconds_count", &of_command);
        let in_last = sum("command_execution_duration_seconds_bucket", &last);
        let holds = executed <= confirmed
            && confirmed <= executed + given_up
            && confirmed <= timed
            && timed <= confirmed + given_up
            && in_last == timed;
        if !holds {
            return Err(format!(
                "{command} on shard {shard}: {executed} executed, {timed} timed ({in_last}), {given_up} given up, \
                 {confirmed} confirmed"
            ));
        }
        all += executed;
    }
    let of_shard = [("shard_id", shard.as_str())];
    let acked = sum("interaction_ack_duration_seconds_count", &of_shard);
    if acked != all {
        return Err(format!("shard {shard}: {acked} acknowledged, {all} executed"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_survive_kills_stops_and_cuts() {
    let seed = variable("FAULT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let faults = variable("FAULTS").unwrap_or(30) as usize;
    eprintln!("FAULT_SEED={seed} FAULTS={faults}");
    let mut system = System::start().await;
    let prometheus = Prometheus::start(system.manager.http).await;
    let watch = Watch::start(system.manager.url("/metrics"), system.up_until());
    system.discord.control.until_connected(SHARDS as usize).await;
    system.discord.control.until(|books| books.confirmed() >= 100).await;

    let began = Instant::now();
    for (number, (fault, pause)) in
        schedule(&mut Rng::with_seed(seed), faults).into_iter().enumerate()
    {
        eprintln!("{:7.2} s  {:3}  {fault:?}", began.elapsed().as_secs_f64(), number + 1);
        system.inflict(fault).await;
        system.rest(pause, false).await;
        watch.assert_fine();
        system.assert_all_run();
    }
    system.rest(Duration::ZERO, true).await;
    eprintln!("{:7.2} s  the faults are over", began.elapsed().as_secs_f64());

    system.settle().await;
    until("all counts are within their bounds", || system.bounds()).await;
    let page = until("the page", || system.manager.page()).await;
    let books = system.discord.control.books();
    let booked = confirmed(&books);
    for (series, shown) in named(&scrape::parse(&page), "commands_executed_total") {
        assert!(Some(&shown) <= booked.get(&series), "{series:?} is {shown}: {booked:?}");
    }
    promtool::check(&page).await;
    prometheus.assert_never_fell(|| system.manager.page()).await;
    watch.assert_fine();
    assert!(watch.pages() > 2 * faults as u64, "only {} pages", watch.pages());
    system.assert_all_run();
    eprintln!(
        "{:7.2} s  {} commands confirmed, {} pages compared",
        began.elapsed().as_secs_f64(),
        books.confirmed(),
        watch.pages(),
    );
}
