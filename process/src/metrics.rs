//! What makes a struct of metric families: the macro that turns field names and docs into registered families, and the
//! kinds a field may have.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, core::Collector,
};

pub use prometheus::{Registry, Result};

#[cfg(target_os = "linux")]
use crate::usage::{CpuUsage, MemoryUsage};

/// Bucket bounds of every duration: Discord's deadline of 3 s is one of them.
const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0];

/// A struct of metric families: the field's name is the family's, the field's doc its HELP, in brackets its labels.
#[macro_export]
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
            $vis fn register(
                registry: &$crate::metrics::Registry,
            ) -> $crate::metrics::Result<Self> {
                Ok(Self {
                    $( $field: $crate::metrics::register(
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

/// A kind of family a field may have.
pub trait Family: Collector + Clone + Sized + 'static {
    /// An empty family.
    ///
    /// # Errors
    /// If a name is invalid.
    fn new(opts: Opts, labels: &[&str]) -> Result<Self>;
}

/// Makes a family and registers it.
///
/// # Errors
/// If a name is invalid or already taken.
pub fn register<F: Family>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<F> {
    let family = F::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

macro_rules! single {
    ($($kind:ty),+) => { $(
        impl Family for $kind {
            fn new(opts: Opts, _labels: &[&str]) -> Result<Self> {
                Self::with_opts(opts)
            }
        }
    )+ };
}
single!(IntCounter, IntGauge, Gauge);

macro_rules! labelled {
    ($($kind:ty),+) => { $(
        impl Family for $kind {
            fn new(opts: Opts, labels: &[&str]) -> Result<Self> {
                Self::new(opts, labels)
            }
        }
    )+ };
}
labelled!(IntCounterVec, IntGaugeVec, GaugeVec);

impl Family for Histogram {
    fn new(opts: Opts, _labels: &[&str]) -> Result<Self> {
        Self::with_opts(HistogramOpts::from(opts).buckets(DURATION_BUCKETS.to_vec()))
    }
}

impl Family for HistogramVec {
    fn new(opts: Opts, labels: &[&str]) -> Result<Self> {
        Self::new(HistogramOpts::from(opts).buckets(DURATION_BUCKETS.to_vec()), labels)
    }
}

#[cfg(target_os = "linux")]
families! {
    /// The process, read from procfs whenever the registry is gathered.
    #[expect(dead_code, reason = "only the registry reads these fields")]
    struct ProcessMetrics {
        /// Resident memory: rss is all of it (VmRSS), heap the anonymous part (RssAnon), external the mapped files and
        /// shared memory (RssFile and RssShmem).
        memory_usage_bytes: MemoryUsage["type"],
        /// CPU time since the last reading, in percent of one core.
        cpu_usage_percent: CpuUsage,
    }
}

/// Registers the process's own families, `memory_usage_bytes` and `cpu_usage_percent`; where there is no procfs there are
/// none.
///
/// # Errors
/// If they are registered already.
pub fn register_process(registry: &Registry) -> Result<()> {
    #[cfg(target_os = "linux")]
    ProcessMetrics::register(registry)?;
    #[cfg(not(target_os = "linux"))]
    let _no_procfs = registry;
    Ok(())
}
