//! What goes wrong, and when, as the seed has it.

use std::{collections::BTreeMap, time::Duration};

use crate::fleet::{Fleet, Line, USUAL_LATENCY};

/// What was begun and must come.
#[derive(Default)]
pub(crate) struct Agenda {
    due: BTreeMap<(Duration, u64), Event>,
    /// Makes keys distinct.
    events: u64,
    /// When the next fault is drawn.
    next: Duration,
    /// Whether the story began.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Start(usize),
    Stop(usize),
    Kill(usize),
    Restore(usize),
    Reset(usize),
    Quicken(usize),
    StartManager,
}

impl Event {
    /// Whether it concerns this host.
    fn is_at(self, host: usize) -> bool {
        match self {
            Self::Start(at)
            | Self::Stop(at)
            | Self::Kill(at)
            | Self::Restore(at)
            | Self::Reset(at)
            | Self::Quicken(at) => at == host,
            Self::StartManager => false,
        }
    }
}

/// A crash loop takes longer than this `stale_after`.
const MOST_PATIENT: Duration = Duration::from_secs(8);

impl Agenda {
    /// Does what is due, and begins a fault when it is time for one.
    pub(crate) fn go_on(&mut self, fleet: &mut Fleet) {
        if !std::mem::replace(&mut self.begun, true) {
            (0..fleet.shared.shards).for_each(|shard| fleet.start(shard as usize * 2));
        }
        while let Some(entry) = self.due.first_entry().filter(|e| e.key().0 <= fleet.now()) {
            let event = entry.remove();
            self.act(fleet, event);
        }
        if fleet.now() >= self.next {
            self.next = fleet.now() + millis(fleet, 100..4_000);
            self.fault(fleet);
            self.keep_shards_running(fleet);
        }
    }

    /// No more faults: everything is whole.
    pub(crate) fn end(mut self, fleet: &mut Fleet) {
        self.due.clear();
        for host in 0..fleet.shared.hosts.len() {
            fleet.line(host, Line::Whole);
            fleet.slow(host, USUAL_LATENCY);
        }
        if !fleet.is_manager_running() {
            fleet.start_manager();
        }
    }

    fn plan(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.due.insert((at, self.events), event);
    }

    fn is_planned(&self, event: Event) -> bool {
        self.due.values().any(|planned| *planned == event)
    }

    fn act(&mut self, fleet: &mut Fleet, event: Event) {
        match event {
            Event::Start(host) if !fleet.is_running(host) => fleet.start(host),
            Event::Stop(host) if fleet.is_running(host) => fleet.stop(host),
            Event::Kill(host) if fleet.is_running(host) => fleet.kill(host),
            Event::Start(_) | Event::Stop(_) | Event::Kill(_) => {}
            Event::Restore(host) => fleet.line(host, Line::Whole),
            Event::Reset(host) => fleet.reset(host),
            Event::Quicken(host) => fleet.slow(host, USUAL_LATENCY),
            Event::StartManager => fleet.start_manager(),
        }
    }

    fn fault(&mut self, fleet: &mut Fleet) {
        // Mostly where something runs.
        let some = fleet.rng.usize(..fleet.shared.hosts.len());
        let host = if fleet.is_running(some) { some } else { some ^ 1 };
        let runs = fleet.is_running(host);
        match fleet.rng.u32(..15) {
            0 | 1 => self.break_line(fleet, host),
            2 | 3 => self.freeze(fleet, host),
            4 => {
                let latency = millis(fleet, 100..3_000);
                fleet.slow(host, latency);
                let until = fleet.now() + millis(fleet, 500..10_000);
                self.plan(until, Event::Quicken(host));
            }
            5 if runs => fleet.reset(host),
            6 | 7 if runs => fleet.kill(host),
            8 if runs => fleet.stop(host),
            9 => self.roll(fleet, host as u32 / 2),
            10 | 11 => self.crash_manager(fleet),
            12..15 if runs => self.crash_loop(fleet, host),
            _ => {}
        }
    }

