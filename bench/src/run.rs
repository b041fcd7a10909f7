//! The run: starts every server, and has all of them do every task in every round, one right after the other.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    clocks::{self, OwnWork},
    config::{Config, Effort},
    contender::{Contender, Scrapes},
    grpc::Fleet,
    http::{self, Encoding, Posters, Route, Scraper},
    results::{Results, Task, Transport, Who},
    server::Server,
    shard::Shard,
    workload::SERIES_PER_SHARD,
};

/// Beyond this many shards the peers would take most of the time, and gigabytes.
const PEERS_UP_TO: u32 = 1_000;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) results: Vec<Results>,
    /// The same work, once before every task.
    pub(crate) calibration: Vec<OwnWork>,
}

/// Measures what the configuration asks for.
pub(crate) async fn run(config: &Config) -> anyhow::Result<Run> {
    let manager = build("shardmeter-manager").await?;
    let mut run = Run::default();
    for shards in &config.shards {
        let results = fleet_of(*shards, config, &manager, &mut run.calibration).await;
        run.results.push(results.with_context(|| format!("with {shards} shards"))?);
    }
    Ok(run)
}

/// Builds a package as it is released. Where its binary is.
pub(crate) async fn build(package: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--quiet", "--package", package]);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    tracing::info!("building {package}");
    let status = build.status().await.context("cannot run cargo")?;
    ensure!(status.success(), "cargo build --release -p {package} fails");
    // Cargo puts all profiles' folders side by side.
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("not in cargo's target folder")?;
    Ok(target.join("release").join(package))
}

async fn fleet_of(
    shards: u32,
    config: &Config,
    manager: &Path,
    calibration: &mut Vec<OwnWork>,
) -> anyhow::Result<Results> {
    let effort = Effort::of(shards, config.quick);
    let mut line_up =
        LineUp { shards, effort, contenders: Vec::new(), missing: Vec::new(), dirs: Vec::new() };
    line_up.add_managers(Who::Manager, Who::ManagerJournal, manager).await?;
    if let Some(binary) = &config.against {
        line_up.add_managers(Who::Against, Who::AgainstJournal, binary).await?;
    }
    let page_bytes = line_up.add_floor().await?;
    if config.no_peers || shards > PEERS_UP_TO {
        line_up.missing.push(format!("the peers: left out with {shards} shards"));
    } else {
        line_up.add_peers().await;
    }
    let LineUp { mut contenders, missing, dirs: _dirs, .. } = line_up;
    let mut results = Results { shards, page_bytes, missing, ..Results::default() };
    let body = Shard::new(0).text(false);
    for n in 1..=config.rounds {
        tracing::info!(shards, "round {n} of {}", config.rounds);
        results.scans.push(clocks::scan(body.clone()).await?.as_secs_f64() * 1e6);
        let mut round = BTreeMap::new();
        for task in Task::all().into_iter().filter(|task| config.wants(*task)) {
            calibration.push(clocks::calibrate().await?);
            for contender in &mut contenders {
                let who = contender.who;
                let cost = contender.perform(task, &effort).await;
                let cost = cost.with_context(|| format!("{}: {task:?}", who.name()))?;
                round.extend(cost.map(|cost| ((who, task), cost)));
            }
        }
        results.rounds.push(round);
        // Nobody always comes after the same one.
        contenders.rotate_left(1);
    }
    for contender in &contenders {
        if let Some((way, memory)) = contender.memory()? {
            results.memory.insert((contender.who, way), memory);
        }
    }
    Ok(results)
}

/// The servers as they are started.
struct LineUp {
    shards: u32,
    effort: Effort,
    contenders: Vec<Contender>,
    missing: Vec<String>,
    /// Removed at the end.
    dirs: Vec<TempDir>,
}

impl LineUp {
    /// A manager each for frames and for posts (a shard may use only one of them), with and without a journal.
    async fn add_managers(
        &mut self,
        memory: Who,
        journal: Who,
        binary: &Path,
    ) -> anyhow::Result<()> {
        for transport in [Transport::Grpc, Transport::Http] {
            for who in [memory, journal] {
                let dir = if who == journal { Some(self.dir()?) } else { None };
                let server = Server::manager(binary, dir.as_deref()).await?;
                let contender = match transport {
                    Transport::Grpc => self.with_frames(who, server).await,
                    Transport::Http => self.with_posts(who, server, Route::ShardMetrics).await,
                };
                let contender = contender.with_context(|| who.name())?;
                contender.scraper.expect_samples(self.series()).await?;
                self.contenders.push(contender);
            }
        }
        Ok(())
    }

