//! What a load was, seen from the sender.

use std::time::Duration;

/// Reports that were sent and answered.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// From sending each to its answer.
    pub(crate) latencies: Vec<Duration>,
    /// From the first to the last.
    pub(crate) wall: Duration,
}
