//! What holds for all routes: problem documents, metrics, the OpenAPI document and its page.

use std::process::Stdio;

use serde_json::{Value, json};
use shardmeter_process::testing::until;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    backend::Backend,
    server::{Server, problem},
};

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let server = Server::start(Backend::Sqlite).await;
    for path in ["/", "/api", "/api/v1/guilds/1/setting", "/docs/none.js", "/%00"] {
        problem(server.get(path).send().await.unwrap(), 404, "not_found").await;
    }
    let url = format!("{}/api/v1/guilds/1/settings", server.url);
    let answer = server.client.delete(&url).send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "GET,HEAD,PUT");
    problem(answer, 405, "method_not_allowed").await;
    for path in [
        "/api/v1/commands/top?limit=0",
        "/api/v1/commands/top?limit=101",
        "/api/v1/commands/top?window=2h",
        "/api/v1/guilds/%ff/settings",
    ] {
        problem(server.get(path).send().await.unwrap(), 400, "invalid").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn scanners_make_no_series() {
    let server = Server::start(Backend::Sqlite).await;
    let lines = |page: &str| page.lines().filter(|line| line.starts_with("http_request")).count();
    let get = async |path: &str| server.get(path).send().await.unwrap().status().as_u16();
    let method = |name: &str| reqwest::Method::from_bytes(name.as_bytes()).unwrap();
    let odd = async |name: &str| {
        server.client.request(method(name), &server.url).send().await.unwrap().status().as_u16()
    };
    assert_eq!((get("/wp-login.php").await, get("/api/v1/guilds/1/settings").await), (404, 200));
    assert_eq!(odd("SCAN").await, 404);
    server.page().await;
    let before = lines(&server.page().await);
    for i in 0_u32..10_000 {
        let path = match i % 4 {
            0 => format!("/{i}.php"),
            1 => format!("/api/v1/{i}?x={i}"),
            2 => format!("/api/v1/guilds/{}/settings", i + 1),
            _ => format!("/{i}/{i}/..%2f{i}"),
        };
        assert_eq!(get(&path).await, if i % 4 == 2 { 200 } else { 404 });
    }
    for i in 0..100 {
        assert_eq!(odd(&format!("SCAN{i}")).await, 404);
    }
    let page = server.page().await;
    assert_eq!(lines(&page), before, "{page}");
    let route = r#"route="/api/v1/guilds/{guild_id}/settings""#;
    let counted = server
        .value(&format!("http_requests_total{{method=\"GET\",{route},status_code=\"200\"}}"))
        .await;
    assert_eq!(counted, 2501.0);
    let other = r#"http_requests_total{method="GET",route="other",status_code="404"}"#;
    assert_eq!(server.value(other).await, 7501.0);
    let errors =
        r#"http_request_errors_total{error_type="not_found",method="other",route="other"}"#;
    assert_eq!(server.value(errors).await, 101.0);
    server.stop().await;
}

/// What users' dashboards and alerts go by: families, their types and labels.
const CONTRACT: [(&str, &str, &[&str]); 16] = [
    ("http_requests_total", "counter", &["method", "route", "status_code"]),
    ("http_request_duration_seconds", "histogram", &["method", "route", "status_code"]),
    ("http_request_errors_total", "counter", &["error_type", "method", "route"]),
    ("sse_active_connections", "gauge", &[]),
    ("sse_clients_cut_total", "counter", &["reason"]),
    ("redis_pubsub_messages_published_total", "counter", &["event_type"]),
    ("redis_pubsub_messages_delivered_total", "counter", &["event_type"]),
    ("redis_pubsub_messages_dropped_total", "counter", &["event_type", "reason"]),
    ("redis_connection_status", "gauge", &["connection_type"]),
    ("database_connection_status", "gauge", &[]),
    ("manager_connection_status", "gauge", &[]),
    ("memory_usage_bytes", "gauge", &["type"]),
    ("cpu_usage_percent", "gauge", &[]),
    ("api_events_lost_total", "counter", &["event_type"]),
    ("api_incidents_lost_total", "counter", &[]),
    ("shardmeter_api_unauthorized_total", "counter", &["role"]),
];

/// The names of a sample's labels.
fn labels(sample: &str) -> Vec<&str> {
    let (_, labels) = sample.split_once('{').unwrap_or_default();
    labels
        .split('"')
        .step_by(2)
        .filter_map(|name| name.trim_start_matches(',').strip_suffix('='))
        .collect()
}

#[tokio::test]
async fn the_page_has_the_names_of_the_contract_and_no_fault() {
    let server = Server::start(Backend::Postgres).await;
    let new = json!({ "disabled_commands": [] });
    let put = server.put("/api/v1/guilds/1/settings", &new).header("If-Match", "*").send();
    assert_eq!(put.await.unwrap().status(), 200);
    assert_eq!(server.get("/none").send().await.unwrap().status(), 404);
    let published =
        "redis_pubsub_messages_published_total{event_type=\"guild_settings_updated\"} 1";
    let page = until("all is counted", async || {
        let page = server.page().await;
        if page.contains(published) { Ok(page) } else { Err(page) }
    })
    .await;
    for (family, kind, expected) in CONTRACT {
        assert!(page.contains(&format!("# TYPE {family} {kind}\n")), "{family}:\n{page}");
        let sample =
            if kind == "histogram" { format!("{family}_count") } else { family.to_owned() };
        let sample = page.lines().find(|line| {
            line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        assert_eq!(labels(sample.unwrap_or_else(|| panic!("no {family}:\n{page}"))), expected);
    }
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).count();
    assert_eq!(families, CONTRACT.len(), "one is not listed here:\n{page}");
    let zero = "api_events_lost_total{event_type=\"unknown\"} 0\n";
    assert!(page.contains(zero), "{page}");

    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = promtool.expect("promtool is missing; run scripts/setup");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
    let said = promtool.wait_with_output().await.unwrap();
    assert!(said.status.success(), "{}\n{page}", String::from_utf8_lossy(&said.stderr));
    server.stop().await;
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_can_be_browsed_offline() {
    let server = Server::start(Backend::Sqlite).await;
    let document = server.json("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{document}");
    let settings = &document["paths"]["/api/v1/guilds/{guild_id}/settings"];
    for (method, statuses) in [
        ("get", &["200", "304", "400", "401", "403", "429", "500", "503"][..]),
        ("put", &["200", "400", "401", "403", "412", "413", "415", "428", "429", "500", "503"]),
    ] {
        let Value::Object(answers) = &settings[method]["responses"] else { panic!("{settings}") };
        let documented: Vec<_> = answers.keys().map(String::as_str).collect();
        assert_eq!(documented, statuses, "{method}");
    }
    let page = server.get("/docs/").send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html");
    let page = page.text().await.unwrap();
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    for part in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"] {
        assert!(page.contains(part), "{part}: {page}");
        assert_eq!(server.get(&format!("/docs/{part}")).send().await.unwrap().status(), 200);
    }
    let start = server.get("/docs/swagger-initializer.js").send().await.unwrap();
    assert!(start.text().await.unwrap().contains("/openapi.json"));
    server.stop().await;
}
