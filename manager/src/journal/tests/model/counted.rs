//! What processes count.

use super::{
    Body,
    expected::{BOUNDS, Buckets, COUNTERS, Said},
};
use crate::model::LabelSet;

/// What a process counted: its counters, and observations of 0.5, 1.5, 3 and 9.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) counters: [f64; COUNTERS.len()],
    pub(super) observed: [f64; 4],
}

const OBSERVED: [f64; 4] = [0.5, 1.5, 3.0, 9.0];
const STEPS: [f64; COUNTERS.len()] = [1.0, 0.1, 0.7];

impl Counted {
    pub(super) fn count(&mut self, body: &Body) {
        for (i, step) in STEPS.iter().enumerate() {
            self.counters[i] += f64::from(body.more[i]) * step;
        }
        for (all, more) in self.observed.iter_mut().zip(body.observed) {
            *all += f64::from(more);
        }
    }

    pub(super) fn since(&self, base: &Self) -> Self {
        let mut rest = *self;
        rest.counters.iter_mut().zip(base.counters).for_each(|(all, base)| *all -= base);
        rest.observed.iter_mut().zip(base.observed).for_each(|(all, base)| *all -= base);
        rest
    }

    /// What a report of it says that names what `body` names.
    pub(super) fn said(&self, body: &Body, bounds: usize) -> Said {
        let mut said = Said::default();
        for (i, count) in self.counters.into_iter().enumerate() {
            said.counters[i] = body.names[i].then_some(count);
        }
        said.gauge = body.gauge.map(f64::from);
        said.histogram = body.names[COUNTERS.len()].then(|| {
            let observed = || OBSERVED.into_iter().zip(self.observed);
            let below =
                |bound: f64| observed().filter(|(at, _)| *at <= bound).map(|(_, n)| n).sum::<f64>();
            let mut values: Vec<f64> = BOUNDS[bounds].iter().map(|bound| below(*bound)).collect();
            values.extend([below(f64::INFINITY), observed().map(|(at, n)| at * n).sum::<f64>()]);
            Buckets { bounds, values }
        });
        said
    }

    /// Takes from `now` what `body` names.
    pub(super) fn update(&mut self, now: &Self, body: &Body) {
        for i in (0..COUNTERS.len()).filter(|i| body.names[*i]) {
            self.counters[i] = now.counters[i];
        }
        if body.names[COUNTERS.len()] {
            self.observed = now.observed;
        }
    }
}

pub(super) fn labels(counter: usize) -> LabelSet {
    LabelSet::canonical([COUNTERS[counter].1], 0, None).unwrap()
}
