//! Bodies of HTTP senders, good and bad.

mod openmetrics;
mod refused;

use std::time::Duration;

use super::*;
use crate::{
    exposition::{self, Format},
    registry::{Settings, ShardState},
};

fn registry() -> Registry {
    Registry::new(Settings::default(), [])
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_duration(Duration::from_secs(1_700_000_000 + seconds))
}

fn post_as(
    registry: &Registry,
    shards: &str,
    instance: Option<&str>,
    text: &str,
    now: UnixTime,
) -> Result<Taken, IngestError> {
    let shards = shards.parse().unwrap();
    let post = Post { shards, identity: instance.into(), sequence: None, interval: None };
    ingest(registry, &post, text.into(), now)
}

fn post(registry: &Registry, text: &str) -> Result<Taken, IngestError> {
    post_as(registry, "3", Some("test"), text, at(0))
}

fn page(registry: &Registry, now: UnixTime) -> String {
    let page = exposition::render(registry, &[], now, Format::TEXT);
    String::from_utf8(page.to_vec()).unwrap()
}

/// Sample lines of what shards reported.
fn samples(registry: &Registry, now: UnixTime) -> Vec<String> {
    page(registry, now)
        .lines()
        .filter(|l| !l.starts_with('#') && !l.starts_with("shard_"))
        .map(str::to_owned)
        .collect()
}

