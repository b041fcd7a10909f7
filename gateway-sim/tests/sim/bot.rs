//! A bot as users write them: a twilight shard per task, callbacks through twilight-http.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shardmeter_gateway_sim::Place;
use tokio::task::JoinSet;
use twilight_gateway::error::ReceiveMessageErrorType;
use twilight_gateway::queue::InMemoryQueue;
use twilight_gateway::{
    ConfigBuilder, Event, EventTypeFlags, Intents, MessageSender, Shard, ShardId, StreamExt,
};
use twilight_http::Client;
use twilight_model::application::interaction::{Interaction, InteractionData};
use twilight_model::gateway::payload::incoming::GuildCreate;
use twilight_model::http::interaction::{InteractionResponse, InteractionResponseType};

use crate::Sim;

pub(crate) const TOKEN: &str = "a.test.token";

/// What one shard of the bot saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Commands received, in order.
    pub(crate) received: Vec<(Place, String)>,
    /// Commands whose callback twilight-http reported as done.
    pub(crate) confirmed: BTreeMap<(Place, String), u64>,
    /// Callbacks that failed.
    pub(crate) failed: u64,
    /// Members by guild that is available.
    pub(crate) guilds: BTreeMap<u64, u64>,
    pub(crate) unavailable: BTreeSet<u64>,
    pub(crate) closes: Vec<Option<u16>>,
    /// Events twilight could not read.
    pub(crate) unreadable: Vec<String>,
    /// Attempts to connect that failed.
    pub(crate) unreachable: u64,
    pub(crate) ended: bool,
}

pub(crate) struct Bot {
    shards: Vec<Arc<Mutex<Seen>>>,
    pub(crate) senders: Vec<MessageSender>,
    pub(crate) http: Arc<Client>,
    _tasks: JoinSet<()>,
}

impl Bot {
    /// Starts all shards of a bot.
    pub(crate) fn start(sim: &Sim, shard_count: u32) -> Self {
        let http = Arc::new(http(sim, TOKEN));
        let queue = InMemoryQueue::new(0, 10_000, Duration::from_secs(86_400), 10_000);
        let config = ConfigBuilder::new(TOKEN.to_owned(), Intents::GUILDS)
            .proxy_url(sim.gateway_url.clone())
            .queue(queue)
            .build();
        let mut bot =
            Self { shards: Vec::new(), senders: Vec::new(), http, _tasks: JoinSet::new() };
        for shard in 0..shard_count {
            let shard = Shard::with_config(ShardId::new(shard, shard_count), config.clone());
            let seen = Arc::new(Mutex::new(Seen::default()));
            bot.senders.push(shard.sender());
            bot._tasks.spawn(run(shard, Arc::clone(&seen), Arc::clone(&bot.http)));
            bot.shards.push(seen);
        }
        bot
    }

    pub(crate) fn seen(&self, shard: u32) -> MutexGuard<'_, Seen> {
        self.shards[shard as usize].lock().unwrap()
    }

    /// Nothing that was sent was unreadable to twilight.
    pub(crate) fn assert_read_all(&self) {
        for shard in &self.shards {
            assert_eq!(shard.lock().unwrap().unreadable, Vec::<String>::new());
        }
    }
}

pub(crate) fn http(sim: &Sim, token: &str) -> Client {
    // Twilight sets up TLS even for a plain address; a provider that is installed already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .token(token.to_owned())
        .proxy(sim.host.clone(), true)
        .ratelimiter(None)
        .build()
}

pub(crate) fn response() -> InteractionResponse {
    InteractionResponse { kind: InteractionResponseType::ChannelMessageWithSource, data: None }
}

async fn run(mut shard: Shard<InMemoryQueue>, seen: Arc<Mutex<Seen>>, http: Arc<Client>) {
    while let Some(item) = shard.next_event(EventTypeFlags::all()).await {
        let event = match item {
            Ok(event) => event,
            Err(error) => {
                let mut seen = seen.lock().unwrap();
                match error.kind() {
                    ReceiveMessageErrorType::Reconnect => seen.unreachable += 1,
                    _ => seen.unreadable.push(error.to_string()),
                }
                continue;
            }
        };
        let interaction = note(&mut seen.lock().unwrap(), event);
        if let Some(interaction) = interaction {
            tokio::spawn(answer(interaction, Arc::clone(&seen), Arc::clone(&http)));
        }
    }
    seen.lock().unwrap().ended = true;
}

fn note(seen: &mut Seen, event: Event) -> Option<Interaction> {
    match event {
        Event::Ready(ready) => {
            seen.guilds.clear();
            seen.unavailable = ready.guilds.iter().map(|guild| guild.id.get()).collect();
        }
        Event::GuildCreate(guild) => {
            if let GuildCreate::Available(guild) = *guild {
                seen.unavailable.remove(&guild.id.get());
                seen.guilds.insert(guild.id.get(), guild.member_count.unwrap());
            }
        }
        Event::GuildDelete(guild) => {
            seen.guilds.remove(&guild.id.get());
            seen.unavailable.remove(&guild.id.get());
            if guild.unavailable == Some(true) {
                seen.unavailable.insert(guild.id.get());
            }
        }
        Event::GatewayClose(frame) => seen.closes.push(frame.map(|frame| frame.code)),
        Event::InteractionCreate(interaction) => {
            seen.received.push(key(&interaction.0));
            return Some(interaction.0);
        }
        _ => {}
    }
    None
}

fn key(interaction: &Interaction) -> (Place, String) {
    let Some(InteractionData::ApplicationCommand(data)) = &interaction.data else {
        panic!("not a command: {interaction:?}");
    };
    assert!(interaction.author().is_some());
    assert_eq!(interaction.is_dm(), interaction.guild_id.is_none());
    let place = interaction.guild_id.map_or(Place::Dm, |id| Place::Guild(id.get()));
    (place, data.name.clone())
}

async fn answer(interaction: Interaction, seen: Arc<Mutex<Seen>>, http: Arc<Client>) {
    let (id, token) = (interaction.id, interaction.token.clone());
    let client = http.interaction(interaction.application_id);
    let answered = client.create_response(id, &token, &response()).await;
    let mut seen = seen.lock().unwrap();
    match answered {
        Ok(_) => *seen.confirmed.entry(key(&interaction)).or_default() += 1,
        Err(_) => seen.failed += 1,
    }
}
