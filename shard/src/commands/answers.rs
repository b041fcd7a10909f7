//! What the commands say.

use std::fmt::Write as _;

use tokio::time::{Duration, Instant};
use twilight_model::{
    application::command::{Command as Registration, CommandType},
    channel::message::MessageFlags,
    http::interaction::{InteractionResponse, InteractionResponseData, InteractionResponseType},
    id::Id,
};

use super::Command;
use crate::metrics::{GatewayMetrics, ShardMetrics};

/// Lines of `/shards`: a message holds 2,000 characters, a line at most some 80.
const MAX_LINES: usize = 20;

/// How the process stands, as its commands tell it: read from the shards' own metrics.
pub(crate) struct Standing {
    started: Instant,
    shards: Vec<(u32, ShardMetrics)>,
}

impl Standing {
    /// A process that starts now, with these shards in ascending order.
    pub(crate) fn new(shards: Vec<(u32, ShardMetrics)>) -> Self {
        Self { started: Instant::now(), shards }
    }

    /// What `command` says when it is called on shard `shard_id`.
    pub(super) fn answer(&self, command: Command, shard_id: u32) -> InteractionResponse {
        message(match command {
            Command::Ping => self.ping(shard_id),
            Command::Shards => self.shards(),
            Command::Stats => self.stats(),
        })
    }

    fn ping(&self, shard_id: u32) -> String {
        let shard = self.shards.iter().find(|(id, _)| *id == shard_id);
        let latency = shard.and_then(|(_, metrics)| metrics.gateway.latency());
        match latency {
            Some(latency) => {
                format!("Pong! Shard {shard_id} hears Discord after {} ms.", latency.as_millis())
            }
            None => format!("Pong from shard {shard_id}!"),
        }
    }

    fn shards(&self) -> String {
        let mut text = String::new();
        for (id, metrics) in self.shards.iter().take(MAX_LINES) {
            let connected =
                if metrics.gateway.is_connected() { "connected" } else { "not connected" };
            let guilds = metrics.guilds.guild_count.get();
            let users = metrics.guilds.user_count.get();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "Shard {id}: {connected}, {guilds} guilds, {users} users");
        }
        if let Some(more) = self.shards.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
            let _ = writeln!(text, "and {more} more");
        }
        text
    }

    fn stats(&self) -> String {
        let connected =
            self.shards.iter().filter(|(_, metrics)| metrics.gateway.is_connected()).count();
        let sum = |count: fn(&ShardMetrics) -> i64| -> i64 {
            self.shards.iter().map(|(_, metrics)| count(metrics)).sum()
        };
        let guilds = sum(|metrics| metrics.guilds.guild_count.get());
        let users = sum(|metrics| metrics.guilds.user_count.get());
        let minutes = self.started.elapsed().as_secs() / 60;
        format!(
            "{connected} of {} shards connected, {guilds} guilds, {users} users, up {minutes} min",
            self.shards.len(),
        )
    }
}

impl GatewayMetrics {
    /// Round trip of the last heartbeat, if one was acknowledged on this connection.
    fn latency(&self) -> Option<Duration> {
        use prometheus::core::Collector as _;
        let families = self.gateway_latency_seconds.collect();
        let seconds = families.first()?.get_metric().first()?.get_gauge().get_value();
        Duration::try_from_secs_f64(seconds).ok()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.gateway_connected.get() == 1
    }
}

/// There are too many commands at once.
pub(super) fn busy() -> InteractionResponse {
    private("I am busy right now, please try again in a moment.")
}

/// The guild's settings say that the command is not to be used there.
pub(super) fn disabled() -> InteractionResponse {
    private("This command is disabled in this server.")
}

/// The command is none of the bot's; Discord may still show one of an earlier version.
pub(super) fn unknown_command() -> InteractionResponse {
    private("I do not know this command (any more).")
}

fn message(text: String) -> InteractionResponse {
    response(InteractionResponseData { content: Some(text), ..InteractionResponseData::default() })
}

/// An answer only the caller sees.
fn private(text: &str) -> InteractionResponse {
    response(InteractionResponseData {
        content: Some(text.to_owned()),
        flags: Some(MessageFlags::EPHEMERAL),
        ..InteractionResponseData::default()
    })
}

fn response(data: InteractionResponseData) -> InteractionResponse {
    InteractionResponse {
        kind: InteractionResponseType::ChannelMessageWithSource,
        data: Some(data),
    }
}

/// The commands as Discord is told of them.
pub(super) fn registration() -> Vec<Registration> {
    Command::ALL.map(|command| registration_of(command.name(), description(command))).into()
}

fn description(command: Command) -> &'static str {
    match command {
        Command::Ping => "Is the bot there, and how fast does it hear Discord?",
        Command::Shards => "How the shards of this process stand",
        Command::Stats => "Guilds, users and uptime of this process",
    }
}

#[expect(deprecated, reason = "`dm_permission` has to be named to build the struct")]
fn registration_of(name: &str, description: &str) -> Registration {
    Registration {
        application_id: None,
        contexts: None,
        default_member_permissions: None,
        description: description.to_owned(),
        description_localizations: None,
        dm_permission: None,
        guild_id: None,
        id: None,
        integration_types: None,
        kind: CommandType::ChatInput,
        name: name.to_owned(),
        name_localizations: None,
        nsfw: None,
        options: Vec::new(),
        version: Id::new(1),
    }
}