/// What a body shows, the body, and the sample lines it becomes.
const GOOD: &[(&str, &str, &[&str])] = &[
    ("nothing", "", &[]),
    ("comments and blank lines", "# hello\n\n#\n   \n#HELPx\n", &[]),
    ("no type is untyped", "a 1\n", &["a{shard_id=\"3\"} 1"]),
    ("no line feed at the end", "a 1", &["a{shard_id=\"3\"} 1"]),
    ("carriage returns", "# TYPE a gauge\r\na 1\r\n", &["a{shard_id=\"3\"} 1"]),
    (
        "a timestamp is ignored",
        "a 1 1700000000000\nb 2 -5\n",
        &["a{shard_id=\"3\"} 1", "b{shard_id=\"3\"} 2"],
    ),
    ("blanks anywhere", "\t a\t{ b = \"c\" , } \t 1 \t5  \n", &["a{shard_id=\"3\",b=\"c\"} 1"]),
    (
        "when something began, as Python's client says it",
        "# TYPE a_total counter\na_total 1\n# TYPE a_created gauge\na_created 5\n# TYPE s summary\ns_count 1\ns_sum 2\n\
         # TYPE s_created gauge\ns_created 5\n# TYPE b_created gauge\nb_created 7\n",
        &[
            "a_total{shard_id=\"3\"} 1",
            "b_created{shard_id=\"3\"} 7",
            "s_sum{shard_id=\"3\"} 2",
            "s_count{shard_id=\"3\"} 1",
        ],
    ),
    ("empty braces", "a{} 1\n", &["a{shard_id=\"3\"} 1"]),
    ("an empty value is no label", "a{b=\"\",c=\"d\"} 1\n", &["a{shard_id=\"3\",c=\"d\"} 1"]),
    (
        "escapes",
        "a{b=\"q\\\"b\\\\n\\nü🦀, }= x\"} 1\n",
        &["a{shard_id=\"3\",b=\"q\\\"b\\\\n\\nü🦀, }= x\"} 1"],
    ),
    (
        "values",
        "a +Inf\nb -Inf\nc NaN\nd 1.5e3\ne -0\nf inf\ng nan\n",
        &[
            "a{shard_id=\"3\"} +Inf",
            "b{shard_id=\"3\"} -Inf",
            "c{shard_id=\"3\"} NaN",
            "d{shard_id=\"3\"} 1500",
            "e{shard_id=\"3\"} -0.0",
            "f{shard_id=\"3\"} +Inf",
            "g{shard_id=\"3\"} NaN",
        ],
    ),
    (
        "its own shard_id goes, another's is renamed",
        "a{shard_id=\"3\"} 1\nb{shard_id=\"4\",job=\"j\",instance=\"i\"} 1\n",
        &[
            "a{shard_id=\"3\"} 1",
            "b{shard_id=\"3\",exported_instance=\"i\",exported_job=\"j\",exported_shard_id=\"4\"} 1",
        ],
    ),
    (
        "a histogram in any order",
        "# TYPE h histogram\nh_sum 5\nh_bucket{le=\"+Inf\"} 3\nh_bucket{le=\"2\"} 2\nh_bucket{le=\"1e0\"} 1\nh_count 3\n",
        &[
            "h_bucket{shard_id=\"3\",le=\"1.0\"} 1",
            "h_bucket{shard_id=\"3\",le=\"2.0\"} 2",
            "h_bucket{shard_id=\"3\",le=\"+Inf\"} 3",
            "h_sum{shard_id=\"3\"} 5",
            "h_count{shard_id=\"3\"} 3",
        ],
    ),
    (
        "a histogram whose count is its last bucket",
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nh_sum 5\n",
        &[
            "h_bucket{shard_id=\"3\",le=\"+Inf\"} 3",
            "h_sum{shard_id=\"3\"} 5",
            "h_count{shard_id=\"3\"} 3",
        ],
    ),
    (
        "a summary",
        "# TYPE s summary\ns{quantile=\"0.9\"} NaN\ns{quantile=\"0\"} 1\ns_sum 5\ns_count 3\n",
        &[
            "s{shard_id=\"3\",quantile=\"0.0\"} 1",
            "s{shard_id=\"3\",quantile=\"0.9\"} NaN",
            "s_sum{shard_id=\"3\"} 5",
            "s_count{shard_id=\"3\"} 3",
        ],
    ),
    (
        "suffixes of other types are names of their own",
        "# TYPE g gauge\ng 1\ng_sum 2\n# TYPE i_count counter\ni_count 3\nx_bucket{le=\"1\"} 4\n",
        &[
            "g{shard_id=\"3\"} 1",
            "g_sum{shard_id=\"3\"} 2",
            "i_count{shard_id=\"3\"} 3",
            "x_bucket{shard_id=\"3\",le=\"1\"} 4",
        ],
    ),
    (
        "names in quotes",
        "# TYPE \"a.b_total\" counter\n# HELP \"a.b_total\" Help.\n{\"a.b_total\"} 1\n\
         {\"a.b_total\",\"l.m\"=\"x\", n = \"y\",} 2 5\n { l=\"x\" , \"c\\\"\\\\\\n}\" }3\n",
        &[
            "a_b_total{shard_id=\"3\"} 1",
            "a_b_total{shard_id=\"3\",l_m=\"x\",n=\"y\"} 2",
            "c____{shard_id=\"3\",l=\"x\"} 3",
        ],
    ),
    (
        "legacy names in quotes",
        "# TYPE \"h\" histogram\n{\"h_bucket\",\"le\"=\"+Inf\",\"shard_id\"=\"3\"} 1\nh_sum{\"l.m\"=\"\"} 2\nh_count 1\n",
        &[
            "h_bucket{shard_id=\"3\",le=\"+Inf\"} 1",
            "h_sum{shard_id=\"3\"} 2",
            "h_count{shard_id=\"3\"} 1",
        ],
    ),
    (
        "a summary beyond the legacy rule",
        "# TYPE \"s.t\" summary\n{\"s.t\",quantile=\"0.5\"} 1\n{\"s.t_sum\"} 2\n{\"s.t_count\"} 3\n",
        &[
            "s_t{shard_id=\"3\",quantile=\"0.5\"} 1",
            "s_t_sum{shard_id=\"3\"} 2",
            "s_t_count{shard_id=\"3\"} 3",
        ],
    ),
    ("TYPE and HELP without samples", "# TYPE a counter\n# HELP b Help.\n", &[]),
    (
        "a help with escapes",
        "# HELP a q\"b\\\\n\\n\\x \n# TYPE a gauge\na 1\n",
        &["a{shard_id=\"3\"} 1"],
    ),
];

#[test]
fn good_bodies_become_sample_lines() {
    for (what, body, expected) in GOOD {
        let registry = registry();
        let taken = post(&registry, body).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(taken.rejected, [], "{what}");
        assert_eq!(samples(&registry, at(0)), *expected, "{what}");
    }
}

