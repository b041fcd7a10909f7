//! What is an event. Decided under the shard's lock, before the change that it comes of is made; what followers know of a
//! shard and its instances is recorded with the shard, so that a restart says nothing twice.
//!
//! Of an instance, CONNECTED and what ends it take turns. Groups of Pushgateway's API, which may push once a day, do not
//! come and go: of them only that the shard is up is said.

use std::time::Duration;

use super::{Departure, EventKind, ShardEvent, Successor};
use crate::{
    clock::UnixTime,
    model::{MetricType, pairs},
    registry::{
        Change, InstanceKey, ShardState, Transport,
        change::Recorder,
        instance::Instance,
        shard::Shard,
        store::{Series, SeriesId},
    },
};

/// The family that counts a shard's sessions with Discord's gateway, by outcome.
const SESSIONS: &str = "gateway_sessions_total";

/// Whether a family's series may be events.
pub(in crate::registry) fn counts_sessions(family: &str, kind: MetricType) -> bool {
    family == SESSIONS && kind == MetricType::Counter
}

/// How a session went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionOutcome {
    Resumed,
    Invalidated,
}

impl SessionOutcome {
    /// Of a series of [`SESSIONS`]; the others tell nothing.
    fn of(labels: &str) -> Option<Self> {
        let outcome = pairs(labels).find(|(name, _)| name == "outcome");
        match outcome?.1 {
            "resumed" => Some(Self::Resumed),
            "invalidated" => Some(Self::Invalidated),
            _ => None,
        }
    }
}

