//! The manager's one clock: wall time for what is exposed, driven by tokio's clock, so that tests can pause it and a
//! step of the system clock makes no shard stale.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Time since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// Later than all others.
    pub const MAX: Self = Self(Duration::MAX);

    /// `seconds` (and fraction) since the epoch; a negative or meaningless number is the epoch itself.
    #[must_use]
    pub fn from_secs_f64(seconds: f64) -> Self {
        Self(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }

    /// This long after the epoch.
    #[must_use]
    pub const fn from_duration(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// Seconds since the epoch, as Prometheus exposes timestamps.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        // Whole milliseconds: a timestamp of 13 digits reads better than the noise behind them.
        let millis = self.0.as_millis() as f64;
        millis / 1e3
    }

    /// Nanoseconds since the epoch; the year 2554 for all that is later.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Sub<Duration> for UnixTime {
    type Output = Self;

    /// The epoch, if it would be before it.
    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier))
    }
}

impl std::ops::Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// Reads the time. Anchored to the system clock once, at its making.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: UnixTime,
    anchor: Instant,
}

impl Clock {
    /// A clock that agrees with the system's now.
    #[must_use]
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: UnixTime(wall), anchor: Instant::now() }
    }

    /// A clock that reads `wall` now.
    #[must_use]
    pub fn starting_at(wall: UnixTime) -> Self {
        Self { wall, anchor: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.wall + self.anchor.elapsed()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
