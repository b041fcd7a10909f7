//! The HTTP port.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use shardmeter_manager::Config;

use crate::server::{Server, Stream, snapshot};

async fn post_json(server: &Server, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
    post_with(server, &[("content-type", "application/json")], body).await
}

pub(crate) async fn post_with(
    server: &Server,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> (StatusCode, Value) {
    let mut request = reqwest::Client::new().post(format!("{}/shard-metrics", server.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: no JSON: {text}"));
    (status, json)
}

fn body(shard_id: &Value, metrics: &str) -> String {
    json!({ "shardId": shard_id, "metrics": metrics }).to_string()
}

#[tokio::test]
async fn a_post_is_taken() {
    let server = Server::start().await;
    let text =
        "process_start_time_seconds 100\n# TYPE a_total counter\na_total{x=\"\\\"🦀\\\\\\n\"} 3\n";
    for shard_id in &[json!(3), json!("3")] {
        let (status, answer) = post_json(&server, body(shard_id, text)).await;
        assert_eq!(status, 200);
        assert_eq!(
            answer,
            json!({ "series": 2, "identity": "known", "rejected": [], "late": false, "durable": false })
        );
    }
    // Twice the same body: counted once.
    server.wait_for("a_total{shard_id=\"3\",x=\"\\\"🦀\\\\\\n\"} 3").await;
    let (status, answer) =
        post_json(&server, body(&json!("0-1"), "b 1\nc{shard_id=\"1\"} 2\n")).await;
    assert_eq!((status.as_u16(), &answer["identity"]), (200, &json!("none")));
    server.wait_for("b{shard_id=\"0\"} 1").await;
    server.wait_for("c{shard_id=\"1\"} 2").await;

    // Families that conflict are named, the others taken.
    let (status, answer) =
        post_json(&server, body(&json!(3), "# TYPE b counter\nb 1\nd 1\nshard_up 1\n")).await;
    assert_eq!(status, 200);
    assert_eq!(answer["series"], 1);
    let rejected = answer["rejected"].as_array().unwrap();
    let reasons: Vec<_> =
        rejected.iter().map(|r| (&r["family"], &r["reason"], &r["series"])).collect();
    assert_eq!(
        reasons,
        [
            (&json!("b"), &json!("type_conflict"), &json!(1)),
            (&json!("shard_up"), &json!("name_collision"), &json!(1))
        ]
    );
    server.wait_for("d{shard_id=\"3\"} 1").await;
    server
        .wait_for("shard_rejected_samples_total{shard_id=\"3\",reason=\"type_conflict\"} 1")
        .await;
    server.wait_for("shardmeter_manager_posts_total{outcome=\"applied\"} 4").await;
    server.stop().await;
}

/// However the JSON around the text is written.
#[tokio::test]
async fn a_body_that_repeats_the_one_before_is_taken_by_its_values() {
    let server = Server::start().await;
    let mut count = 0;
    for (shape, in_json) in (1..).zip([
        r#"{"shardId": 3, "metrics": "TEXT"}"#,
        r#"{"metrics": "TEXT", "shardId": "3"}"#,
        r#" { "x": "\"metrics\"", "shardId": 3, "metrics": "TEXT" } "#,
        r#"{"x": {"shardId": 4, "metrics": "a 1"}, "metrics": "TEXT", "shardId": 3, "y": 1}"#,
    ]) {
        for _ in 0..3 {
            count += 7;
            let text = format!(r"# TYPE a_total counter\na_total {count}\nb 1\n");
            let (status, answer) = post_json(&server, in_json.replace("TEXT", &text)).await;
            assert_eq!((status.as_u16(), &answer["series"]), (200, &json!(2)), "{in_json}");
            server.wait_for(&format!("a_total{{shard_id=\"3\"}} {count}")).await;
        }
        let repeated = format!("shardmeter_manager_posts_repeated_total {}", 2 * shape);
        server.wait_for(&repeated).await;
    }
    // Another shard's body that looks like it is another sender's.
    let text = "# TYPE a_total counter\na_total 1\nb 1\n";
    post_json(&server, body(&json!(4), text)).await;
    server.wait_for("a_total{shard_id=\"4\"} 1").await;
    server.wait_for("shardmeter_manager_posts_repeated_total 8").await;
    let page = server.page().await;
    let bytes = page.lines().find(|l| l.starts_with("shardmeter_manager_previous_bodies_bytes "));
    assert!(bytes.is_some_and(|line| !line.ends_with(" 0")), "{bytes:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_instance_can_name_itself() {
    let server = Server::start().await;
    for name in ["one", "two"] {
        let headers =
            [("content-type", "application/json; charset=utf-8"), ("x-instance-id", name)];
        let text = "# TYPE a_total counter\na_total 5\n";
        let (status, _) = post_with(&server, &headers, body(&json!(3), text)).await;
        assert_eq!(status, 200);
    }
    server.wait_for("a_total{shard_id=\"3\"} 10").await;
    server.stop().await;
}

/// A manager that knows a sender of each kind, and what its page must stay.
struct Unmoved {
    server: Server,
    before: String,
    _stream: Stream,
}

const JSON: (&str, &str) = ("content-type", "application/json");

impl Unmoved {
    async fn start() -> Self {
        let server = Server::start().await;
        post_json(&server, body(&json!(3), "# TYPE a_total counter\na_total 5\n")).await;
        let mut stream = server.ready(0xab).await;
        stream.say(snapshot(1, &[(0, 1.0)])).await;
        stream.ack().await;
        let before = server.shards_page().await;
        Self { server, before, _stream: stream }
    }

    async fn refuses(&self, headers: &[(&str, &str)], body: &str, status: u16, reason: &str) {
        let shown: String = body.chars().take(80).collect();
        let (got, answer) = post_with(&self.server, headers, body.to_owned()).await;
        assert_eq!(got.as_u16(), status, "{shown}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(reason), "{shown}: {error}");
        assert_eq!(self.server.shards_page().await, self.before, "{shown}");
    }

    async fn stop(self) {
        let applied = "shardmeter_manager_posts_total{outcome=\"applied\"} 1";
        self.server.wait_for(applied).await;
        self.server.stop().await;
    }
}

/// A body that would be applied.
fn fine() -> String {
    body(&json!(3), "# TYPE a_total counter\na_total 9\n")
}

#[tokio::test]
async fn a_body_says_it_is_json() {
    let manager = Unmoved::start().await;
    let send = "Content-Type is \"\"; send application/json";
    manager.refuses(&[], &fine(), 415, send).await;
    for stated in ["text/plain", "application/jsonl", "x"] {
        manager.refuses(&[("content-type", stated)], &fine(), 415, stated).await;
    }
    for encoding in ["deflate", "br"] {
        let headers = [JSON, ("content-encoding", encoding)];
        manager.refuses(&headers, &fine(), 415, encoding).await;
    }
    manager.stop().await;
}

#[tokio::test]
async fn bad_json_is_refused_with_its_place() {
    let manager = Unmoved::start().await;
    for (bad, place) in [
        ("", "line 1 column 0"),
        ("{", "line 1 column 1"),
        ("[]", "expected an object"),
        (" [3, \"a_total 9\"]", "expected an object"),
        ("{\"shardId\": 3}", "missing field `metrics`"),
        ("{\"metrics\": \"\"}", "missing field `shardId`"),
        ("{\"shardId\": 3,\n \"metrics\": 5}", "line 2 column 13"),
        ("{\"shardId\": 3, \"metrics\": \"a 1\n\"}", "control character"),
        ("{\"shardId\": 3, \"metrics\": \"\"} x", "trailing characters at line 1 column 31"),
    ] {
        manager.refuses(&[JSON], bad, 400, place).await;
    }
    for id in [
        json!(-1),
        json!(1.5),
        json!(65_536),
        json!(u64::MAX),
        json!(1e300),
        json!(null),
        json!(true),
        json!([3]),
        json!({}),
        json!(""),
        json!("x"),
        json!("3-1"),
        json!("0-65536"),
        json!(" 3"),
        json!("0-1-2"),
    ] {
        manager.refuses(&[JSON], &body(&id, "a_total 9"), 400, "shard id").await;
    }
    manager.stop().await;
}

#[tokio::test]
async fn bad_text_is_refused_with_line_and_reason() {
    let manager = Unmoved::start().await;
    for (text, reason) in [
        ("b 1\na{", "metrics: line 2: "),
        ("# TYPE a_total counter\na_total 9\n\nb one\n", "metrics: line 4: \"one\" is no value"),
        ("# TYPE a_total counter\na_total -9\n", "metrics: line 2: a_total{}: a count is -9"),
        ("a 1\na 2\n", "metrics: line 2: a: "),
    ] {
        manager.refuses(&[JSON], &body(&json!(3), text), 400, reason).await;
    }
    // What is quoted of a body is no longer than anybody reads.
    let long = body(&json!(3), &format!("a{{{}=\"1\"}} 1", "-".repeat(100_000)));
    let (_, answer) = post_with(&manager.server, &[JSON], long).await;
    let error = answer["error"].as_str().unwrap();
    assert!(error.len() < 1_100 && error.starts_with("metrics: line 1: "), "{error}");
    manager.stop().await;
}

#[tokio::test]
async fn bad_senders_and_long_bodies_are_refused() {
    let manager = Unmoved::start().await;
    for name in ["", "caf\u{e9}", &"x".repeat(129)] {
        let headers = [JSON, ("x-instance-id", name)];
        manager.refuses(&headers, &fine(), 400, "X-Instance-Id").await;
    }
    let long = body(&json!(3), &"x".repeat(8 << 20));
    manager.refuses(&[JSON], &long, 413, "over 8388608 bytes").await;
    let grpc = [JSON, ("x-instance-id", "abababababababababababababababab")];
    let body = body(&json!(0), "a_total 9");
    manager.refuses(&grpc, &body, 409, "already reports by gRPC").await;
    manager.stop().await;
}

#[tokio::test]
async fn pages_and_methods_there_are_not_are_refused_in_json() {
    let manager = Unmoved::start().await;
    for (method, path, status) in [
        (Method::GET, "/nowhere", 404),
        (Method::POST, "/", 405),
        (Method::GET, "/shard-metrics", 405),
        (Method::PUT, "/metrics", 405),
        (Method::DELETE, "/api/v1/shards", 405),
        (Method::POST, "/healthz", 405),
    ] {
        let url = format!("{}{path}", manager.server.http);
        let request = reqwest::Client::new().request(method, url);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let allow = answer.headers().contains_key(header::ALLOW);
        assert_eq!(allow, status == 405, "{path}");
        let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert!(json["error"].is_string(), "{path}");
    }
    assert_eq!(manager.server.shards_page().await, manager.before);
    manager.stop().await;
}

#[tokio::test]
async fn shards_are_listed() {
    let server = Server::start().await;
    let mut stream = server.ready(0xab).await;
    stream.say(snapshot(4, &[(0, 1.0)])).await;
    stream.ack().await;
    let answer = reqwest::get(format!("{}/api/v1/shards", server.http)).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
    let list: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let [up, never] = &list["shards"].as_array().unwrap()[..] else { panic!("{list}") };
    assert_eq!((&up["shard_id"], &up["state"]), (&json!(0), &json!("up")));
    assert_eq!(up["reports"], json!({ "grpc": 1, "http": 0 }));
    assert_eq!((&up["series"], &up["rejected_samples"]), (&json!(1), &json!({})));
    let instance = &up["instances"][0];
    for (field, value) in [
        ("instance", json!("abababababababababababababababab")),
        ("transport", json!("grpc")),
        ("client", json!("raw 1")),
        ("last_sequence", json!(4)),
        ("connected", json!(true)),
        ("owns_gauges", json!(true)),
    ] {
        assert_eq!(instance[field], value, "{field}");
    }
    assert!(instance["last_report"].as_f64().unwrap() > 1.7e9);
    assert_eq!(
        never,
        &json!({
            "shard_id": 1, "state": "never_seen", "last_report": null, "series": 0,
            "reports": { "grpc": 0, "http": 0 }, "rejected_samples": {}, "instances": [],
        })
    );
    server.stop().await;
}

#[tokio::test]
async fn health_readiness_and_the_index_answer() {
    let server = Server::start().await;
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}{path}", server.http)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    let (status, ready) = get("/readyz").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status, &ready["status"]), (200, &json!("ok")));
    let (status, index) = get("/").await;
    assert!(status == 200 && index.contains("/shard-metrics"));
    server.stop().await;
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why() {
    use shardmeter_manager::{BuildError, Manager};
    let server = Server::start().await;
    let http_addr = server.http_addr;
    let taken = Manager::build(Config { http_addr, ..Config::default() });
    let error = taken.await.unwrap_err();
    assert!(matches!(error, BuildError::Bind { .. }));
    let message = error.to_string();
    assert!(message.contains("HTTP") && message.contains(&http_addr.to_string()), "{message}");
    let config = Config { stale_after: Config::default().report_interval, ..Config::default() };
    let error = Manager::build(config).await.unwrap_err();
    assert!(matches!(error, BuildError::Config(_)));
    server.stop().await;
}

#[tokio::test]
async fn reports_may_be_numbered_and_slow() {
    let server = Server::start().await;
    let send = async |sequence: &str, interval: &str, count: u32| {
        let headers = [
            ("content-type", "application/json"),
            ("x-instance-id", "a"),
            ("x-report-sequence", sequence),
            ("x-report-interval", interval),
        ];
        let text = format!("# TYPE c_total counter\nc_total {count}\n");
        post_with(&server, &headers, body(&json!(3), &text)).await
    };
    let (status, answer) = send("7", "60", 5).await;
    assert_eq!(
        (status.as_u16(), &answer["late"], &answer["series"]),
        (200, &json!(false), &json!(1))
    );
    let (status, answer) = send("7", "60", 9).await;
    assert_eq!(
        (status.as_u16(), &answer["late"], &answer["series"]),
        (200, &json!(true), &json!(0))
    );
    server.wait_for("c_total{shard_id=\"3\"} 5").await;
    for (sequence, interval, header) in [
        ("0", "60", "X-Report-Sequence"),
        ("-1", "60", "X-Report-Sequence"),
        ("8.5", "60", "X-Report-Sequence"),
        ("8", "0", "X-Report-Interval"),
        ("8", "10s", "X-Report-Interval"),
        ("8", "3601", "X-Report-Interval"),
        ("8", "NaN", "X-Report-Interval"),
    ] {
        let (status, answer) = send(sequence, interval, 6).await;
        assert_eq!(status, 400, "{sequence} {interval}");
        assert!(answer["error"].as_str().unwrap().starts_with(header), "{answer}");
    }
    server.wait_for("c_total{shard_id=\"3\"} 5").await;
    server.stop().await;
}

#[tokio::test]
async fn two_senders_without_identity_are_told_what_to_do() {
    let server = Server::start().await;
    let send = async |count: u32| {
        post_json(&server, body(&json!(3), &format!("# TYPE c_total counter\nc_total {count}\n")))
            .await
    };
    for count in [9, 5, 10] {
        assert_eq!(send(count).await.0, 200);
    }
    let (status, answer) = send(6).await;
    assert_eq!(status, 409);
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.contains("X-Instance-Id") && error.contains("process_start_time_seconds"),
        "{error}"
    );
    server.wait_for("c_total{shard_id=\"3\"} 19").await;
    server.stop().await;
}
