//! Text that is well-formed, of which something cannot be taken, or nobody would expect it to be.

use super::*;

/// A body of which all but `bad` is taken. Each is of the sender's next report.
fn partly(
    what: &'static str,
    bad: impl AsRef<str>,
    rejected: &'static [(&'static str, &'static str, &'static str)],
) -> Row {
    text(what, bad, Partly(rejected))
}

/// Gives each row's body the counter that says how much of the rest was taken, one higher than before.
fn number(rows: &mut [Row]) {
    for (count, row) in (1001..).zip(rows) {
        let mut body: Value = serde_json::from_slice(&row.body).unwrap();
        let bad = body["metrics"].as_str().unwrap();
        let has_twin = bad.contains("twin");
        let twin = if has_twin { "" } else { "# TYPE twin gauge\ntwin{\"x.y\"=\"1\"} 1\n" };
        let text = format!("{twin}{bad}# TYPE rest_total counter\nrest_total {count}\n");
        body["metrics"] = text.into();
        row.body = body.to_string().into();
    }
}

#[tokio::test]
async fn families_that_conflict() {
    let gauge = |name: &str| format!("# TYPE {name} gauge\n{name} 1\n");
    let mut rows = vec![
        partly("another type", "# TYPE g counter\ng 1\n", &[("g", "type_conflict", "counter")]),
        partly(
            "a counter as a gauge",
            gauge("known_total"),
            &[("known_total", "type_conflict", "gauge")],
        ),
        partly("a histogram as a gauge", gauge("h"), &[("h", "type_conflict", "gauge")]),
        partly("no type where one is known", "g 1\n", &[("g", "type_conflict", "untyped")]),
        partly(
            "the manager's own of a shard",
            gauge("shard_up"),
            &[("shard_up", "name_collision", "manager")],
        ),
        partly(
            "the manager's own",
            gauge("shardmeter_manager_streams"),
            &[("shardmeter_manager_streams", "name_collision", "manager")],
        ),
        partly(
            "its own in dots",
            "# TYPE \"shard.up\" gauge\n{\"shard.up\"} 1\n",
            &[("shard.up", "name_collision", "shard_up")],
        ),
        partly("a histogram's sum", gauge("h_sum"), &[("h_sum", "name_collision", "h")]),
        partly("a histogram's buckets", gauge("h_bucket"), &[("h_bucket", "name_collision", "h")]),
        partly("a summary's count", gauge("s_count"), &[("s_count", "name_collision", "s")]),
        partly(
            "a counter's start",
            gauge("known_created"),
            &[("known_created", "name_collision", "known")],
        ),
        partly(
            "a counter's OpenMetrics name",
            gauge("known"),
            &[("known", "name_collision", "known")],
        ),
        partly(
            "alike once escaped",
            gauge("dotted_name"),
            &[("dotted_name", "name_collision", "dotted.name")],
        ),
        partly(
            "labels alike once escaped",
            "# TYPE twin gauge\ntwin{\"x.y\"=\"1\"} 1\ntwin{x_y=\"1\"} 1\n",
            &[("twin", "duplicate_series", "once label names are escaped")],
        ),
        partly(
            "several at once",
            "# TYPE g counter\ng 1\n# TYPE h gauge\nh 1\n",
            &[("g", "type_conflict", "counter"), ("h", "type_conflict", "gauge")],
        ),
    ];
    number(&mut rows);
    check(rows).await;
}

