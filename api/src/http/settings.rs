//! `/api/v1/guilds/{id}/settings`: read, and changed without losing another's change.

use std::collections::BTreeSet;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    Http,
    etag::{self, Known, TagList},
    extract::{GuildId, GuildPath, Json, Path},
    problem::{Document, ErrorType, Problem},
};
use crate::{
    events::redis::told,
    store::{Expected, MAX_COMMAND_NAME, Settings, SettingsChange, is_command_name},
};
use shardmeter_proto::events::Event;

/// Commands that a guild may disable; Discord knows at most 100 of a bot.
const MAX_DISABLED: usize = 100;

/// Characters of a prefix.
const MAX_PREFIX: usize = 16;

/// A guild's settings; of a guild that never set any, the defaults.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "guild_id": "117483251847168000",
    "revision": 1772366400000_u64,
    "disabled_commands": ["stats"],
    "command_prefix": "!",
    "updated_at": "2026-03-01T12:00:00Z",
}))]
pub(super) struct GuildSettings {
    guild_id: GuildId,
    /// Greater with each change, and the ETag; 0: never set.
    revision: u64,
    disabled_commands: BTreeSet<String>,
    command_prefix: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    updated_at: Option<OffsetDateTime>,
}

/// What a guild's settings become: all of them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "disabled_commands": ["stats"], "command_prefix": "!" }))]
pub(super) struct NewGuildSettings {
    /// Names of commands that the bot does not execute in this guild. Twice is once.
    #[schema(max_items = 100, value_type = Vec<CommandName>)]
    disabled_commands: BTreeSet<String>,
    /// How text commands begin; null or left out: as the bot has it. No blanks.
    #[schema(min_length = 1, max_length = 16, pattern = "^[!-~]+$")]
    command_prefix: Option<String>,
}

/// A command's name, as Discord has it: letters of any script, digits, `-` and `_`.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 32, pattern = "^[-_\\p{L}\\p{N}]+$", example = "stats")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct CommandName(String);

impl From<Settings> for GuildSettings {
    fn from(settings: Settings) -> Self {
        Self {
            guild_id: GuildId(settings.guild_id),
            revision: settings.revision,
            disabled_commands: settings.disabled_commands,
            command_prefix: settings.command_prefix,
            updated_at: settings.updated_at.map(OffsetDateTime::from),
        }
    }
}

impl IntoResponse for GuildSettings {
    fn into_response(self) -> Response {
        ([(header::ETAG, etag::header_of(self.revision))], axum::Json(self)).into_response()
    }
}

impl TryFrom<NewGuildSettings> for SettingsChange {
    type Error = Problem;

    fn try_from(new: NewGuildSettings) -> Result<Self, Problem> {
        let NewGuildSettings { disabled_commands, command_prefix } = new;
        if disabled_commands.len() > MAX_DISABLED {
            return Err(Problem::invalid(format!(
                "disabled_commands: {} names; {MAX_DISABLED} are allowed",
                disabled_commands.len()
            )));
        }
        if !disabled_commands.iter().all(|name| is_command_name(name)) {
            return Err(Problem::invalid(format!(
                "disabled_commands: a command's name is 1 to {MAX_COMMAND_NAME} letters, digits, - and _"
            )));
        }
        let is_prefix = |prefix: &String| {
            (1..=MAX_PREFIX).contains(&prefix.len()) && prefix.chars().all(|c| c.is_ascii_graphic())
        };
        if !command_prefix.as_ref().is_none_or(is_prefix) {
            return Err(Problem::invalid(format!(
                "command_prefix: 1 to {MAX_PREFIX} visible ASCII characters"
            )));
        }
        Ok(Self { disabled_commands, command_prefix })
    }
}

