//! The manager's host: the real manager on the simulated network, and a scraper beside it.

use std::{path::Path, rc::Rc, time::Duration};

use shardmeter_manager::{
    Config, Manager,
    clock::{Clock, UnixTime},
    exposition::{self, Format},
};
use tokio::time::sleep;

use crate::{fleet::Shared, network};

/// As often as the manager's own `run` does.
const MAINTAIN_EVERY: Duration = Duration::from_secs(1);
/// The wall clock's reading when the simulation begins.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// Serves until the host crashes.
pub(crate) async fn run(shared: Rc<Shared>) -> turmoil::Result {
    let now = || UnixTime::from_duration(EPOCH + turmoil::sim_elapsed().unwrap_or_default());
    let config = Config {
        report_interval: shared.report_interval,
        stale_after: shared.stale_after,
        data_dir: Some(shared.data_dir()),
        ..Config::default()
    };
    let manager = Manager::build_with(config, Clock::starting_at(now())).await?;
    let registry = manager.registry();
    let scraping = async {
        loop {
            let page = exposition::render(&registry, &[], now(), Format::TEXT).to_vec();
            shared.scraped(&String::from_utf8_lossy(&page));
            sleep(shared.scrape_every).await;
        }
    };
    // Not on a thread of its own: nothing but the seed decides what comes first.
    let maintenance = async {
        loop {
            sleep(MAINTAIN_EVERY).await;
            manager.maintain_journal();
        }
    };
    let incoming = network::listen().await?;
    tokio::select! {
        biased;
        () = scraping => Ok(()),
        () = maintenance => Ok(()),
        served = manager.serve_grpc(incoming) => Ok(served?),
    }
}

/// What a kill leaves on the disk: what was written, and nothing that is written on the way out.
pub(crate) fn snapshot(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    if !from.exists() {
        return Ok(()); // killed before it did anything
    }
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
