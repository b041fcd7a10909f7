//! Pushgateway's API: PUT replaces, POST adds, DELETE ends.

use reqwest::Method;
use serde_json::json;

use super::{bodies, gzip, send};
use crate::server::Server;

const GROUP: &str = "/metrics/job/j/shard_id/3/instance/i";

const LABELS: &str = "exported_instance=\"i\",exported_job=\"j\"";

/// Sample lines of what was pushed.
async fn pushed(server: &Server) -> Vec<String> {
    let page = server.shards_page().await;
    let mut lines: Vec<_> = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("shard_"))
        .map(|line| line.replace(&format!("shard_id=\"3\",{LABELS}"), "G"))
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_group_is_replaced_added_to_and_ended() {
    let server = Server::start().await;
    let put = |body: &'static str| send(&server, (Method::PUT, GROUP), &[], body);
    let add = |body: &'static str| send(&server, (Method::POST, GROUP), &[], body);
    let counted =
        "# TYPE c_total counter\nc_total 5\n# TYPE g gauge\ng{job=\"own\",a=\"1\"} 1\nh 2\n";
    let (status, answer) = put(counted).await;
    let taken = json!({ "series": 3, "identity": "known", "rejected": [], "late": false, "durable": false });
    assert_eq!((status, answer), (200, taken));
    let g = "g{shard_id=\"3\",a=\"1\",exported_instance=\"i\",exported_job=\"j\"} 1";
    assert_eq!(pushed(&server).await, ["c_total{G} 5", g, "h{G} 2"]);
    // The same again counts nothing twice.
    put(counted).await;
    server.wait_for("shardmeter_manager_posts_repeated_total 1").await;

    assert_eq!(add("h{x=\"1\"} 3\ni 4\n").await.0, 200);
    assert_eq!(pushed(&server).await, ["c_total{G} 5", g, "h{G,x=\"1\"} 3", "i{G} 4"]);
    // The body that was PUT comes by POST, and by PUT again: another scope is no repetition.
    assert_eq!(add(counted).await.0, 200);
    assert_eq!(pushed(&server).await, ["c_total{G} 5", g, "h{G} 2", "i{G} 4"]);
    assert_eq!(put(counted).await.0, 200);
    assert_eq!(pushed(&server).await, ["c_total{G} 5", g, "h{G} 2"], "i has left");

    let (status, answer) = send(&server, (Method::DELETE, GROUP), &[], "").await;
    assert_eq!((status, answer), (202, json!({ "ended": [3] })));
    assert_eq!(pushed(&server).await, ["c_total{G} 5"], "counts stay");
    let (status, answer) = send(&server, (Method::DELETE, GROUP), &[], "").await;
    assert_eq!((status, answer), (202, json!({ "ended": [] })));
    // Who comes back counts anew.
    assert_eq!(put(counted).await.0, 200);
    assert_eq!(pushed(&server).await, ["c_total{G} 10", g, "h{G} 2"]);
    assert_eq!(put("").await.0, 200);
    assert_eq!(pushed(&server).await, ["c_total{G} 10"]);
    server.stop().await;
}

#[tokio::test]
async fn groups_are_senders_of_their_own() {
    let server = Server::start().await;
    let put = |path: &'static str| {
        send(
            &server,
            (Method::PUT, path),
            &[("x-instance-id", "the same")],
            "# TYPE g gauge\ng 1\n",
        )
    };
    for path in [
        "/metrics/job/a/shard_id/3",
        "/metrics/job/a/shard_id/3/path@base64/L3Zhci90bXA",
        "/metrics/job/a/path@base64/L3Zhci90bXA=/shard_id@base64/Mw",
        "/metrics/job@base64/w7w/shard_id/4/instance@base64/=",
        "/metrics/job%40base64/YQ==/shard_id/4",
    ] {
        assert_eq!(put(path).await.0, 200, "{path}");
    }
    let expected = [
        "g{shard_id=\"3\",exported_job=\"a\",path=\"/var/tmp\"} 1",
        "g{shard_id=\"3\",exported_job=\"a\"} 1",
        "g{shard_id=\"4\",exported_job=\"a\"} 1",
        "g{shard_id=\"4\",exported_job=\"ü\"} 1",
    ];
    assert_eq!(pushed(&server).await, expected);
    let list = reqwest::get(format!("{}/api/v1/shards", server.http)).await.unwrap();
    let list: serde_json::Value = serde_json::from_str(&list.text().await.unwrap()).unwrap();
    let instances = list["shards"][0]["instances"].as_array().unwrap();
    let names: Vec<_> = instances.iter().map(|i| i["instance"].as_str().unwrap()).collect();
    assert_eq!(names, ["job=\"a\"", "job=\"a\",path=\"/var/tmp\""]);
    server.stop().await;
}

#[tokio::test]
async fn every_type_can_be_pushed() {
    let server = Server::start().await;
    for (value, (headers, body)) in (1..).zip(bodies(7.0)) {
        let path = format!("/metrics/job/{value}/shard_id/3");
        let headers = [headers, &[("content-encoding", "gzip")]].concat();
        let (status, answer) = send(&server, (Method::PUT, &path), &headers, gzip(&body)).await;
        assert_eq!((status, &answer["series"]), (200, &json!(1)), "{headers:?}");
        server.wait_for(&format!("a_total{{shard_id=\"3\",exported_job=\"{value}\"}} 7")).await;
    }
    // As Pushgateway: what has another name is text.
    let headers = [("content-type", "application/octet-stream")];
    assert_eq!(send(&server, (Method::PUT, GROUP), &headers, "g 1\n").await.0, 200);
    server.stop().await;
}

/// Two processes under one grouping key: the older would push into the void.
#[tokio::test]
async fn a_process_whose_group_another_took_learns_of_it() {
    let server = Server::start().await;
    let push = |started: u32, count: u32| {
        let body = format!(
            "# TYPE c_total counter\nc_total {count}\nprocess_start_time_seconds {started}\n"
        );
        send(&server, (Method::POST, GROUP), &[], body)
    };
    assert_eq!(push(100, 5).await.0, 200);
    assert_eq!(push(200, 1).await.0, 200);
    server.wait_for(&format!("c_total{{shard_id=\"3\",{LABELS}}} 6")).await;
    let (status, answer) = push(100, 6).await;
    assert_eq!(status, 409);
    assert!(answer["error"].as_str().unwrap().contains("give each its own"), "{answer}");
    server.wait_for(&format!("c_total{{shard_id=\"3\",{LABELS}}} 6")).await;
    server.stop().await;
}
