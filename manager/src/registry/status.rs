//! Who reports, and how it goes.

use std::time::Duration;

use super::{InstanceKey, Reason, ShardView, Transport};
use crate::clock::UnixTime;

/// Whether a shard reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardState {
    /// Some instance reported within `stale-after`.
    Up,
    /// It reported before that.
    Stale,
    /// The bot is said to have it, but it never reported.
    NeverSeen,
}

/// One shard's state.
#[derive(Debug, Clone)]
pub struct ShardStatus {
    /// The shard's id.
    pub id: u32,
    /// Whether it reports.
    pub state: ShardState,
    /// When a report was last applied.
    pub last_report: Option<UnixTime>,
    /// Series the registry keeps of it.
    pub series: usize,
    /// Reports applied, by transport.
    pub reports: [(Transport, u64); Transport::ALL.len()],
    /// Samples rejected, by reason.
    pub rejected: [(Reason, u64); Reason::ALL.len()],
    /// Its instances that are not part of the base yet, oldest first.
    pub instances: Vec<InstanceStatus>,
}

/// One instance's state.
#[derive(Debug, Clone)]
pub struct InstanceStatus {
    /// What makes it the same over reconnects.
    pub key: InstanceKey,
    /// How it reports.
    pub transport: Transport,
    /// Name and version of its client library; empty if unknown.
    pub client: Box<str>,
    /// When it began to count, if it said.
    pub started_at: Option<UnixTime>,
    /// When its last report was applied.
    pub last_report: UnixTime,
    /// Last sequence applied.
    pub last_sequence: u64,
    /// Whether a stream of it is open.
    pub connected: bool,
    /// Whether its gauges are the shard's.
    pub owner: bool,
}

impl ShardStatus {
    pub(super) fn never_seen(id: u32) -> Self {
        Self {
            id,
            state: ShardState::NeverSeen,
            last_report: None,
            series: 0,
            reports: Transport::ALL.map(|t| (t, 0)),
            rejected: Reason::ALL.map(|r| (r, 0)),
            instances: Vec::new(),
        }
    }
}

impl ShardView<'_> {
    /// The shard's state at `now`.
    #[must_use]
    pub fn status(&self, now: UnixTime, stale_after: Duration) -> ShardStatus {
        let shard = self.shard;
        let tally = &shard.tally;
        let state = match tally.last_report {
            None => ShardState::NeverSeen,
            Some(last) if now.since(last) <= stale_after => ShardState::Up,
            Some(_) => ShardState::Stale,
        };
        ShardStatus {
            id: shard.id,
            state,
            last_report: tally.last_report,
            series: shard.store.len(),
            reports: tally.reports,
            rejected: tally.rejected,
            instances: shard
                .instances
                .iter()
                .map(|i| InstanceStatus {
                    key: i.key.clone(),
                    transport: i.transport,
                    client: i.client.clone(),
                    started_at: i.started_at,
                    last_report: i.last_report,
                    last_sequence: i.last_sequence,
                    connected: i.stream != 0,
                    owner: shard.is_owner(i.ordinal),
                })
                .collect(),
        }
    }
}

/// What a shard's reports came to.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) last_report: Option<UnixTime>,
    reports: [(Transport, u64); Transport::ALL.len()],
    rejected: [(Reason, u64); Reason::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            last_report: None,
            reports: Transport::ALL.map(|t| (t, 0)),
            rejected: Reason::ALL.map(|r| (r, 0)),
        }
    }
}

impl Tally {
    pub(super) fn count_report(&mut self, transport: Transport, now: UnixTime) {
        self.last_report = Some(now);
        self.reports.iter_mut().filter(|(t, _)| *t == transport).for_each(|(_, n)| *n += 1);
    }

    pub(super) fn count_rejected(&mut self, reason: Reason, samples: u64) {
        self.rejected.iter_mut().filter(|(r, _)| *r == reason).for_each(|(_, n)| *n += samples);
    }
}
