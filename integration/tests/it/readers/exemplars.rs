//! Exemplars of the real prom-client are those that the real Prometheus stores, whichever format it reads.

use std::{collections::BTreeMap, process::Stdio};

use serde_json::Value;
use shardmeter_process::testing::until;
use tokio::process::Command;

use crate::{
    prometheus::{Exemplar, Prometheus},
    system::RunningManager,
    tools::{self, root},
};

/// What prom-client said, and what the manager answered.
async fn prom_client(manager: &RunningManager) -> (String, Value) {
    let mut command = Command::new("node");
    command.current_dir(root().join("integration/node"));
    command.args(["exemplars.mjs", &manager.url(""), "3"]).stderr(Stdio::inherit());
    let output = tools::start(&mut command).wait_with_output().await.unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).expect("the bot posted");
    (said["metrics"].as_str().unwrap().to_owned(), said["answer"].clone())
}

/// The times of exemplars in prom-client's text, in order, milliseconds.
fn times(metrics: &str) -> Vec<i64> {
    let exemplars = metrics.lines().filter(|line| line.contains(" # {"));
    let time = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    exemplars.map(|line| (time(line) * 1e3).round() as i64).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_stores_the_exemplars_of_prom_client() {
    let manager = RunningManager::start().await;
    let (metrics, answer) = prom_client(&manager).await;
    assert_eq!(answer["rejected"], Value::Array(Vec::new()), "{answer}");
    assert!(answer["series"].as_u64().unwrap() > 30, "{answer}");
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let of = |name: &str, le: Option<&str>| {
        let mut of = labels(&[("__name__", name), ("command_name", "ping"), ("shard_id", "3")]);
        of.extend(le.map(|le| ("le".to_owned(), le.to_owned())));
        of
    };
    let bucket = |le, trace, value, at| {
        let of = of("command_execution_duration_seconds_bucket", Some(le));
        (of, labels(&[("trace_id", trace), ("shard_id", "kept")]), value, at)
    };
    let at = times(&metrics);
    let mut expected = vec![
        (of("commands_executed_total", None), labels(&[("trace_id", "a=b, {c} 🦀")]), 2.0, at[0]),
        bucket("0.1", "fast", 0.05, at[1]),
        bucket("1.0", "slow", 0.5, at[2]),
        bucket("+Inf", "slowest", 7.0, at[3]),
    ];
    expected.sort_by(order);
    for features in ["exemplar-storage", "exemplar-storage,native-histograms"] {
        let flag = format!("--enable-feature={features}");
        let prometheus = Prometheus::start_with(&[("shardmeter", manager.http)], &[&flag]).await;
        until(&format!("Prometheus with {features} has the exemplars"), || async {
            let query = "{__name__=~\"command.*\"}";
            let mut seen = prometheus.exemplars(query).await?;
            for (of, ..) in &mut seen {
                assert!(of.remove("job").is_some() && of.remove("instance").is_some());
            }
            seen.sort_by(order);
            let why = prometheus.scrape_error("shardmeter").await?;
            if seen == expected { Ok(()) } else { Err(format!("{why} {seen:?}, not {expected:?}")) }
        })
        .await;
        prometheus.assert_targets_healthy().await;
    }
    manager.stop().await;
}

fn order(a: &Exemplar, b: &Exemplar) -> std::cmp::Ordering {
    (&a.0, &a.1, a.3).cmp(&(&b.0, &b.1, b.3))
}
