//! One shard's row: its state, and the few numbers that tell how it does.

use std::fmt::Write as _;

use crate::{
    clock::UnixTime,
    registry::{Registry, SeriesView, ShardState, ShardStatus, ShardView, Transport},
};

/// What the values of a row are, in order.
///
/// `state`: `up`; `offline`, it reports but is not connected to Discord; `lost`, its stream ended or broke and it may be back
/// before it is stale; `stale` and `never_seen` as elsewhere. Times are Unix seconds, latencies seconds. Counts are totals;
/// `sessions` are those that were identified or resumed. What is not known is `null`.
pub(crate) const COLUMNS: [&str; 11] = [
    "id",
    "state",
    "last_report",
    "started_at",
    "latency",
    "events",
    "commands",
    "errors",
    "sessions",
    "rejected",
    "series",
];

/// The families that numbers are of.
const LATENCY: &str = "gateway_latency_seconds";
const CONNECTED: &str = "gateway_connected";
const EVENTS: &str = "gateway_events_total";
const COMMANDS: &str = "commands_executed_total";
const ERRORS: &str = "command_errors_total";
const SESSIONS: &str = "gateway_sessions_total";

/// A session that Discord took away is none that began.
const INVALIDATED: &str = r#"outcome="invalidated""#;

/// What a shard says of itself; the sum of all series of each family.
#[derive(Debug, Default)]
struct Vitals {
    latency: Option<f64>,
    connected: Option<f64>,
    events: Option<f64>,
    commands: Option<f64>,
    errors: Option<f64>,
    sessions: Option<f64>,
}

impl Vitals {
    fn of(view: &ShardView<'_>) -> Self {
        let mut vitals = Self::default();
        for (family, series) in view.families() {
            let sum = match &*family.name {
                LATENCY => &mut vitals.latency,
                CONNECTED => &mut vitals.connected,
                EVENTS => &mut vitals.events,
                COMMANDS => &mut vitals.commands,
                ERRORS => &mut vitals.errors,
                SESSIONS => &mut vitals.sessions,
                _ => continue,
            };
            let counts =
                |series: &SeriesView<'_>| &*family.name != SESSIONS || series.labels != INVALIDATED;
            for value in series.filter(counts).filter_map(|series| series.values.first()) {
                *sum.get_or_insert(0.0) += value;
            }
        }
        vitals
    }
}

/// Calls `take` with each listed shard's id and row.
pub(super) fn each(registry: &Registry, now: UnixTime, mut take: impl FnMut(u32, &str)) {
    let mut text = String::new();
    registry.visit_status(now, |status, view| {
        let vitals = view.map(Vitals::of).unwrap_or_default();
        text.clear();
        write(&mut text, &status, &vitals);
        take(status.id, &text);
    });
}

/// The row of a shard that is no longer listed.
pub(super) fn gone(id: u32) -> String {
    format!("[{id}]")
}

fn write(text: &mut String, status: &ShardStatus, vitals: &Vitals) {
    let _ = write!(text, r#"[{},"{}""#, status.id, state(status, vitals));
    let seconds = |time: Option<UnixTime>| time.map(UnixTime::as_secs_f64);
    let rejected: u64 = status.rejected.iter().map(|(_, n)| n).sum();
    for number in [
        seconds(status.last_report),
        seconds(status.started_at),
        vitals.latency,
        vitals.events,
        vitals.commands,
        vitals.errors,
        vitals.sessions,
        Some(rejected as f64),
        Some(status.series as f64),
    ] {
        let _ = match number.filter(|number| number.is_finite()) {
            Some(number) => write!(text, ",{number}"),
            None => write!(text, ",null"),
        };
    }
    text.push(']');
}

fn state(status: &ShardStatus, vitals: &Vitals) -> &'static str {
    match status.state {
        ShardState::Up if is_lost(status) => "lost",
        ShardState::Up if vitals.connected == Some(0.0) => "offline",
        ShardState::Up => "up",
        ShardState::Stale => "stale",
        ShardState::NeverSeen => "never_seen",
    }
}

/// Whether it reports by streams and none is open, or all that reported has ended.
fn is_lost(status: &ShardStatus) -> bool {
    let newest = status.instances.last();
    newest.is_none_or(|newest| newest.transport == Transport::Grpc)
        && !status.instances.iter().any(|instance| instance.connected)
}
