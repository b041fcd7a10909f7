//! The events a bot may still ask for.

use std::collections::VecDeque;

use axum::extract::ws::Utf8Bytes;

/// Events kept at most. Those that were confirmed leave before.
pub(super) const REPLAYED: usize = 4_096;

/// A session's last events, consecutive up to the newest.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Sequence of the newest event; 0 before the first.
    newest: u64,
    frames: VecDeque<Utf8Bytes>,
}

impl Replay {
    /// Keeps the next event, whose sequence is one above the newest.
    pub(super) fn push(&mut self, frame: Utf8Bytes) {
        if self.frames.len() == REPLAYED {
            self.frames.pop_front();
        }
        self.newest += 1;
        self.frames.push_back(frame);
    }

    /// Sequence of the newest event.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Drops what is confirmed.
    pub(super) fn forget(&mut self, confirmed: u64) {
        while self.oldest() <= confirmed && self.frames.pop_front().is_some() {}
    }

    /// The events after a sequence; `None` when some of them are gone.
    pub(super) fn after(&self, sequence: u64) -> Option<Vec<Utf8Bytes>> {
        let skipped = (sequence + 1).checked_sub(self.oldest())?;
        let skipped = usize::try_from(skipped).ok()?;
        Some(self.frames.iter().skip(skipped).cloned().collect())
    }

    /// Sequence of the oldest event kept, or of the next one.
    fn oldest(&self) -> u64 {
        self.newest + 1 - self.frames.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(events: u64) -> Replay {
        let mut replay = Replay::default();
        for sequence in 1..=events {
            replay.push(sequence.to_string().into());
        }
        replay
    }

    fn after(replay: &Replay, sequence: u64) -> Option<Vec<u64>> {
        let frames = replay.after(sequence)?;
        Some(frames.iter().map(|frame| frame.parse().unwrap()).collect())
    }

    #[test]
    fn gives_what_comes_after_a_sequence() {
        let mut replay = filled(5);
        assert_eq!(after(&replay, 0), Some(vec![1, 2, 3, 4, 5]));
        assert_eq!(after(&replay, 3), Some(vec![4, 5]));
        assert_eq!(after(&replay, 5), Some(vec![]));
        replay.forget(2);
        assert_eq!(after(&replay, 2), Some(vec![3, 4, 5]));
        assert_eq!(after(&replay, 1), None, "2 is gone");
        replay.forget(99);
        assert_eq!((after(&replay, 5), after(&replay, 4)), (Some(vec![]), None));
        replay.push("6".into());
        assert_eq!(after(&replay, 5), Some(vec![6]));
        assert_eq!(after(&Replay::default(), 0), Some(vec![]));
    }

    #[test]
    fn keeps_a_bounded_number() {
        let kept = REPLAYED as u64;
        let replay = filled(kept + 10);
        assert_eq!(after(&replay, 9), None);
        assert_eq!(after(&replay, 10).unwrap().len(), REPLAYED);
    }
}
