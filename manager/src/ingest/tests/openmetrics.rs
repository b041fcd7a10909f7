//! Bodies in OpenMetrics: those that end in `# EOF`.

use super::*;
use crate::{ingest::previous::PreviousBodies, metrics::Metrics};

fn openmetrics(registry: &Registry, now: UnixTime) -> Vec<String> {
    let page = exposition::render(registry, &[], now, Format::OPENMETRICS);
    let page = String::from_utf8(page.to_vec()).unwrap();
    let is_own = |line: &str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        name.starts_with("shard_") || line == "# EOF"
    };
    page.lines().filter(|line| !is_own(line)).map(str::to_owned).collect()
}

/// What prom-client 15.1.3 prints of a registry for OpenMetrics, exemplars enabled.
const PROM_CLIENT: &str = r#"# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1700000000
# HELP commands_executed Commands.
# TYPE commands_executed counter
commands_executed_total{command_name="ping"} 2 # {traceId="888",spanId="juuu"} 2 1700000012.088
commands_executed_total{command_name="no"} 1
# HELP events E.
# TYPE events counter
events_total 3
# HELP lat_seconds L "q" \\ n
# TYPE lat_seconds histogram
lat_seconds_bucket{le="0.1",m="GET"} 0
lat_seconds_bucket{le="1",m="GET"} 1 # {traceId="xyz"} 0.3 1700000012.089
lat_seconds_bucket{le="+Inf",m="GET"} 2 # {traceId="big"} 3 1700000012.089
lat_seconds_sum{m="GET"} 3.3
lat_seconds_count{m="GET"} 2
# HELP su S
# TYPE su summary
su{quantile="0.5"} 1
su_sum 1
su_count 1
# HELP g G
# TYPE g gauge
g Nan
# EOF
"#;

#[test]
fn a_prom_client_body_is_carried_through() {
    let registry = registry();
    let taken = post_as(&registry, "3", None, PROM_CLIENT, at(0)).unwrap();
    assert_eq!((taken.series, taken.rejected, taken.identified), (7, vec![], true));
    let expected = r#"# HELP commands_executed Commands.
# TYPE commands_executed counter
commands_executed_total{shard_id="3",command_name="ping"} 2 # {spanId="juuu",traceId="888"} 2 1700000012.088
commands_executed_total{shard_id="3",command_name="no"} 1
# HELP events E.
# TYPE events counter
events_total{shard_id="3"} 3
# HELP g G
# TYPE g gauge
g{shard_id="3"} NaN
# HELP lat_seconds L \"q\" \\ n
# TYPE lat_seconds histogram
lat_seconds_bucket{shard_id="3",m="GET",le="0.1"} 0
lat_seconds_bucket{shard_id="3",m="GET",le="1.0"} 1 # {traceId="xyz"} 0.3 1700000012.089
lat_seconds_bucket{shard_id="3",m="GET",le="+Inf"} 2 # {traceId="big"} 3 1700000012.089
lat_seconds_sum{shard_id="3",m="GET"} 3.3
lat_seconds_count{shard_id="3",m="GET"} 2
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds{shard_id="3"} 1700000000
# HELP su S
# TYPE su summary
su{shard_id="3",quantile="0.5"} 1
su_sum{shard_id="3"} 1
su_count{shard_id="3"} 1"#;
    assert_eq!(openmetrics(&registry, at(0)).join("\n"), expected);
    // In text format 0.0.4 nothing of it is seen.
    assert!(!page(&registry, at(0)).contains(" # "));
}

