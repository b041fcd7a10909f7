//! A shard as streams, posts and scrapes share it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

use super::shard::Shard;
use crate::clock::UnixTime;

/// One shard behind its lock, and whether who keeps what it shows must look at it again.
#[derive(Debug)]
pub(super) struct SharedShard {
    shard: Mutex<Shard>,
    /// Until when what was last looked at stays as it is, nanoseconds since the epoch; 0: it changed. Written while the
    /// shard is locked.
    unchanged_until: AtomicU64,
}

impl SharedShard {
    pub(super) fn new(id: u32) -> Self {
        Self { shard: Mutex::new(Shard::new(id)), unchanged_until: AtomicU64::new(0) }
    }

    /// To change it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shard> {
        let shard = self.wait();
        self.unchanged_until.store(0, Relaxed);
        shard
    }

    /// To read it; who changes nothing but what time alone does needs no more.
    pub(super) fn peek(&self) -> MutexGuard<'_, Shard> {
        self.wait()
    }

    /// A long report has its shard for half a second. A worker of the runtime that waited for it would keep the tasks of other
    /// shards waiting, and all sockets if it was the one that looks after them: so it gives them away first.
    fn wait(&self) -> MutexGuard<'_, Shard> {
        if let Some(free) = self.shard.try_lock() {
            return free;
        }
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => block_in_place(|| self.shard.lock()),
            _ => self.shard.lock(),
        }
    }

    /// Whether it may show something else at `now` than when [`SharedShard::looked_at`] was called.
    pub(super) fn is_due(&self, now: UnixTime) -> bool {
        now.as_nanos() > self.unchanged_until.load(Relaxed)
    }

    /// What it shows is known, and stays so until this time unless it is changed.
    pub(super) fn looked_at(&self, _locked: &MutexGuard<'_, Shard>, unchanged_until: UnixTime) {
        self.unchanged_until.store(unchanged_until.as_nanos(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{
        runtime::Builder,
        sync::oneshot,
        time::{Instant, timeout},
    };

    use super::*;

    #[test]
    fn who_waits_for_a_shard_keeps_no_worker_from_others() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shard = Arc::new(SharedShard::new(0));
        let long_report = shard.lock();
        let waits = Arc::clone(&shard);
        let (waiting, is_waiting) = oneshot::channel();
        let frame = runtime.spawn(async move {
            waiting.send(()).unwrap();
            drop(waits.lock());
        });
        runtime.block_on(is_waiting).unwrap();
        // The only worker is about to wait, or waits.
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            let of_another =
                async { timeout(Duration::from_secs(30), tokio::spawn(async {})).await };
            runtime.block_on(of_another).expect("others go on").unwrap();
        }
        drop(long_report);
        runtime.block_on(frame).unwrap();
    }
}
