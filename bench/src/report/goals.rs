//! What the manager should cost, beside what it does.

use super::{of_floor, p99_of_floor};
use crate::{
    http::Encoding,
    results::{Beside, Cost, Results, Task, Transport, Who},
    shard::Change,
    table::{Table, figure},
    workload::SERIES_PER_SHARD,
};

/// One goal: at most `limit`.
struct Goal {
    what: &'static str,
    measured: Option<f64>,
    limit: f64,
}

/// Goals and figures. Those of a scrape in milliseconds hold for 1,000 shards.
pub(super) fn table(results: &Results) -> Table {
    let mut table = Table::new(&["goal", "at most", "measured", ""]);
    let mut goals = ingest(results);
    goals.extend(scrapes(results));
    goals.extend(journal(results));
    for Goal { what, measured, limit } in goals {
        let Some(measured) = measured else { continue };
        let verdict = if measured <= limit { "met" } else { "MISSED" };
        table.row(what, [figure(Some(limit)), figure(Some(measured)), verdict.to_owned()]);
    }
    table
}

fn ingest(results: &Results) -> Vec<Goal> {
    let cpu = |task| results.median(Who::Manager, task, Cost::cpu_us);
    let filled = |who| results.memory.get(&(who, Transport::Grpc)).map(|memory| memory.filled);
    // What the streams take, the floor takes too.
    let memory = filled(Who::Manager).zip(filled(Who::Floor)).map(|(m, f)| m.saturating_sub(f));
    let series = f64::from(results.shards) * SERIES_PER_SHARD as f64;
    vec![
        Goal {
            what: "gRPC frame of 250 series, CPU us",
            measured: cpu(Task::Frames(Change::All)),
            limit: 25.0,
        },
        Goal {
            what: "gRPC frame of 25 series, CPU us",
            measured: cpu(Task::Frames(Change::SameTenth)),
            limit: 18.0,
        },
        Goal {
            what: "JSON body, CPU us a series",
            measured: cpu(Task::Posts(Change::All)).map(|us| us / SERIES_PER_SHARD as f64),
            limit: 0.2,
        },
        Goal {
            what: "p99 of acks during scrapes, x floor",
            measured: p99_of_floor(results, Who::Manager, Task::Paced(Beside::Scrapes)),
            limit: 2.0,
        },
        Goal {
            what: "RSS bytes a series over the floor's, before the first scrape",
            measured: memory.map(|memory| memory as f64 / series),
            limit: 120.0,
        },
    ]
}

fn scrapes(results: &Results) -> Vec<Goal> {
    let floors = |encoding, change| {
        let nothing = Task::Scrape(encoding, Change::Nothing);
        of_floor(results, Who::Manager, Task::Scrape(encoding, change), nothing)
    };
    let mut goals = vec![
        Goal {
            what: "plain page, nothing changed, x floor",
            measured: floors(Encoding::Plain, Change::Nothing),
            limit: 2.0,
        },
        Goal {
            what: "plain page, same 10 % changed, x floor",
            measured: floors(Encoding::Plain, Change::SameTenth),
            limit: 1.6,
        },
        Goal {
            what: "plain page, random 10 % changed, x floor",
            measured: floors(Encoding::Plain, Change::RandomTenth),
            limit: 1.6,
        },
        Goal {
            what: "gzip page, nothing changed, x floor",
            measured: floors(Encoding::Gzip, Change::Nothing),
            limit: 2.0,
        },
    ];
    if results.shards == 1_000 {
        let cpu = |change| {
            let task = Task::Scrape(Encoding::Gzip, change);
            results.median(Who::Manager, task, Cost::cpu_us).map(|us| us / 1e3)
        };
        goals.extend([
            Goal {
                what: "gzip page, same 10 % changed, CPU ms",
                measured: cpu(Change::SameTenth),
                limit: 20.0,
            },
            Goal {
                what: "gzip page, random 10 % changed, CPU ms",
                measured: cpu(Change::RandomTenth),
                limit: 65.0,
            },
        ]);
    }
    goals
}

/// The journal's share, from managers with and without one in the same rounds.
fn journal(results: &Results) -> Vec<Goal> {
    let compare = |task, of: fn(&Cost, &Cost) -> f64| {
        results.within((Who::ManagerJournal, task), (Who::Manager, task), of)
    };
    let more_us = |with: &Cost, without: &Cost| with.cpu_us() - without.cpu_us();
    let more_percent =
        |with: &Cost, without: &Cost| 100.0 * (with.cpu_us() / without.cpu_us() - 1.0);
    let more_ms = |with: &Cost, without: &Cost| (with.cpu_us() - without.cpu_us()) / 1e3;
    vec![
        Goal {
            what: "journal: a frame of 250, CPU us more",
            measured: compare(Task::Frames(Change::All), more_us),
            limit: 4.0,
        },
        Goal {
            what: "journal: a frame of 250, % more",
            measured: compare(Task::Frames(Change::All), more_percent),
            limit: 15.0,
        },
        Goal {
            what: "journal: a frame of 25 at 500/s, % more",
            measured: compare(Task::Paced(Beside::Nothing), more_percent),
            limit: 15.0,
        },
        Goal {
            what: "journal: a body, % more",
            measured: compare(Task::Posts(Change::All), more_percent),
            limit: 15.0,
        },
        Goal {
            what: "journal: a plain page, same 10 % changed, CPU ms more",
            measured: compare(Task::Scrape(Encoding::Plain, Change::SameTenth), more_ms),
            limit: 20.0,
        },
    ]
}