    /// Takes a line that is whole, and gives it back later.
    fn break_line(&mut self, fleet: &mut Fleet, host: usize) {
        if self.is_planned(Event::Restore(host)) {
            return;
        }
        let lines = [Line::Cut, Line::CutTowardsManager, Line::CutTowardsShard, Line::Held];
        let line = lines[fleet.rng.usize(..lines.len())];
        fleet.line(host, line);
        let until = fleet.now() + millis(fleet, 50..25_000);
        self.plan(until, Event::Restore(host));
    }

    /// A connection that outlives its successor: what it carries is held, its client gives it up and makes another, or
    /// dies and has a successor, and then the old packets arrive.
    fn freeze(&mut self, fleet: &mut Fleet, host: usize) {
        if self.is_planned(Event::Restore(host)) || !fleet.is_running(host) {
            return;
        }
        fleet.line(host, Line::Frozen);
        let given_up = fleet.now() + millis(fleet, 100..3_000);
        let end = if fleet.rng.u32(..4) == 0 { Event::Kill(host) } else { Event::Reset(host) };
        self.plan(given_up, end);
        if end == Event::Kill(host) {
            let started = given_up + millis(fleet, 50..1_000);
            self.plan(started, Event::Start(host));
        }
        let until = given_up + millis(fleet, 50..8_000);
        self.plan(until, Event::Restore(host));
    }

    /// A rolling restart: the successor starts while its predecessor runs.
    fn roll(&mut self, fleet: &mut Fleet, shard: u32) {
        let [one, other] = fleet.slots(shard);
        let (old, new) = match (fleet.is_running(one), fleet.is_running(other)) {
            (true, false) => (one, other),
            (false, true) => (other, one),
            _ => return,
        };
        fleet.start(new);
        let ends = fleet.now() + millis(fleet, 0..10_000);
        let end = if fleet.rng.bool() { Event::Stop(old) } else { Event::Kill(old) };
        self.plan(ends, end);
    }

    /// A process is out of reach for so long, and so many come and go beside it, that the manager takes it for dead.
    fn crash_loop(&mut self, fleet: &mut Fleet, host: usize) {
        let beside = host ^ 1;
        let planned = self.due.values().any(|event| event.is_at(host) || event.is_at(beside));
        if planned || fleet.is_running(beside) || fleet.shared.stale_after > MOST_PATIENT {
            return;
        }
        fleet.line(host, Line::Cut);
        let mut at = fleet.now() + millis(fleet, 0..500);
        for _ in 0..fleet.rng.u32(5..9) {
            self.plan(at, Event::Start(beside));
            at += millis(fleet, 1_000..2_000);
            self.plan(at, Event::Kill(beside));
        }
        let until = at + fleet.shared.stale_after + millis(fleet, 0..3_000);
        self.plan(until, Event::Restore(host));
    }

    /// A kill, or a machine that loses its power: then nobody is told.
    fn crash_manager(&mut self, fleet: &mut Fleet) {
        if self.is_planned(Event::StartManager) {
            return;
        }
        let silent = fleet.rng.u32(..3) == 0;
        let hosts = 0..fleet.shared.hosts.len();
        let whole: Vec<_> = hosts.filter(|host| !self.is_planned(Event::Restore(*host))).collect();
        let back = fleet.now() + millis(fleet, 0..12_000);
        if silent {
            whole.iter().for_each(|host| fleet.line(*host, Line::Cut));
            whole.iter().for_each(|host| self.plan(back, Event::Restore(*host)));
        }
        fleet.kill_manager();
        self.plan(back, Event::StartManager);
    }

    /// Something starts processes again.
    fn keep_shards_running(&mut self, fleet: &mut Fleet) {
        for shard in 0..fleet.shared.shards {
            let [one, other] = fleet.slots(shard);
            let awaited =
                self.is_planned(Event::Start(one)) || self.is_planned(Event::Start(other));
            if !awaited && !fleet.is_running(one) && !fleet.is_running(other) {
                let at = fleet.now() + millis(fleet, 0..6_000);
                let host = if fleet.rng.bool() { one } else { other };
                self.plan(at, Event::Start(host));
            }
        }
    }
}

fn millis(fleet: &mut Fleet, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fleet.rng.u64(range))
}