#[test]
fn types_and_help_are_kept() {
    let registry = registry();
    let body = "# HELP a q\"b\\\\n\\n\\x 🦀\n# TYPE a counter\na 1\n# TYPE i info\ni{v=\"1\"} 1\n# TYPE u unknown\nu 1\n";
    post(&registry, body).unwrap();
    let page = page(&registry, at(0));
    for line in
        ["# HELP a q\"b\\\\n\\n\\\\x 🦀", "# TYPE a counter", "# TYPE i gauge", "# TYPE u untyped"]
    {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}

/// What prom-client 15 prints for its default metrics and one of each type.
const PROM_CLIENT: &str = r#"# HELP process_cpu_user_seconds_total Total user CPU time spent in seconds.
# TYPE process_cpu_user_seconds_total counter
process_cpu_user_seconds_total 0.041215

# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1700000000

# HELP nodejs_eventloop_lag_seconds Lag of event loop in seconds.
# TYPE nodejs_eventloop_lag_seconds gauge
nodejs_eventloop_lag_seconds 0

# HELP nodejs_active_handles Number of active libuv handles grouped by handle type.
# TYPE nodejs_active_handles gauge
nodejs_active_handles{type="Socket"} 2

# HELP nodejs_active_handles_total Total number of active handles.
# TYPE nodejs_active_handles_total gauge
nodejs_active_handles_total 2

# HELP nodejs_version_info Node.js version info.
# TYPE nodejs_version_info gauge
nodejs_version_info{version="v18.13.0",major="18",minor="13",patch="0"} 1

# HELP nodejs_gc_duration_seconds Garbage collection duration by kind.
# TYPE nodejs_gc_duration_seconds histogram
nodejs_gc_duration_seconds_bucket{le="0.001",kind="minor"} 3
nodejs_gc_duration_seconds_bucket{le="0.01",kind="minor"} 4
nodejs_gc_duration_seconds_bucket{le="+Inf",kind="minor"} 4
nodejs_gc_duration_seconds_sum{kind="minor"} 0.0036
nodejs_gc_duration_seconds_count{kind="minor"} 4

# HELP commands_executed_total Commands.
# TYPE commands_executed_total counter
commands_executed_total{command_name="say \"hi\"\n\\o/ 🦀",guild_id="dm"} 3

# HELP request_duration_seconds d
# TYPE request_duration_seconds summary
request_duration_seconds{quantile="0.5"} 0.1
request_duration_seconds_sum 0.3
request_duration_seconds_count 3
"#;

#[test]
fn a_prom_client_body_is_taken_whole() {
    let registry = registry();
    let taken = post_as(&registry, "3", None, PROM_CLIENT, at(0)).unwrap();
    let expected =
        Taken { series: 9, rejected: Vec::new(), identified: true, late: false, durable: false };
    assert_eq!(taken, expected);
    let lines = samples(&registry, at(0));
    assert_eq!(lines.len(), 15);
    for line in [
        "commands_executed_total{shard_id=\"3\",command_name=\"say \\\"hi\\\"\\n\\\\o/ 🦀\",guild_id=\"dm\"} 3",
        "nodejs_gc_duration_seconds_bucket{shard_id=\"3\",kind=\"minor\",le=\"0.001\"} 3",
        "process_cpu_user_seconds_total{shard_id=\"3\"} 0.041215",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line}\n{lines:#?}");
    }
    // The same body twice leaves it as it was.
    post_as(&registry, "3", None, PROM_CLIENT, at(1)).unwrap();
    assert_eq!(samples(&registry, at(1)), lines);
}

#[test]
fn a_process_is_told_by_its_start() {
    let registry = registry();
    let body = |start: u32, count: u32| {
        format!("process_start_time_seconds {start}\n# TYPE a_total counter\na_total {count}\n")
    };
    let total = || {
        let lines = samples(&registry, at(0));
        let line = lines.iter().find(|l| l.starts_with("a_total")).cloned();
        line.unwrap()
    };
    let send = |body: &str| post_as(&registry, "3", None, body, at(0)).unwrap();
    send(&body(100, 5));
    // A restart that counted further than its predecessor: without the start it would look like one process.
    send(&body(200, 7));
    assert_eq!(total(), "a_total{shard_id=\"3\"} 12");
    // A late body of the first.
    send(&body(100, 6));
    assert_eq!(total(), "a_total{shard_id=\"3\"} 13");
    let status = registry.status(at(0)).remove(0);
    let starts: Vec<_> =
        status.instances.iter().map(|i| i.started_at.unwrap().as_secs_f64()).collect();
    assert_eq!(starts, [100.0, 200.0]);
}

#[test]
fn a_name_tells_better_than_a_start() {
    let registry = registry();
    let body = "process_start_time_seconds 100\n# TYPE a_total counter\na_total 5\n";
    for name in ["one", "two"] {
        let taken = post_as(&registry, "3", Some(name), body, at(0)).unwrap();
        assert!(taken.identified);
    }
    assert!(samples(&registry, at(0)).contains(&"a_total{shard_id=\"3\"} 10".to_owned()));
    let taken = post_as(&registry, "3", None, "a_total 1\n", at(0)).unwrap();
    assert!(!taken.identified);
    // 32 hexadecimal digits are a gRPC client's id.
    let id = "00112233445566778899AABBCCDDEEFF";
    assert_eq!(instance_key(id).to_string(), id.to_lowercase());
    assert!(matches!(instance_key(id), InstanceKey::Id(_)));
    assert!(matches!(instance_key(&id[1..]), InstanceKey::Named(_)));
}

#[test]
fn a_process_with_several_shards_labels_them_itself() {
    let registry = registry();
    let body = "# TYPE a_total counter\na_total{shard_id=\"2\"} 1\na_total{shard_id=\"5\"} 2\na_total 3\n\
                a_total{shard_id=\"9\"} 4\na_total{shard_id=\"two\"} 5\n# TYPE h histogram\n\
                h_bucket{shard_id=\"3\",le=\"1\"} 1\nh_count{shard_id=\"3\"} 1\nh_sum{shard_id=\"3\"} 1\n";
    let taken = post_as(&registry, "2-5", Some("x"), body, at(0)).unwrap_err();
    // Without a label it goes to the lowest, where there is one already.
    assert!(taken.to_string().starts_with("line 4: a_total: "), "{taken}");
    let body = body.replace("a_total 3\n", "rest 3\n");
    let taken = post_as(&registry, "2-5", Some("x"), &body, at(0)).unwrap();
    assert_eq!(taken.series, 6);
    assert_eq!(
        samples(&registry, at(0)),
        [
            "a_total{shard_id=\"2\"} 1",
            "a_total{shard_id=\"2\",exported_shard_id=\"9\"} 4",
            "a_total{shard_id=\"2\",exported_shard_id=\"two\"} 5",
            "a_total{shard_id=\"5\"} 2",
            "h_bucket{shard_id=\"3\",le=\"1.0\"} 1",
            "h_bucket{shard_id=\"3\",le=\"+Inf\"} 1",
            "h_sum{shard_id=\"3\"} 1",
            "h_count{shard_id=\"3\"} 1",
            "rest{shard_id=\"2\"} 3",
        ]
    );
    let up: Vec<_> =
        registry.status(at(0)).iter().filter(|s| s.state == ShardState::Up).map(|s| s.id).collect();
    assert_eq!(up, [2, 3, 5]);
    // One bad series refuses the body for all shards.
    let before = page(&registry, at(0));
    let bad = format!("{body}# TYPE c counter\nc{{shard_id=\"5\"}} -1\n").replace("} 4", "} 44");
    assert!(post_as(&registry, "2-5", Some("x"), &bad, at(0)).is_err());
    assert_eq!(page(&registry, at(0)), before);
}

#[test]
fn what_a_body_of_several_shards_no_longer_says_has_left() {
    let registry = registry();
    let post = |text: &str| post_as(&registry, "3-4", Some("x"), text, at(0)).unwrap();
    post("# TYPE g gauge\ng{shard_id=\"3\"} 1\ng{shard_id=\"4\"} 5\n");
    assert_eq!(samples(&registry, at(0)), ["g{shard_id=\"3\"} 1", "g{shard_id=\"4\"} 5"]);
    post("# TYPE g gauge\ng{shard_id=\"3\"} 2\n");
    assert_eq!(samples(&registry, at(0)), ["g{shard_id=\"3\"} 2"]);
}
