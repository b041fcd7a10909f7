//! Messages that take long, off the async workers: all streams share these, and a shard with a million series keeps a core busy
//! for a third of a second.

use std::sync::Arc;

use shardmeter_proto::v1::{self, report_request::Message as Said};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tonic::Status;

use super::{Next, Received, Reporting, Sessions};

/// Series from which a message takes longer than others should wait: about a millisecond.
pub(super) const LONG: usize = 4_000;

/// Turns of the long messages of all streams. There are two, so that many bad shards take no more of the machine than two.
#[derive(Debug, Clone)]
pub(crate) struct Turns(pub(super) Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(2)))
    }
}

impl Reporting {
    /// Whether it takes longer than others should wait.
    pub(super) fn is_long(&self, received: &Received) -> bool {
        match received {
            Received::Long(_) => true,
            Received::Read(request) => {
                request.message.as_ref().is_some_and(|said| self.series_of(said) >= LONG)
            }
        }
    }

    /// How many series are touched when the message is taken.
    fn series_of(&self, said: &Said) -> usize {
        let named = |samples: &Option<v1::Samples>| samples.as_ref().map_or(0, |s| s.series.len());
        match said {
            Said::Definitions(new) => new.families.iter().map(|f| 1 + f.series.len()).sum(),
            // The last part, however short, brings all of them.
            Said::Snapshot(part) => {
                let before = self.snapshot.as_ref().map_or(0, super::Assembly::series);
                before + named(&part.samples) + named(&part.removed)
            }
            Said::Delta(delta) => named(&delta.samples) + named(&delta.removed),
            Said::Hello(_) | Said::Goodbye(_) => 0,
        }
    }

    /// Reads and takes a message in its turn. A session that is dropped meanwhile leaves it to end by itself: so the message is
    /// applied as a whole, as any other.
    ///
    /// # Errors
    /// If that failed.
    pub(super) async fn take_long(
        mut self,
        sessions: &Arc<Sessions>,
        received: Received,
    ) -> Result<(Self, Result<Next, Status>), Status> {
        let of_all = Arc::clone(sessions);
        let take = move || {
            let next = received.read().and_then(|message| self.take(&of_all, message));
            (self, next)
        };
        sessions.long.take(take).await
    }
}

impl Turns {
    /// Does something that takes long on a thread for that, in its turn.
    ///
    /// # Errors
    /// If the thread failed.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        long: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let failed = || Status::internal("taking a long message failed; reconnect");
        let turn = Arc::clone(&self.0).acquire_owned().await.map_err(|_| failed())?;
        let taking = spawn_blocking(move || {
            let done = long();
            drop(turn);
            done
        });
        taking.await.map_err(|_| failed())
    }
}
