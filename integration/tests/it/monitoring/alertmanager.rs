//! A real Alertmanager with our configuration tells a stand-in for Discord: one message for a fleet's alert, and only the cause.

use std::{fs, sync::Arc};

use axum::{Json, Router, extract::State, routing::post};
use parking_lot::Mutex;
use serde_json::{Value, json};
use shardmeter_process::testing::until;

use super::{files::for_any_alertmanager, folder, platform::Listening};

type Told = Arc<Mutex<Vec<Value>>>;

async fn hear(State(told): State<Told>, Json(message): Json<Value>) {
    told.lock().push(message);
}

/// An alert as Prometheus sends it.
fn alert(name: &str, severity: &str, fleet: &str, more: &[(&str, &str)]) -> Value {
    let mut labels = json!({ "alertname": name, "severity": severity, "fleet": fleet });
    for (label, value) in more {
        labels[*label] = json!(value);
    }
    let shard = labels["shard_id"].as_str().unwrap_or("-").to_owned();
    let annotations = json!({
        "summary": format!("{name} {fleet} {shard}"), "description": "what to do", "runbook": "where to read",
    });
    json!({ "labels": labels, "annotations": annotations })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discord_hears_the_cause_once() {
    let told = Told::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = format!("http://{}/hook", listener.local_addr().unwrap());
    let discord = Router::new().route("/hook", post(hear)).with_state(told.clone());
    let serving = tokio::spawn(async { axum::serve(listener, discord).await.unwrap() });

    let files = tempfile::tempdir().unwrap();
    let config = files.path().join("alertmanager.yml");
    let text = fs::read_to_string(folder().join("alertmanager/alertmanager.yml")).unwrap();
    let templates = format!("  - {}/alertmanager/templates/*.tmpl", folder().display());
    // All groups wait as long, so that what is not told by then is not told.
    let text = text
        .replace("group_wait: 30s", "group_wait: 1s")
        .replace("group_wait: 10s", "group_wait: 1s");
    let text = for_any_alertmanager(&text, &hook).replace("  - templates/*.tmpl", &templates);
    fs::write(&config, text).unwrap();
    let alertmanager = Listening::alertmanager(&config).await;

    let shard = |fleet, id: &str| {
        alert("ShardDown", "warning", fleet, &[("shard_id", id), ("component", "shard")])
    };
    let manager = [("job", "manager"), ("component", "manager")];
    let mut alerts = vec![alert("ManagerDown", "critical", "one", &manager), shard("one", "0")];
    alerts.extend((0..12).map(|id| shard("two", &id.to_string())));
    alerts.push(alert("RedisDown", "critical", "two", &[("component", "redis")]));
    alerts.push(alert("RedisDisconnected", "warning", "two", &[("component", "redis")]));
    alerts.push(alert("FleetPartlyDown", "critical", "three", &[("component", "fleet")]));
    alerts.push(shard("three", "0"));
    alerts.push(alert("Watchdog", "none", "", &[]));
    // Told last: when it is heard, the others had their time.
    let url = format!("http://{}/api/v2/alerts", alertmanager.addr);
    let client = reqwest::Client::new();
    let send = async |alerts: &[Value]| {
        let body = serde_json::to_vec(alerts).unwrap();
        let sent = client.post(&url).header("Content-Type", "application/json").body(body);
        sent.send().await.unwrap().error_for_status().unwrap();
    };
    send(&alerts).await;
    let titles = || {
        let told = told.lock();
        let mut titles: Vec<_> =
            told.iter().map(|m| m["embeds"][0]["title"].as_str().unwrap().to_owned()).collect();
        titles.sort();
        titles
    };
    let heard = async |count: usize| {
        until("Discord hears", || async {
            let titles = titles();
            if titles.len() >= count { Ok(()) } else { Err(format!("{titles:?}")) }
        })
        .await;
    };
    heard(4).await;
    send(&[alert("Last", "warning", "two", &[])]).await;
    heard(5).await;
    assert_eq!(
        titles(),
        [
            "[CRITICAL] FleetPartlyDown in three",
            "[CRITICAL] ManagerDown in one",
            "[CRITICAL] RedisDown in two",
            "[WARNING] Last in two",
            "[WARNING] ShardDown in two (12)",
        ]
    );
    let told = told.lock();
    let shards =
        told.iter().find(|m| m["embeds"][0]["title"].as_str().unwrap().contains("(12)")).unwrap();
    let text = shards["embeds"][0]["description"].as_str().unwrap();
    assert_eq!(text.matches("ShardDown two ").count(), 10, "{text}");
    for piece in ["... and more: 12 in all\n", "\nwhat to do\nwhere to read\nhttp://"] {
        assert!(text.contains(piece), "{text}");
    }
    serving.abort();
}
