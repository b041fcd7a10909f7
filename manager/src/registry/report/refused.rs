//! What is not taken of a body, by family.

use crate::registry::{Family, MAX_SAID, Reason, Rejected, limits::overflowed};

/// What is not taken of a body.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// One entry a family, and no longer than anybody reads.
    pub(super) list: Vec<Rejected>,
    /// All of it, by [`Reason::COUNTED`].
    pub(super) samples: [u64; Reason::COUNTED.len()],
}

impl Refused {
    pub(super) fn note(&mut self, rejected: Rejected, series: usize) {
        if let Some(count) = self.samples.get_mut(rejected.reason as usize) {
            *count += series as u64;
        }
        if rejected.reason == Reason::Rule {
            return; // the operator wants it so, and the sender can change nothing
        }
        self.say(rejected, series as u32);
    }

    /// Says of a series that it is counted together with others, for want of room.
    pub(super) fn say_overflow(&mut self, family: &Family) {
        match self.list.last_mut() {
            Some(last) if last.reason == Reason::Overflow && last.family == family.name => {
                last.series += 1;
            }
            _ => self.say(overflowed(family), 1),
        }
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
