//! What one shard reports: 250 series as Prometheus counts them (lines on the page), of 185 label sets.
//!
//! Knows neither the wire nor the manager's model: `manager/benches` include this file, so that both measure the same.

/// Lines of one shard on the page.
pub(crate) const SERIES_PER_SHARD: usize = 120 + 40 + 20 + 5 * (BUCKETS.len() + 3);

/// Finite bounds of every histogram.
pub(crate) const BUCKETS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const COMMANDS: [&str; 6] = ["ping", "shards", "stats", "play", "skip", "help"];

const GAUGES: [&str; 20] = [
    "guild_count",
    "user_count",
    "unavailable_guilds",
    "cpu_usage_percent",
    "gateway_connected",
    "gateway_latency_seconds",
    "gateway_heartbeat_ack_age_seconds",
    "gateway_last_event_timestamp_seconds",
    "gateway_identify_remaining",
    "gateway_identify_reset_timestamp_seconds",
    "g10",
    "g11",
    "g12",
    "g13",
    "g14",
    "g15",
    "g16",
    "g17",
    "g18",
    "g19",
];

/// Names and values.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// How a family's values behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric family of a shard.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    /// One entry a label set; label sets are numbered through all families, from 0.
    pub(crate) series: Vec<Labels>,
}

impl Kind {
    /// Bounds of its buckets, without `+Inf`.
    pub(crate) const fn bounds(self) -> &'static [f64] {
        match self {
            Self::Histogram => &BUCKETS,
            Self::Counter | Self::Gauge => &[],
        }
    }

    /// Values of one label set on the wire: a histogram has its buckets, count and sum.
    pub(crate) const fn width(self) -> usize {
        match self {
            Self::Histogram => BUCKETS.len() + 2,
            Self::Counter | Self::Gauge => 1,
        }
    }

    /// Lines of one label set on the page: a histogram's `+Inf` has one too.
    pub(crate) const fn lines(self) -> usize {
        match self {
            Self::Histogram => BUCKETS.len() + 3,
            Self::Counter | Self::Gauge => 1,
        }
    }
}

/// All families of a shard.
pub(crate) fn families(shard_id: u32) -> Vec<Family> {
    let command = |i: usize| ("command_name", COMMANDS[i % COMMANDS.len()].to_owned());
    // Ids as Discord makes them: 19 digits, other ones on each shard.
    let guild = |i: u64| (i * 7919 + (u64::from(shard_id) << 22) + (1 << 60)).to_string();
    let mut families = vec![
        Family {
            name: "commands_executed_total",
            help: "Commands executed, by command and guild.",
            kind: Kind::Counter,
            series: (0..120)
                .map(|i| vec![command(i), ("guild_id", guild((i / COMMANDS.len()) as u64))])
                .collect(),
        },
        Family {
            name: "command_execution_duration_seconds",
            help: "Time to execute a command.",
            kind: Kind::Histogram,
            series: (0..5).map(|i| vec![command(i)]).collect(),
        },
        Family {
            name: "gateway_events_total",
            help: "Events the gateway sent.",
            kind: Kind::Counter,
            series: (0..40).map(|i| vec![("event_type", format!("EVENT_TYPE_{i}"))]).collect(),
        },
    ];
    families.extend(GAUGES.map(|name| Family {
        name,
        help: "Its current value.",
        kind: Kind::Gauge,
        series: vec![Vec::new()],
    }));
    families
}
