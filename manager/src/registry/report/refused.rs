//! What is not taken of a body, by family.

use crate::registry::{MAX_SAID, Reason, Rejected};

/// What is not taken of a body.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// One entry a family, and no longer than anybody reads.
    pub(super) list: Vec<Rejected>,
    /// All of it, by [`Reason::ALL`].
    pub(super) samples: [u64; Reason::ALL.len()],
}

impl Refused {
    pub(super) fn note(&mut self, rejected: Rejected, series: usize) {
        self.samples[rejected.reason as usize] += series as u64;
        self.say(rejected, series as u32);
    }

    /// Says it, and counts no sample.
    pub(super) fn say(&mut self, rejected: Rejected, series: u32) {
        // A family's series come one after the other.
        if let Some(last) = self.list.last_mut().filter(|last| last.is_same(&rejected)) {
            last.series += series;
        } else if self.list.len() < MAX_SAID {
            self.list.push(Rejected { series, ..rejected });
        }
    }
}
