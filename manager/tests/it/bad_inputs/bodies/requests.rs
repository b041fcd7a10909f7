//! What is around the text: JSON and headers.

use super::*;

#[tokio::test]
async fn json_that_is_none() {
    let json = |what, body: &[u8], message| raw(what, body, Refused(400, message));
    let id = |what, id: &str| {
        raw(what, format!("{{\"shardId\":{id},\"metrics\":\"a 1\"}}"), Refused(400, "shard id"))
    };
    let deep = |open: &str, times: usize| {
        format!("{{\"shardId\":3,\"x\":{},\"metrics\":\"a 1\"}}", open.repeat(times))
    };
    check(vec![
        json("nothing", b"", "line 1 column 0"),
        json("blanks", b" \n ", "line 2 column 1"),
        json("an array", b"[3,\"a 1\"]", "expected an object at line 1 column 1"),
        json("a string", b"\"a 1\"", "line 1 column 5"),
        json("a number", b"3", "line 1 column 1"),
        json("no metrics", b"{\"shardId\":3}", "missing field `metrics`"),
        json("no shardId", b"{\"metrics\":\"a 1\"}", "missing field `shardId`"),
        json(
            "shardId twice",
            b"{\"shardId\":3,\"shardId\":4,\"metrics\":\"a 1\"}",
            "duplicate field `shardId`",
        ),
        json(
            "metrics twice",
            b"{\"shardId\":3,\"metrics\":\"a 1\",\"metrics\":\"a 2\"}",
            "duplicate field `metrics`",
        ),
        json(
            "metrics is a number",
            b"{\"shardId\":3,\"metrics\":1}",
            "invalid type: integer `1`, expected a string",
        ),
        json(
            "metrics is null",
            b"{\"shardId\":3,\"metrics\":null}",
            "invalid type: null, expected a string",
        ),
        json(
            "metrics is an array",
            b"{\"shardId\":3,\"metrics\":[\"a 1\"]}",
            "invalid type: sequence, expected a string",
        ),
        json("cut off", b"{\"shardId\":3,\"metrics\":\"a 1", "EOF while parsing a string"),
        json(
            "cut off in an escape",
            b"{\"shardId\":3,\"metrics\":\"a 1\\",
            "EOF while parsing a string",
        ),
        json("an escape that is none", b"{\"shardId\":3,\"metrics\":\"a 1\\x\"}", "invalid escape"),
        json(
            "half a surrogate pair",
            b"{\"shardId\":3,\"metrics\":\"a{b=\\\"\\ud83d\\\"} 1\"}",
            "hex escape",
        ),
        json(
            "a line feed in a string",
            b"{\"shardId\":3,\"metrics\":\"a 1\n\"}",
            "control character",
        ),
        json("a NUL in a string", b"{\"shardId\":3,\"metrics\":\"a\0 1\"}", "control character"),
        json(
            "broken UTF-8 in metrics",
            b"{\"shardId\":3,\"metrics\":\"a{b=\\\"\xff\\\"} 1\"}",
            "invalid unicode code point",
        ),
        json(
            "overlong UTF-8",
            b"{\"shardId\":3,\"metrics\":\"a{b=\\\"\xc0\x80\\\"} 1\"}",
            "invalid unicode code point",
        ),
        json(
            "a byte order mark",
            b"\xef\xbb\xbf{\"shardId\":3,\"metrics\":\"a 1\"}",
            "line 1 column 1",
        ),
        json("UTF-16", b"{\0\"\0s\0", "line 1 column 2"),
        json("more behind it", b"{\"shardId\":3,\"metrics\":\"a 1\"} x", "trailing characters"),
        json("a comma too many", b"{\"shardId\":3,\"metrics\":\"a 1\",}", "trailing comma"),
        json("text without JSON", b"a 1\n", "expected value at line 1 column 1"),
        raw("100,000 arrays", deep("[", 100_000), Refused(400, "expected value at line 1 column")),
        raw(
            "100,000 objects",
            deep("{\"x\":", 100_000),
            Refused(400, "expected value at line 1 column"),
        ),
        id("a negative shard", "-1"),
        id("a shard and a half", "1.5"),
        id("a shard that is too high", "65536"),
        id("a shard beyond 64 bits", "99999999999999999999"),
        id("a shard beyond all numbers", "1e400").expecting(Refused(400, "number out of range")),
        id("no shard", "null"),
        id("a shard that is true", "true"),
        id("shards in an array", "[3]"),
        id("an empty string", "\"\""),
        id("a word", "\"three\""),
        id("a range that falls", "\"3-1\""),
        id("a range that is too high", "\"0-65536\""),
        id("a range of three", "\"0-1-2\""),
        id("blanks around it", "\" 3\""),
        id("a sign", "\"+3\""),
    ])
    .await;
}

#[tokio::test]
async fn headers_that_are_none() {
    let fine = |what| {
        text(
            what,
            "# TYPE rest_total counter\nrest_total 2000\n",
            Refused(400, "X-Instance-Id must be 1 to 128 visible ASCII characters"),
        )
    };
    let sequence = |what, value: &'static str| {
        fine(what)
            .with("x-report-sequence", value)
            .expecting(Refused(400, "X-Report-Sequence must be a whole number from 1"))
    };
    let interval = |what, value: &'static str| {
        fine(what).with("x-report-interval", value).expecting(Refused(
            400,
            "X-Report-Interval must be the seconds between two reports, at most 3600",
        ))
    };
    check(vec![
        fine("an empty name").with("x-instance-id", ""),
        fine("a name that is too long").with("x-instance-id", "x".repeat(129)),
        fine("a name beyond ASCII").with("x-instance-id", "caf\u{e9}"),
        fine("a tab in a name").with("x-instance-id", "a\tb").expecting(Taken(&[])),
        sequence("sequence 0", "0"),
        sequence("a negative sequence", "-1"),
        sequence("a fraction", "1.5"),
        sequence("beyond 64 bits", "18446744073709551616"),
        sequence("a word", "first"),
        interval("no pause", "0"),
        interval("a negative pause", "-1"),
        interval("NaN", "NaN"),
        interval("endless", "inf"),
        interval("over an hour", "3600.1"),
        interval("beyond all time", "1e300"),
        interval("a unit", "10s"),
        fine("the name of a gRPC client")
            .with("x-instance-id", "ab".repeat(16))
            .for_shard(0)
            .expecting(Refused(409, "already reports by gRPC")),
        fine("no content type")
            .with("content-type", "")
            .expecting(Refused(415, "send application/json")),
        fine("a form")
            .with("content-type", "application/x-www-form-urlencoded")
            .expecting(Refused(415, "send application/json")),
    ])
    .await;
}
