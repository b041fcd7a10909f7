//! The routes of metrics alone: `POST /metrics?shard_id=`, and Pushgateway's API; and bodies that come compressed.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::*;

const TEXT: &str = "text/plain; version=0.0.4";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A body that would be taken, or is not.
fn pushed(what: &'static str, content_type: &'static str, body: &[u8], expected: Expected) -> Row {
    raw(what, body, expected).with("content-type", content_type).to("POST", "/metrics?shard_id=3")
}

fn fine(what: &'static str, status: u16, message: &'static str) -> Row {
    pushed(what, TEXT, b"# TYPE rest_total counter\nrest_total 2000\n", Refused(status, message))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn bodies_of_metrics_alone() {
    let protobuf = |what, body: &[u8], message| pushed(what, PROTOBUF, body, Refused(400, message));
    check(vec![
        fine("no shard", 400, "shard_id").to("POST", "/metrics"),
        fine("a shard that is none", 400, "shard_id: \"x\" is no shard id").to("POST", "/metrics?shard_id=x"),
        fine("an empty shard", 400, "shard_id: \"\" is no shard id").to("POST", "/metrics?shard_id="),
        fine("two shards", 400, "shard_id stands twice; give a range, as in shard_id=0-3").to("POST", "/metrics?shard_id=3&shard_id=4"),
        fine("a shard that is too high", 400, "shard_id: \"65536\" is no shard id").to("POST", "/metrics?shard_id=65536"),
        fine("another parameter", 400, "no parameter \"job\": there is shard_id").to("POST", "/metrics?shard_id=3&job=x"),
        fine("a method that is none", 405, "the page exists, but not with this method").to("PATCH", "/metrics?shard_id=3"),
        fine("a type that is none", 415, "Content-Type is \"text/html\"; send text/plain").with("content-type", "text/html"),
        fine("other messages", 415, "proto=x.Y; encoding=delimited\"; send text/plain").with("content-type", "application/vnd.google.protobuf; proto=x.Y; encoding=delimited"),
        fine("messages that are not delimited", 415, "encoding=text\"; send text/plain").with("content-type", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text"),
        pushed("a bad line", TEXT, b"b 1\na", Refused(400, "metrics: line 2: no value after a")),
        pushed("broken UTF-8", TEXT, b"a{b=\"\xff\"} 1", Refused(400, "metrics: byte 5 is not of UTF-8 text")),
        pushed("UTF-16", TEXT, b"a\0 \x001\0", Refused(400, "is no metric name")),
        pushed("OpenMetrics without an end", OPENMETRICS, b"a 1\n", Refused(400, "ends in # EOF, and this does not; was it cut?")),
        pushed("OpenMetrics that was cut in a line", OPENMETRICS, b"a 1\n# HELP b x # EOF", Refused(400, "was it cut?")),
        pushed("OpenMetrics that was cut", OPENMETRICS, b"a 1\n# EO", Refused(400, "ends in # EOF, and this does not; was it cut?")),
        protobuf("text as messages", b"a 1\n", "metrics: message 1, at byte 0: it says it has 97 bytes, but 3 are left; was the body cut?"),
        protobuf("a message that was cut", b"\x09\x0a\x03abc", "metrics: message 1, at byte 0: it says it has 9 bytes, but 5 are left"),
        protobuf("a length without an end", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "its length cannot be read"),
        protobuf("a length of exabytes", b"\xff\xff\xff\xff\xff\xff\xff\x7f\x0a", "bytes, but 1 are left; was the body cut?"),
        protobuf("no name", b"\x02\x18\x01", "metrics: message 1, at byte 0: \"\" is no metric name"),
        protobuf("a type that is none", b"\x05\x0a\x01a\x18\x09", "metrics: message 1, at byte 0: a is of type 9, which is none"),
        protobuf("broken UTF-8 in a name", b"\x03\x0a\x01\xff", "it is no io.prometheus.client.MetricFamily: "),
        protobuf("a metric without a value", b"\x07\x0a\x01a\x18\x01\x22\x00", "metrics: message 1: a: a gauge without its value"),
        protobuf("a negative counter", b"\x12\x0a\x01a\x18\x00\x22\x0b\x1a\x09\x09\0\0\0\0\0\0\xf0\xbf", "metrics: message 1: a{}: a count is -1, not a number from 0 up"),
    ])
    .await;
}

#[tokio::test]
async fn grouping_keys_that_are_none() {
    let key = |what, path: &'static str, message| fine(what, 400, message).to("PUT", path);
    check(vec![
        key(
            "no shard",
            "/metrics/job/a",
            "the grouping key has no shard_id: push to /metrics/job/<job>/shard_id/<id>",
        ),
        key("no job", "/metrics/job//shard_id/3", "the job has no name"),
        key(
            "a shard that is none",
            "/metrics/job/a/shard_id/x",
            "shard_id of the path: \"x\" is no shard id",
        ),
        key(
            "an empty shard",
            "/metrics/job/a/shard_id@base64/=",
            "shard_id of the path: \"\" is no shard id",
        ),
        key(
            "a label without a value",
            "/metrics/job/a/shard_id/3/b",
            "label \"b\" has no value; the path is",
        ),
        key(
            "a label that is none",
            "/metrics/job/a/shard_id/3/1b/x",
            "\"1b\" is no name of a label",
        ),
        key(
            "a label that Prometheus drops",
            "/metrics/job/a/shard_id/3/__b/x",
            "\"__b\" is no name of a label",
        ),
        key(
            "broken base64",
            "/metrics/job/a/shard_id/3/b@base64/x!",
            "\"x!\" of \"b\" is no UTF-8 text in URL-safe base64",
        ),
        key(
            "base64 that is no text",
            "/metrics/job/a/shard_id/3/b@base64/_w",
            "is no UTF-8 text in URL-safe base64",
        ),
        key(
            "broken UTF-8",
            "/metrics/job/a/shard_id/3/b/%ff",
            "\"%ff\" of the path is no UTF-8 text",
        ),
        key("to be ended", "/metrics/job/a", "the grouping key has no shard_id")
            .to("DELETE", "/metrics/job/a"),
        fine("a method that is none", 405, "the page exists, but not with this method")
            .to("GET", "/metrics/job/a/shard_id/3"),
    ])
    .await;
}

#[tokio::test]
async fn bodies_that_come_compressed() {
    let fine = |what, coding: &'static str, status, message| {
        fine(what, status, message).with("content-encoding", coding)
    };
    let packed = |what, coding: &'static str, body: Vec<u8>, status, message| {
        pushed(what, TEXT, &body, Refused(status, message)).with("content-encoding", coding)
    };
    let text = gzip(b"# TYPE rest_total counter\nrest_total 2000\n");
    let cut = text[..text.len() - 9].to_vec();
    let mut damaged = text.clone();
    damaged[15] ^= 0x55;
    let behind = [&text[..], b"xyz"].concat();
    check(vec![
        fine(
            "a coding that is none",
            "br",
            415,
            "Content-Encoding is \"br\"; send gzip, zstd or identity",
        ),
        fine("two codings", "gzip, zstd", 415, "Content-Encoding compresses twice, first as gzip"),
        fine("not gzip", "gzip", 400, "the body is not the gzip that it says it is"),
        fine("not zstd", "zstd", 400, "the body is not the zstd that it says it is"),
        packed(
            "gzip that was cut",
            "gzip",
            cut,
            400,
            "the body is not the gzip that it says it is: incomplete deflate stream",
        ),
        packed("damaged gzip", "gzip", damaged, 400, "the body is not the gzip that it says it is"),
        packed(
            "something behind gzip",
            "gzip",
            behind,
            400,
            "the body is not the gzip that it says it is: unexpected end of file",
        ),
        packed(
            "nothing",
            "gzip",
            vec![],
            400,
            "the body is not the gzip that it says it is: unexpected end of file",
        ),
        packed("gzip of gzip", "gzip", gzip(&text), 400, "metrics: byte 1 is not of UTF-8 text"),
        packed(
            "a bomb",
            "gzip",
            gzip(&vec![b'#'; 16 << 20]),
            413,
            "the body is over 8388608 bytes when decompressed",
        ),
        packed(
            "a bomb of many members",
            "gzip",
            gzip(&vec![b'#'; 1 << 20]).repeat(16),
            413,
            "the body is over 8388608 bytes when decompressed",
        ),
        packed(
            "a bomb of zstd",
            "zstd",
            zstd::encode_all(&vec![b'#'; 16 << 20][..], 1).unwrap(),
            413,
            "the body is over 8388608 bytes when decompressed",
        ),
        packed(
            "a window of a gigabyte",
            "zstd",
            b"\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00".to_vec(),
            400,
            "Frame requires too much memory for decoding",
        ),
    ])
    .await;
}
