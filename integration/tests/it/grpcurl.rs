//! `docs/grpcurl.md`: each command on it, asked with the buf CLI, which reads the same reflection and writes the same JSON.
//! To renew the page: `UPDATE_DOCS=1 cargo nextest run -p shardmeter-integration grpcurl`.

use std::fs;

use serde_json::{Value, json};
use shardmeter_proto::v1::{Hello, Label, MetricType, SeriesDefinition};
use tokio::process::Command;
use tonic::transport::Channel;

use crate::{
    grpc_client::output,
    report_stream::{ReportStream, family},
    system::RunningManager,
    tools::{self, python, root},
};

/// Shard 0 of 2, with a count of commands.
async fn shard(manager: &RunningManager, instance: u8, pings: f64) -> ReportStream {
    let endpoint = Channel::from_shared(format!("http://{}", manager.grpc)).unwrap();
    let hello = Hello {
        shard_count: 2,
        instance_id: vec![instance; 16],
        client_name: "shardmeter-telemetry".to_owned(),
        client_version: "0.1.0".to_owned(),
        ..Hello::default()
    };
    let labels = [("command_name", "ping"), ("guild_id", "dm")];
    let labels =
        labels.map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() });
    let series = SeriesDefinition { labels: labels.into(), ..SeriesDefinition::default() };
    let families = vec![family("commands_executed_total", MetricType::Counter, series)];
    ReportStream::start(&endpoint.connect().await.unwrap(), hello, families, vec![pings]).await
}

/// What grpcurl would say, and whether it failed as it should at the end of its time.
async fn answer(manager: &RunningManager, command: &str) -> String {
    let words = words(command);
    let addr = words.iter().position(|word| word == "localhost:30001").unwrap();
    let flag = |name: &str| words.iter().position(|word| word == name).map(|at| &words[at + 1]);
    let base = format!("http://{}", manager.grpc);
    let mut buf = Command::new(python("buf"));
    buf.args(["curl", "--protocol", "grpc", "--http2-prior-knowledge"]);
    if words[addr + 1] == "list" {
        let methods = output(buf.args(["--list-methods", &base])).await;
        let service = format!("{}/", words[addr + 2]);
        let mut of_service: Vec<_> = methods
            .lines()
            .filter(|method| method.starts_with(&service))
            .map(|method| method.replace('/', "."))
            .collect();
        of_service.sort();
        return of_service.join("\n");
    }
    if let Some(data) = flag("-d") {
        buf.args(["-d", data]);
    }
    let method = format!("{base}/{}", words[addr + 1]);
    if flag("-max-time").is_none() {
        return output(buf.arg(method)).await;
    }
    // A stream without end: its first message.
    let mut process = tools::start(buf.arg(method));
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
        process.stdout.take().unwrap(),
    ));
    let mut text = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        text = format!("{text}{line}\n");
        if line == "}" || serde_json::from_str::<Value>(&text).is_ok() {
            break;
        }
    }
    text
}

/// The words of a command line; what is in single quotes is one.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    let words = parts.flat_map(|(n, part)| match n % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

/// An answer as it stands on the page: indented as grpcurl does, and with times and random texts that are always the same.
fn settled(answer: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(answer) else {
        return answer.trim_end().to_owned();
    };
    settle(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

fn settle(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "time" | "lastReport" | "created" | "startedAt" => {
                        *value = json!("2026-11-23T10:00:00Z");
                    }
                    "epoch" => *value = json!("5f3a9c01d2e84b76"),
                    _ => settle(value),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_says_is_what_is_answered() {
    let manager = RunningManager::start().await;
    shard(&manager, 0xa1, 40.0).await.end().await;
    let _lives = shard(&manager, 0xb2, 2.0).await;

    let path = root().join("docs/grpcurl.md");
    let old = fs::read_to_string(&path).unwrap();
    let mut new = String::new();
    let mut parts = old.split_inclusive("```console\n");
    new.push_str(parts.next().unwrap());
    for part in parts {
        let (command, after) = part.split_once('\n').unwrap();
        let (_, after) = after.split_once("```\n").unwrap();
        let asked = command.strip_prefix("$ grpcurl ").unwrap();
        let answer = settled(&answer(&manager, asked).await);
        new.push_str(&format!("{command}\n{answer}\n```\n{after}"));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &new).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), new);
    manager.stop().await;
}
