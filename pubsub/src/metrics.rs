//! What is counted of a process's dealings with Redis, alike in shards and the api.

use shardmeter_process::families;

use prometheus::{IntCounterVec, IntGaugeVec};

families! {
    /// Events over Redis.
    #[derive(Debug)]
    pub struct RedisMetrics {
        /// Events of this process that Redis confirmed to have published.
        redis_pubsub_messages_published_total: IntCounterVec["event_type"],
        /// Deliveries of events: of those this process published, to as many subscribers as Redis says; of those that others
        /// published, to this process.
        redis_pubsub_messages_delivered_total: IntCounterVec["event_type"],
        /// Events lost: not published, because the queue was full or Redis did not confirm, or not understood.
        redis_pubsub_messages_dropped_total: IntCounterVec["event_type", "reason"],
        /// 1 while Redis answers, else 0.
        redis_connection_status: IntGaugeVec["connection_type"],
    }
}

/// Why an event was lost; also the label value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    /// More at once than Redis takes, or it is away for long.
    QueueFull,
    /// Redis did not say that it has it; it may have.
    NotConfirmed,
    /// A message that is no event this version knows.
    Undecodable,
    /// A message beyond the limit.
    TooLarge,
}

impl Lost {
    const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::NotConfirmed => "not_confirmed",
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
        }
    }
}

/// What a connection is for; also the label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Publisher,
    Subscriber,
}

impl Purpose {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscriber => "subscriber",
        }
    }
}

/// The event type of messages that cannot be read: what the network says does not become a label.
pub(crate) const UNKNOWN: &str = "unknown";

impl RedisMetrics {
    pub(crate) fn published(&self, event: &str, subscribers: u64) {
        self.redis_pubsub_messages_published_total.with_label_values(&[event]).inc();
        let delivered = &self.redis_pubsub_messages_delivered_total;
        delivered.with_label_values(&[event]).inc_by(subscribers);
    }

    pub(crate) fn received(&self, event: &str) {
        self.redis_pubsub_messages_delivered_total.with_label_values(&[event]).inc();
    }

    pub(crate) fn lost(&self, event: &str, reason: Lost) {
        let labels = [event, reason.label()];
        self.redis_pubsub_messages_dropped_total.with_label_values(&labels).inc();
    }

    pub(crate) fn status(&self, purpose: Purpose, up: bool) {
        self.redis_connection_status.with_label_values(&[purpose.label()]).set(up.into());
    }

    /// Whether all of this process's connections to Redis answer.
    #[must_use]
    pub fn is_up(&self) -> bool {
        use prometheus::core::Collector as _;
        let families = self.redis_connection_status.collect();
        let mut all = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        all.all(|status| status.get_gauge().get_value() == 1.0)
    }
}
