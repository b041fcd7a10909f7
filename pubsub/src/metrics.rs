//! What is counted of a process's dealings with Redis, alike in shards and the api.

use prometheus::{IntCounterVec, IntGaugeVec};
use shardmeter_process::families;
use shardmeter_proto::events::Event;

families! {
    /// Events over Redis.
    #[derive(Debug)]
    pub struct RedisMetrics {
        /// Events of this process that Redis confirmed to have published.
        redis_pubsub_messages_published_total: IntCounterVec["event_type"],
        /// Deliveries of events: of those this process published, to as many subscribers as Redis says; of those that others
        /// published, to this process.
        redis_pubsub_messages_delivered_total: IntCounterVec["event_type"],
        /// Events lost: not published, because the queue was full, Redis did not confirm, had no room or has newer settings; or
        /// not understood.
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
    /// Redis has no room for these settings.
    NoRoom,
    /// Redis has newer settings than these.
    Older,
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
            Self::NoRoom => "no_room",
            Self::Older => "older",
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
    /// Shows at zero what a publisher may lose: of a series that begins at one, no increase is seen.
    pub(crate) fn expect_to_publish(&self) {
        for event in Event::NAMES {
            self.expect(event, &[Lost::QueueFull, Lost::NotConfirmed]);
        }
        self.expect("guild_settings_updated", &[Lost::NoRoom, Lost::Older]);
    }

    /// The same of a subscriber.
    pub(crate) fn expect_to_hear(&self) {
        self.expect(UNKNOWN, &[Lost::QueueFull, Lost::Undecodable, Lost::TooLarge]);
    }

    fn expect(&self, event: &str, reasons: &[Lost]) {
        for reason in reasons {
            let labels = [event, reason.label()];
            self.redis_pubsub_messages_dropped_total.with_label_values(&labels);
        }
    }

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
