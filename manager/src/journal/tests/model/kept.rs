//! The model as the journal has it.

use std::collections::VecDeque;

use super::{
    disk::Position,
    expected::{Exposed, Model, Step},
};
use crate::{
    clock::UnixTime,
    registry::{self, Change},
};

/// What the sink of the registry and the world share.
#[derive(Default)]
pub(super) struct Kept {
    /// After all that was recorded.
    pub(super) model: Model,
    /// What is to be recorded next.
    pub(super) plan: VecDeque<Step>,
    /// Where the journal ended when it had become durable that the model is so, oldest first.
    pub(super) history: Vec<(Position, Model)>,
    /// The manager is killed at the record after so many: after it was written, or before.
    pub(super) dies: Option<(usize, bool)>,
    /// What can have been exposed when it was.
    pub(super) exposed: Option<Model>,
    pub(super) now: UnixTime,
    /// Something was damaged on the disk: the model knows nothing any more.
    pub(super) damaged: bool,
}

impl Kept {
    /// All that was recorded is durable.
    pub(super) fn is_durable(&mut self, position: Position) {
        self.history.push((position, self.model.clone()));
    }

    /// A change is recorded: what was planned happens to the model.
    pub(super) fn take(&mut self, change: &Change<'_>) {
        use registry::Step as Recorded;
        let step = match change {
            Change::Event(event) => return self.model.until = event.at,
            Change::Resumed(at) => return self.model.resume(*at),
            Change::Shard(shard, Recorded::Fold { ordinal }) => {
                return self.model.fold(*shard as usize, *ordinal as usize - 1, self.now);
            }
            Change::FleetSize { .. }
            | Change::Shard(
                _,
                Recorded::Join { .. } | Recorded::Close { .. } | Recorded::Report(_),
            ) => self.plan.pop_front().unwrap_or_else(|| panic!("nobody expects {change:?}")),
            _ => return, // of no consequence until it is reported
        };
        let place = |shard: &u32, ordinal: &u64| (*shard as usize, *ordinal as usize - 1);
        let same = match (change, &step) {
            (Change::FleetSize { shard_count, .. }, Step::ShardCount(count)) => {
                shard_count == count
            }
            (
                Change::Shard(id, Recorded::Join { ordinal, key, .. }),
                Step::Join { shard, key: expected, .. },
            ) => {
                place(id, ordinal) == (*shard, self.model.shards[*shard].instances.len())
                    && key == expected
            }
            (
                Change::Shard(id, Recorded::Close { ordinal, .. }),
                Step::Close { shard, instance, .. },
            ) => place(id, ordinal) == (*shard, *instance),
            (Change::Shard(id, Recorded::Report(report)), Step::Report { shard, instance, .. }) => {
                place(id, &report.ordinal) == (*shard, *instance)
            }
            _ => false,
        };
        assert!(same, "{change:?} where {step:?} is expected");
        self.model.take(step);
    }

    /// The model as a manager that is killed now leaves it.
    pub(super) fn durable(&self) -> Model {
        self.history.last().map(|(_, model)| model.clone()).unwrap_or_default()
    }
}

/// Whether `shown` is what the model exposes. To the last bit, unless instances were folded out of order, of which the
/// model knows nothing: then a sum may be higher by that.
pub(super) fn same(shown: &Exposed, model: &Model, now: UnixTime) -> Result<(), String> {
    let expected = model.exposed(now);
    let near = |a: &f64, b: &f64| a == b || (a - b).abs() <= b.abs() * 1e-12;
    let reordered =
        |key: &str| key.starts_with(['f', 'l']) && model.shards.iter().any(|s| s.reordered);
    let same = shown.len() == expected.len()
        && shown.iter().zip(&expected).all(|((key, value), (expected_key, expected))| {
            key == expected_key
                && (value == expected
                    || reordered(key) && value.1.iter().zip(&expected.1).all(|(a, b)| near(a, b)))
        });
    if same { Ok(()) } else { Err(format!("exposed:  {shown:?}\nexpected: {expected:?}")) }
}
