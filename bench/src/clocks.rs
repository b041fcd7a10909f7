//! CPU clocks, and how steady this machine's are.

use std::{hint::black_box, time::Duration};

use anyhow::Context as _;
use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::floor;

/// Steps of the calibration: some 20 ms.
const CALIBRATION_STEPS: u64 = 20_000_000;

/// Passes over a body when the scan is measured: it is fast.
const SCANS: u32 = 2_000;

/// CPU time (user and system) that all threads of a process used, those that ended included; nanoseconds, where
/// `/proc/PID/stat` counts hundredths of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuClock(ClockId);

impl CpuClock {
    pub(crate) fn of(process: Pid) -> anyhow::Result<Self> {
        clock_getcpuclockid(process).map(Self).context("the process has no CPU clock")
    }

    pub(crate) fn now(self) -> anyhow::Result<Duration> {
        Ok(self.0.now().context("the process has ended")?.into())
    }

    /// The time once it stands still: what a server does after its answer (freeing, collecting garbage) is its cost too.
    pub(crate) async fn settled(self) -> anyhow::Result<Duration> {
        const PAUSE: Duration = Duration::from_millis(3);
        const STILL: Duration = Duration::from_micros(50);
        let mut before = self.now()?;
        for _ in 0..200 {
            sleep(PAUSE).await;
            let now = self.now()?;
            if now.saturating_sub(before) < STILL {
                return Ok(now);
            }
            before = now;
        }
        Ok(before)
    }
}

/// The same work on one thread, now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnWork {
    /// What it was charged.
    pub(crate) cpu: Duration,
    /// What it took: more, if others wanted the core too.
    pub(crate) wall: Duration,
}

/// Work that is always the same. What it costs tells how much the others' figures may be off.
pub(crate) async fn calibrate() -> anyhow::Result<OwnWork> {
    on_one_thread(|| {
        let mut x = black_box(0x9e37_79b9_7f4a_7c15_u64);
        for _ in 0..CALIBRATION_STEPS {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        black_box(x);
    })
    .await
}

/// One pass over the body of a shard, without a socket.
pub(crate) async fn scan(body: String) -> anyhow::Result<Duration> {
    let work = on_one_thread(move || {
        for _ in 0..SCANS {
            black_box(floor::lines(black_box(body.as_bytes())));
        }
    });
    Ok(work.await?.cpu / SCANS)
}

async fn on_one_thread(work: impl FnOnce() + Send + 'static) -> anyhow::Result<OwnWork> {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    let measured = spawn_blocking(move || {
        let (began, before) = (Instant::now(), clock.now()?);
        work();
        let cpu = Duration::from(clock.now()?).saturating_sub(before.into());
        Ok(OwnWork { cpu, wall: began.elapsed() })
    });
    measured.await?
}
