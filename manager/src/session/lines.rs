//! What sessions log. Whoever reaches the port can cause each of these lines as often as they like, so each kind has its
//! limit; what is left out is counted all the same, in metrics.

use shardmeter_access::Seldom;

use super::End;
use crate::registry::Rejected;

/// A fleet that starts should be seen to. In 10 s.
const COMES_AND_GOES: u64 = 100;

/// What went wrong is wrong many times. In 10 s.
const TROUBLE: u64 = 20;

/// The lines of all sessions.
#[derive(Debug)]
pub(crate) struct Lines {
    joined: Seldom,
    ended: Seldom,
    refused: Seldom,
    rejected: Seldom,
    resyncs: Seldom,
}

impl Default for Lines {
    fn default() -> Self {
        let [joined, ended] = [COMES_AND_GOES; 2].map(Seldom::new);
        let [refused, rejected, resyncs] = [TROUBLE; 3].map(Seldom::new);
        Self { joined, ended, refused, rejected, resyncs }
    }
}

impl Lines {
    pub(super) fn joined(&self, shard_id: u32, client: &str, new: bool) {
        self.joined.say(|left_out| tracing::info!(shard_id, client, new, left_out, "shard joined"));
    }

    pub(super) fn ended(&self, shard_id: Option<u32>, peer: &str, end: &End) {
        match end {
            End::Left(how) => self
                .ended
                .say(|left_out| tracing::info!(shard_id, peer, how, left_out, "shard left")),
            End::Broken(status) => self.ended.say(|left_out| {
                let reason = status.message();
                tracing::info!(shard_id, peer, reason, left_out, "shard's stream broke");
            }),
            End::Refused(status) => self.refused.say(|left_out| {
                let (code, reason) = (status.code(), status.message());
                tracing::warn!(shard_id, peer, ?code, reason, left_out, "shard refused");
            }),
            // One line a shard says nothing that the manager's own line does not.
            End::Shutdown => {
                tracing::debug!(shard_id, peer, "shard's stream ends with the manager");
            }
        }
    }

    pub(super) fn rejected(&self, shard_id: u32, rejected: &Rejected) {
        let (family, reason) = (&*rejected.family, &*rejected.message);
        self.rejected
            .say(|left_out| tracing::warn!(shard_id, family, reason, left_out, "family rejected"));
    }

    pub(super) fn resync(&self, shard_id: u32, reason: &str) {
        self.resyncs
            .say(|left_out| tracing::info!(shard_id, reason, left_out, "asking for a snapshot"));
    }
}
