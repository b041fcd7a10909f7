//! gRPC clients that are not ours: Python's grpcio from the .proto alone, and the buf CLI by reflection.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    scrape::series,
    system::{REPORT_INTERVAL, RunningManager},
    tools::{self, python, root},
};

pub(crate) async fn output(command: &mut Command) -> String {
    let output = tools::start(command).wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_reports_by_the_proto_alone() {
    let manager = RunningManager::start().await;
    let mut command = Command::new(python("python"));
    command
        .arg(root().join("integration/python/report.py"))
        .arg(manager.grpc.to_string())
        .arg(root().join("proto"));
    let said: Value = serde_json::from_str(&output(&mut command).await).unwrap();
    assert_eq!(said["interval"], json!(REPORT_INTERVAL.as_millis()));
    assert_eq!(said["acks"], json!([1, 2, 2, 3, 4]));
    assert_eq!(said["gap"], "sequence 9 where 4 is next");
    assert_eq!(said["second_hello"]["code"], "INVALID_ARGUMENT");
    assert_eq!(said["last_sequence"], 3);
    assert_eq!(said["no_snapshot"], "a delta before the stream's first snapshot");
    assert_eq!(said["undefined"], "series id 99 is not defined on this stream");
    assert_eq!(said["end"]["code"], "OK");

    let page = manager.page().await;
    let samples = crate::scrape::parse(&page);
    let value = |series| samples.get(&series).copied();
    let strange = [("command_name", "say \"hi\"\\\n🦀"), ("shard_id", "2")];
    assert_eq!(value(series("commands_executed_total", strange)), Some(41.0));
    assert_eq!(value(series("commands_executed_total", [("shard_id", "2")])), Some(7.0));
    let bucket =
        |le| series("command_execution_duration_seconds_bucket", [("le", le), ("shard_id", "2")]);
    assert_eq!(
        [bucket("0.1"), bucket("1"), bucket("inf")].map(value),
        [Some(1.0), Some(3.0), Some(4.0)]
    );
    assert_eq!(
        value(series("command_execution_duration_seconds_sum", [("shard_id", "2")])),
        Some(2.25)
    );
    assert_eq!(
        value(series("guild_count", [("shard_id", "2")])),
        None,
        "a gauge that left is not exposed"
    );
    for (shard, up) in [("0", 0.0), ("1", 0.0), ("2", 1.0)] {
        assert_eq!(value(series("shard_up", [("shard_id", shard)])), Some(up), "shard {shard}");
    }
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_and_health_answer_a_generic_client() {
    let manager = RunningManager::start().await;
    let curl = |args: &[&str]| {
        let mut command = Command::new(python("buf"));
        command.args(["curl", "--protocol", "grpc", "--http2-prior-knowledge"]).args(args);
        command
    };
    let base = format!("http://{}", manager.grpc);
    let methods =
        output(curl(&["--list-methods", &base]).arg("--reflect-protocol").arg("grpc-v1")).await;
    assert!(methods.contains("shardmeter.telemetry.v1.TelemetryService/Report"), "{methods}");
    assert!(methods.contains("shardmeter.telemetry.v1.FleetService/WatchShards"), "{methods}");
    let methods =
        output(curl(&["--list-methods", &base]).arg("--reflect-protocol").arg("grpc-v1alpha"))
            .await;
    assert!(methods.contains("shardmeter.telemetry.v1.TelemetryService/Report"), "{methods}");
    let service = r#"{"service": "shardmeter.telemetry.v1.TelemetryService"}"#;
    let health =
        output(&mut curl(&["-d", service, &format!("{base}/grpc.health.v1.Health/Check")])).await;
    assert!(health.contains("SERVING"), "{health}");
    manager.stop().await;
}
