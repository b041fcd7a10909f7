//! One series: what it counted since its instance started, and what of that the manager has.

use super::reading::Reading;
use shardmeter_proto::v1::MetricType;

/// One value per column of the series' samples.
type Values = Box<[f64]>;

#[derive(Debug)]
pub(super) struct Series {
    /// As first gathered: they do not change within an instance.
    pub(super) bounds: Vec<f64>,
    /// The id on the current stream.
    pub(super) id: Option<u32>,
    /// Number of the last gather that had this series.
    pub(super) gather: u64,
    pub(super) presence: Presence,
    /// As last gathered.
    raw: Values,
    /// What an instance's value is above the raw one; none until the raw one fell, or a new instance began.
    offset: Option<Values>,
    /// What the manager has, as far as it has said so.
    acknowledged: Option<Values>,
    /// What it has in addition once it acknowledges the frame in flight, if that frame names this series.
    in_flight: Option<InFlight>,
    /// Came back after it was reported as removed: to be reported even with an unchanged value.
    returned: bool,
}

/// Whether the registry has the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has.
    Present,
    /// It had, and the manager is still to learn that it has not.
    Left,
    /// It had, and the manager acknowledged so with this sequence.
    Gone { since: u64 },
}

#[derive(Debug)]
struct InFlight {
    values: Values,
    removed: bool,
}

impl Series {
    pub(super) fn new(reading: Reading, gather: u64) -> Self {
        Self {
            bounds: reading.bounds,
            id: None,
            gather,
            presence: Presence::Present,
            raw: reading.values.into(),
            offset: None,
            acknowledged: None,
            in_flight: None,
            returned: false,
        }
    }

    /// Takes in what a later gather says.
    pub(super) fn update(&mut self, kind: MetricType, reading: Reading, gather: u64) {
        self.gather = gather;
        let raw = self.fit(kind, reading);
        match self.presence {
            Presence::Present if fell(kind, &self.raw, &raw) => self.raise_offset(kind),
            Presence::Present => {}
            Presence::Left | Presence::Gone { .. } => {
                self.returned = true;
                self.presence = Presence::Present;
            }
        }
        self.raw = raw;
    }

    /// The registry no longer has the series: its values are final, and what comes back counts on from them.
    pub(super) fn leave(&mut self, kind: MetricType) {
        self.presence = Presence::Left;
        self.raise_offset(kind);
        for (column, raw) in self.raw.iter_mut().enumerate() {
            if is_cumulative(kind, column, self.bounds.len()) {
                *raw = 0.0;
            }
        }
    }

    /// Whether the registry no longer has the series, the manager never had it, and it leaves no counts: all that could be
    /// forgotten of a label set that came and went while the manager was away. One with an id keeps it: the stream cannot
    /// define its labels again.
    pub(super) fn left_unnoticed(&self, kind: MetricType) -> bool {
        self.presence == Presence::Left
            && !leaves_counts(kind)
            && self.acknowledged.is_none()
            && self.in_flight.is_none()
            && self.id.is_none()
    }

