//! How tests wait: for what they mean, and not for ever. No test has a sleep of its own for that.
#![expect(clippy::panic, reason = "for tests")]

use std::{
    fmt::{Debug, Display},
    time::Duration,
};

use tokio::time::{sleep, timeout};

/// Enough for a loaded machine: only a test that fails waits that long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits for something that ends by itself.
///
/// # Panics
/// If it does not.
pub async fn soon<T>(what: &str, end: impl Future<Output = T>) -> T {
    timeout(DEADLINE, end).await.unwrap_or_else(|_| panic!("not in {DEADLINE:?}: {what}"))
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none in time, with the last reason; also if a question is never answered.
pub async fn until<T, E: Display>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let mut last = None;
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(reason) => last = Some(reason.to_string()),
            }
            sleep(PAUSE).await;
        }
    };
    let answer = timeout(DEADLINE, asking).await;
    answer.unwrap_or_else(|_| {
        let reason = last.as_deref().unwrap_or("no answer");
        panic!("not in {DEADLINE:?}: {what}: {reason}")
    })
}

/// Waits until something holds that does not tell when it changes.
///
/// # Panics
/// If it does not in time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, async || if holds() { Ok(()) } else { Err("it does not hold") }).await;
}

/// An answer for [`until`]: what should be so, once it is.
///
/// # Errors
/// What it is instead.
pub fn is<T: PartialEq<U> + Debug, U: Debug>(now: T, expected: U) -> Result<T, String> {
    if now == expected { Ok(now) } else { Err(format!("{now:?} instead of {expected:?}")) }
}
