//! What is logged about a manager that cannot be reached: its beginning, its end, and each new refusal.

use crate::session::Lost;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// The outage that goes on, if one does.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    /// What the manager last refused with.
    refusal: Option<String>,
}

impl Outage {
    pub(super) fn note(&mut self, lost: &Lost, retry_in: Duration) {
        let began = self.since.is_none();
        self.since.get_or_insert_with(Instant::now);
        let reason = lost.to_string();
        if lost.is_refusal() && self.refusal.as_ref() != Some(&reason) {
            error!("the manager refuses this shard's reports: {reason}{}", lost.cure());
            self.refusal = Some(reason);
        } else if began {
            warn!("no connection to the manager, trying again until there is: {reason}");
        } else {
            debug!(?retry_in, "still no connection to the manager: {reason}");
        }
    }

    pub(super) fn end(&mut self) {
        if let Some(since) = self.since.take() {
            info!(outage = ?since.elapsed(), "reporting to the manager again");
        }
        self.refusal = None;
    }
}
