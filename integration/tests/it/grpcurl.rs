//! `docs/grpcurl.md`: each command on it, asked with the buf CLI, which reads the same reflection and writes the same JSON.
//! To renew the page: `UPDATE_DOCS=1 cargo nextest run -p shardmeter-integration grpcurl`.

use std::fs;

use serde_json::json;
use shardmeter_proto::v1::{
    Definitions, FamilyDefinition, Goodbye, Hello, MetricType, ReportRequest, Samples,
    SeriesDefinition, Snapshot, report_request::Message as Said,
    telemetry_service_client::TelemetryServiceClient,
};
use tokio::{process::Command, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    system::RunningManager,
    tools::{self, python, root},
};

/// A stream of shard 0 of 2 that counted; it must be kept for as long as the shard is to be connected.
struct Reporting(mpsc::Sender<ReportRequest>, Streaming<shardmeter_proto::v1::ReportResponse>);

impl Reporting {
    async fn start(manager: &RunningManager, instance: u8, pings: f64) -> Self {
        let endpoint = Channel::from_shared(format!("http://{}", manager.grpc)).unwrap();
        let mut client = TelemetryServiceClient::new(endpoint.connect().await.unwrap());
        let (says, said) = mpsc::channel(8);
        let answers = client.report(ReceiverStream::new(said)).await.unwrap().into_inner();
        let mut reporting = Self(says, answers);
        let hello = Hello {
            shard_count: 2,
            instance_id: vec![instance; 16],
            client_name: "shardmeter-telemetry".to_owned(),
            client_version: "0.1.0".to_owned(),
            ..Hello::default()
        };
        reporting.say(Said::Hello(hello)).await;
        reporting.answer().await;
        let label = |name: &str, value: &str| shardmeter_proto::v1::Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let labels = vec![label("command_name", "ping"), label("guild_id", "dm")];
        let family = FamilyDefinition {
            name: "commands_executed_total".to_owned(),
            r#type: MetricType::Counter.into(),
            help: "Commands whose answer Discord confirmed.".to_owned(),
            series: vec![SeriesDefinition { id: 0, labels, ..SeriesDefinition::default() }],
            ..FamilyDefinition::default()
        };
        reporting.say(Said::Definitions(Definitions { families: vec![family] })).await;
        let samples = Some(Samples { series: vec![0], values: vec![pings] });
        let first = Snapshot { sequence: 1, last: true, samples, ..Snapshot::default() };
        reporting.say(Said::Snapshot(first)).await;
        reporting.answer().await;
        reporting
    }

    async fn say(&self, said: Said) {
        self.0.send(ReportRequest { message: Some(said) }).await.unwrap();
    }

    async fn answer(&mut self) {
        self.1.message().await.unwrap().expect("an answer");
    }

    async fn end(mut self) {
        self.say(Said::Goodbye(Goodbye { sequence: 1 })).await;
        assert!(self.1.message().await.unwrap().is_none(), "the stream ends");
    }
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
        if line == "}" || serde_json::from_str::<serde_json::Value>(&text).is_ok() {
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

async fn output(command: &mut Command) -> String {
    let output = tools::start(command).wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    said
}

/// An answer as it stands on the page: indented as grpcurl does, and with times and random texts that are always the same.
fn settled(answer: &str) -> String {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(answer) else {
        return answer.trim_end().to_owned();
    };
    let mut value = value;
    settle(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

fn settle(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(settle),
        serde_json::Value::Object(fields) => {
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
    Reporting::start(&manager, 0xa1, 40.0).await.end().await;
    let _reporting = Reporting::start(&manager, 0xb2, 2.0).await;

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
