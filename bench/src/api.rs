//! What the api costs: those who listen to live events, and those who ask for the list of shards. Beside it the floor, a
//! server on the same stack that sends what lies ready.

mod listeners;
mod questions;

use std::{fmt, path::Path, time::Duration};

use tempfile::TempDir;

use crate::{
    config::{Config, Part},
    results::{median, micros},
    run,
    server::Server,
    table::{Table, figure, thousands, times},
};
use listeners::EVENTS_A_SECOND;

/// What is said of the figures.
const LEGEND: &str = "\
CPU is the server's, user and system, all threads; `x floor` is taken within each round. The floor sends from memory, on the
same stack (axum): to listeners ten events every 100 ms, as the api tells them, and to those who ask the api's own list. Events
come to the api over Redis, one by one. Clients are on the same machine, and take more of it than the servers.";

/// Whom a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Floor,
    Api,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Api => "api",
        }
    }
}

/// What one load cost a server.
#[derive(Debug)]
struct Cost {
    who: Who,
    cpu: Duration,
    wall: Duration,
    /// Deliveries, or answers.
    times: usize,
    latencies: Vec<Duration>,
    /// Resident bytes that came with the load: before it began, and after.
    grown: [u64; 2],
}

impl Cost {
    fn cpu_us(&self) -> f64 {
        micros(self.cpu) / self.times.max(1) as f64
    }

    fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |latency| micros(*latency) / 1e3)
    }
}

/// All rounds.
#[derive(Debug, Default)]
pub(crate) struct Run {
    listeners: usize,
    shards: u32,
    list_bytes: usize,
    listening: Vec<Cost>,
    asking: Vec<Cost>,
}

/// Measures what the configuration asks for.
pub(crate) async fn run(config: &Config) -> anyhow::Result<Run> {
    let (listens, asks) = (config.wants_part(Part::Sse), config.wants_part(Part::Api));
    let api = run::build("shardmeter-api").await?;
    let mut run = Run::default();
    let shards = if config.quick { 100 } else { 1_000 };
    if asks {
        let manager = run::build("shardmeter-manager").await?;
        let mut questions = questions::Questions::new(&manager, &api, shards).await?;
        (run.shards, run.list_bytes) = (shards, questions.list_bytes);
        for _ in 0..config.rounds {
            run.asking.extend(questions.round(if config.quick { 200 } else { 5_000 }).await?);
        }
    }
    if listens {
        run.listeners = if config.quick { 200 } else { 2_000 };
        let events = if config.quick { 100 } else { 1_000 };
        for n in 1..=config.rounds {
            tracing::info!("listeners, round {n} of {}", config.rounds);
            run.listening.extend(listeners::round(&api, run.listeners, events).await?);
        }
    }
    Ok(run)
}

/// An api on a database file in a folder of its own.
async fn server(
    binary: &Path,
    redis_url: Option<&str>,
    manager: Option<&str>,
) -> anyhow::Result<(Server, TempDir)> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map_or_else(std::env::temp_dir, Path::to_owned);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?;
    let server = Server::api(binary, folder.path(), redis_url, manager).await?;
    Ok((server, folder))
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{LEGEND}")?;
        if !self.listening.is_empty() {
            let title = format!(
                "{} listeners, {EVENTS_A_SECOND} events/s",
                thousands(self.listeners as f64)
            );
            let mut table = Table::new(&[
                &title,
                "CPU, % of a core",
                "us a delivery",
                "x floor",
                "ms p50",
                "p99",
                "kB a listener, idle",
                "after",
            ]);
            let kb = |bytes: u64| bytes as f64 / 1e3 / self.listeners as f64;
            for who in [Who::Floor, Who::Api] {
                let of = |figure: &dyn Fn(&Cost) -> f64| median_of(&self.listening, who, figure);
                let cells = [
                    figure(of(&|cost| 100.0 * cost.cpu.as_secs_f64() / cost.wall.as_secs_f64())),
                    figure(of(&Cost::cpu_us)),
                    times(ratio(&self.listening, who)),
                    figure(of(&|cost| cost.percentile_ms(50))),
                    figure(of(&|cost| cost.percentile_ms(99))),
                    figure(of(&|cost| kb(cost.grown[0]))),
                    figure(of(&|cost| kb(cost.grown[1]))),
                ];
                table.row(who.name(), cells);
            }
            write!(f, "\n{table}")?;
        }
        if !self.asking.is_empty() {
            let title = format!(
                "GET /api/v1/shards, {} shards, {} kB, {} at a time",
                thousands(self.shards.into()),
                figure(Some(self.list_bytes as f64 / 1e3)),
                questions::AT_A_TIME
            );
            let mut table = Table::new(&[&title, "a second", "CPU us", "x floor", "ms p50", "p99"]);
            for who in [Who::Floor, Who::Api] {
                let of = |figure: &dyn Fn(&Cost) -> f64| median_of(&self.asking, who, figure);
                let cells = [
                    figure(of(&|cost| cost.times as f64 / cost.wall.as_secs_f64())),
                    figure(of(&Cost::cpu_us)),
                    times(ratio(&self.asking, who)),
                    figure(of(&|cost| cost.percentile_ms(50))),
                    figure(of(&|cost| cost.percentile_ms(99))),
                ];
                table.row(who.name(), cells);
            }
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}

fn median_of(costs: &[Cost], who: Who, figure: &dyn Fn(&Cost) -> f64) -> Option<f64> {
    median(costs.iter().filter(|cost| cost.who == who).map(figure).collect())
}

/// To the floor's, round by round.
fn ratio(costs: &[Cost], who: Who) -> Option<f64> {
    let of = |who: Who| costs.iter().filter(move |cost| cost.who == who).map(Cost::cpu_us);
    median(of(who).zip(of(Who::Floor)).map(|(own, floor)| own / floor).collect())
}
