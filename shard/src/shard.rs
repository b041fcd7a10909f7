//! One shard: its connection to the gateway, its guilds, its metrics, all owned by one task.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use futures_util::Stream as _;
use shardmeter_proto::events::Event as PlatformEvent;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use twilight_gateway::{
    CloseFrame, Event, EventType, EventTypeFlags, Message, Shard, ShardState,
    error::{ReceiveMessageError, ReceiveMessageErrorType},
};
use twilight_model::{
    application::interaction::Interaction,
    gateway::{
        OpCode,
        event::GatewayEventDeserializer,
        payload::incoming::{GuildCreate, GuildDelete},
    },
    id::{Id, marker::ApplicationMarker},
};

use crate::{
    commands::{Call, Commands, Place},
    guilds::Guilds,
    identify::IdentifyQueue,
    metrics::{GatewayMetrics, ShardMetrics, unix_seconds},
    platform::Publisher,
    saved_session::SessionFile,
};

/// How long Discord may take to confirm the close at shutdown; what it sends meanwhile is still taken, so that the saved
/// session has no gap.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Events the bot looks into; the others are only counted.
const WANTED: EventTypeFlags = EventTypeFlags::READY
    .union(EventTypeFlags::GATEWAY_HELLO)
    .union(EventTypeFlags::RESUMED)
    .union(EventTypeFlags::GATEWAY_INVALIDATE_SESSION)
    .union(EventTypeFlags::GUILD_CREATE)
    .union(EventTypeFlags::GUILD_UPDATE)
    .union(EventTypeFlags::GUILD_DELETE)
    .union(EventTypeFlags::INTERACTION_CREATE);

/// The event whose loss is a lost command.
const INTERACTION_CREATE: &str = "INTERACTION_CREATE";

/// WebSocket close codes that stand for a close without one (RFC 6455, section 7.4.1).
const NO_STATUS: u16 = 1005;
const ABNORMAL: u16 = 1006;

/// Discord closed a shard's connection for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Discord closed shard {shard_id} for good with code {code}: {}", cause_and_cure(*code))]
pub struct FatalClose {
    /// The shard that was closed.
    pub shard_id: u32,
    /// Discord's close code (reference, "Gateway Close Event Codes").
    pub code: u16,
}

fn cause_and_cure(code: u16) -> &'static str {
    match code {
        4004 => {
            "the token is not valid; set DISCORD_TOKEN to the bot's token from the developer portal"
        }
        4010 => "there is no such shard; check SHARD_IDS and SHARD_COUNT",
        4011 => {
            "the bot is in too many guilds for so few shards; raise SHARD_COUNT or set it to auto"
        }
        4012 => "Discord no longer speaks this version of its gateway; update the bot",
        4013 => "the intents are not valid; update the bot",
        4014 => "an intent is not allowed; allow it for the bot in the developer portal",
        _ => "Discord names no reason",
    }
}

/// How a session began or ended; also the label value.
#[derive(Clone, Copy)]
enum SessionOutcome {
    Identified,
    Resumed,
    Invalidated,
}

impl SessionOutcome {
    const ALL: [Self; 3] = [Self::Identified, Self::Resumed, Self::Invalidated];

    fn label(self) -> &'static str {
        match self {
            Self::Identified => "identified",
            Self::Resumed => "resumed",
            Self::Invalidated => "invalidated",
        }
    }
}

impl GatewayMetrics {
    /// Shows every outcome and every close code from the start, so that a rate sees the first of them.
    pub(crate) fn start_at_zero(&self) {
        for outcome in SessionOutcome::ALL {
            self.gateway_sessions_total.with_label_values(&[outcome.label()]);
        }
        for label in CLOSE_LABELS.into_iter().chain([OTHER_CLOSE]) {
            self.gateway_close_total.with_label_values(&[label]);
        }
    }

    fn session(&self, outcome: SessionOutcome) {
        self.gateway_sessions_total.with_label_values(&[outcome.label()]).inc();
    }

