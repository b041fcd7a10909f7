//! `/api/v1/shards`: who reports, and how it goes; a shard's history; and which shard serves a guild.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    Http,
    extract::{GuildId, GuildPath, Path, Query},
    problem::{Document, ErrorType, Problem},
};
use crate::{
    fleet::{self, Shards},
    store::{self, HistoryQuery, Recorded},
};

/// All shards.
#[derive(Serialize, ToSchema)]
#[schema(as = Shards)]
pub(super) struct ShardList {
    /// When it was so. While the manager is away this is the last time it answered.
    #[serde(with = "time::serde::rfc3339")]
    as_of: OffsetDateTime,
    /// Of the bot; 0 if no shard said it yet.
    shard_count: u32,
    /// In order of id.
    shards: Vec<Shard>,
}

/// How one shard is.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "shard_id": 3,
    "state": "up",
    "last_report": "2026-03-01T12:00:00Z",
    "series": 211,
    "instances": [{
        "instance": "9f86d081884c7d659a2feaa0c55ad015",
        "transport": "grpc",
        "client": "shardmeter-telemetry 0.1.0",
        "started_at": "2026-03-01T09:30:00Z",
        "last_report": "2026-03-01T12:00:00Z",
        "connected": true,
        "owns_gauges": true,
    }],
}))]
pub(super) struct Shard {
    shard_id: u32,
    #[schema(inline)]
    state: ShardState,
    /// When a report was last applied; null: never.
    #[serde(with = "time::serde::rfc3339::option")]
    last_report: Option<OffsetDateTime>,
    /// Series that the manager keeps of it.
    series: u64,
    /// Oldest first.
    instances: Vec<Instance>,
}

/// Whether a shard reports: `stale` did, `never_seen` is known from the bot's shard count alone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ShardState {
    Up,
    Stale,
    NeverSeen,
}

/// One process run of a shard.
#[derive(Serialize, ToSchema)]
#[schema(as = Instance)]
pub(super) struct Instance {
    instance: String,
    #[schema(inline)]
    transport: Transport,
    /// Name and version of its client library; empty if not known.
    client: String,
    /// When it began to count, by its own clock, if it said.
    #[serde(with = "time::serde::rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_report: Option<OffsetDateTime>,
    /// Whether a stream of it is open.
    connected: bool,
    /// Whether its gauges are the shard's.
    owns_gauges: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Transport {
    Grpc,
    Http,
}

impl From<&Shards> for ShardList {
    fn from(shards: &Shards) -> Self {
        Self {
            as_of: shards.as_of.into(),
            shard_count: shards.shard_count,
            shards: shards.shards.iter().map(Shard::from).collect(),
        }
    }
}

impl From<&fleet::Shard> for Shard {
    fn from(shard: &fleet::Shard) -> Self {
        Self {
            shard_id: shard.shard_id,
            state: match shard.state {
                fleet::ShardState::Up => ShardState::Up,
                fleet::ShardState::Stale => ShardState::Stale,
                fleet::ShardState::NeverSeen => ShardState::NeverSeen,
            },
            last_report: shard.last_report.map(OffsetDateTime::from),
            series: shard.series,
            instances: shard.instances.iter().map(Instance::from).collect(),
        }
    }
}

impl From<&fleet::Instance> for Instance {
    fn from(instance: &fleet::Instance) -> Self {
        Self {
            instance: instance.instance.clone(),
            transport: if instance.posts { Transport::Http } else { Transport::Grpc },
            client: instance.client.clone(),
            started_at: instance.started_at.map(OffsetDateTime::from),
            last_report: instance.last_report.map(OffsetDateTime::from),
            connected: instance.connected,
            owns_gauges: instance.owns_gauges,
        }
    }
}

/// The list as JSON, kept while the manager was not asked anew: it is long, and many may ask for it.
#[derive(Debug, Default)]
pub(crate) struct ListPage(Mutex<Option<(Arc<Shards>, Bytes)>>);

impl ListPage {
    fn of(&self, shards: &Arc<Shards>) -> Result<Bytes, Problem> {
        let mut kept = self.0.lock();
        if let Some((of, page)) = &*kept
            && Arc::ptr_eq(of, shards)
        {
            return Ok(page.clone());
        }
        let page = serde_json::to_vec(&ShardList::from(&**shards)).map_err(|error| {
            tracing::error!(%error, "the list of shards cannot be shown");
            Problem::new(ErrorType::Internal, "the list of shards cannot be shown")
        })?;
        let page = Bytes::from(page);
        *kept = Some((Arc::clone(shards), page.clone()));
        Ok(page)
    }
}

/// The fleet, if it is known.
async fn known(http: &Http) -> Result<Arc<Shards>, Problem> {
    let away = || Problem::new(ErrorType::ManagerAway, "the manager did not answer yet; try again");
    http.fleet.shards().await.ok_or_else(away)
}

/// All shards.
///
/// While the manager is away they are as they were last known, and `as_of` says when.
#[utoipa::path(
    get,
    path = "/api/v1/shards",
    tag = "shards",
    responses((status = 200, description = "The shards", body = ShardList))
)]
pub(super) async fn list(State(http): State<Http>) -> Result<Response, Problem> {
    let page = http.shards_page.of(&known(&http).await?)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], page).into_response())
}