    /// Values since the instance started.
    pub(super) fn values(&self) -> Values {
        match &self.offset {
            None => self.raw.clone(),
            Some(offset) => self.raw.iter().zip(offset).map(|(raw, by)| raw + by).collect(),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.raw.len()
    }

    /// Whether the next delta names the series.
    pub(super) fn is_due(&self) -> bool {
        match self.presence {
            Presence::Present => self.returned || self.has_changed(),
            Presence::Left => true,
            Presence::Gone { .. } => false,
        }
    }

    fn has_changed(&self) -> bool {
        // Bits, so that NaN equals itself.
        let Some(acknowledged) = &self.acknowledged else {
            return true;
        };
        let by = |column: usize| self.offset.as_ref().map(|offset| offset[column]);
        self.raw.iter().zip(acknowledged).enumerate().any(|(column, (raw, known))| {
            let value = by(column).map_or(*raw, |by| raw + by);
            value.to_bits() != known.to_bits()
        })
    }

    /// Notes that the frame about to go names the series with `values`.
    pub(super) fn depart(&mut self, values: Values) {
        self.in_flight = Some(InFlight { values, removed: self.presence == Presence::Left });
    }

    /// The frame in flight, number `sequence`, was applied.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        let Some(frame) = self.in_flight.take() else {
            return;
        };
        self.acknowledged = Some(frame.values);
        self.returned = frame.removed && self.presence == Presence::Present;
        if frame.removed && self.presence == Presence::Left {
            self.presence = Presence::Gone { since: sequence };
        }
    }

    /// The frame in flight was not applied, and never will be.
    pub(super) fn forget_flight(&mut self) {
        self.in_flight = None;
    }

    /// A new stream begins, whose manager knows the instance up to `last_sequence`. False: nothing is left to say.
    pub(super) fn reopen(&mut self, kind: MetricType, last_sequence: u64) -> bool {
        self.id = None;
        match self.presence {
            Presence::Present | Presence::Left => true,
            Presence::Gone { .. } if !leaves_counts(kind) => false,
            // A manager that lost its memory gets the counts of series that left, too.
            Presence::Gone { since } if since > last_sequence => {
                self.presence = Presence::Left;
                true
            }
            Presence::Gone { .. } => true,
        }
    }

    /// A new instance begins, counting from what the manager acknowledged. False: nothing is left to count.
    pub(super) fn restart(&mut self, kind: MetricType) -> bool {
        self.id = None;
        self.in_flight = None;
        if let Some(base) = self.acknowledged.take()
            && leaves_counts(kind)
        {
            let bounds = self.bounds.len();
            let offset = self.offset.get_or_insert_with(|| vec![0.0; base.len()].into());
            for (column, (offset, base)) in offset.iter_mut().zip(base).enumerate() {
                if is_cumulative(kind, column, bounds) {
                    *offset -= base;
                }
            }
        }
        !matches!(self.presence, Presence::Gone { .. })
    }

    /// Forgets what the manager acknowledged.
    pub(super) fn forget_acknowledged(&mut self) {
        self.acknowledged = None;
    }

    fn raise_offset(&mut self, kind: MetricType) {
        if !leaves_counts(kind) {
            return;
        }
        let mut offset = self.values();
        for (column, value) in offset.iter_mut().enumerate() {
            if !is_cumulative(kind, column, self.bounds.len()) {
                *value = 0.0;
            }
        }
        self.offset = Some(offset);
    }

    /// A reading's values under this series' bounds. Bounds are fixed for an instance, so a series that came back with
    /// other ones counts at each bound what it has at its own greatest bound up to there; count and sum stay exact.
    fn fit(&self, kind: MetricType, reading: Reading) -> Values {
        let Reading { bounds, values, .. } = reading;
        if bounds == self.bounds {
            return values.into();
        }
        let below = |bound: f64| match bounds.partition_point(|other| *other <= bound) {
            0 => 0.0,
            place => values[place - 1],
        };
        let quantile = |bound: f64| {
            let place = bounds.iter().position(|other| *other == bound);
            place.map_or(f64::NAN, |place| values[place])
        };
        self.bounds
            .iter()
            .map(|bound| match kind {
                MetricType::Summary => quantile(*bound),
                _ => below(*bound),
            })
            .chain(values[bounds.len()..].iter().copied())
            .collect()
    }
}

/// Whether a series of this type leaves something behind that counts.
fn leaves_counts(kind: MetricType) -> bool {
    matches!(kind, MetricType::Counter | MetricType::Histogram | MetricType::Summary)
}

/// Whether a column holds a count or a sum, as opposed to a current value.
fn is_cumulative(kind: MetricType, column: usize, bounds: usize) -> bool {
    match kind {
        MetricType::Counter | MetricType::Histogram => true,
        MetricType::Summary => column >= bounds,
        MetricType::Gauge | MetricType::Untyped | MetricType::Unspecified => false,
    }
}

/// Whether the counts began anew between two gathers.
fn fell(kind: MetricType, before: &[f64], after: &[f64]) -> bool {
    // The last column of a histogram or summary is its sum, which may fall when observations are negative.
    let counts = match kind {
        MetricType::Histogram | MetricType::Summary => before.len() - 1,
        _ => before.len(),
    };
    let bounds = before.len().saturating_sub(2);
    (0..counts).any(|column| is_cumulative(kind, column, bounds) && after[column] < before[column])
}
