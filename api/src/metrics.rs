//! What the api counts of itself (design section 6). Every label value is of a closed set: nothing that a stranger sends
//! becomes one.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder, core::Collector,
    proto::MetricFamily,
};
use shardmeter_process::{families, metrics::register_process};

use crate::{http::ErrorType, store::Store};

families! {
    /// Requests of the HTTP port.
    pub(crate) struct HttpMetrics {
        /// Requests answered, by the route they matched ("other": none) and status.
        http_requests_total: IntCounterVec["method", "route", "status_code"],
        /// Time until the head of the answer was there, in seconds.
        http_request_duration_seconds: HistogramVec["method", "route", "status_code"],
        /// Requests that were refused or failed, by what was wrong.
        http_request_errors_total: IntCounterVec["method", "route", "error_type"],
    }
}

impl HttpMetrics {
    /// Counts an answer.
    pub(crate) fn count(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        took: Duration,
        error: Option<ErrorType>,
    ) {
        let method = method_label(method);
        let labels = [method, route, status.as_str()];
        self.http_requests_total.with_label_values(&labels).inc();
        self.http_request_duration_seconds.with_label_values(&labels).observe(took.as_secs_f64());
        if let Some(error) = error {
            self.http_request_errors_total
                .with_label_values(&[method, route, error.as_str()])
                .inc();
        }
    }
}

/// Anybody can make up a method.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

families! {
    /// Those who listen to live events.
    pub(crate) struct ListenerMetrics {
        /// Clients that listen to live events now.
        sse_active_connections: IntGauge,
        /// Clients cut because they read too slowly: what they had not read left the ring, or they read nothing for long.
        sse_clients_cut_total: IntCounterVec["reason"],
    }
}

families! {
    /// What the bus's events leave in the database.
    pub(crate) struct RecorderMetrics {
        /// Events that are not in the database: there was no room, or it is not known how many were missed ("unknown").
        api_events_lost_total: IntCounterVec["event_type"],
    }
}

families! {
    /// What the manager tells of shards.
    pub(crate) struct FleetMetrics {
        /// Incidents of shards that are not in the database: the manager no longer had them, or the database refused them. At
        /// least: where it is not known how many, 1.
        api_incidents_lost_total: IntCounter,
        /// 1 while the manager answers, else 0.
        manager_connection_status: IntGauge,
    }
}

/// Everything the api counts.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) http: HttpMetrics,
}

impl Metrics {
    /// All of them at zero.
    ///
    /// # Errors
    /// If two have one name, which is a mistake of this crate.
    pub(crate) fn new(store: Store) -> prometheus::Result<Self> {
        let registry = Registry::new();
        register_process(&registry)?;
        registry.register(Box::new(DatabaseStatus::new(store)?))?;
        Ok(Self { http: HttpMetrics::register(&registry)?, registry })
    }

    /// The page.
    pub(crate) fn page(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Whether the database is there, looked at when it is gathered.
struct DatabaseStatus {
    gauge: IntGauge,
    store: Store,
}

impl DatabaseStatus {
    fn new(store: Store) -> prometheus::Result<Self> {
        let gauge =
            IntGauge::new("database_connection_status", "1 while the database answers, else 0.")?;
        Ok(Self { gauge, store })
    }
}

impl Collector for DatabaseStatus {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(self.store.is_up().into());
        self.gauge.collect()
    }
}