    /// The floor sends the page that the manager has now. Its length, by encoding.
    async fn add_floor(&mut self) -> anyhow::Result<[usize; 2]> {
        let server = Server::floor().await?;
        let mut floor = self.with_frames(Who::Floor, server).await?;
        floor.posters =
            Some(Posters::open(&floor.server.http, Route::ShardMetrics, self.shards).await?);
        floor.scrapes = Scrapes::Alike(self.effort.pages);
        let manager = self.contenders.first().context("no manager")?;
        floor.floods = manager.server.grpc.clone();
        let mut bytes = [0; 2];
        for encoding in Encoding::ALL {
            let page = manager.scraper.page(encoding).await?;
            bytes[encoding as usize] = page.len();
            let url = format!("{}/pages/{}", floor.server.http, encoding.name());
            http::client()?.put(url).body(page).send().await?.error_for_status()?;
        }
        floor.scraper.expect_samples(self.series()).await?;
        self.contenders.push(floor);
        Ok(bytes)
    }

    /// Those that can be started.
    async fn add_peers(&mut self) {
        for who in [Who::Joiner, Who::Pushgateway, Who::PushgatewayAsShipped] {
            match self.peer(who).await {
                Ok(peer) => self.contenders.push(peer),
                Err(error) => self.missing.push(format!("{}: {error:#}", who.name())),
            }
        }
    }

    async fn peer(&mut self, who: Who) -> anyhow::Result<Contender> {
        let mut peer = match who {
            Who::Joiner => {
                let server = Server::joiner().await?;
                self.with_posts(who, server, Route::LabelledShardMetrics).await?
            }
            Who::Pushgateway => {
                let server = Server::pushgateway(None, false).await?;
                self.with_posts(who, server, Route::Pushgateway).await?
            }
            _ => return self.pushgateway_as_shipped().await,
        };
        peer.scraper.expect_samples(self.series()).await?;
        let pages = if who == Who::Joiner { self.effort.pages } else { self.effort.slow_pages };
        peer.scrapes = Scrapes::Alike(pages);
        Ok(peer)
    }

    /// It reads all it holds at every push, so filling it would take minutes: it starts on the file of one that does not.
    async fn pushgateway_as_shipped(&mut self) -> anyhow::Result<Contender> {
        let file = self.dir()?.join("pushed");
        let filled = Server::pushgateway(Some(&file), false).await?;
        Posters::open(&filled.http, Route::Pushgateway, self.shards).await?;
        Scraper::new(&filled.http)?.expect_samples(self.series()).await?;
        filled.terminate().await?;
        let server = Server::pushgateway(Some(&file), true).await?;
        let scraper = Scraper::new(&server.http)?;
        scraper.expect_samples(self.series()).await?;
        Ok(Contender {
            who: Who::PushgatewayAsShipped,
            fleet: None,
            floods: None,
            posters: Some(Posters::on_filled(&server.http, Route::Pushgateway, self.shards)?),
            posts: self.effort.slow_posts,
            scraper,
            scrapes: Scrapes::None,
            rss_filled: server.rss()?,
            server,
        })
    }

    async fn with_frames(&self, who: Who, server: Server) -> anyhow::Result<Contender> {
        let addr = server.grpc.as_deref().context("it has no gRPC port")?;
        Ok(Contender {
            who,
            fleet: Some(Fleet::open(addr, self.shards).await?),
            floods: server.grpc.clone(),
            posters: None,
            posts: self.effort.posts,
            scraper: Scraper::new(&server.http)?,
            scrapes: Scrapes::ByChange(self.effort.pages),
            rss_filled: server.rss()?,
            server,
        })
    }

    async fn with_posts(
        &self,
        who: Who,
        server: Server,
        route: Route,
    ) -> anyhow::Result<Contender> {
        Ok(Contender {
            who,
            fleet: None,
            floods: None,
            posters: Some(Posters::open(&server.http, route, self.shards).await?),
            posts: self.effort.posts,
            scraper: Scraper::new(&server.http)?,
            scrapes: Scrapes::None,
            rss_filled: server.rss()?,
            server,
        })
    }

    /// Lines that every page has at least.
    fn series(&self) -> usize {
        self.shards as usize * SERIES_PER_SHARD
    }

    /// A folder on the disk that cargo builds on: what lies under /tmp may be memory.
    fn dir(&mut self) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        let beside = own.parent().context("no folder")?;
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?;
        let path = dir.path().to_owned();
        self.dirs.push(dir);
        Ok(path)
    }
}
