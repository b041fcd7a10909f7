//! A reporter against a manager that does as the test says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy permits these in test functions, but not in what they share"
)]

mod build;
mod crowd;
mod fake;
mod half_open;
mod outages;
mod reports;
mod shutdown;
mod wire;

use fake::Fake;
use prometheus::{IntCounter, Registry};
use shardmeter_telemetry::{Connection, Reporter, Shard};

/// Shard 1 of 2 with one counter.
struct Bot {
    registry: Registry,
    counter: IntCounter,
    reporter: Reporter,
}

impl Bot {
    fn start(fake: &Fake) -> Self {
        Self::start_at(&fake.endpoint())
    }

    fn start_at(endpoint: &str) -> Self {
        let (registry, counter) = registry();
        let connection = Connection::new(endpoint).unwrap();
        let builder = Reporter::builder(&connection, Shard { id: 1, count: 2 });
        let reporter = builder.registry(registry.clone()).build().unwrap();
        Self { registry, counter, reporter }
    }
}

fn registry() -> (Registry, IntCounter) {
    let registry = Registry::new();
    let counter = IntCounter::new("c_total", "A counter").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    (registry, counter)
}
