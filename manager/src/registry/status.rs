//! Who reports, and how it goes.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    InstanceKey, Reason, Registry, ShardView, Transport, instance::Instance, shard::Shard,
};
use crate::clock::UnixTime;

/// Whether a shard reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardState {
    /// Some instance reported within `stale-after`.
    Up,
    /// It reported before that.
    Stale,
    /// The bot is said to have it, but it never reported.
    #[default]
    NeverSeen,
}

/// How one shard is.
#[derive(Debug, Clone)]
pub struct ShardSummary {
    /// The shard's id.
    pub id: u32,
    /// Whether it reports.
    pub state: ShardState,
    /// When a report was last applied.
    pub last_report: Option<UnixTime>,
    /// When its newest instance began to count, if it said.
    pub started_at: Option<UnixTime>,
    /// Series the registry keeps of it.
    pub series: usize,
    /// Reports applied, by transport.
    pub reports: [(Transport, u64); Transport::ALL.len()],
    /// Samples rejected, by reason.
    pub rejected: [(Reason, u64); Reason::COUNTED.len()],
}

/// How one shard is, and its instances.
#[derive(Debug, Clone)]
pub struct ShardStatus {
    /// How it is.
    pub summary: ShardSummary,
    /// Its instances that are not part of the base yet, oldest first.
    pub instances: Vec<InstanceStatus>,
}

impl std::ops::Deref for ShardStatus {
    type Target = ShardSummary;

    fn deref(&self) -> &ShardSummary {
        &self.summary
    }
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

/// How the shards are of which [`Registry::collect`](super::Registry::collect) says that something changed.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// These are all shards there are.
    pub complete: bool,
    /// In order of id.
    pub summaries: Vec<ShardSummary>,
    /// Shards that are not listed, or no longer.
    pub unlisted: Vec<u32>,
}

impl Registry {
    /// The state of every shard, in order of id: those that reported, and every other id below the newest shard count.
    #[must_use]
    pub fn status(&self, now: UnixTime) -> Vec<ShardStatus> {
        let mut all = Vec::new();
        self.visit_status(now, |status, _| all.push(status));
        all
    }

    /// The same without instances.
    #[must_use]
    pub fn summaries(&self, now: UnixTime) -> Vec<ShardSummary> {
        let mut all = Vec::new();
        self.visit_listed(now, |id, view| {
            let never_seen = || ShardSummary::never_seen(id);
            let summary = |view: &ShardView<'_>| view.summary(now, self.settings.stale_after);
            all.push(view.map_or_else(never_seen, summary));
        });
        all
    }

