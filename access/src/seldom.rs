//! Lines of the log that strangers can cause: so many in a time, and then one that says how many were left out.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long the lines count that were written.
const WITHIN: Duration = Duration::from_secs(10);

/// A kind of lines, of which so many are written in 10 s.
#[derive(Debug)]
pub struct Seldom {
    lines: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the first of the lines was written that still count.
    since: Option<Instant>,
    written: u64,
    left_out: u64,
}

impl Seldom {
    /// So many lines in 10 s.
    #[must_use]
    pub fn new(lines: u64) -> Self {
        Self { lines, state: Mutex::default() }
    }

    /// Has a line written if it is not one too many. It is told how many before it were left out, if any were.
    pub fn say(&self, write: impl FnOnce(Option<u64>)) {
        let left_out = {
            let mut state = self.state.lock();
            let now = Instant::now();
            if state.since.is_none_or(|since| now - since >= WITHIN) {
                state.since = Some(now);
                state.written = 0;
            }
            if state.written == self.lines {
                state.left_out += 1;
                return;
            }
            state.written += 1;
            std::mem::take(&mut state.left_out)
        };
        write((left_out > 0).then_some(left_out));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn some_lines_are_written_and_then_how_many_were_not() {
        let seldom = Seldom::new(2);
        let mut written = Vec::new();
        for _ in 0..2 {
            for _ in 0..5 {
                seldom.say(|left_out| written.push(left_out));
            }
            advance(WITHIN - Duration::from_millis(1)).await;
            seldom.say(|left_out| written.push(left_out));
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(written, [None, None, Some(4), None]);
    }
}
