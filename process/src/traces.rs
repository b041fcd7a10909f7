//! Traces: spans of all Shardmeter's crates go by OTLP over gRPC to a collector, if one is named.
//!
//! Nobody waits for it: spans are queued, and lost when the queue is full. Sampling is as `OTEL_TRACES_SAMPLER` and
//! `OTEL_TRACES_SAMPLER_ARG` say; more of OpenTelemetry's variables do what its specification says (`OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*`, `OTEL_EXPORTER_OTLP_HEADERS`).

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use http::HeaderMap;
use opentelemetry::{Context, trace::TracerProvider as _};
use opentelemetry_otlp::{
    SpanExporter as OtlpExporter, WithExportConfig as _, WithTonicConfig as _,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use shardmeter_proto::trace::{TRACEPARENT, traceparent};

/// How long a process that ends waits for its last spans to arrive.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Flags of the traces, the same for every binary.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TraceArgs {
    /// Where traces go, by OTLP over gRPC, as http://127.0.0.1:4317; without it there are none
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// What another process did, which has what is done here as its consequence; recorded, for else nobody needs to know.
#[derive(Debug)]
pub struct Cause(Context);

impl Cause {
    /// The one that a `traceparent` names.
    pub fn parse(traceparent: &str) -> Option<Self> {
        shardmeter_proto::trace::cause(traceparent).map(Self)
    }

    /// The one that the headers name.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// Makes a span, that nobody entered yet, its consequence.
    pub fn causes(self, span: &Span) {
        // An error means that there are no traces.
        let _ = span.set_parent(self.0);
    }
}

/// The span, if there is one that it is part of. Else it is not made at all.
pub fn part_of_trace(span: impl FnOnce() -> Span) -> Span {
    if Span::current().is_none() { Span::none() } else { span() }
}

/// Says in a span made with `otel.status_code` and `otel.status_description` that what it is about failed.
pub fn failed(span: &Span, error: &dyn fmt::Display) {
    if !span.is_none() {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error.to_string());
    }
}

/// Where the process's spans go, until it is dropped.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts them, if they are asked for. Within a runtime, which outlives them.
    ///
    /// # Errors
    /// If the endpoint is none.
    pub(crate) fn start(program: &'static str, args: &TraceArgs) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &args.otlp_endpoint else { return Ok(None) };
        let refused = || format!("OTEL_EXPORTER_OTLP_ENDPOINT {endpoint}");
        let exporter = exporter(endpoint).with_context(refused)?;
        check_sampler()?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) {
            resource = resource.with_service_name(program);
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(Outages { exporter, away: AtomicBool::new(false) });
        Ok(Some(Self(provider.build())))
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.0.tracer("shardmeter")
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // Who is away gets none, and was told of.
        let _ = self.0.shutdown_with_timeout(FLUSH_WITHIN);
    }
}

fn exporter(endpoint: &str) -> anyhow::Result<OtlpExporter> {
    let is_https = endpoint.starts_with("https://");
    let is_address = is_https || endpoint.starts_with("http://");
    ensure!(is_address, "it is not http://HOST:PORT or https://HOST:PORT");
    for variable in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
        let protocol = std::env::var(variable).unwrap_or_default();
        let is_spoken = protocol.is_empty() || protocol == "grpc";
        ensure!(is_spoken, "{variable} is {protocol}, and only grpc is spoken (port 4317)");
    }
    let mut exporter = OtlpExporter::builder().with_tonic().with_endpoint(endpoint);
    if is_https {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    Ok(exporter.build()?)
}

/// OpenTelemetry would take what it does not know for the default.
fn check_sampler() -> anyhow::Result<()> {
    let [sampler, arg] = ["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"]
        .map(|variable| std::env::var(variable).unwrap_or_default());
    let known = sampler.strip_prefix("parentbased_").unwrap_or(&sampler);
    if known == "traceidratio" {
        let is_ratio = arg.parse().is_ok_and(|part| (0.0..=1.0).contains(&part));
        ensure!(
            is_ratio,
            "OTEL_TRACES_SAMPLER_ARG is {arg:?}, and {sampler} needs a number from 0 to 1"
        );
    } else {
        let is_known = sampler.is_empty() || ["always_on", "always_off"].contains(&known);
        ensure!(
            is_known,
            "OTEL_TRACES_SAMPLER is {sampler}, and not always_on, always_off, traceidratio, or one of these after parentbased_"
        );
    }
    Ok(())
}

/// Says once that the collector is away, and once that it is back.
#[derive(Debug)]
struct Outages<E> {
    exporter: E,
    away: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Outages<E> {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(spans).await;
        match (&exported, self.away.swap(exported.is_err(), Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "traces do not arrive; they are lost until they do");
            }
            (Ok(()), true) => tracing::info!("traces arrive again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;
    use crate::logs::testing::logged;

    /// Exports are as they are said to be.
    #[derive(Debug)]
    struct Said(AtomicBool);

    impl SpanExporter for Said {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            if self.0.load(Relaxed) { Ok(()) } else { Err(OTelSdkError::AlreadyShutdown) }
        }
    }

    #[test]
    fn an_outage_is_said_once_and_its_end_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outages =
            Outages { exporter: Said(AtomicBool::new(true)), away: AtomicBool::new(false) };
        let lines = logged(None, || {
            for arrive in [true, false, false, false, true, true, false] {
                outages.exporter.0.store(arrive, Relaxed);
                assert_eq!(runtime.block_on(outages.export(Vec::new())).is_ok(), arrive);
            }
        });
        let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
        assert_eq!(levels, ["WARN", "INFO", "WARN"]);
    }

    #[test]
    fn what_is_part_of_nothing_is_no_span() {
        let provider = SdkTracerProvider::builder().build();
        logged(Some(provider.tracer("")), || {
            let part = || part_of_trace(|| tracing::info_span!("part"));
            assert!(part().is_none());
            let span = tracing::info_span!("whole");
            Cause::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
                .unwrap()
                .causes(&span);
            span.in_scope(|| {
                assert!(!part().is_none());
                let said = traceparent().unwrap();
                assert!(
                    said.starts_with("00-0af7651916cd43dd8448eb211c80319c-")
                        && said.ends_with("-01"),
                    "{said}"
                );
                assert!(!said.contains("b7ad6b7169203331"));
            });
        });
    }
}