/// What a body shows, the body without its end, and the OpenMetrics lines it becomes.
const GOOD: &[(&str, &str, &[&str])] = &[
    ("nothing", "", &[]),
    (
        "a counter's family has no _total, and it can be left out of TYPE",
        "# HELP a Help.\n# TYPE a counter\n# HELP b_total Other.\na_total 1\nb_total 2\n",
        &[
            "# HELP a Help.",
            "# TYPE a counter",
            "a_total{shard_id=\"3\"} 1",
            "# HELP b_total Other.",
            "# TYPE b_total unknown",
            "b_total{shard_id=\"3\"} 2",
        ],
    ),
    (
        "_created is passed over, but is a name of its own elsewhere",
        "# TYPE a counter\na_total 1\na_created 1.5\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\n\
         h_count 1\nh_sum 1\nh_created{} 5\n# TYPE g gauge\ng 1\nx_created 2\n",
        &[
            "# TYPE a counter",
            "a_total{shard_id=\"3\"} 1",
            "# TYPE g gauge",
            "g{shard_id=\"3\"} 1",
            "# TYPE h histogram",
            "h_bucket{shard_id=\"3\",le=\"+Inf\"} 1",
            "h_sum{shard_id=\"3\"} 1",
            "h_count{shard_id=\"3\"} 1",
            "# TYPE x_created unknown",
            "x_created{shard_id=\"3\"} 2",
        ],
    ),
    (
        "units that fit are kept",
        "# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n\
         # UNIT b_bytes seconds \n# TYPE b_bytes gauge\nb_bytes 1\n",
        &[
            "# TYPE a_seconds counter",
            "# UNIT a_seconds seconds",
            "a_seconds_total{shard_id=\"3\"} 1",
            "# TYPE b_bytes gauge",
            "b_bytes{shard_id=\"3\"} 1",
        ],
    ),
    (
        "timestamps are seconds",
        "a 1 1700000000.123\nb 2 -5\nc 3 1e9\n",
        &[
            "# TYPE a unknown",
            "a{shard_id=\"3\"} 1",
            "# TYPE b unknown",
            "b{shard_id=\"3\"} 2",
            "# TYPE c unknown",
            "c{shard_id=\"3\"} 3",
        ],
    ),
    (
        "what is no type of the registry's becomes gauges",
        "# TYPE i info\ni_info{v=\"1\"} 1\n# TYPE s stateset\ns{s=\"on\"} 1\n# TYPE u unknown\nu 1\n\
         # TYPE gh gaugehistogram\ngh_bucket{le=\"1\"} 1\ngh_bucket{le=\"+Inf\"} 2\ngh_gcount 2\ngh_gsum -3\n",
        &[
            "# TYPE gh_bucket gauge",
            "gh_bucket{shard_id=\"3\",le=\"1\"} 1",
            "gh_bucket{shard_id=\"3\",le=\"+Inf\"} 2",
            "# TYPE gh_gcount gauge",
            "gh_gcount{shard_id=\"3\"} 2",
            "# TYPE gh_gsum gauge",
            "gh_gsum{shard_id=\"3\"} -3",
            "# TYPE i_info gauge",
            "i_info{shard_id=\"3\",v=\"1\"} 1",
            "# TYPE s gauge",
            "s{shard_id=\"3\",s=\"on\"} 1",
            "# TYPE u unknown",
            "u{shard_id=\"3\"} 1",
        ],
    ),
    (
        "exemplars of gauge histograms are passed over",
        "# TYPE gh gaugehistogram\ngh_bucket{le=\"+Inf\"} 2 # {a=\"b\"} 1 5\ngh_gcount 2\ngh_gsum 3\n",
        &[
            "# TYPE gh_bucket gauge",
            "gh_bucket{shard_id=\"3\",le=\"+Inf\"} 2",
            "# TYPE gh_gcount gauge",
            "gh_gcount{shard_id=\"3\"} 2",
            "# TYPE gh_gsum gauge",
            "gh_gsum{shard_id=\"3\"} 3",
        ],
    ),
    (
        "HELP escapes the double quote too",
        "# HELP a q\\\"b\\\\n\\n\n# TYPE a gauge\na 1\n",
        &["# HELP a q\\\"b\\\\n\\n", "# TYPE a gauge", "a{shard_id=\"3\"} 1"],
    ),
    (
        "exemplars with any labels, with and without time",
        "# TYPE a counter\na_total 1 5 # {} 1\na_total{b=\"c # {\"} 1 # { \"x.y\" = \"}\" , shard_id=\"9\",} 1e0 5.5\n\
         # TYPE h histogram\nh_bucket{le=\"+Inf\"} 1 # {a=\"\"} NaN -5\nh_count 1\nh_sum 1\n\
         h_bucket{le=\"-0.0\"} 1 # {a=\"b\"} -1 99999999999999999999\n",
        &[
            "# TYPE a counter",
            "a_total{shard_id=\"3\"} 1 # {} 1 1700000000",
            "a_total{shard_id=\"3\",b=\"c # {\"} 1 # {shard_id=\"9\",x_y=\"}\"} 1 5.5",
            "# TYPE h histogram",
            "h_bucket{shard_id=\"3\",le=\"0.0\"} 1 # {a=\"b\"} -1 1700000000",
            "h_bucket{shard_id=\"3\",le=\"+Inf\"} 1 # {} NaN 1700000000",
            "h_sum{shard_id=\"3\"} 1",
            "h_count{shard_id=\"3\"} 1",
        ],
    ),
];

