//! Which frames and streams are traced. A trace goes on in the manager: see `traceparent` in `telemetry.proto`.
//!
//! What shards do every few seconds would fill any store of traces. So it is sampled here, where it begins: one of these
//! spans a second, whatever the number of shards.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::Span;

/// One span in that time, of all shards of a connection.
const EVERY: Duration = Duration::from_secs(1);

/// Makes spans now and then. Clones share the turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sampler(Arc<Mutex<Option<Instant>>>);

/// A span, or none as nearly always.
#[derive(Debug)]
pub(crate) struct Sampled(Span);

impl Sampler {
    /// The span, if it is its turn.
    pub(crate) fn sample(&self, span: impl FnOnce() -> Span) -> Sampled {
        if !cfg!(feature = "opentelemetry") {
            return Sampled(Span::none());
        }
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < EVERY) {
            return Sampled(Span::none());
        }
        *last = Some(Instant::now());
        drop(last);
        Sampled(span())
    }
}

impl Sampled {
    pub(crate) fn span(&self) -> Span {
        self.0.clone()
    }

    /// Says to the manager that the span is the cause; empty if there is none, or nobody records it.
    pub(crate) fn traceparent(&self) -> String {
        #[cfg(feature = "opentelemetry")]
        if !self.0.is_none() {
            return self.0.in_scope(shardmeter_proto::trace::traceparent).unwrap_or_default();
        }
        String::new()
    }
}

#[cfg(all(test, feature = "opentelemetry"))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_of_all_shards_a_second() {
        let made = std::cell::Cell::new(0);
        let span = || {
            made.set(made.get() + 1);
            tracing::info_span!("report")
        };
        let sampler = Sampler::default();
        for millis in [0, 999, 1, 500, 500] {
            tokio::time::advance(Duration::from_millis(millis)).await;
            sampler.sample(span);
            sampler.clone().sample(span);
        }
        assert_eq!(made.get(), 3);
    }
}
