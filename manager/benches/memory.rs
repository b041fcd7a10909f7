//! Resident bytes a series, at 1,000 shards: before and after the registry is filled.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod workload;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn main() {
    const SHARDS: u32 = 1_000;
    let before = resident_bytes();
    let fleet = workload::fleet(SHARDS);
    let grown = resident_bytes() - before;
    let series = u64::from(SHARDS) * workload::SERIES_PER_SHARD as u64;
    // The benchmark's own streams hold one f64 a value and a few bytes an id, which count here too.
    println!("{SHARDS} shards, {series} series: {} bytes of RSS a series", grown / series);
    drop(fleet);
}