    /// Calls `look` with the state of every shard of [`Registry::status`], and with what it shows if it ever reported.
    pub fn visit_status(
        &self,
        now: UnixTime,
        mut look: impl FnMut(ShardStatus, Option<&ShardView<'_>>),
    ) {
        self.visit_listed(now, |id, view| {
            let never_seen = || ShardStatus::never_seen(id);
            let status = |view: &ShardView<'_>| view.status(now, self.settings.stale_after);
            look(view.map_or_else(never_seen, status), view);
        });
    }

    /// Calls `look` with every shard that is listed, in order of id, and with what it shows if it ever reported.
    fn visit_listed(&self, now: UnixTime, mut look: impl FnMut(u32, Option<&ShardView<'_>>)) {
        let count = self.shard_count();
        let mut next = 0;
        self.visit_shards(now, |view| {
            let id = view.id();
            (next..id.min(count)).for_each(|id| look(id, None));
            next = id + 1;
            if view.shard.state(now, self.settings.stale_after).is_listed(id, count) {
                look(id, Some(view));
            }
        });
        (next..count).for_each(|id| look(id, None));
    }

    /// The state of one shard, if it is among those of [`Registry::status`].
    #[must_use]
    pub fn status_of(&self, shard_id: u32, now: UnixTime) -> Option<ShardStatus> {
        let stale_after = self.settings.stale_after;
        let shared = self.shards.read().get(&shard_id).map(Arc::clone);
        let known = shared.map(|shared| {
            let mut shard = shared.peek();
            shard.settle(now, stale_after);
            ShardView::new(&shard).status(now, stale_after)
        });
        let status = known.unwrap_or_else(|| ShardStatus::never_seen(shard_id));
        status.state.is_listed(shard_id, self.shard_count()).then_some(status)
    }

    /// How many shards the bot has, as the instance that began last says; 0 if nobody said.
    #[must_use]
    pub fn shard_count(&self) -> u32 {
        self.fleet.lock().shard_count
    }
}

impl ShardState {
    /// Whether a bot of `count` shards (0: nobody said how many it has) has the shard `id` that is so.
    pub(super) const fn is_listed(self, id: u32, count: u32) -> bool {
        match self {
            Self::Up => true,
            // Without a count (HTTP senders say none) what was seen once stays listed.
            Self::Stale => id < count || count == 0,
            Self::NeverSeen => id < count,
        }
    }
}

impl ShardSummary {
    pub(super) fn never_seen(id: u32) -> Self {
        Self {
            id,
            state: ShardState::NeverSeen,
            last_report: None,
            started_at: None,
            series: 0,
            reports: Transport::ALL.map(|t| (t, 0)),
            rejected: Reason::COUNTED.map(|r| (r, 0)),
        }
    }
}

impl ShardStatus {
    pub(super) fn never_seen(id: u32) -> Self {
        Self { summary: ShardSummary::never_seen(id), instances: Vec::new() }
    }
}

impl ShardView<'_> {
    /// How the shard is at `now`.
    #[must_use]
    pub fn summary(&self, now: UnixTime, stale_after: Duration) -> ShardSummary {
        let shard = self.shard;
        let tally = &shard.tally;
        ShardSummary {
            id: shard.id,
            state: shard.state(now, stale_after),
            last_report: tally.last_report,
            started_at: shard.instances.last().and_then(|i| i.about.started_at),
            series: shard.store.len(),
            reports: tally.reports,
            rejected: tally.rejected,
        }
    }

    /// How the shard and its instances are at `now`.
    #[must_use]
    pub fn status(&self, now: UnixTime, stale_after: Duration) -> ShardStatus {
        let shard = self.shard;
        let instance = |i: &Instance| InstanceStatus {
            key: i.key.clone(),
            transport: i.transport,
            client: i.about.client.as_ref().into(),
            started_at: i.about.started_at,
            last_report: i.last_report,
            last_sequence: i.last_sequence,
            connected: i.stream != 0,
            owner: i.owns,
        };
        ShardStatus {
            summary: self.summary(now, stale_after),
            instances: shard.instances.iter().map(instance).collect(),
        }
    }
}

impl Shard {
    /// Whether it reports.
    pub(super) fn state(&self, now: UnixTime, stale_after: Duration) -> ShardState {
        let heard = |seen: UnixTime| now.since(seen) <= stale_after;
        if self.tally.last_report.is_none() {
            ShardState::NeverSeen
        } else if self.tally.seen.is_some_and(heard)
            || self.instances.iter().any(|i| i.is_alive(now, stale_after))
        {
            ShardState::Up
        } else {
            ShardState::Stale
        }
    }
}

/// What a shard's reports came to.
#[derive(Debug)]
pub(super) struct Tally {
    /// When a report was last applied.
    pub(super) last_report: Option<UnixTime>,
    /// The same, or the manager's start if the shard was up when the manager ended.
    pub(super) seen: Option<UnixTime>,
    reports: [(Transport, u64); Transport::ALL.len()],
    rejected: [(Reason, u64); Reason::COUNTED.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self::restore((None, None), [0; Transport::ALL.len()], [0; Reason::COUNTED.len()])
    }
}

impl Tally {
    /// The tally that had these times and counts.
    pub(super) fn restore(
        (last_report, seen): (Option<UnixTime>, Option<UnixTime>),
        reports: [u64; Transport::ALL.len()],
        rejected: [u64; Reason::COUNTED.len()],
    ) -> Self {
        let (mut r, mut j) = (reports.into_iter(), rejected.into_iter());
        Self {
            last_report,
            seen,
            reports: Transport::ALL.map(|t| (t, r.next().unwrap_or(0))),
            rejected: Reason::COUNTED.map(|reason| (reason, j.next().unwrap_or(0))),
        }
    }

    /// The tally of a shard that begins anew, and was heard of then.
    pub(super) fn begun(heard: (Option<UnixTime>, Option<UnixTime>)) -> Self {
        Self::restore(heard, [0; Transport::ALL.len()], [0; Reason::COUNTED.len()])
    }

    /// Reports by [`Transport::ALL`], rejected samples by [`Reason::COUNTED`].
    pub(super) fn counts(&self) -> ([u64; Transport::ALL.len()], [u64; Reason::COUNTED.len()]) {
        (self.reports.map(|(_, n)| n), self.rejected.map(|(_, n)| n))
    }

    pub(super) fn count_report(&mut self, transport: Transport, now: UnixTime) {
        self.last_report = Some(now);
        self.seen = Some(now);
        self.reports.iter_mut().filter(|(t, _)| *t == transport).for_each(|(_, n)| *n += 1);
    }

    pub(super) fn count_rejected(&mut self, rejected: [u64; Reason::COUNTED.len()]) {
        self.rejected.iter_mut().zip(rejected).for_each(|((_, n), more)| *n += more);
    }
}
