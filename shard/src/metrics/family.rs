//! What makes a struct of families: the macro that turns field names and docs into registered families, and the kinds a
//! field may have.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::time::Instant;

/// Bucket bounds of every duration: Discord's deadline of 3 s is one of them.
const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0];

/// A struct of metric families: the field's name is the family's, the field's doc its HELP, in brackets its labels.
macro_rules! families {
    (
        $(#[$outer:meta])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $help:literal])+ $field:ident: $kind:ident $([$($label:literal),*])?, )+
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone)]
        $vis struct $name {
            $( $(#[doc = $help])+ $vis $field: $kind, )+
        }

        impl $name {
            /// Makes the families and registers them.
            $vis fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
                Ok(Self {
                    $( $field: $crate::metrics::family::register(
                        registry,
                        stringify!($field),
                        concat!($($help),+).trim(),
                        &[$($($label),*)?],
                    )?, )+
                })
            }
        }
    };
}
pub(super) use families;

/// A kind of family a field may have.
pub(super) trait Family: Collector + Clone + Sized + 'static {
    /// An empty family.
    fn new(opts: Opts, labels: &[&str]) -> prometheus::Result<Self>;
}

/// Makes a family and registers it.
pub(super) fn register<F: Family>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<F> {
    let family = F::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

macro_rules! single {
    ($($kind:ty),+) => { $(
        impl Family for $kind {
            fn new(opts: Opts, _labels: &[&str]) -> prometheus::Result<Self> {
                Self::with_opts(opts)
            }
        }
    )+ };
}
single!(IntCounter, IntGauge, Gauge);

macro_rules! labelled {
    ($($kind:ty),+) => { $(
        impl Family for $kind {
            fn new(opts: Opts, labels: &[&str]) -> prometheus::Result<Self> {
                Self::new(opts, labels)
            }
        }
    )+ };
}
labelled!(IntCounterVec, IntGaugeVec, GaugeVec);

impl Family for Histogram {
    fn new(opts: Opts, _labels: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::from(opts).buckets(DURATION_BUCKETS.to_vec()))
    }
}

impl Family for HistogramVec {
    fn new(opts: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::from(opts).buckets(DURATION_BUCKETS.to_vec()), labels)
    }
}

/// Time since the last heartbeat ack, computed when it is gathered, so that it grows while Discord is silent.
#[derive(Clone)]
pub(crate) struct AckAge {
    gauge: Gauge,
    started: Instant,
    /// The last ack, in milliseconds after `started`.
    acked: Arc<AtomicU64>,
}

impl AckAge {
    /// An ack arrived now.
    pub(crate) fn ack(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.acked.store(now, Ordering::Relaxed);
    }
}

impl Family for AckAge {
    fn new(opts: Opts, _labels: &[&str]) -> prometheus::Result<Self> {
        Ok(Self { gauge: Gauge::with_opts(opts)?, started: Instant::now(), acked: Arc::default() })
    }
}

impl Collector for AckAge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let acked = std::time::Duration::from_millis(self.acked.load(Ordering::Relaxed));
        self.gauge.set(self.started.elapsed().saturating_sub(acked).as_secs_f64());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_ack_age_grows_in_silence_and_falls_with_an_ack() {
        let registry = Registry::new();
        let age: AckAge = register(&registry, "age", "help", &[]).unwrap();
        let read = || registry.gather()[0].get_metric()[0].get_gauge().get_value();
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        assert!((read() - 90.0).abs() < 0.01, "{}", read());
        age.ack();
        assert!(read().abs() < 0.01, "{}", read());
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        assert!((read() - 5.0).abs() < 0.01, "{}", read());
    }
}
