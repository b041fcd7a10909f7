//! What real scrapers ask for, by the headers they send, and what they get.

use super::*;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Who asks, the `Accept` header, and the `Content-Type` of the answer.
const ASKED: &[(&str, &str, &str)] = &[
    ("curl, Datadog's agent", "*/*", TEXT),
    ("Firefox", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
    (
        "Chrome",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
         application/signed-exchange;v=b3;q=0.7",
        TEXT,
    ),
    ("Prometheus 2.1, vmagent", "text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT),
    (
        "Telegraf",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
        PROTOBUF,
    ),
    (
        "prom2json",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
         text/plain;version=0.0.4;q=0.3",
        PROTOBUF,
    ),
    (
        "Prometheus 2.42, Datadog's OpenMetrics check",
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        OPENMETRICS,
    ),
    (
        "Prometheus 2.42 with native histograms",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
         application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        PROTOBUF,
    ),
    (
        "Prometheus 2.53, Alloy, the OpenTelemetry collector",
        "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        OPENMETRICS,
    ),
    (
        "Prometheus 2.53 with native histograms or created timestamps",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,\
         application/openmetrics-text;version=1.0.0;q=0.4,application/openmetrics-text;version=0.0.1;q=0.3,\
         text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        PROTOBUF,
    ),
    (
        "Prometheus 2.53, scrape_protocols: [PrometheusText0.0.4]",
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.4",
        TEXT,
    ),
    (
        "Prometheus 3.0",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
         application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.4,\
         text/plain;version=0.0.4;escaping=allow-utf-8;q=0.3,*/*;q=0.2",
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
    ),
    (
        "Prometheus 3.0 with native histograms",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.5,\
         application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.4,\
         application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.3,\
         text/plain;version=0.0.4;escaping=allow-utf-8;q=0.2,*/*;q=0.1",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=allow-utf-8",
    ),
    (
        "Prometheus 3.4 and later",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
    ),
    (
        "Prometheus 3.4 with native histograms or created timestamps",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
         application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
         application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
         text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        PROTOBUF,
    ),
    (
        "Prometheus 3.4, metric_name_validation_scheme: legacy",
        "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=underscores;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
    ),
    (
        "Prometheus 3.4, metric_name_escaping_scheme: values",
        "application/openmetrics-text;version=1.0.0;escaping=values;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=values;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=values",
    ),
    (
        "Prometheus 3.4, metric_name_escaping_scheme: dots, scrape_protocols: [PrometheusText1.0.0]",
        "text/plain;version=1.0.0;escaping=dots;q=0.6,*/*;q=0.5",
        "text/plain; version=1.0.0; charset=utf-8; escaping=dots",
    ),
    (
        "Prometheus 3.4, scrape_protocols: [PrometheusText1.0.0]",
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.5",
        "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
    ),
    // What nobody is known to send.
    ("nothing", "", TEXT),
    ("no accept header", "not an accept header", TEXT),
    ("only what there is not", "application/json", TEXT),
    ("an older OpenMetrics", "application/openmetrics-text;version=0.0.1", TEXT),
    ("any OpenMetrics", "application/openmetrics-text", OPENMETRICS),
    ("text of no version", "text/plain", TEXT),
    (
        "a later text first",
        "text/plain;version=2.0.0,application/openmetrics-text;q=0.1",
        OPENMETRICS,
    ),
    ("protobuf of something", "application/vnd.google.protobuf", TEXT),
    (
        "protobuf as text",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
        TEXT,
    ),
    ("never that", "application/openmetrics-text;q=0", TEXT),
    ("a weight that is none", "application/openmetrics-text;q=NaN,text/plain;q=0.1", TEXT),
    (
        "the better liked comes last",
        "text/plain;q=0.2,application/openmetrics-text;q=0.3",
        OPENMETRICS,
    ),
    ("the first of equals", "text/plain,application/openmetrics-text", TEXT),
    (
        "no names in quotes before text 1.0.0",
        "text/plain;version=0.0.4;escaping=allow-utf-8",
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
    ),
    (
        "dots in old text",
        "text/plain;version=0.0.4;escaping=dots",
        "text/plain; version=0.0.4; charset=utf-8; escaping=dots",
    ),
    ("an escaping there is not", "application/openmetrics-text;escaping=none", OPENMETRICS),
    ("text 1.0.0 as it is", "text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
    (
        "in quotes, after the weight",
        "text/plain;q=0.5;version=\"1.0.0\";escaping=\"values\"",
        "text/plain; version=1.0.0; charset=utf-8; escaping=values",
    ),
];

#[test]
fn scrapers_get_what_they_ask_for() {
    for (who, accept, content_type) in ASKED {
        assert_eq!(Negotiated::from_accept(Some(accept)).content_type(), *content_type, "{who}");
    }
    assert_eq!(Negotiated::from_accept(None).content_type(), TEXT);
}

/// The answer's Content-Type says what the page is.
#[test]
fn the_content_type_is_the_formats() {
    for (who, accept, content_type) in ASKED {
        let Format { syntax, escaping, created } = Negotiated::from_accept(Some(accept)).format;
        let media_type = content_type.split(';').next().unwrap();
        let expected = match media_type {
            "text/plain" => Syntax::Text,
            "application/openmetrics-text" => Syntax::OpenMetrics,
            _ => Syntax::Protobuf,
        };
        let stated = content_type.split_once("escaping=").map_or("underscores", |(_, name)| name);
        assert_eq!((syntax, escaping.as_str(), created), (expected, stated, false), "{who}");
    }
}

#[test]
fn only_openmetrics_has_created_samples() {
    for syntax in Syntax::ALL {
        let format = Format::new(syntax, Escaping::Underscores);
        assert_eq!(format.with_created(true).created, syntax == Syntax::OpenMetrics);
        assert!(!format.with_created(false).created);
    }
}

#[test]
fn gzip_is_used_where_it_is_welcome() {
    for welcome in
        ["gzip", "deflate, gzip;q=0.5", "*", "GZIP", "x-gzip", "br;q=1.0, gzip;q=0.8, *;q=0.1"]
    {
        assert_eq!(Coding::negotiate(Some(welcome)), Coding::Gzip, "{welcome}");
    }
    for not in [
        "",
        "identity",
        "gzip;q=0",
        "*, gzip;q=0",
        "gzip;q=0, *",
        "gzip;q=x",
        "*;q=0",
        "GZIP;Q=0",
        "gzip;q=-1",
        "gzip;foo=1;q=0",
        "gzip; q=nan",
    ] {
        assert_eq!(Coding::negotiate(Some(not)), Coding::Identity, "{not}");
    }
    assert_eq!(Coding::negotiate(None), Coding::Identity);
}

#[test]
fn zstd_is_used_if_it_is_preferred() {
    for preferred in [
        "zstd",
        "zstd, gzip;q=0.9",
        "gzip;q=0.5;foo=1, zstd",
        "gzip;q=0, zstd;q=0.1",
        "zstd;q=1.0, *;q=0.5",
    ] {
        assert_eq!(Coding::negotiate(Some(preferred)), Coding::Zstd, "{preferred}");
    }
    // As curl and browsers ask.
    for not in ["deflate, gzip, br, zstd", "gzip, zstd;q=0.5", "*"] {
        assert_eq!(Coding::negotiate(Some(not)), Coding::Gzip, "{not}");
    }
    assert_eq!(Coding::negotiate(Some("zstd;q=0")), Coding::Identity);
}
