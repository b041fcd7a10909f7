//! The metric families of the bot process (design section 6): one struct per subsystem, whose field names are the family
//! names and whose field docs are the HELP texts. One `Registry` per shard, one for the process.

mod ack_age;
mod invalid_requests;
mod runtime_lag;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry,
};

use shardmeter_process::families;
pub(crate) use shardmeter_process::metrics::register_process;

pub(crate) use self::{ack_age::AckAge, invalid_requests::InvalidRequestsLeft};

families! {
    /// A shard's connection to the gateway.
    pub(crate) struct GatewayMetrics {
        /// 1 while the shard has an identified or resumed session on an open connection, else 0.
        gateway_connected: IntGauge,
        /// Round trip of the last acknowledged heartbeat; absent while none was acknowledged on this connection.
        gateway_latency_seconds: GaugeVec[],
        /// Time since Discord last acknowledged a heartbeat (before the first: since the start).
        gateway_heartbeat_ack_age_seconds: AckAge,
        /// How often Discord asks for a heartbeat; 0 before it said so.
        gateway_heartbeat_interval_seconds: Gauge,
        /// Connections given up because Discord neither acknowledged a heartbeat nor sent an event until the next was due.
        gateway_zombies_total: IntCounter,
        /// When the last event was dispatched to this shard, in Unix time; 0 before the first.
        gateway_last_event_timestamp_seconds: Gauge,
        /// Events dispatched to this shard, by Discord's name.
        gateway_events_total: IntCounterVec["event_type"],
        /// Sessions that were identified, resumed, or declared invalid by Discord.
        gateway_sessions_total: IntCounterVec["outcome"],
        /// Connections that ended, by close code from either side (1006: without one).
        gateway_close_total: IntCounterVec["code"],
    }
}

families! {
    /// The guilds a shard is in.
    pub(crate) struct GuildMetrics {
        /// Guilds this shard is in and Discord can serve; with unavailable_guilds, all it is in.
        guild_count: IntGauge,
        /// Members of those guilds, as Discord last stated.
        user_count: IntGauge,
        /// Guilds this shard is in and Discord cannot serve now, or has not described yet.
        unavailable_guilds: IntGauge,
    }
}

families! {
    /// The slash commands a shard answers.
    pub(crate) struct CommandMetrics {
        /// Commands whose answer Discord confirmed.
        commands_executed_total: IntCounterVec["command_name", "guild_id"],
        /// Commands that went wrong.
        command_errors_total: IntCounterVec["command_name", "error"],
        /// Time from the command's arrival until its answer was confirmed or given up.
        command_execution_duration_seconds: HistogramVec["command_name"],
        /// Time from an interaction's arrival until Discord confirmed the answer; its deadline is 3 s.
        interaction_ack_duration_seconds: Histogram,
    }
}

families! {
    /// Calls of Discord's REST API.
    pub(crate) struct RestMetrics {
        /// Requests to Discord's REST API, by route and by the answer's status (or timeout, unreachable).
        discord_rest_requests_total: IntCounterVec["route", "status"],
        /// Requests Discord counts towards its limit of invalid ones (401, 403, and 429 unless the limit is shared).
        discord_invalid_requests_total: IntCounter,
        /// Invalid requests this process could still send within 10 minutes before Discord shuts its address out, if no other
        /// process there sends any.
        discord_invalid_requests_remaining: InvalidRequestsLeft,
        /// Answers 429, by route and by whose limit it was (user: of the bot in a bucket of routes, global: of the bot, shared:
        /// of what was asked for, none: not said).
        discord_rest_rate_limits_total: IntCounterVec["route", "scope"],
    }
}

families! {
    /// What Discord still allows this bot to identify.
    pub(crate) struct IdentifyMetrics {
        /// Identifies Discord still allows this bot before the reset, as it said last, less those of this process since.
        gateway_identify_remaining: IntGauge,
        /// Identifies Discord allows this bot from one reset to the next.
        gateway_identify_limit: IntGauge,
        /// Shards that may identify within the same 5 s: one of each shard_id modulo this.
        gateway_identify_max_concurrency: IntGauge,
        /// Shards of this process that wait for their turn to identify.
        gateway_identifies_waiting: IntGauge,
        /// Turns to identify, by what gave them: process (nobody else to heed), redis, clock (Redis is away).
        gateway_identify_turns_total: IntCounterVec["source"],
        /// When Discord resets the allowed identifies, in Unix time.
        gateway_identify_reset_timestamp_seconds: Gauge,
    }
}

families! {
    /// What the bot runs on.
    pub(crate) struct RuntimeMetrics {
        /// How late timers of this process fire: heartbeats and answers are as late.
        runtime_lag_seconds: Histogram,
    }
}

/// Everything one shard counts.
#[derive(Clone)]
pub(crate) struct ShardMetrics {
    pub(crate) gateway: GatewayMetrics,
    pub(crate) guilds: GuildMetrics,
    pub(crate) commands: CommandMetrics,
}

impl ShardMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gateway = GatewayMetrics::register(registry)?;
        gateway.start_at_zero();
        let commands = CommandMetrics::register(registry)?;
        commands.start_at_zero();
        Ok(Self { gateway, guilds: GuildMetrics::register(registry)?, commands })
    }
}

/// Now, in Unix time.
pub(crate) fn unix_seconds() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The label values of a counter's series, all of which are at 0.
    fn at_zero(registry: &Registry, name: &str) -> Vec<Vec<String>> {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let series = family.get_metric().iter().map(|metric| {
            assert_eq!(metric.get_counter().get_value(), 0.0, "{metric:?}");
            metric.get_label().iter().map(|label| label.value().to_owned()).collect()
        });
        series.collect()
    }

    #[test]
    fn counters_with_closed_labels_start_at_zero() {
        let registry = Registry::new();
        ShardMetrics::register(&registry).unwrap();
        let errors = at_zero(&registry, "command_errors_total");
        let names = ["ping", "shards", "stats"];
        let kinds = [
            "disabled",
            "discord_failed",
            "internal",
            "overloaded",
            "rate_limited",
            "refused",
            "timeout",
            "unreachable",
        ];
        let expected: Vec<_> = names
            .iter()
            .flat_map(|name| kinds.map(|kind| vec![(*name).to_owned(), kind.to_owned()]))
            .collect();
        assert_eq!(errors, expected);
        let closes = at_zero(&registry, "gateway_close_total").concat();
        assert_eq!(closes.len(), 27);
        for code in ["1000", "1001", "1006", "4000", "4004", "4009", "4014", "other"] {
            assert!(closes.iter().any(|close| close == code), "{code}");
        }
        assert_eq!(at_zero(&registry, "gateway_sessions_total").len(), 3);
    }
}
