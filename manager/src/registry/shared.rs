//! A shard as streams, posts and scrapes share it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

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
        let shard = self.shard.lock();
        self.unchanged_until.store(0, Relaxed);
        shard
    }

    /// To read it; who changes nothing but what time alone does needs no more.
    pub(super) fn peek(&self) -> MutexGuard<'_, Shard> {
        self.shard.lock()
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