/// A guild's settings.
///
/// `ETag` is their revision, to be sent with a change.
#[utoipa::path(
    get,
    path = "/api/v1/guilds/{guild_id}/settings",
    tag = "guilds",
    params(
        GuildPath,
        ("If-None-Match" = Option<String>, Header, description = "ETags that the client has", example = "\"1772366400000\""),
    ),
    responses(
        (status = 200, description = "The settings", body = GuildSettings, headers(("ETag" = String, description = "Their revision"))),
        (status = 304, description = "The client has them", headers(("ETag" = String, description = "Their revision"))),
    )
)]
pub(super) async fn read(
    State(http): State<Http>,
    Path(GuildPath { guild_id: GuildId(guild_id) }): Path<GuildPath>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = Known::if_none_match(&headers);
    let settings = http.store.settings(guild_id).await?;
    if known.is_some_and(|known| known.matches_weakly(settings.revision)) {
        let etag = [(header::ETAG, etag::header_of(settings.revision))];
        return Ok((StatusCode::NOT_MODIFIED, etag).into_response());
    }
    Ok(GuildSettings::from(settings).into_response())
}

/// Changes a guild's settings.
///
/// `If-Match` says which revision is changed: the `ETag` they were read with, or `*` for whatever they are. Bots learn of
/// the change at once.
#[utoipa::path(
    put,
    path = "/api/v1/guilds/{guild_id}/settings",
    tag = "guilds",
    params(
        GuildPath,
        ("If-Match" = inline(TagList), Header, description = "The ETag that is changed, or `*`"),
    ),
    request_body = NewGuildSettings,
    responses(
        (status = 200, description = "The settings as they are now", body = GuildSettings, headers(("ETag" = String, description = "Their revision"))),
        (status = 412, description = "They were changed meanwhile: read them again", body = Document, content_type = "application/problem+json", headers(("ETag" = String, description = "Their revision"))),
        (status = 413, description = "The body is too large", body = Document, content_type = "application/problem+json"),
        (status = 415, description = "The body is not `application/json`", body = Document, content_type = "application/problem+json"),
        (status = 428, description = "`If-Match` is missing", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn change(
    State(http): State<Http>,
    Path(GuildPath { guild_id: GuildId(guild_id) }): Path<GuildPath>,
    headers: HeaderMap,
    Json(new): Json<NewGuildSettings>,
) -> Result<Response, Problem> {
    let Some(known) = Known::if_match(&headers)? else {
        let detail = "send If-Match with the ETag of the settings that you change, or *";
        return Err(Problem::new(ErrorType::PreconditionRequired, detail));
    };
    let change = SettingsChange::try_from(new)?;
    let expected = match known {
        Known::Any => Expected::Any,
        Known::Tags(_) => {
            let current = http.store.settings(guild_id).await?;
            if !known.matches_strongly(current.revision) {
                return Ok(changed(current.revision));
            }
            Expected::Revision(current.revision)
        }
    };
    // A client that leaves does not take it back: what the database has, bots are told.
    let Http { store, events, .. } = http.clone();
    let changing = tokio::spawn(async move {
        let stored = store.change_settings(guild_id, &change, expected).await;
        match &stored {
            Ok(Some(settings)) => {
                if let Some(told) = told(settings.clone()) {
                    events.publish(Event::GuildSettingsUpdated(told));
                }
            }
            Ok(None) => {}
            // The database may have done it all the same.
            Err(_) => events.settings_unknown(),
        }
        stored
    });
    let stored = changing
        .await
        .map_err(|_| Problem::new(ErrorType::Internal, "changing the settings failed"))?;
    match stored? {
        Some(settings) => Ok(GuildSettings::from(settings).into_response()),
        // Between the look and the change.
        None => Ok(changed(http.store.settings(guild_id).await?.revision)),
    }
}

fn changed(revision: u64) -> Response {
    let detail = format!("the settings are at revision {revision}; read them again");
    let etag = [(header::ETAG, etag::header_of(revision))];
    (etag, Problem::new(ErrorType::Changed, detail)).into_response()
}