impl Shard {
    /// Records changes of the shard together with what they are to followers. Returns whether that is durable.
    pub(in crate::registry) fn record_events(
        &mut self,
        recorder: &Recorder,
        changes: &[Change<'_>],
        mut events: Vec<ShardEvent>,
    ) -> bool {
        let durable = recorder.record_with(changes, &mut events);
        events.iter().for_each(|event| self.announce(event));
        durable
    }

    /// Followers know of this event now.
    pub(in crate::registry) fn announce(&mut self, event: &ShardEvent) {
        self.announced = event.state;
        let instance = event.instance.as_ref().and_then(|(key, _)| {
            // Of senders without identity, the one that reports; else the one that ended.
            self.instances.iter_mut().rfind(|instance| instance.key == *key)
        });
        match (event.kind, instance) {
            (EventKind::Connected, Some(instance)) => {
                instance.announced = !instance.key.is_group();
            }
            (
                EventKind::Disconnected(_) | EventKind::Superseded(Successor::Stream),
                Some(instance),
            ) => instance.announced = false,
            (EventKind::Forgotten, _) if event.state != ShardState::Up => {
                self.instances.iter_mut().for_each(|instance| instance.announced = false);
            }
            _ => {}
        }
    }

    /// What it is that instance `at` reports, if followers do not know that it does.
    pub(in crate::registry) fn arrival(
        &self,
        at: usize,
        is_new_run: bool,
        now: UnixTime,
        stale_after: Duration,
    ) -> Vec<ShardEvent> {
        let mut events = Vec::new();
        let Some(instance) = self.instances.get(at) else { return events };
        let restarts = is_new_run && instance.announced;
        let connects = restarts || !(instance.announced || instance.key.is_group());
        if self.announced == ShardState::Up && !connects {
            return events; // as nearly always
        }
        if restarts {
            events.push(self.event(EventKind::Disconnected(Departure::Restarted), instance, now));
        }
        events.push(self.event_of_living(EventKind::Connected, instance, now));
        let owns = |i: &Instance| i.is_alive(now, stale_after) && !i.key.is_group();
        let is_newest = !self.instances.iter().skip(at + 1).any(owns);
        let before = self.instances.iter().take(at).rfind(|i| owns(i) && i.announced);
        if let Some(before) = before.filter(|_| connects && !restarts && is_newest) {
            let superseded = EventKind::Superseded(Successor::Instance);
            events.push(self.event_of_living(superseded, before, now));
        }
        events
    }

    /// What it is that instance `at` reports these values of series of [`SESSIONS`].
    pub(in crate::registry) fn session_events(
        &self,
        at: usize,
        sessions: &[(SeriesId, f64)],
        is_new_run: bool,
        now: UnixTime,
    ) -> Vec<ShardEvent> {
        let Some(instance) = self.instances.get(at) else { return Vec::new() };
        let kinds = sessions
            .iter()
            .filter_map(|(id, value)| self.session_event(instance, *id, *value, is_new_run));
        kinds.map(|kind| self.event_of_living(kind, instance, now)).collect()
    }

    /// What it is that a series of [`SESSIONS`] gets this value, if it is anything.
    fn session_event(
        &self,
        instance: &Instance,
        id: SeriesId,
        value: f64,
        is_new_run: bool,
    ) -> Option<EventKind> {
        let series = self.store.get(id)?;
        let outcome = SessionOutcome::of(self.store.labels(series))?;
        let before = instance.reported(series.slot());
        let rise = if is_new_run || value < before { value } else { value - before };
        let count = rise.round() as u64;
        (count > 0).then_some(match outcome {
            SessionOutcome::Resumed => EventKind::Resumed(count),
            SessionOutcome::Invalidated => EventKind::Invalidated(count),
        })
    }

    /// Of series with new values, one after the other, those that count sessions.
    pub(in crate::registry) fn sessions_among(
        &self,
        series: &[u32],
        values: &[f64],
    ) -> Vec<(SeriesId, f64)> {
        let mut found = Vec::new();
        let mut at = 0;
        for id in series.iter().map(|id| SeriesId::new(*id)) {
            let known = self.store.get(id);
            let counts = known.and_then(|series| self.store.family_of(series));
            if counts.is_some_and(|family| family.counts_sessions)
                && let Some(value) = values.get(at)
            {
                found.push((id, *value));
            }
            at += known.map_or(0, Series::width);
        }
        found
    }

    /// What it is that instance `at` no longer reports, if followers know that it did.
    pub(in crate::registry) fn departure(
        &self,
        at: usize,
        kind: EventKind,
        now: UnixTime,
    ) -> Vec<ShardEvent> {
        let instance = self.instances.get(at).filter(|instance| instance.announced);
        instance.map(|instance| self.event(kind, instance, now)).into_iter().collect()
    }

    /// What is new about who did not report in time.
    pub(in crate::registry) fn silence(
        &self,
        now: UnixTime,
        stale_after: Duration,
    ) -> Vec<ShardEvent> {
        let is_silent = |i: &Instance| i.is_silent(now, stale_after);
        let silent = self.instances.iter().filter(|i| i.announced && is_silent(i));
        let idle = EventKind::Disconnected(Departure::Idle);
        let mut events: Vec<_> = silent.map(|instance| self.event(idle, instance, now)).collect();
        let state = self.state(now, stale_after);
        // One that arrived just now is up before it is seen to be.
        let is_left = !self.instances.iter().any(|i| i.announced && !is_silent(i));
        if self.announced == ShardState::Up && state != ShardState::Up && is_left {
            events.push(ShardEvent { state, ..self.plain(EventKind::Stale, now) });
        }
        events
    }

    /// What it is that the shard is forgotten.
    pub(in crate::registry) fn forgotten(&self, alive: bool, now: UnixTime) -> ShardEvent {
        let state = if alive { ShardState::Up } else { ShardState::NeverSeen };
        ShardEvent { state, ..self.plain(EventKind::Forgotten, now) }
    }

    fn event(&self, kind: EventKind, instance: &Instance, now: UnixTime) -> ShardEvent {
        let of: (InstanceKey, Transport) = (instance.key.clone(), instance.transport);
        ShardEvent { instance: Some(of), ..self.plain(kind, now) }
    }

    /// An event of an instance that reports.
    fn event_of_living(&self, kind: EventKind, instance: &Instance, now: UnixTime) -> ShardEvent {
        ShardEvent { state: ShardState::Up, ..self.event(kind, instance, now) }
    }

    /// An event that does not change whether the shard is up.
    const fn plain(&self, kind: EventKind, now: UnixTime) -> ShardEvent {
        let (shard_id, state) = (self.id, self.announced);
        ShardEvent { revision: 0, at: now, shard_id, kind, instance: None, state }
    }
}
