//! The slash commands: each is answered in its own task, so that a slow answer holds neither the gateway nor another
//! command. A command counts as executed exactly when Discord confirmed its answer.

mod answers;

use std::{sync::Arc, time::Duration};

use shardmeter_proto::events::{Event, GuildId};
use tokio::{
    sync::{Semaphore, TryAcquireError},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, Span, info_span};
use twilight_model::{
    application::interaction::{Interaction, InteractionData},
    id::{
        Id,
        marker::{ApplicationMarker, GuildMarker},
    },
};

pub(crate) use self::answers::Standing;
use crate::{
    metrics::CommandMetrics,
    platform::{Publisher, Settings},
    rest::{Rest, RestError},
};

/// Discord forgets an interaction that is not answered within this time (reference, "Responding to an Interaction").
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// Commands answered at once, per process. At Discord's usual 100 ms an answer that is some 600 commands a second; more
/// at once means that answers hang, and more tasks would only hang with them.
const COMMANDS_AT_ONCE: usize = 64;

/// Commands told at once that the bot is busy, beyond those being answered. Beyond these, nobody is told.
const BUSY_ANSWERS_AT_ONCE: usize = 16;

/// Pauses between tries to register the commands double from the first to the last.
const FIRST_REGISTRATION_PAUSE: Duration = Duration::from_secs(1);
const LAST_REGISTRATION_PAUSE: Duration = Duration::from_secs(60);

/// The name under which commands count that are none of the bot's: names from the network do not become label values.
const UNKNOWN: &str = "unknown";

/// A command of this bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Ping,
    Shards,
    Stats,
}

impl Command {
    pub(crate) const ALL: [Self; 3] = [Self::Ping, Self::Shards, Self::Stats];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// The name users type; also the label value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Shards => "shards",
            Self::Stats => "stats",
        }
    }
}

/// What can go wrong with a command; also the label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// It is none of the bot's commands.
    UnknownCommand,
    /// The guild does not want it.
    Disabled,
    /// Too many commands at once.
    Overloaded,
    /// The interaction is not what Discord documents.
    Undecodable,
    /// Discord did not confirm within its own deadline.
    Timeout,
    /// Discord's API cannot be reached.
    Unreachable,
    /// Discord answered 429.
    RateLimited,
    /// Discord refused the answer (4xx).
    Refused,
    /// Discord failed (5xx).
    DiscordFailed,
    /// The answer could not be built.
    Internal,
}

impl CommandError {
    /// What can go wrong with a command of the bot's own; the others are of commands it does not know.
    const OF_OWN_COMMANDS: [Self; 8] = [
        Self::Disabled,
        Self::Overloaded,
        Self::Timeout,
        Self::Unreachable,
        Self::RateLimited,
        Self::Refused,
        Self::DiscordFailed,
        Self::Internal,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::UnknownCommand => "unknown_command",
            Self::Disabled => "disabled",
            Self::Overloaded => "overloaded",
            Self::Undecodable => "undecodable",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::RateLimited => "rate_limited",
            Self::Refused => "refused",
            Self::DiscordFailed => "discord_failed",
            Self::Internal => "internal",
        }
    }
}

impl From<&RestError> for CommandError {
    fn from(error: &RestError) -> Self {
        match error {
            RestError::Timeout => Self::Timeout,
            RestError::Transport(_) => Self::Unreachable,
            RestError::Status { status, .. } => match status.as_u16() {
                429 => Self::RateLimited,
                500.. => Self::DiscordFailed,
                _ => Self::Refused,
            },
            RestError::Build(_) | RestError::Decode(_) => Self::Internal,
        }
    }
}

impl CommandMetrics {
    /// Shows every error of every command from the start, so that a rate sees the first of them.
    pub(crate) fn start_at_zero(&self) {
        for command in Command::ALL {
            for error in CommandError::OF_OWN_COMMANDS {
                let labels = [command.name(), error.label()];
                self.command_errors_total.with_label_values(&labels);
            }
        }
    }

    /// An interaction arrived that cannot be read.
    pub(crate) fn undecodable(&self) {
        self.error(UNKNOWN, CommandError::Undecodable);
    }

    fn error(&self, name: &str, error: CommandError) {
        self.command_errors_total.with_label_values(&[name, error.label()]).inc();
    }
}

/// Where a command was called; also the label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A guild the shard is in.
    Guild(Id<GuildMarker>),
    /// A guild the shard is not in, as users may take a bot anywhere; such ids do not become label values.
    OtherGuild,
    /// Outside guilds.
    DirectMessage,
}

impl Place {
    fn label(self) -> String {
        match self {
            Self::Guild(id) => id.to_string(),
            Self::OtherGuild => "other".to_owned(),
            Self::DirectMessage => "dm".to_owned(),
        }
    }

    fn guild(self) -> Option<GuildId> {
        match self {
            Self::Guild(id) => Some(GuildId::from(id.into_nonzero())),
            Self::OtherGuild | Self::DirectMessage => None,
        }
    }
}

/// A command someone called.
pub(crate) struct Call {
    interaction: Interaction,
    /// None of the bot's: answered so.
    command: Option<Command>,
    place: Place,
    received: Instant,
    shard_id: u32,
    metrics: CommandMetrics,
}

