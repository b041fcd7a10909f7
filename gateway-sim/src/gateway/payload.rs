//! The JSON that is sent, as twilight-model 0.18 (and so Discord's documentation of API v10) reads it.

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::books::Place;
use crate::config::Config;
use crate::guilds::Guild;
use crate::interactions::Issued;

/// The bot's application, which Discord gives the same id as the bot's user.
pub(crate) const APPLICATION_ID: u64 = 1_100_000_000_000_000_001;
/// Name of the bot and its application.
const BOT_NAME: &str = "shardmeter";
/// The users that send commands have the ids from here on.
const FIRST_USER: u64 = 1_200_000_000_000_000_000;
/// How many users send commands.
const USERS: u64 = 1_000;
/// What Discord allows users without a subscription, in bytes.
const ATTACHMENT_SIZE_LIMIT: u64 = 10 * 1024 * 1024;

/// An operation without sequence.
fn operation(op: u8, data: &Value) -> Utf8Bytes {
    json!({"op": op, "d": data, "s": null, "t": null}).to_string().into()
}

pub(super) fn hello(config: &Config) -> Utf8Bytes {
    let interval = u64::try_from(config.heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
    operation(10, &json!({"heartbeat_interval": interval}))
}

pub(super) fn heartbeat_ack() -> Utf8Bytes {
    operation(11, &Value::Null)
}

pub(super) fn heartbeat_request() -> Utf8Bytes {
    operation(1, &Value::Null)
}

pub(super) fn reconnect() -> Utf8Bytes {
    operation(7, &Value::Null)
}

pub(super) fn invalid_session(resumable: bool) -> Utf8Bytes {
    operation(9, &Value::Bool(resumable))
}

#[derive(Serialize)]
struct Dispatch<'a> {
    op: u8,
    s: u64,
    t: &'static str,
    d: &'a Value,
}

/// An event with its sequence.
pub(super) fn dispatch(event: &'static str, sequence: u64, data: &Value) -> Utf8Bytes {
    // Values serialize without fail; an empty text would be noticed by every client.
    let dispatch = Dispatch { op: 0, s: sequence, t: event, d: data };
    serde_json::to_string(&dispatch).unwrap_or_default().into()
}

/// The bot as a user.
pub(crate) fn bot_user() -> Value {
    let mut user = user(APPLICATION_ID, BOT_NAME);
    user["bot"] = true.into();
    user["verified"] = true.into();
    user["mfa_enabled"] = true.into();
    user["email"] = Value::Null;
    user
}

/// The bot's application.
pub(crate) fn application() -> Value {
    json!({
        "id": APPLICATION_ID.to_string(),
        "name": BOT_NAME,
        "description": "",
        "icon": null,
        "bot": bot_user(),
        "bot_public": true,
        "bot_require_code_grant": false,
        "flags": 0,
        "rpc_origins": [],
        "team": null,
        "verify_key": "00".repeat(32),
    })
}

fn user(id: u64, name: &str) -> Value {
    json!({
        "id": id.to_string(),
        "username": name,
        "global_name": null,
        "discriminator": "0",
        "avatar": null,
        "public_flags": 0,
    })
}

/// The id of a command, the same whoever registers it and whenever.
pub(crate) fn command_id(name: &str) -> u64 {
    let spread = name.bytes().fold(0u64, |hash, byte| crate::traffic::mix(hash, byte.into()));
    APPLICATION_ID | spread >> 20
}

/// Data of READY.
pub(super) fn ready(session: &str, url: &str, shard: (u32, u32), guilds: &[Guild]) -> Value {
    let guilds: Vec<_> = guilds.iter().map(|guild| unavailable_guild(guild.id)).collect();
    json!({
        "v": 10,
        "user": bot_user(),
        "guilds": guilds,
        "session_id": session,
        "session_type": "normal",
        "resume_gateway_url": url,
        "shard": [shard.0, shard.1],
        "application": {"id": APPLICATION_ID.to_string(), "flags": 0},
    })
}

/// Data of GUILD_DELETE for an outage.
pub(super) fn unavailable_guild(id: u64) -> Value {
    json!({"id": id.to_string(), "unavailable": true})
}

/// Data of GUILD_DELETE for a guild the bot left.
pub(super) fn left_guild(id: u64) -> Value {
    json!({"id": id.to_string()})
}

/// Data of GUILD_CREATE. `joined` tells a new guild from one that was known to READY or comes back from an outage.
pub(super) fn guild(guild: &Guild, joined: bool) -> Value {
    let mut data = json!({
        "id": guild.id.to_string(),
        "name": format!("Guild {}", guild.id),
        "owner_id": FIRST_USER.to_string(),
        "member_count": guild.members,
        "max_members": 500_000,
        "large": guild.members > 50,
        "joined_at": "2024-01-01T00:00:00.000000+00:00",
        "afk_channel_id": null,
        "afk_timeout": 300,
        "application_id": null,
        "banner": null,
        "channels": [],
        "default_message_notifications": 1,
        "description": null,
        "discovery_splash": null,
        "emojis": [],
        "explicit_content_filter": 0,
        "features": [],
        "guild_scheduled_events": [],
        "icon": null,
        "members": [],
        "mfa_level": 0,
        "nsfw_level": 0,
        "preferred_locale": "en-US",
        "premium_progress_bar_enabled": false,
        "premium_subscription_count": 0,
        "premium_tier": 0,
        "presences": [],
        "public_updates_channel_id": null,
        "roles": [],
        "rules_channel_id": null,
        "splash": null,
        "stage_instances": [],
        "stickers": [],
        "system_channel_flags": 0,
        "system_channel_id": null,
        "threads": [],
        "vanity_url_code": null,
        "verification_level": 1,
        "voice_states": [],
    });
    if !joined {
        data["unavailable"] = false.into();
    }
    data
}

/// Data of INTERACTION_CREATE: a slash command without options.
pub(super) fn interaction(issued: &Issued) -> Value {
    let user_id = FIRST_USER + (issued.id >> 22) % USERS;
    let user = user(user_id, &format!("user{user_id}"));
    let mut data = json!({
        "id": issued.id.to_string(),
        "application_id": APPLICATION_ID.to_string(),
        "type": 2,
        "version": 1,
        "token": issued.token,
        "data": {
            "id": command_id(&issued.command).to_string(),
            "name": issued.command,
            "type": 1,
        },
        "locale": "en-US",
        "entitlements": [],
        "attachment_size_limit": ATTACHMENT_SIZE_LIMIT,
        "app_permissions": "2147483647",
    });
    match issued.place {
        Place::Dm => {
            data["channel"] = json!({"id": user_id.to_string(), "type": 1});
            data["channel_id"] = user_id.to_string().into();
            data["context"] = 1.into();
            data["authorizing_integration_owners"] = json!({"1": user_id.to_string()});
            data["user"] = user;
        }
        Place::Guild(id) => {
            // A guild's first channel has its id.
            let id = id.to_string();
            data["channel"] = json!({"id": id, "type": 0, "guild_id": id});
            data["context"] = 0.into();
            data["authorizing_integration_owners"] = json!({"0": id});
            data["guild"] = json!({"id": id, "features": [], "locale": "en-US"});
            data["guild_locale"] = "en-US".into();
            data["member"] = json!({
                "user": user,
                "roles": [],
                "nick": null,
                "joined_at": "2024-01-01T00:00:00.000000+00:00",
                "communication_disabled_until": null,
                "deaf": false,
                "mute": false,
                "flags": 0,
                "permissions": "2147483647",
            });
            data["channel_id"] = id.as_str().into();
            data["guild_id"] = id.into();
        }
    }
    data
}
