//! The results as tables.

mod goals;

use std::{fmt, time::Duration};

use crate::{
    clocks::OwnWork,
    http::Encoding,
    results::{Beside, Cost, Results, Task, Transport, Who, median, micros},
    run::Run,
    shard::Change,
    table::{Table, figure, thousands, times},
    workload::SERIES_PER_SHARD,
};

/// What is said of the figures.
const LEGEND: &str = "\
CPU is the server's, user and system, all threads. Medians of the rounds; `x floor` is taken within each round. The floor
is a process on the same stack (axum, tonic) that reads each body once and decodes each frame, keeps nothing, and sends the
manager's own page from memory. A series is a line on the page. Wall times of a scrape are those after the same 10 %.";

/// The whole report.
pub(crate) struct Report<'a>(pub(crate) &'a Run);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{LEGEND}\n\n{}", noise(&self.0.calibration))?;
        for results in &self.0.results {
            let Results { shards, rounds, page_bytes: [plain, gzip], .. } = results;
            writeln!(
                f,
                "\n### {} shards x {SERIES_PER_SHARD} series, {} rounds\n\nThe page has {} bytes, gzipped {}. One pass over \
                 a shard's body, without a socket: {} us a series.",
                thousands((*shards).into()),
                rounds.len(),
                thousands(*plain as f64),
                thousands(*gzip as f64),
                figure(median(results.scans.clone()).map(|us| us / SERIES_PER_SHARD as f64)),
            )?;
            for missing in &results.missing {
                writeln!(f, "\nNot measured: {missing}")?;
            }
            let tables = [ingest, scrapes, acks, memory, goals::table].map(|table| table(results));
            for table in tables.into_iter().filter(|table| !table.is_empty()) {
                write!(f, "\n{table}")?;
            }
        }
        Ok(())
    }
}

/// How far the same work was apart.
fn noise(calibration: &[OwnWork]) -> String {
    let millis = |duration: Duration| micros(duration) / 1e3;
    let mut cpu: Vec<f64> = calibration.iter().map(|work| millis(work.cpu)).collect();
    cpu.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (cpu.first().copied(), cpu.last().copied()) else {
        return String::new();
    };
    let waited = calibration.iter().map(|work| millis(work.wall) / millis(work.cpu));
    format!(
        "The machine's noise: the same work took {} to {} ms of CPU (median {}, {} times, spread {}). It lasted {} that long, at \
         most {}: above 1, others used the cores.",
        figure(Some(least)),
        figure(Some(most)),
        figure(median(cpu.clone())),
        cpu.len(),
        times(Some(most / least)),
        times(median(waited.clone().collect())),
        times(waited.max_by(f64::total_cmp)),
    )
}

fn ingest(results: &Results) -> Table {
    let mut table = Table::new(&[
        "ingest, CPU us",
        "10 % change",
        "x floor",
        "100 % change",
        "x floor",
        "a series",
        "a second",
    ]);
    put_ingest(&mut table, results, "gRPC frame", Task::Frames);
    put_ingest(&mut table, results, "HTTP body", Task::Posts);
    table
}

fn put_ingest(table: &mut Table, results: &Results, way: &str, task: fn(Change) -> Task) {
    for who in Who::ALL {
        let (tenth, all) = (task(Change::SameTenth), task(Change::All));
        let Some(cpu) = results.median(who, all, Cost::cpu_us) else { continue };
        let cells = [
            figure(results.median(who, tenth, Cost::cpu_us)),
            times(of_floor(results, who, tenth, tenth)),
            figure(Some(cpu)),
            times(of_floor(results, who, all, all)),
            figure(Some(cpu / SERIES_PER_SHARD as f64)),
            figure(results.median(who, all, Cost::rate)),
        ];
        table.row(format!("{way}: {}", who.name()), cells);
    }
}

fn scrapes(results: &Results) -> Table {
    let mut head = vec!["scrape, CPU ms".to_owned()];
    for change in Change::BEFORE_A_SCRAPE {
        head.extend([change.name().to_owned(), "x floor".to_owned()]);
    }
    head.extend(["wall ms p50".to_owned(), "p99".to_owned()]);
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(&head);
    for encoding in Encoding::ALL {
        let nothing = Task::Scrape(encoding, Change::Nothing);
        for who in Who::ALL {
            if results.median(who, nothing, Cost::cpu_us).is_none() {
                continue;
            }
            let mut cells = Vec::new();
            for change in Change::BEFORE_A_SCRAPE {
                let task = Task::Scrape(encoding, change);
                cells.push(figure(results.median(who, task, Cost::cpu_us).map(|us| us / 1e3)));
                cells.push(times(of_floor(results, who, task, nothing)));
            }
            let usual = Task::Scrape(encoding, Change::SameTenth);
            for percent in [50.0, 99.0] {
                let wall = results.pooled_us(who, usual, percent);
                let wall = wall.or_else(|| results.pooled_us(who, nothing, percent));
                cells.push(figure(wall.map(|us| us / 1e3)));
            }
            table.row(format!("{}: {}", encoding.name(), who.name()), cells);
        }
    }
    table
}

fn acks(results: &Results) -> Table {
    let mut table = Table::new(&[
        "500 frames/s, send to ack, us",
        "p50",
        "p99",
        "x floor",
        "p50, 2 scrapes/s",
        "p99, 2 scrapes/s",
        "x floor",
        "p50, beside a flood",
        "p99, beside a flood",
        "x floor",
        "CPU us a frame, no scrapes",
    ]);
    for who in Who::ALL {
        let alone = Task::Paced(Beside::Nothing);
        let Some(cpu) = results.median(who, alone, Cost::cpu_us) else { continue };
        let mut cells = Vec::new();
        for beside in Beside::ALL {
            let task = Task::Paced(beside);
            cells.push(figure(results.median(who, task, |cost| cost.percentile_us(50.0))));
            cells.push(figure(results.median(who, task, |cost| cost.percentile_us(99.0))));
            cells.push(times(p99_of_floor(results, who, task)));
        }
        cells.push(figure(Some(cpu)));
        table.row(who.name(), cells);
    }
    table
}

fn memory(results: &Results) -> Table {
    let mut table = Table::new(&["RSS bytes a series", "all shards reported", "after the rounds"]);
    let series = f64::from(results.shards) * SERIES_PER_SHARD as f64;
    for ((who, transport), memory) in &results.memory {
        let way = match transport {
            Transport::Grpc => "gRPC",
            Transport::Http => "HTTP",
        };
        let cells = [Some(memory.filled), memory.used]
            .map(|bytes| figure(bytes.map(|bytes| bytes as f64 / series)));
        table.row(format!("{}, {way}", who.name()), cells);
    }
    table
}

/// CPU, as a multiple of the floor's in the same round.
fn of_floor(results: &Results, who: Who, task: Task, floors: Task) -> Option<f64> {
    let other = (Who::Floor, floors);
    results.within((who, task), other, |cost, floor| cost.cpu_us() / floor.cpu_us())
}

/// The slowest acks, as a multiple of the floor's in the same round.
fn p99_of_floor(results: &Results, who: Who, task: Task) -> Option<f64> {
    results.within((who, task), (Who::Floor, task), |cost, floor| {
        cost.percentile_us(99.0) / floor.percentile_us(99.0)
    })
}
