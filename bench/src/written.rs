//! The files that `--write` writes: the report with where and when it was measured, and the chart.

use std::{fmt::Display, fs, path::Path, process::Command, time::SystemTime};

use anyhow::Context as _;

use crate::{api, chart, report::Report, results::Who, run::Run};

/// What stands between these is written anew; what people wrote around it stays.
const BEGIN: &str = "<!-- measured -->\n";
const END: &str = "<!-- end of measured -->\n";

const BEGIN_API: &str = "<!-- measured: api -->\n";
const END_API: &str = "<!-- end of measured: api -->\n";

const API: &str = "\n# What the api costs\n\n`--only sse,api` measures this alone.\n\n";

const FIRST: &str = "\
# What the manager costs

`cargo run --release -p shardmeter-bench -- --write` measures this.

![CPU of a scrape](results.svg)

";

/// Writes both.
pub(crate) fn write(run: &Run) -> anyhow::Result<()> {
    write_between(BEGIN, END, &Report(run))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let with_peers = run.results.iter().rev().find(|results| results.has(Who::Joiner));
    if let Some(svg) = with_peers.or(run.results.last()).and_then(chart::svg) {
        fs::write(folder.join("results.svg"), svg)?;
    }
    Ok(())
}

/// Writes what the api costs.
pub(crate) fn write_api(run: &api::Run) -> anyhow::Result<()> {
    write_between(BEGIN_API, END_API, run)
}

fn write_between(begin: &str, end: &str, report: &dyn Display) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = folder.join("RESULTS.md");
    let before = fs::read_to_string(&file)
        .unwrap_or_else(|_| format!("{FIRST}{BEGIN}{END}{API}{BEGIN_API}{END_API}"));
    let (head, rest) = before.split_once(begin).context("RESULTS.md has no place for it")?;
    let (_, tail) = rest.split_once(end).context("RESULTS.md has no place for it")?;
    let measured = format!("{}\n\n{report}", circumstances(folder));
    Ok(fs::write(file, format!("{head}{begin}{measured}{end}{tail}"))?)
}

/// Date, commit, machine.
fn circumstances(folder: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(folder).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain"]).is_none_or(|changed| !changed.is_empty());
    let of = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches([' ', '\t', ':']).to_owned()
    };
    format!(
        "{}, commit {commit}{}; {}, {} cores, memory {}, Linux {}.",
        humantime::format_rfc3339_seconds(SystemTime::now()),
        if changed { " and what was not committed" } else { "" },
        of("/proc/cpuinfo", "model name"),
        std::thread::available_parallelism().map_or(0, usize::from),
        of("/proc/meminfo", "MemTotal"),
        of("/proc/sys/kernel/osrelease", ""),
    )
}
