//! `--data-dir` as an operator meets it: kills, a full disk, two managers on one directory.

use std::{fs, process::Command};

use serde_json::{Value, json};
use shardmeter_process::testing::{is, until};
use tempfile::TempDir;

use crate::process::{Running, ends};

fn start(dir: &TempDir) -> Running {
    Running::start(&["--data-dir", dir.path().to_str().unwrap()], &[])
}

/// Posts a count of shard 3; what the manager answers.
async fn post(manager: &Running, count: u64) -> Value {
    let request = reqwest::Client::new().post(format!("{}/shard-metrics", manager.http));
    let text = format!("# TYPE c_total counter\nc_total {count}\n# TYPE g gauge\ng 1\n");
    let body = json!({ "shardId": 3, "metrics": text });
    let answer = request.header("x-instance-id", "a").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

async fn get(manager: &Running, path: &str) -> String {
    let answer = reqwest::get(format!("{}{path}", manager.http)).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

/// The value of a series on the page.
async fn sample(manager: &Running, series: &str) -> Option<f64> {
    let page = get(manager, "/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

const FAMILY: &str = "c_total";
const COUNTER: &str = "c_total{shard_id=\"3\"}";
const UP: &str = "shardmeter_manager_journal_up";

#[tokio::test]
async fn a_killed_manager_comes_back_with_everything() {
    let dir = TempDir::new().unwrap();
    for count in 1..=5 {
        let manager = start(&dir);
        if count > 1 {
            assert_eq!(sample(&manager, COUNTER).await, Some((count - 1) as f64));
            assert_eq!(sample(&manager, "shard_up{shard_id=\"3\"}").await, Some(1.0));
            assert_eq!(sample(&manager, "g{shard_id=\"3\"}").await, Some(1.0));
        }
        assert_eq!(post(&manager, count).await["durable"], true);
        assert_eq!(sample(&manager, COUNTER).await, Some(count as f64));
        assert_eq!(sample(&manager, UP).await, Some(1.0));
        drop(manager); // SIGKILL
    }
}

/// A manager whose disk has no room left, and how often was posted to it.
pub(crate) async fn on_a_full_disk(dir: &TempDir) -> (Running, u64) {
    // Files may grow to some size only; that is an error of the write, not a signal.
    const LIMIT_KIB: u64 = 16;
    let mut command = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -S -f {LIMIT_KIB}; exec \"$@\"");
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_shardmeter-manager")]);
    command.args(["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--data-dir"]);
    // It is filled as fast as that goes.
    let config = dir.path().join("manager.toml");
    fs::write(&config, "[limits]\nframes_per_second = 1_000_000\n").unwrap();
    let manager = Running::spawn({
        command.arg(dir.path()).arg("--config").arg(config);
        command
    });
    let mut count = 0;
    loop {
        count += 1;
        if post(&manager, count).await["durable"] == false {
            break;
        }
        assert!(count < 5_000, "the disk is never full");
    }
    (manager, count)
}

#[tokio::test]
async fn a_disk_without_room_degrades_and_heals() {
    let dir = TempDir::new().unwrap();
    let (manager, mut count) = on_a_full_disk(&dir).await;
    // It counts and answers, and says what is the matter.
    count += 1;
    assert_eq!(post(&manager, count).await["durable"], false);
    assert_eq!(sample(&manager, COUNTER).await, Some(count as f64));
    assert_eq!(sample(&manager, UP).await, Some(0.0));
    let ready: Value = serde_json::from_str(&get(&manager, "/readyz").await).unwrap();
    assert_eq!((&ready["status"], &ready["journal"]), (&json!("degraded"), &json!("down")));
    assert!(ready["reason"].is_string(), "{ready}");

    let mut raise = Command::new("prlimit");
    raise.args(["--pid", &manager.pid(), "--fsize=unlimited"]);
    assert!(raise.status().unwrap().success());
    until("the journal heals", async || is(sample(&manager, UP).await, Some(1.0))).await;
    drop(manager);
    let manager = start(&dir);
    assert_eq!(sample(&manager, COUNTER).await, Some(count as f64));
}

#[tokio::test]
async fn a_second_manager_on_the_same_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let manager = start(&dir);
    let path = dir.path().to_str().unwrap();
    let (code, log) = ends(&["--data-dir", path], &[]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("--data-dir cannot be used: "), "{log}");
    assert!(log.contains(path) && log.contains("in use by another process"), "{log}");
    assert_eq!(post(&manager, 1).await["durable"], true, "the first goes on");
}

#[tokio::test]
async fn a_torn_end_is_reported_and_what_is_before_it_kept() {
    let dir = TempDir::new().unwrap();
    let manager = start(&dir);
    post(&manager, 5).await;
    drop(manager);
    let segment = fs::read_dir(dir.path()).unwrap().find_map(|file| {
        let path = file.unwrap().path();
        (path.extension()? == "log").then_some(path)
    });
    let segment = segment.unwrap();
    // In the middle of the first record that the report led to: at its end there may be what an idle second left.
    let bytes = fs::read(&segment).unwrap();
    let torn = bytes.windows(FAMILY.len()).position(|part| part == FAMILY.as_bytes()).unwrap();
    fs::write(&segment, &bytes[..torn]).unwrap();
    let manager = start(&dir);
    assert_eq!(sample(&manager, COUNTER).await, None, "the one report was torn");
    assert_eq!(post(&manager, 6).await["durable"], true);
    drop(manager);
    assert_eq!(sample(&start(&dir), COUNTER).await, Some(6.0));
}
