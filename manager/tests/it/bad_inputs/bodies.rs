//! By HTTP.

mod lines;
mod parts;
mod pushes;
mod requests;

use std::borrow::Cow;

use reqwest::Client;
use serde_json::{Value, json};

use super::{
    Expected::{self, Partly, Refused, Taken},
    Failures, page,
};
use crate::server::{Server, snapshot};

/// The shard that rows post for.
const SHARD: u32 = 3;

struct Row {
    what: &'static str,
    method: &'static str,
    path: Cow<'static, str>,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Vec<u8>,
    expected: Expected,
}

impl Row {
    fn to(mut self, method: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        (self.method, self.path) = (method, path.into());
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }
}

/// Bytes as they are, as the body of `POST /shard-metrics`.
fn raw(what: &'static str, body: impl Into<Vec<u8>>, expected: Expected) -> Row {
    let headers =
        vec![("content-type", "application/json".into()), ("x-instance-id", "row".into())];
    let (method, path) = ("POST", "/shard-metrics".into());
    Row { what, method, path, headers, body: body.into(), expected }
}

/// Text of metrics, in JSON.
fn text(what: &'static str, text: impl AsRef<str>, expected: Expected) -> Row {
    raw(what, json!({ "shardId": SHARD, "metrics": text.as_ref() }).to_string(), expected)
}

/// What is known before each row.
const KNOWN: &str = "# TYPE known_total counter\nknown_total 5\n# TYPE g gauge\ng{a=\"b\"} 1\n# TYPE h histogram\n\
    h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\ns_count 1\n\
    # TYPE \"dotted.name\" gauge\n{\"dotted.name\"} 1\n# TYPE twin gauge\ntwin{\"x.y\"=\"1\"} 1\n";

async fn start() -> Server {
    let server = Server::start().await;
    let known = raw("", json!({ "shardId": 4, "metrics": KNOWN }).to_string(), Taken(&[]));
    let (status, answer) = send(&server, &known.with("x-instance-id", "known")).await;
    assert_eq!((status, &answer["rejected"]), (200, &json!([])), "{answer}");
    let rest = text(
        "",
        "# TYPE rest_total counter\nrest_total 1000\n# TYPE twin gauge\ntwin{\"x.y\"=\"1\"} 1\n",
        Taken(&[]),
    );
    assert_eq!(send(&server, &rest).await.0, 200);
    server
}

async fn send(server: &Server, row: &Row) -> (u16, Value) {
    let method = row.method.parse().unwrap();
    let mut request = Client::new().request(method, format!("{}{}", server.http, row.path));
    for (name, value) in &row.headers {
        request = request.header(*name, value.as_ref());
    }
    let answer = request.body(row.body.clone()).send().await.unwrap();
    let status = answer.status().as_u16();
    let said = answer.text().await.unwrap();
    let json =
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{}: no JSON: {said}", row.what));
    (status, json)
}

async fn check(rows: Vec<Row>) {
    let server = start().await;
    let mut stream = server.ready(0xab).await;
    stream.say(snapshot(1, &[(0, 1.0)])).await;
    stream.ack().await;
    let mut failures = Failures::default();
    for row in &rows {
        let before = page(&server).await;
        let (status, answer) = send(&server, row).await;
        let after = page(&server).await;
        failures.check_page(row.what, &row.expected, SHARD, (&before, &after));
        match row.expected {
            Refused(expected, message) => {
                let said = answer["error"].as_str().unwrap_or_default();
                let is_so = status == expected && said.contains(message) && !message.is_empty();
                failures.check(
                    is_so && said.len() < 1100,
                    row.what,
                    format_args!("{status} {answer}"),
                );
            }
            Partly(rejected) => {
                let said = answer["rejected"].as_array().map_or(&[][..], Vec::as_slice);
                let same = said.len() == rejected.len()
                    && said.iter().zip(rejected).all(|(said, (family, reason, message))| {
                        said["family"].as_str().is_some_and(|said| said.starts_with(family))
                            && said["reason"] == *reason
                            && said["message"].as_str().is_some_and(|said| said.contains(message))
                            && !message.is_empty()
                    });
                failures.check(status == 200 && same, row.what, format_args!("{status} {answer}"));
            }
            Taken(_) => {
                let is_so = status == 200 && answer["rejected"] == json!([]);
                failures.check(is_so, row.what, format_args!("{status} {answer}"));
            }
        }
    }
    // Whoever reported before goes on.
    stream.say(snapshot(2, &[(0, 2.0)])).await;
    stream.ack().await;
    failures.none();
    server.stop().await;
}

/// A refused line of text: status 400, and the message.
fn bad(what: &'static str, body: &str, message: &'static str) -> Row {
    text(what, body, Refused(400, message))
}

impl Row {
    fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }
}

impl Row {
    fn for_shard(mut self, shard_id: u32) -> Self {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap();
        body["shardId"] = shard_id.into();
        self.body = body.to_string().into();
        self
    }
}
