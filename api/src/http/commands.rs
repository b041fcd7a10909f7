//! `/api/v1/commands/top`

use std::time::{Duration, SystemTime};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{Http, extract::Query, problem::Problem};
use crate::store::{self, HOUR};

/// How far to look back.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub(super) enum Window {
    #[serde(rename = "1h")]
    Hour,
    #[default]
    #[serde(rename = "24h")]
    Day,
    #[serde(rename = "7d")]
    Week,
}

impl Window {
    const fn length(self) -> Duration {
        match self {
            Self::Hour => HOUR,
            Self::Day => Duration::from_secs(24 * HOUR.as_secs()),
            Self::Week => Duration::from_secs(7 * 24 * HOUR.as_secs()),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TopQuery {
    /// How far to look back.
    #[serde(default)]
    #[param(inline)]
    window: Window,
    /// How many commands to list.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: u32,
}

const fn default_limit() -> u32 {
    10
}

/// The commands executed most.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "window": "24h",
    "since": "2026-03-01T12:00:00Z",
    "commands": [{ "command_name": "ping", "count": 4711 }],
}))]
pub(super) struct TopCommands {
    #[schema(inline)]
    window: Window,
    /// Counts are kept by hour, so the window begins with a whole one.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    commands: Vec<CommandCount>,
}

/// How often a command was executed.
#[derive(Serialize, ToSchema)]
pub(super) struct CommandCount {
    command_name: String,
    count: u64,
}

/// The commands executed most, over all guilds.
#[utoipa::path(
    get,
    path = "/api/v1/commands/top",
    tag = "commands",
    params(TopQuery),
    responses((status = 200, description = "The commands, the most executed first", body = TopCommands))
)]
pub(super) async fn top(
    State(http): State<Http>,
    Query(asked): Query<TopQuery>,
) -> Result<Json<TopCommands>, Problem> {
    if !(1..=100).contains(&asked.limit) {
        return Err(Problem::invalid("limit: 1 to 100"));
    }
    let since = store::hour_of(SystemTime::now() - asked.window.length());
    let counts = http.store.top_commands(since, asked.limit).await?;
    let commands = counts
        .into_iter()
        .map(|store::CommandCount { command_name, count }| CommandCount { command_name, count });
    Ok(Json(TopCommands {
        window: asked.window,
        since: since.into(),
        commands: commands.collect(),
    }))
}