/// The shard in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ShardPath {
    /// Its id.
    #[param(minimum = 0, maximum = 4_294_967_295_u64, example = 3)]
    shard_id: u32,
}

/// One shard, at one time.
#[derive(Serialize, ToSchema)]
pub(super) struct OneShard {
    /// When it was so. While the manager is away this is the last time it answered.
    #[serde(with = "time::serde::rfc3339")]
    as_of: OffsetDateTime,
    #[serde(flatten)]
    shard: Shard,
}

/// One shard.
#[utoipa::path(
    get,
    path = "/api/v1/shards/{shard_id}",
    tag = "shards",
    params(ShardPath),
    responses(
        (status = 200, description = "The shard", body = OneShard),
        (status = 404, description = "The fleet has no such shard", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    State(http): State<Http>,
    Path(ShardPath { shard_id }): Path<ShardPath>,
) -> Result<Json<OneShard>, Problem> {
    let shards = known(&http).await?;
    let missing =
        || Problem::new(ErrorType::NotFound, format!("the fleet has no shard {shard_id}"));
    let shard = shards.get(shard_id).ok_or_else(missing)?;
    Ok(Json(OneShard { as_of: shards.as_of.into(), shard: shard.into() }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Only incidents stored before this one: `next_before` of the page before.
    #[param(minimum = 1, maximum = 9_223_372_036_854_775_807_u64)]
    before: Option<u64>,
    /// How many to list.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
    /// Only incidents that happened since.
    #[serde(default, with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
}

/// Of an incident.
const GREATEST_ID: u64 = i64::MAX as u64;

const fn default_limit() -> u32 {
    100
}

/// What happened to a shard.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "shard_id": 3,
    "incidents": [{
        "id": 4711, "epoch": "6f1c", "revision": 1234, "at": "2026-03-01T12:00:00Z", "shard_id": 3, "kind": "disconnected",
        "instance": "9f86d081884c7d659a2feaa0c55ad015", "reason": "stream_broke", "count": 1,
    }],
    "next_before": 4711,
}))]
pub(super) struct History {
    shard_id: u32,
    /// The newest first.
    incidents: Vec<Incident>,
    /// `before` of the next page; null: this was the last.
    next_before: Option<u64>,
}

/// Something that happened to a shard.
#[derive(Serialize, ToSchema)]
pub(super) struct Incident {
    /// Grows from incident to incident, over all shards.
    id: u64,
    /// With `revision`, the manager's name for it: the same event is never stored twice.
    epoch: String,
    revision: u64,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// Null for a gap, which concerns all shards.
    shard_id: Option<u32>,
    /// `connected`, `disconnected`, `stale`, `superseded`, `resumed`, `invalidated`, `forgotten`; or `gap`: what happened
    /// before it is not known.
    kind: String,
    instance: Option<String>,
    reason: Option<String>,
    /// How often at once.
    count: u64,
}

