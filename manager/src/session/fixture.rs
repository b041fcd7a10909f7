//! Sessions as tests need them.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use shardmeter_access::Places;
use tokio_util::sync::CancellationToken;

use super::{Lines, Room, Sessions, Turns};
use crate::{
    clock::Clock, journal::MemoryOnly, metrics::Metrics, rates::Rates, registry::Registry,
};

impl Sessions {
    /// Those of a manager with this registry that keeps nothing on disk, and has room for ten of any fleet, who may say
    /// all they like.
    pub(crate) fn of(registry: Registry, metrics: Arc<Metrics>) -> Self {
        Self {
            registry: Arc::new(registry),
            journal: Arc::new(MemoryOnly),
            metrics,
            lines: Lines::default(),
            clock: Clock::new(),
            places: Places::new("Report streams", 10, 10),
            rates: Arc::new(Rates::new(NonZeroU32::MAX)),
            snapshots: Room::default(),
            long: Turns::default(),
            fleet: None,
            report_interval: Duration::from_secs(10),
            idle_gap: Duration::from_secs(30),
            shutdown: CancellationToken::new(),
        }
    }
}