    fn closed(&self, code: u16) {
        self.gateway_close_total.with_label_values(&[close_label(code)]).inc();
    }

    fn event(&self, name: &str) {
        // A closed set: what twilight does not know is not told apart.
        let label = EventType::try_from(name).ok().and_then(EventType::name).unwrap_or("OTHER");
        self.gateway_events_total.with_label_values(&[label]).inc();
        self.gateway_last_event_timestamp_seconds.set(unix_seconds());
    }
}

/// Close codes that RFC 6455 and Discord know, as label values; a peer cannot grow the set.
const CLOSE_LABELS: [&str; 26] = [
    "1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013",
    "4000", "4001", "4002", "4003", "4004", "4005", "4007", "4008", "4009", "4010", "4011", "4012",
    "4013", "4014",
];

/// Every other close code.
const OTHER_CLOSE: &str = "other";

fn close_label(code: u16) -> &'static str {
    CLOSE_LABELS.into_iter().find(|label| label.parse() == Ok(code)).unwrap_or(OTHER_CLOSE)
}

/// What a shard shares with the others of its process.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) commands: Arc<Commands>,
    pub(crate) publisher: Publisher,
    /// Told of every identify.
    pub(crate) identified: Arc<Notify>,
    /// Set when the process is to end.
    pub(crate) stop: CancellationToken,
}

/// One shard and all that is its own.
pub(crate) struct ShardTask {
    shard: Shard<IdentifyQueue>,
    metrics: ShardMetrics,
    guilds: Guilds,
    shared: Shared,
    session_file: Option<SessionFile>,
    /// Who the bot is, once Discord has said so.
    application: Option<Id<ApplicationMarker>>,
    /// Whether the slash commands are still to be registered, which is the business of shard 0.
    registers_commands: bool,
    /// Whether there was a connection when the shard was last polled.
    open: bool,
    /// Whether this side is closing the connection for good.
    closing: bool,
    /// How the last connection ended.
    last_close: u16,
    /// When Discord last sent anything.
    heard: Instant,
    /// How often it wants a heartbeat on this connection, once it said so.
    heartbeat_interval: Option<Duration>,
}

impl ShardTask {
    /// A shard that has not connected yet, with what is remembered of its session.
    pub(crate) fn new(
        shard: Shard<IdentifyQueue>,
        metrics: ShardMetrics,
        shared: Shared,
        session_file: Option<SessionFile>,
        guilds: Guilds,
        application: Option<Id<ApplicationMarker>>,
    ) -> Self {
        let registers_commands = shard.id().number() == 0;
        Self {
            shard,
            metrics,
            guilds,
            shared,
            session_file,
            application,
            registers_commands,
            open: false,
            closing: false,
            last_close: NO_STATUS,
            heard: Instant::now(),
            heartbeat_interval: None,
        }
    }

    /// Runs the shard until the process stops, then closes it such that its session can be resumed. Reconnecting is
    /// twilight's business; an error is what reconnecting cannot cure.
    pub(crate) async fn run(mut self) -> Result<(), FatalClose> {
        let stop = self.shared.stop.clone();
        while let Some(received) = stop.run_until_cancelled(self.next()).await {
            match received {
                Some(Ok(Message::Text(text))) => self.take(text),
                Some(Ok(Message::Close(_))) => {}
                Some(Err(error)) => self.warn(&error),
                None => {
                    return Err(FatalClose { shard_id: self.id(), code: self.last_close });
                }
            }
        }
        self.close().await;
        self.save().await;
        Ok(())
    }

    fn id(&self) -> u32 {
        self.shard.id().number()
    }

    /// The next message. Looks at the shard after every poll, because twilight does not make a message of every loss.
    async fn next(&mut self) -> Option<Result<Message, ReceiveMessageError>> {
        poll_fn(|context| {
            let heartbeat = self.shard.latency().sent().map(Instant::from_std);
            let polled = Pin::new(&mut self.shard).poll_next(context);
            self.observe(&polled, heartbeat);
            polled
        })
        .await
    }