#[test]
fn good_bodies_are_taken() {
    for (what, body, expected) in GOOD {
        for end in ["# EOF", "# EOF\n", "\n# EOF\r\n\n"] {
            let registry = registry();
            let body = format!("{body}{end}");
            let taken = post(&registry, &body).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(taken.rejected, [], "{what}");
            assert_eq!(openmetrics(&registry, at(0)), *expected, "{what}");
        }
    }
}

/// A bad body without its end, the line that is named, and a part of the reason.
const BAD: &[(&str, usize, &str)] = &[
    ("# TYPE a counter\na 1", 2, "a: a counter has no sample of this name"),
    ("# TYPE i info\ni 1", 2, "i: a gauge has no sample of this name"),
    ("# TYPE a_total gauge\n# TYPE a counter", 2, "called a_total, and another family is too"),
    ("# TYPE a counter\n# TYPE a_total gauge", 2, "a second TYPE line"),
    ("# UNIT a x\n# UNIT a x", 2, "a second UNIT line"),
    ("# TYPE a counter\na_total 1\na_total 2", 3, "already there"),
    ("# TYPE a counter\na_total 1\na_created x", 3, "\"x\" is no value"),
    ("# TYPE a counter\na_total 1\na_created{b=\"1\",b=\"2\"} 1", 3, "label \"b\" stands twice"),
    ("# TYPE a counter\na_created 1 # {} 1", 2, "only counters and buckets"),
    ("# TYPE a count", 1, "\"count\" is no metric type"),
    ("a 1 x", 1, "\"x\" is no timestamp (seconds since 1970)"),
    ("a 1 NaN", 1, "\"NaN\" is no timestamp"),
    ("a 1 # {} 1", 1, "an exemplar; only counters and buckets of histograms have some"),
    ("# TYPE g gauge\ng 1 # {} 1", 2, "only counters and buckets"),
    ("# TYPE h histogram\nh_count 1 # {} 1", 2, "only counters and buckets"),
    ("# TYPE s summary\ns{quantile=\"0.5\"} 1 # {} 1", 2, "only counters and buckets"),
    ("# TYPE a counter\na_total 1 #", 2, "an exemplar has no labels in braces"),
    ("# TYPE a counter\na_total 1 # 1", 2, "an exemplar has no labels in braces"),
    ("# TYPE a counter\na_total 1 # {", 2, "is no label name"),
    ("# TYPE a counter\na_total 1 # {b=c} 1", 2, "label b has no value in double quotes"),
    ("# TYPE a counter\na_total 1 # {\"b\"} 1", 2, "label b has no value"),
    ("# TYPE a counter\na_total 1 # {}", 2, "no value after the exemplar's labels"),
    ("# TYPE a counter\na_total 1 # {} x", 2, "\"x\" is no value"),
    ("# TYPE a counter\na_total 1 # {} 1 x", 2, "\"x\" is no timestamp"),
    ("# TYPE a counter\na_total 1 # {} 1 inf", 2, "\"inf\" is no timestamp"),
    ("# TYPE a counter\na_total 1 # {} 1 2 3", 2, "unexpected \"3\""),
    ("a 1\n# EOF\nb 1", 2, "something follows # EOF"),
];

