//! Marks a registry as taken by a reporter.
//!
//! A `prometheus::Registry` has no identity of its own, but refuses a collector that it already has.

use crate::BuildError;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, Registry};
use std::collections::HashMap;

/// Named like a metric, because a registry knows collectors by that. It exports nothing.
const NAME: &str = "shardmeter_telemetry_reporter";

struct Marker(Desc);

impl Marker {
    fn new() -> Result<Self, Error> {
        let help = "Marks a registry that has a reporter".to_owned();
        Desc::new(NAME.to_owned(), help, Vec::new(), HashMap::new()).map(Self)
    }
}

impl Collector for Marker {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        Vec::new()
    }
}

/// Marks all registries, or none. A mark stays for the life of the registry: what was reported once must not be
/// reported again under another instance.
pub(crate) fn mark(registries: &[Registry]) -> Result<(), BuildError> {
    for (index, registry) in registries.iter().enumerate() {
        let marked = Marker::new().and_then(|marker| registry.register(Box::new(marker)));
        if let Err(error) = marked {
            unmark(&registries[..index]);
            return Err(match error {
                Error::AlreadyReg => BuildError::RegistryTaken,
                error => BuildError::Mark(error),
            });
        }
    }
    Ok(())
}

fn unmark(registries: &[Registry]) {
    for registry in registries {
        // Both succeeded a moment ago with the same description.
        let _ = Marker::new().and_then(|marker| registry.unregister(Box::new(marker)));
    }
}
