//! The simulator against the true twilight-gateway and twilight-http, and against clients that misbehave.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is tests; clippy knows only the functions marked as such"
)]

mod bot;
mod determinism;
mod protocol;
mod raw;
mod rest;
mod scale;
mod sessions;

use std::future::Future;

use shardmeter_gateway_sim::{Config, Control, GatewaySim};
use shardmeter_process::testing::soon;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running simulator; it stops when this is dropped.
struct Sim {
    control: Control,
    gateway_url: String,
    /// Address for twilight-http's `proxy`.
    host: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Sim {
    async fn start(config: Config) -> Self {
        let addr = "127.0.0.1:0".parse().unwrap();
        let sim = GatewaySim::build(Config { addr, ..config }).await.unwrap();
        let (control, gateway_url) = (sim.control(), sim.gateway_url());
        let host = sim.addr().to_string();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(sim.run(async {
            let _ = stopped.await;
        }));
        Self { control, gateway_url, host, stop, running }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        within(self.running).await.unwrap();
    }
}

/// Fails the test when something takes too long.
async fn within<T>(what: impl Future<Output = T>) -> T {
    soon("what must happen", what).await
}