    /// Looks at what has become of the connection; `heartbeat`: when the last one before was sent, answered or not.
    fn observe(
        &mut self,
        polled: &Poll<Option<Result<Message, ReceiveMessageError>>>,
        heartbeat: Option<Instant>,
    ) {
        let state = self.shard.state();
        let gateway = &self.metrics.gateway;
        gateway.gateway_connected.set((state == ShardState::Active).into());
        let open = !matches!(state, ShardState::Disconnected { .. } | ShardState::FatallyClosed);
        if self.open && !open {
            self.last_close = match polled {
                Poll::Ready(Some(Ok(Message::Close(frame)))) => {
                    frame.as_ref().map_or(NO_STATUS, |frame| frame.code)
                }
                // This side closed: twilight gives up the session exactly when it sends 1000.
                Poll::Ready(Some(_)) if self.shard.session().is_none() => CloseFrame::NORMAL.code,
                Poll::Ready(Some(_)) => CloseFrame::RESUME.code,
                _ if self.closing => CloseFrame::RESUME.code,
                _ => ABNORMAL,
            };
            gateway.closed(self.last_close);
            // What the one before asked for, and was asked, says nothing of the next connection.
            let interval = self.heartbeat_interval.take();
            let gave_up = interval.zip(heartbeat).is_some_and(|(interval, sent)| {
                self.heard < sent && sent.elapsed() > interval.mul_f64(0.9)
            });
            // twilight does not say why it ended a connection; this is when it gives one up.
            if self.last_close == ABNORMAL && gave_up {
                gateway.gateway_zombies_total.inc();
            }
            gateway.gateway_latency_seconds.reset();
            tracing::info!(
                shard_id = self.id(),
                code = self.last_close,
                "disconnected from Discord"
            );
        }
        self.open = open;
    }

    fn take(&mut self, text: String) {
        self.heard = Instant::now();
        let header = GatewayEventDeserializer::from_json(&text);
        let (opcode, name) = header.map_or((None, None), |header| {
            let (opcode, _, name) = header.into_parts();
            (OpCode::from(opcode), name)
        });
        let mut is_interaction = false;
        match (opcode, name.as_deref()) {
            (Some(OpCode::Dispatch), Some(name)) => {
                is_interaction = name == INTERACTION_CREATE;
                self.metrics.gateway.event(name);
            }
            (Some(OpCode::HeartbeatAck), _) => self.acked(),
            _ => {}
        }
        match twilight_gateway::parse(text, WANTED) {
            Ok(Some(event)) => self.event(event.into()),
            Ok(None) => {}
            Err(error) => {
                if is_interaction {
                    self.metrics.commands.undecodable();
                }
                self.warn(&error);
            }
        }
    }

    fn acked(&self) {
        let gateway = &self.metrics.gateway;
        gateway.gateway_heartbeat_ack_age_seconds.ack();
        if let Some(latency) = self.shard.latency().recent().first() {
            gateway
                .gateway_latency_seconds
                .with_label_values::<&str>(&[])
                .set(latency.as_secs_f64());
        }
    }