#[tokio::test]
async fn what_is_over_a_limit() {
    let series = |name: &str, many: usize| -> String {
        (0..many).map(|n| format!("{name}{{n=\"{n}\"}} 1\n")).collect()
    };
    let labels: String = (0..10_000).map(|n| format!("l{n}=\"x\",")).collect();
    let buckets: String = (0..501).map(|n| format!("b_bucket{{le=\"{n}\"}} 1\n")).collect();
    let long = "x".repeat(1 << 20);
    let mut rows = vec![
        partly(
            "a label value of a megabyte",
            format!("a{{b=\"{long}\"}} 1\n"),
            &[("a", "limit", "bytes")],
        ),
        partly(
            "a label name of a megabyte",
            format!("a{{{long}=\"b\"}} 1\n"),
            &[("a", "limit", "bytes")],
        ),
        partly("a name of a megabyte", format!("{long} 1\n"), &[("xxx", "limit", "bytes")]),
        partly("10,000 labels", format!("a{{{labels}}} 1\n"), &[("a", "limit", "bytes")]),
        partly(
            "501 buckets",
            format!("# TYPE b histogram\n{buckets}b_sum 1\nb_count 1\n"),
            &[("b", "limit", "bounds")],
        ),
    ];
    number(&mut rows);
    rows.push(text(
        "a help of a megabyte",
        format!("# HELP helped {long}\nhelped 1\n"),
        Taken(&["helped{shard_id=\"3\"} 1"]),
    ));
    rows.push(text(
        "a value of a megabyte of digits",
        format!("a {}\n", "1".repeat(1 << 20)),
        Taken(&["a{shard_id=\"3\"} +Inf"]),
    ));
    rows.push(text(
        "as many series as a family may have",
        series("many", 2_000),
        Taken(&["many{shard_id=\"3\",n=\"1999\"} 1"]),
    ));
    rows.push(text(
        "a line of a megabyte of blanks",
        format!("a{}1\n", " ".repeat(1 << 20)),
        Taken(&["a{shard_id=\"3\"} 1"]),
    ));
    rows.push(bad(
        "a comment, then a bad line",
        &format!("# {long}\nb"),
        "metrics: line 2: no value after b",
    ));
    rows.push(bad(
        "a bad line of a megabyte",
        &format!("a{{{}", "-".repeat(1 << 20)),
        "is no label name",
    ));
    rows.push(text(
        "a body over 8 MiB",
        "x".repeat(8 << 20),
        Refused(413, "the body is over 8388608 bytes"),
    ));
    check(rows).await;
}

#[tokio::test]
async fn what_is_odd_and_taken_all_the_same() {
    check(vec![
        text("carriage returns", "# TYPE crlf gauge\r\ncrlf 1\r\n", Taken(&["crlf{shard_id=\"3\"} 1"])),
        text("blanks and tabs", "\t a\t{ b = \"c\" , } \t 1 \t5  \n", Taken(&["a{shard_id=\"3\",b=\"c\"} 1"])),
        text("a NUL in a label's value", "a{b=\"\0\"} 1", Taken(&["a{shard_id=\"3\",b=\"\0\"} 1"])),
        text("values that are no numbers", "a NaN\nx +Inf\ny -inf\n", Taken(&["a{shard_id=\"3\"} NaN", "x{shard_id=\"3\"} +Inf", "y{shard_id=\"3\"} -Inf"])),
        text("a gauge beyond all numbers", "a 1e999", Taken(&["a{shard_id=\"3\"} +Inf"])),
        text("another's shard_id", "a{shard_id=\"7\"} 1", Taken(&["a{shard_id=\"3\",exported_shard_id=\"7\"} 1"])),
        text("labels that Prometheus sets", "a{job=\"j\",instance=\"i\"} 1", Taken(&["a{shard_id=\"3\",exported_instance=\"i\",exported_job=\"j\"} 1"])),
        text("le and quantile where they mean nothing", "a{le=\"x\",quantile=\"y\"} 1", Taken(&["a{shard_id=\"3\",le=\"x\",quantile=\"y\"} 1"])),
        text("lines in a label's value", "a{b=\"\\n# TYPE x counter\\nx 1\\\"\\\\\"} 1", Taken(&["a{shard_id=\"3\",b=\"\\n# TYPE x counter\\nx 1\\\"\\\\\"} 1", "!x 1"])),
        text("other bounds than another shard's", "# TYPE h histogram\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
            Taken(&["h_bucket{shard_id=\"3\",le=\"2.0\"} 1", "h_bucket{shard_id=\"4\",le=\"1.0\"} 1", "!h_bucket{shard_id=\"3\",le=\"1.0\"}", "!h_bucket{shard_id=\"4\",le=\"2.0\"}"])),
        text("nothing", "", Taken(&["!a{"])),
    ])
    .await;
}
