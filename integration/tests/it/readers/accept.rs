//! Who asks how, and that each is answered with what it can read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use reqwest::header;

use super::{pages::Pages, random::Shape, reported::Reported};
use crate::{system::RunningManager, tools::seed};

pub(crate) const TEXT: &str = "text/plain; version=0.0.4";
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";
pub(crate) const PROTOBUF: &str = "application/vnd.google.protobuf; \
     proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Prometheus 2.42; `formats::prometheus_reads_every_format` hears it from the real one.
pub(crate) const PROMETHEUS_2_42: &str = "application/openmetrics-text;version=1.0.0,\
     application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
/// The same, with native histograms enabled.
pub(crate) const PROMETHEUS_2_42_NATIVE: &str = "application/vnd.google.protobuf;\
     proto=io.prometheus.client.MetricFamily;encoding=delimited,\
     application/openmetrics-text;version=1.0.0;q=0.8,\
     application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const PROMETHEUS_2_53: &str = "application/openmetrics-text;version=1.0.0;q=0.5,\
     application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
const PROMETHEUS_2_53_NATIVE: &str = "application/vnd.google.protobuf;\
     proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,\
     application/openmetrics-text;version=1.0.0;q=0.4,\
     application/openmetrics-text;version=0.0.1;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
/// 3.0 says `escaping` of every format.
pub(crate) const PROMETHEUS_3_0: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
     application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.5,\
     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
     text/plain;version=0.0.4;escaping=allow-utf-8;q=0.3,*/*;q=0.2";
const PROMETHEUS_3_0_NATIVE: &str = "application/vnd.google.protobuf;\
     proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.6,\
     application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
     application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.4,\
     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
     text/plain;version=0.0.4;escaping=allow-utf-8;q=0.2,*/*;q=0.1";
/// Later ones say it of those whose version knows it.
pub(crate) const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
     application/openmetrics-text;version=0.0.1;q=0.5,\
     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
pub(crate) const PROMETHEUS_3_NATIVE: &str = "application/vnd.google.protobuf;\
     proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
     application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
     application/openmetrics-text;version=0.0.1;q=0.4,\
     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

const MATRIX: [(Option<&str>, &str); 14] = [
    (None, TEXT),
    (Some("*/*"), TEXT),
    (Some("text/plain"), TEXT),
    (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), TEXT),
    (Some(TEXT), TEXT),
    (Some(OPENMETRICS), OPENMETRICS),
    (Some(PROMETHEUS_2_42), OPENMETRICS),
    (Some(PROMETHEUS_2_42_NATIVE), PROTOBUF),
    (Some(PROMETHEUS_2_53), OPENMETRICS),
    (Some(PROMETHEUS_2_53_NATIVE), PROTOBUF),
    (Some(PROMETHEUS_3_0), OPENMETRICS),
    (Some(PROMETHEUS_3_0_NATIVE), PROTOBUF),
    (Some(PROMETHEUS_3), OPENMETRICS),
    (Some(PROMETHEUS_3_NATIVE), PROTOBUF),
];

/// A manager whose shards have just reported, and stay alive for longer than a test takes.
pub(crate) async fn reported(rng: &mut Rng, shape: Shape) -> (RunningManager, Reported) {
    let config = shardmeter_manager::Config {
        stale_after: Duration::from_secs(3600),
        ..shardmeter_manager::Config::default()
    };
    let manager = RunningManager::start_with(config).await;
    let registry = manager.registry.clone();
    let reported = Reported::random(rng, registry, shape, now());
    (manager, reported)
}

pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// The page as asked for: its Content-Type, its Content-Encoding, and what came over the wire.
pub(crate) async fn ask(
    manager: &RunningManager,
    accept: Option<&str>,
    coding: Option<&str>,
) -> (String, Option<String>, Vec<u8>) {
    let mut request = reqwest::Client::new().get(manager.url("/metrics"));
    for (name, value) in [(header::ACCEPT, accept), (header::ACCEPT_ENCODING, coding)] {
        request = value.into_iter().fold(request, |request, value| request.header(&name, value));
    }
    let answer = request.send().await.unwrap().error_for_status().unwrap();
    let said = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let content_type = said(header::CONTENT_TYPE).unwrap();
    let content_encoding = said(header::CONTENT_ENCODING);
    (content_type, content_encoding, answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_gets_what_the_content_type_says() {
    let shape = Shape {
        shards: 2,
        instances: 2,
        families: 6,
        series: 8,
        is_odd: false,
        has_parts: false,
        is_legacy: false,
    };
    let (manager, reported) = reported(&mut Rng::with_seed(seed()), shape).await;
    let mut pages = Pages::new("accept");
    pages.must_show("matrix".to_owned(), &reported.shown(now()));
    for (accept, format) in MATRIX {
        for coding in [None, Some("gzip"), Some("zstd")] {
            let (content_type, content_encoding, body) = ask(&manager, accept, coding).await;
            assert!(content_type.starts_with(format), "{accept:?} is answered {content_type}");
            assert_eq!(content_encoding.as_deref(), coding, "{accept:?}");
            pages.add(&content_type, false, coding, &body);
        }
    }
    pages.read().await;
    manager.stop().await;
}