#[test]
fn bad_bodies_are_refused() {
    for (body, line, reason) in BAD {
        let registry = registry();
        post(&registry, "before 1\n# EOF\n").unwrap();
        let before = page(&registry, at(0));
        let error = post(&registry, &format!("{body}\n# EOF\n")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("line {line}: ")), "{body}: {error}");
        assert!(error.contains(reason), "{body}: {error}");
        assert_eq!(page(&registry, at(0)), before, "{body}");
    }
    // Without the end it is the text format: no exemplars there, and nothing after an end either.
    for (body, reason) in [
        (
            "# TYPE a_total counter\na_total 1 # {} 1",
            "line 2: an exemplar; only an OpenMetrics body",
        ),
        ("a 1\n# EOF\nb 1\n", "line 2: something follows # EOF"),
        ("a 1 1.5\n# EOFX", "line 1: \"1.5\" is no timestamp"),
    ] {
        let error = post(&registry(), body).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
    }
}

#[test]
fn a_bad_exemplar_does_not_cost_its_sample() {
    let registry = registry();
    let long = "x".repeat(126);
    let body = format!(
        "# TYPE a counter\na_total{{b=\"1\"}} 1 # {{abc=\"{long}\"}} 1\na_total{{b=\"2\"}} 2 # {{ab=\"{long}\"}} 1\n\
         a_total{{b=\"3\"}} 3 # {{a=\"1\",a=\"2\"}} 1\n# EOF"
    );
    let taken = post(&registry, &body).unwrap();
    assert_eq!(taken.series, 3);
    let [rejected] = &taken.rejected[..] else { panic!("{:?}", taken.rejected) };
    assert_eq!((&*rejected.family, rejected.series), ("a_total", 2));
    assert!(rejected.message.contains("its labels have 129 characters"), "{}", rejected.message);
    let lines = openmetrics(&registry, at(0));
    assert_eq!(lines[1], "a_total{shard_id=\"3\",b=\"1\"} 1");
    assert_eq!(
        lines[2],
        format!("a_total{{shard_id=\"3\",b=\"2\"}} 2 # {{ab=\"{long}\"}} 1 1700000000")
    );
    assert_eq!(lines[3], "a_total{shard_id=\"3\",b=\"3\"} 3");
}

/// Exemplars differ in more than values, so nothing is compared with a body that has some.
#[test]
fn bodies_with_exemplars_are_read_as_a_whole() {
    let registry = registry();
    let metrics = Metrics::new().unwrap();
    let bodies = PreviousBodies::new(metrics.previous_bodies.clone());
    let shards = "3".parse().unwrap();
    let post = Post { shards, identity: Identity::Named("x"), sequence: None, interval: None };
    let body = |count: u32, created: u32, exemplar: &str| {
        format!(
            "# TYPE b counter\nb_total {count}\nb_created {created}\n# TYPE a counter\na_total {count}{exemplar}\n# EOF\n"
        )
    };
    let send = |body: String, now| {
        let repeated = bodies.repeat(&registry, &post, body.as_bytes(), now).is_some();
        if !repeated {
            bodies.ingest(&registry, &post, Text::Plain(&body), now).unwrap();
        }
        let a = openmetrics(&registry, now)[1].replace("a_total{shard_id=\"3\"} ", "");
        (repeated, a)
    };
    let is = |repeated, a: &str| (repeated, a.to_owned());
    assert_eq!(send(body(1, 5, ""), at(0)), is(false, "1"));
    assert_eq!(send(body(2, 5, ""), at(1)), is(true, "2"));
    assert_eq!(send(body(3, 5, " # {t=\"x\"} 1 1"), at(2)), is(false, "3 # {t=\"x\"} 1 1"));
    assert_eq!(send(body(4, 5, " # {t=\"x\"} 1 1"), at(3)), is(false, "4 # {t=\"x\"} 1 1"));
    assert_eq!(send(body(4, 5, " # {t=\"y\"} 2 2"), at(4)), is(false, "4 # {t=\"y\"} 2 2"));
    // Without, it is as before; the last one stays.
    assert_eq!(send(body(5, 5, ""), at(5)), is(false, "5 # {t=\"y\"} 2 2"));
    assert_eq!(send(body(6, 5, ""), at(6)), is(true, "6 # {t=\"y\"} 2 2"));
    // When something began is no value.
    assert_eq!(send(body(7, 6, ""), at(7)), is(false, "7 # {t=\"y\"} 2 2"));
}
