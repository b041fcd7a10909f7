//! The ways in by HTTP beside `/shard-metrics`: types, codings, and Pushgateway's API.

mod push;

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::Server;

const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a server answers.
async fn send(
    server: &Server,
    (method, path): (Method, &str),
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", server.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: no JSON: {text}")))
}

async fn post(server: &Server, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Value) {
    send(server, (Method::POST, "/metrics?shard_id=3"), headers, body).await
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, 1).unwrap()
}

/// `MetricFamily`, as far as it is needed here.
#[derive(Clone, PartialEq, prost::Message)]
struct Family {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Counter {
    #[prost(double, tag = "1")]
    value: f64,
}

type Headers = &'static [(&'static str, &'static str)];

/// A counter `a_total` of this value in each format, and what says which.
fn bodies(value: f64) -> [(Headers, Vec<u8>); 5] {
    let text = format!("# TYPE a_total counter\na_total {value}\n").into_bytes();
    let openmetrics = format!("# TYPE a counter\na_total {value}\n# EOF\n").into_bytes();
    let metric = vec![Metric { counter: Some(Counter { value }) }];
    let family = Family { name: "a_total".into(), kind: 0, metric };
    [
        (&[], text.clone()),
        (&[("content-type", "text/plain; version=0.0.4")], text.clone()),
        (&[("content-type", "application/x-www-form-urlencoded")], text),
        (&[("content-type", OPENMETRICS)], openmetrics),
        (&[("content-type", PROTOBUF)], family.encode_length_delimited_to_vec()),
    ]
}

#[tokio::test]
async fn every_type_is_taken_in_every_coding() {
    let server = Server::start().await;
    let mut value = 0.0;
    for coding in ["", "identity", "gzip", "zstd"] {
        for at in 0..5 {
            value += 1.0;
            let (of_type, body) = bodies(value)[at].clone();
            let body = match coding {
                "gzip" => gzip(&body),
                "zstd" => zstd(&body),
                _ => body,
            };
            let mut headers = of_type.to_vec();
            headers.push(("x-instance-id", "me"));
            headers.extend((!coding.is_empty()).then_some(("content-encoding", coding)));
            let (status, answer) = post(&server, &headers, body).await;
            let taken = json!({ "series": 1, "identity": "known", "rejected": [], "late": false, "durable": false });
            assert_eq!((status, answer), (200, taken), "{headers:?}");
            server.wait_for(&format!("a_total{{shard_id=\"3\"}} {value}")).await;
        }
    }
    // The same numbers and intervals as with JSON.
    let headers = [("x-instance-id", "me"), ("x-report-sequence", "5")];
    for late in [false, true] {
        let (_, answer) = post(&server, &headers, b"a_total 1\n".to_vec()).await;
        assert_eq!(answer["late"], json!(late));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_compressed_body_that_repeats_the_one_before_is_taken_by_its_values() {
    let server = Server::start().await;
    let text = |value: f64| format!("# TYPE a_total counter\na_total {value}\n");
    let json = |value: f64| json!({ "shardId": 4, "metrics": text(value) }).to_string();
    for value in [1.0, 2.0, 3.0] {
        let headers = [("content-encoding", "gzip")];
        assert_eq!(post(&server, &headers, gzip(text(value).as_bytes())).await.0, 200);
        let headers = [("content-type", "application/json"), ("content-encoding", "zstd")];
        let to = (Method::POST, "/shard-metrics");
        assert_eq!(send(&server, to, &headers, zstd(json(value).as_bytes())).await.0, 200);
    }
    // However it is compressed.
    post(&server, &[("content-encoding", "zstd")], zstd(text(4.0).as_bytes())).await;
    post(&server, &[], text(5.0).into_bytes()).await;
    server.wait_for("shardmeter_manager_posts_repeated_total 6").await;
    server.wait_for("a_total{shard_id=\"3\"} 5").await;
    server.wait_for("a_total{shard_id=\"4\"} 3").await;
    server.stop().await;
}

#[tokio::test]
async fn a_range_of_shards_is_taken() {
    let server = Server::start().await;
    let to = (Method::POST, "/metrics?shard_id=0-1");
    let (status, _) = send(&server, to, &[], "b 1\nc{shard_id=\"1\"} 2\n").await;
    assert_eq!(status, 200);
    server.wait_for("b{shard_id=\"0\"} 1").await;
    server.wait_for("c{shard_id=\"1\"} 2").await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    assert_eq!(post(&server, &[], b"# TYPE a_total counter\na_total 5\n".to_vec()).await.0, 200);
    let before = server.shards_page().await;
    let text = "# TYPE a_total counter\na_total 9\n";
    let of = |kind| [("content-type", kind)];
    let coded = |coding| [("content-encoding", coding)];
    let broken = gzip(text.as_bytes())[..20].to_vec();
    for (path, headers, body, status, reason) in [
        ("/metrics", &[][..], text.into(), 400, "post to /metrics?shard_id=3"),
        ("/metrics?shard_id=x", &[], text.into(), 400, "\"x\" is no shard id"),
        ("/metrics?shard_id=70000", &[], text.into(), 400, "no shard id"),
        ("/metrics?shard_id=3&shard_id=3", &[], text.into(), 400, "stands twice"),
        ("/metrics?name[]=x", &[], text.into(), 400, "no parameter \"name[]\""),
        (
            "",
            &of("application/json"),
            text.into(),
            415,
            "send text/plain, application/openmetrics-text",
        ),
        ("", &of("application/vnd.google.protobuf"), text.into(), 415, "encoding=delimited"),
        (
            "",
            &of("application/vnd.google.protobuf; proto=x; encoding=delimited"),
            vec![],
            415,
            "encoding=delimited",
        ),
        (
            "",
            &of(PROTOBUF),
            text.into(),
            400,
            "metrics: message 1, at byte 0: it says it has 35 bytes",
        ),
        ("", &of(OPENMETRICS), text.into(), 400, "ends in # EOF"),
        ("", &[], b"a 1\n\xff".to_vec(), 400, "metrics: byte 4 is not of UTF-8 text"),
        ("", &[], b"a 1\nb one".to_vec(), 400, "metrics: line 2: \"one\" is no value"),
        ("", &[], br#"{"shardId": 3, "metrics": "a 1"}"#.to_vec(), 400, "line 1"),
        ("", &[("x-instance-id", "")], text.into(), 400, "X-Instance-Id"),
        ("", &[("x-report-sequence", "0")], text.into(), 400, "X-Report-Sequence"),
        (
            "",
            &coded("br"),
            text.into(),
            415,
            "Content-Encoding is \"br\"; send gzip, zstd or identity",
        ),
        ("", &coded("gzip, gzip"), text.into(), 415, "compresses twice"),
        ("", &coded("gzip"), text.into(), 400, "not the gzip that it says it is"),
        ("", &coded("zstd"), text.into(), 400, "not the zstd that it says it is"),
        ("", &coded("gzip"), broken.clone(), 400, "not the gzip that it says it is"),
        ("", &coded("gzip"), vec![], 400, "not the gzip that it says it is"),
        (
            "/shard-metrics",
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
            broken,
            400,
            "not the gzip",
        ),
        ("/metrics/job/x", &[], text.into(), 400, "has no shard_id"),
        ("/metrics/job/x/shard_id/3/a", &[], text.into(), 400, "\"a\" has no value"),
        ("/metrics/job/x/shard_id/3", &of(PROTOBUF), text.into(), 400, "message 1"),
        (
            "/metrics/job/x/shard_id/3/le/1",
            &[],
            b"# TYPE h histogram\nh_sum 1\nh_count 1\n".to_vec(),
            400,
            "\"le\" is reserved",
        ),
        ("/metrics/jobs/x/shard_id/3", &[], text.into(), 404, "no such page"),
        ("/metrics/job", &[], text.into(), 404, "no such page"),
    ] {
        let path = if path.is_empty() { "/metrics?shard_id=3" } else { path };
        let (got, answer) = send(&server, (Method::POST, path), headers, body).await;
        let error = answer["error"].as_str().unwrap();
        assert_eq!(got, status, "{path} {headers:?}: {error}");
        assert!(error.contains(reason), "{path} {headers:?}: {error}");
        assert_eq!(server.shards_page().await, before, "{path} {headers:?}");
    }
    for (method, path) in [
        (Method::PUT, "/metrics?shard_id=3"),
        (Method::DELETE, "/metrics?shard_id=3"),
        (Method::GET, "/metrics/job/x/shard_id/3"),
        (Method::PATCH, "/metrics/job/x/shard_id/3"),
    ] {
        let (status, _) = send(&server, (method.clone(), path), &[], text).await;
        assert_eq!(status, 405, "{method} {path}");
    }
    server.stop().await;
}

/// What would be huge is refused before it is: some KB of 100 MB, and what is too long as it comes.
#[tokio::test]
async fn bombs_are_refused() {
    let server = Server::start().await;
    let blank = vec![b'\n'; 1 << 20];
    let bombs = [("gzip", gzip(&blank).repeat(100)), ("zstd", zstd(&blank).repeat(100))];
    let json = ("content-type", "application/json");
    for (coding, bomb) in bombs {
        for path in ["/metrics?shard_id=3", "/metrics/job/x/shard_id/3", "/shard-metrics"] {
            let headers = [json, ("content-encoding", coding)];
            let headers = if path == "/metrics?shard_id=3" { &headers[1..] } else { &headers };
            let (status, answer) = send(&server, (Method::POST, path), headers, bomb.clone()).await;
            assert_eq!(status, 413, "{coding} {path}: {answer}");
            assert_eq!(answer["error"], "the body is over 8388608 bytes when decompressed");
        }
    }
    let (status, answer) = post(&server, &[], blank.repeat(9)).await;
    assert_eq!((status, answer), (413, json!({ "error": "the body is over 8388608 bytes" })));
    server.stop().await;
}