impl From<Recorded> for Incident {
    fn from(Recorded { id, incident }: Recorded) -> Self {
        Self {
            id,
            epoch: incident.epoch,
            revision: incident.revision,
            at: incident.at.into(),
            shard_id: incident.shard_id,
            kind: incident.kind,
            instance: incident.instance,
            reason: incident.reason,
            count: incident.count,
        }
    }
}

/// What happened to a shard, the newest first.
///
/// Kept for 90 days, also of shards that the fleet no longer has.
#[utoipa::path(
    get,
    path = "/api/v1/shards/{shard_id}/history",
    tag = "shards",
    params(ShardPath, PageQuery),
    responses((status = 200, description = "A page of it", body = History))
)]
pub(super) async fn history(
    State(http): State<Http>,
    Path(ShardPath { shard_id }): Path<ShardPath>,
    Query(asked): Query<PageQuery>,
) -> Result<Json<History>, Problem> {
    let PageQuery { before, limit, since } = asked;
    if !(1..=1000).contains(&limit) {
        return Err(Problem::invalid("limit: 1 to 1000"));
    }
    if before.is_some_and(|id| !(1..=GREATEST_ID).contains(&id)) {
        return Err(Problem::invalid("before: an incident's id, from 1 up"));
    }
    // One more, to know whether there is a next page.
    let query =
        HistoryQuery { shard_id, before, since: since.map(SystemTime::from), limit: limit + 1 };
    let mut incidents: Vec<_> =
        http.store.history(query).await?.into_iter().map(Incident::from).collect();
    let asked = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = incidents.len() > asked;
    incidents.truncate(asked);
    let next_before = if more { incidents.last().map(|incident| incident.id) } else { None };
    Ok(Json(History { shard_id, incidents, next_before }))
}

/// Where a guild is served.
#[derive(Serialize, ToSchema)]
#[schema(as = Guild)]
pub(super) struct Guild {
    guild_id: GuildId,
    /// When the shard was so. While the manager is away this is the last time it answered.
    #[serde(with = "time::serde::rfc3339")]
    as_of: OffsetDateTime,
    /// Null until some shard said how many there are.
    shard_id: Option<u32>,
    shard_count: u32,
    /// How that shard is now; null if the manager never heard of it.
    shard: Option<Shard>,
    /// When the bot last joined it; null if that was not seen.
    #[serde(with = "time::serde::rfc3339::option")]
    joined_at: Option<OffsetDateTime>,
    /// When the bot left it; null while it is in it, or never was.
    #[serde(with = "time::serde::rfc3339::option")]
    left_at: Option<OffsetDateTime>,
}

/// Where a guild is served, and how that shard is now.
///
/// The shard is `(guild_id >> 22) % shard_count`, whether or not the bot is in the guild.
#[utoipa::path(
    get,
    path = "/api/v1/guilds/{guild_id}",
    tag = "guilds",
    params(GuildPath),
    responses((status = 200, description = "What is known of the guild", body = Guild))
)]
pub(super) async fn guild(
    State(http): State<Http>,
    Path(GuildPath { guild_id }): Path<GuildPath>,
) -> Result<Json<Guild>, Problem> {
    let (shards, stored) = tokio::join!(known(&http), http.store.guild(guild_id.0));
    let (shards, stored) = (shards?, stored?);
    let shard = (guild_id.0 >> 22).checked_rem(shards.shard_count.into());
    let shard_id = shard.and_then(|id| u32::try_from(id).ok());
    let time =
        |of: fn(store::Guild) -> Option<SystemTime>| stored.and_then(of).map(OffsetDateTime::from);
    Ok(Json(Guild {
        guild_id,
        as_of: shards.as_of.into(),
        shard_id,
        shard_count: shards.shard_count,
        shard: shard_id.and_then(|id| shards.get(id)).map(Shard::from),
        joined_at: time(|guild| guild.joined_at),
        left_at: time(|guild| guild.left_at),
    }))
}