impl Call {
    /// The command in an interaction that has just arrived on shard `shard_id`; none if the interaction is of another
    /// kind, which this bot gives no occasion for.
    pub(crate) fn new(
        mut interaction: Interaction,
        place: Place,
        shard_id: u32,
        metrics: CommandMetrics,
    ) -> Option<Self> {
        let Some(InteractionData::ApplicationCommand(data)) = interaction.data.take() else {
            return None;
        };
        let command = Command::named(&data.name);
        Some(Self { interaction, command, place, received: Instant::now(), shard_id, metrics })
    }

    fn name(&self) -> &'static str {
        self.command.map_or(UNKNOWN, Command::name)
    }

    fn error(&self, error: CommandError) {
        self.metrics.error(self.name(), error);
    }

    /// From its arrival until it is answered and told.
    fn span(&self) -> Span {
        let (shard_id, command) = (i64::from(self.shard_id), self.name());
        info_span!("interaction", otel.kind = "consumer", shard_id, command)
    }
}

/// Answers the commands of all shards of the process.
pub(crate) struct Commands {
    rest: Arc<Rest>,
    publisher: Publisher,
    settings: Settings,
    standing: Standing,
    answering: Arc<Semaphore>,
    declining: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Commands {
    pub(crate) fn new(
        rest: Arc<Rest>,
        publisher: Publisher,
        settings: Settings,
        standing: Standing,
    ) -> Arc<Self> {
        Arc::new(Self {
            rest,
            publisher,
            settings,
            standing,
            answering: Arc::new(Semaphore::new(COMMANDS_AT_ONCE)),
            declining: Arc::new(Semaphore::new(BUSY_ANSWERS_AT_ONCE)),
            tasks: TaskTracker::new(),
        })
    }

    /// Answers a command in a task of its own. Never waits: with too many at once the caller is told so, and with too
    /// many of these the command is dropped; both count as errors.
    pub(crate) fn take(self: &Arc<Self>, call: Call) {
        let commands = Arc::clone(self);
        let span = call.span();
        match Arc::clone(&self.answering).try_acquire_owned() {
            Ok(permit) => {
                let answering = async move {
                    commands.answer(&call).await;
                    drop(permit);
                };
                self.tasks.spawn(answering.instrument(span));
            }
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                call.error(CommandError::Overloaded);
                let Ok(permit) = Arc::clone(&self.declining).try_acquire_owned() else {
                    return;
                };
                let declining = async move {
                    commands.confirm(&call, answers::busy()).await;
                    drop(permit);
                };
                self.tasks.spawn(declining.instrument(span));
            }
        }
    }

    /// Registers the commands with Discord, however often it takes, until `stop`.
    pub(crate) fn register(
        self: &Arc<Self>,
        application: Id<ApplicationMarker>,
        stop: CancellationToken,
    ) {
        let commands = Arc::clone(self);
        self.tasks.spawn(async move {
            stop.run_until_cancelled(commands.register_until_done(application)).await;
        });
    }

    /// Waits for the commands being answered; each ends by Discord's deadline.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn answer(&self, call: &Call) {
        let answer = match call.command {
            Some(command) if self.is_disabled(command, call) => {
                call.error(CommandError::Disabled);
                answers::disabled()
            }
            Some(command) => self.standing.answer(command, call.shard_id),
            None => {
                call.error(CommandError::UnknownCommand);
                answers::unknown_command()
            }
        };
        self.confirm(call, answer).await;
    }

    fn is_disabled(&self, command: Command, call: &Call) -> bool {
        call.place.guild().is_some_and(|guild| self.settings.disable(guild, command))
    }

    /// Sends the answer and counts whether Discord confirmed it.
    async fn confirm(
        &self,
        call: &Call,
        answer: twilight_model::http::interaction::InteractionResponse,
    ) {
        let Interaction { application_id, id, token, .. } = &call.interaction;
        let deadline = call.received + ANSWER_DEADLINE;
        let confirmed = self.rest.answer(*application_id, *id, token, &answer, deadline).await;
        let took = call.received.elapsed().as_secs_f64();
        let (metrics, name) = (&call.metrics, call.name());
        metrics.command_execution_duration_seconds.with_label_values(&[name]).observe(took);
        if let Err(error) = confirmed {
            call.error(CommandError::from(&error));
            let error = &error as &dyn std::error::Error;
            return tracing::warn!(error, "a command was not answered");
        }
        metrics.interaction_ack_duration_seconds.observe(took);
        metrics.commands_executed_total.with_label_values(&[name, &call.place.label()]).inc();
        self.publisher.publish(Event::CommandExecuted {
            shard_id: call.shard_id,
            command_name: name.into(),
            guild_id: call.place.guild(),
        });
    }

    async fn register_until_done(&self, application: Id<ApplicationMarker>) {
        let commands = answers::registration();
        let mut pause = FIRST_REGISTRATION_PAUSE;
        while let Err(error) = self.rest.set_commands(application, &commands).await {
            let wait = error.pause(pause);
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                ?wait,
                "the slash commands are not registered; trying again"
            );
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LAST_REGISTRATION_PAUSE);
        }
        tracing::info!("the slash commands are registered");
    }
}