    fn event(&mut self, event: Event) {
        let gateway = &self.metrics.gateway;
        let shard_id = self.id();
        match event {
            Event::GatewayHello(hello) => {
                let interval = Duration::from_millis(hello.heartbeat_interval);
                self.heartbeat_interval = Some(interval);
                gateway.gateway_heartbeat_interval_seconds.set(interval.as_secs_f64());
            }
            Event::Ready(ready) => {
                gateway.session(SessionOutcome::Identified);
                self.shared.identified.notify_one();
                self.guilds.ready(&ready);
                self.application = Some(ready.application.id);
                tracing::info!(shard_id, guilds = ready.guilds.len(), "session identified");
                self.register_commands();
            }
            Event::Resumed => {
                gateway.session(SessionOutcome::Resumed);
                tracing::info!(shard_id, "session resumed");
                self.register_commands();
            }
            Event::GatewayInvalidateSession(resumable) => {
                if !resumable {
                    gateway.session(SessionOutcome::Invalidated);
                }
                tracing::info!(shard_id, resumable, "session invalidated");
            }
            Event::GuildCreate(guild) => self.guild_created(&guild),
            Event::GuildUpdate(guild) => self.guilds.updated(&guild),
            Event::GuildDelete(guild) => self.guild_deleted(&guild),
            Event::InteractionCreate(interaction) => self.interaction(interaction.0),
            _ => {}
        }
    }

    fn guild_created(&mut self, guild: &GuildCreate) {
        let (shard_id, guild_id) = (self.id(), guild.id().into_nonzero().into());
        if self.guilds.created(guild) {
            self.shared.publisher.publish(PlatformEvent::GuildJoined { shard_id, guild_id });
        }
    }

    fn guild_deleted(&mut self, guild: &GuildDelete) {
        let (shard_id, guild_id) = (self.id(), guild.id.into_nonzero().into());
        if self.guilds.deleted(guild) {
            self.shared.publisher.publish(PlatformEvent::GuildLeft { shard_id, guild_id });
        }
    }

    fn interaction(&self, interaction: Interaction) {
        let place = match interaction.guild_id {
            Some(id) if self.guilds.knows(id) => Place::Guild(id),
            Some(_) => Place::OtherGuild,
            None => Place::DirectMessage,
        };
        if let Some(call) = Call::new(interaction, place, self.id(), self.metrics.commands.clone())
        {
            self.shared.commands.take(call);
        }
    }

    fn register_commands(&mut self) {
        if let Some(application) = self.application.filter(|_| self.registers_commands) {
            self.registers_commands = false;
            self.shared.commands.register(application, self.shared.stop.clone());
        }
    }

    /// Logs what went wrong, without the event it went wrong with: an interaction's holds its token.
    fn warn(&self, error: &ReceiveMessageError) {
        let shard_id = self.id();
        let cause = std::error::Error::source(error);
        match error.kind() {
            ReceiveMessageErrorType::Reconnect => {
                tracing::warn!(
                    shard_id,
                    cause,
                    "Discord's gateway cannot be reached; trying again"
                );
            }
            ReceiveMessageErrorType::Deserializing { .. } => {
                tracing::warn!(shard_id, cause, "an event cannot be read");
            }
            _ => tracing::warn!(shard_id, cause, "a message cannot be read"),
        }
    }

    /// Closes the connection with a code that keeps the session (1000 and 1001 would end it), and takes what Discord sends
    /// until it confirms.
    async fn close(&mut self) {
        if !self.open {
            return;
        }
        self.closing = true;
        self.shard.close(CloseFrame::RESUME);
        let drained = timeout(CLOSE_DEADLINE, async {
            // Once closed, twilight would connect anew.
            let mut closed = false;
            while let Some(Ok(Message::Text(text))) = self.next().await {
                if closed && self.open {
                    break;
                }
                closed = !self.open;
                self.take(text);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(shard_id = self.id(), "Discord did not confirm the close");
        }
    }

    async fn save(self) {
        let (Some(file), Some(session), Some(application)) =
            (&self.session_file, self.shard.session(), self.application)
        else {
            return;
        };
        let shard_id = self.id();
        let (session, guilds) = (session.clone(), self.guilds.save());
        let resume_url = self.shard.resume_url().or_else(|| self.shard.config().proxy_url());
        let resume_url = resume_url.unwrap_or_default().to_owned();
        match file.save(application, session, resume_url, guilds).await {
            Ok(()) => tracing::info!(shard_id, "session saved"),
            Err(error) => tracing::warn!(shard_id, %error, "the session is not saved"),
        }
    }
}
