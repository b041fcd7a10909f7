//! Live events as those who listen see them, and settings as bots obey them: bots, the api and Redis together, and a
//! browser's own EventSource.

use std::{net::SocketAddr, time::Duration};

use reqwest::Response;
use serde_json::{Value, json};
use shardmeter_api::{Api, events::Events};
use shardmeter_gateway_sim::Place;
use shardmeter_process::{
    ManagerConfig,
    testing::{soon, until},
};
use shardmeter_proto::events::{Event, GuildId};
use shardmeter_pubsub::testing::RedisServer;
use shardmeter_shard::{Bot, Registries};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{event_stream::EventStream, proxy::Proxy, script::Script, system::Discord};

/// An api on a database file of its own.
struct RunningApi {
    addr: SocketAddr,
    events: Events,
    stop: CancellationToken,
    running: JoinHandle<()>,
    _database: TempDir,
}

impl RunningApi {
    async fn start(redis: Option<&RedisServer>) -> Self {
        let database = tempfile::tempdir().unwrap();
        let api = Api::build(shardmeter_api::Config {
            addr: ([127, 0, 0, 1], 0).into(),
            // None: events of shards are not what this is about.
            manager: ManagerConfig::at("http://127.0.0.1:1"),
            database_url: format!("sqlite://{}/api.db", database.path().display()).into(),
            redis_url: redis.map(|redis| redis.url().into()),
            ..shardmeter_api::Config::default()
        });
        let api = api.await.unwrap();
        let (addr, events, stop) = (api.addr(), api.events(), CancellationToken::new());
        let stopped = stop.clone().cancelled_owned();
        let running = tokio::spawn(async move { api.run(stopped).await.unwrap() });
        let api = Self { addr, events, stop, running, _database: database };
        until("the api is ready", || async {
            let answer =
                reqwest::get(api.url("/readyz")).await.and_then(Response::error_for_status);
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
        api
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    async fn disable(&self, guild: u64, commands: &[&str]) {
        let url = self.url(&format!("/api/v1/guilds/{guild}/settings"));
        let settings = json!({ "disabled_commands": commands });
        let put = reqwest::Client::new().put(url).header("If-Match", "*").json(&settings);
        put.send().await.unwrap().error_for_status().unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// Passes over what is of another type.
async fn next_of(events: &mut EventStream, kind: &str) -> Value {
    loop {
        let (_, event) = events.next().await;
        if event["type"] == kind {
            return event;
        }
    }
}

/// A bot on Redis whose manager is away.
struct RunningBot {
    registries: Registries,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl RunningBot {
    async fn start(discord: &Discord, redis: &RedisServer) -> Self {
        let bot = Bot::build(shardmeter_shard::Config {
            manager: ManagerConfig::at("http://127.0.0.1:1"),
            redis_url: Some(redis.url().into()),
            discord_gateway_url: Some(discord.gateway_url.clone()),
            discord_api_url: Some(discord.api_url.clone()),
            ..shardmeter_shard::Config::new("token")
        });
        let bot = bot.await.unwrap();
        let (registries, stop) = (bot.registries(), CancellationToken::new());
        let stopped = stop.clone().cancelled_owned();
        let running = tokio::spawn(async move { bot.run(stopped).await.unwrap() });
        discord.control.until_connected(2).await;
        Self { registries, stop, running }
    }

    /// How often commands were refused because they are disabled.
    fn refused(&self) -> f64 {
        let of_shard = |(_, registry): &(u32, prometheus::Registry)| -> f64 {
            let families = registry.gather();
            let errors = families.iter().filter(|family| family.name() == "command_errors_total");
            let errors = errors.flat_map(prometheus::proto::MetricFamily::get_metric);
            let disabled = errors.filter(|metric| {
                metric.get_label().iter().any(|label| label.value() == "disabled")
            });
            disabled.map(|metric| metric.get_counter().get_value()).sum()
        };
        self.registries.shards.iter().map(of_shard).sum()
    }

    /// Calls a command until it is refused, or not any more.
    async fn until_refused(&self, discord: &Discord, guild: u64, command: &str, refused: bool) {
        until(&format!("{command} is refused: {refused}"), || async {
            let (before, books) = (self.refused(), discord.control.books().confirmed());
            discord.control.interaction(Place::Guild(guild), command).await.unwrap();
            soon("the answer", discord.control.until(|now| now.confirmed() > books)).await;
            let was_refused = self.refused() > before;
            if was_refused == refused { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bots_do_is_told_live_and_what_is_set_is_obeyed_whatever_redis_does() {
    let mut redis = RedisServer::start().await;
    let api = RunningApi::start(Some(&redis)).await;
    let discord = Discord::start(2, 4, 0.0).await;
    let bot = RunningBot::start(&discord, &redis).await;
    until("both hear Redis", || async {
        let readiness = reqwest::get(api.url("/readyz")).await.unwrap().text().await.unwrap();
        let of_bots: Vec<String> = redis.ask(&["PUBSUB", "CHANNELS"]).await;
        if readiness.contains("\"redis\"") && of_bots.len() == 2 { Ok(()) } else { Err(readiness) }
    })
    .await;

    let mut events = EventStream::follow(&api.url("/api/v1/events")).await;
    let guild = discord.control.guild_join(1, 5).await.unwrap();
    let joined = next_of(&mut events, "guild_joined").await;
    assert_eq!(joined["guild_id"], guild.to_string());
    discord.control.interaction(Place::Guild(guild), "ping").await.unwrap();
    let executed = next_of(&mut events, "command_executed").await;
    let expected = json!({
        "type": "command_executed", "shard_id": 1, "command_name": "ping", "guild_id": guild.to_string(),
    });
    assert_eq!(executed, expected);

    api.disable(guild, &["ping"]).await;
    bot.until_refused(&discord, guild, "ping", true).await;
    let updated = next_of(&mut events, "guild_settings_updated").await;
    assert_eq!(updated["disabled_commands"], json!(["ping"]));

    // Changed while Redis is away: then nobody waits, and once it is back all is as it should.
    redis.kill();
    api.disable(guild, &["stats"]).await;
    let refused = bot.refused();
    discord.control.interaction(Place::Guild(guild), "ping").await.unwrap();
    until("the last settings still hold", || async {
        if bot.refused() > refused { Ok(()) } else { Err("not refused".to_owned()) }
    })
    .await;
    redis.start_again().await;
    bot.until_refused(&discord, guild, "stats", true).await;
    bot.until_refused(&discord, guild, "ping", false).await;
    next_of(&mut events, "gap").await;
    discord.control.guild_leave(guild).await.unwrap();
    next_of(&mut events, "guild_left").await;

    // One that starts anew finds the settings.
    let guild = discord.control.guild_join(0, 5).await.unwrap();
    api.disable(guild, &["shards"]).await;
    bot.until_refused(&discord, guild, "shards", true).await;
    bot.stop().await;
    let bot = RunningBot::start(&discord, &redis).await;
    bot.until_refused(&discord, guild, "shards", true).await;
    bot.stop().await;
    discord.stop().await;
    api.stop().await;
}

/// Headless Chromium with an EventSource.
fn listening_browser(url: &str, query: &str) -> Script {
    Script::browser("browser.mjs", &[url, query])
}

async fn until_open(browser: &mut Script) {
    while browser.next().await["name"] != "open" {}
}

fn joined(guild: u64) -> Event {
    Event::GuildJoined { shard_id: 0, guild_id: GuildId::new(guild).unwrap() }
}

/// Publishes guilds from 1 on until it is told to stop; how many.
async fn publish(events: Events, stop: CancellationToken) -> u64 {
    let mut published = 0;
    while !stop.is_cancelled() {
        published += 1;
        events.publish(joined(published));
        sleep(Duration::from_millis(2)).await;
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_is_cut_again_and_again_misses_nothing_and_hears_nothing_twice() {
    const CUTS: u64 = 6;
    let api = RunningApi::start(None).await;
    let proxy = Proxy::start(api.addr).await;
    let mut browser = listening_browser(&format!("http://{}", proxy.addr), "");
    until_open(&mut browser).await;
    let enough = CancellationToken::new();
    let publishing = tokio::spawn(publish(api.events.clone(), enough.clone()));

    let (mut heard, mut cuts, mut breaks) = (0, 0, 0);
    loop {
        let event = browser.next().await;
        match event["name"].as_str().unwrap() {
            "guild_joined" => {
                heard += 1;
                assert_eq!(
                    event["data"]["guild_id"],
                    heard.to_string(),
                    "none missing, none twice"
                );
                // In the midst of what comes, and as soon as something came.
                if cuts < CUTS && breaks == cuts && (cuts % 2 == 1 || heard % 50 == 0) {
                    cuts += 1;
                    proxy.cut();
                }
            }
            "error" => {
                assert_eq!(event["state"], 0, "it connects again by itself");
                breaks += 1;
            }
            "open" if breaks == CUTS => break,
            "open" => {}
            other => panic!("{other}: {event}"),
        }
    }
    enough.cancel();
    let total = publishing.await.unwrap();
    while heard < total {
        let event = browser.next().await;
        heard += 1;
        assert_eq!(event["name"], "guild_joined", "{event}");
        assert_eq!(event["data"]["guild_id"], heard.to_string());
    }
    assert_eq!((cuts, breaks), (CUTS, CUTS));
    assert!(proxy.connections() > CUTS);
    browser.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_is_cut_before_its_first_event_misses_none() {
    let api = RunningApi::start(None).await;
    let proxy = Proxy::start(api.addr).await;
    let mut browser = listening_browser(&format!("http://{}", proxy.addr), "?guild_id=7");
    until_open(&mut browser).await;
    // The id of its beginning is no event, so it cannot tell that it has it: that shows when it comes back.
    until("it comes back with an id", async || {
        proxy.cut();
        until_open(&mut browser).await;
        let began = proxy.began().to_ascii_lowercase();
        if began.contains("\r\nlast-event-id: ") { Ok(()) } else { Err(began) }
    })
    .await;
    proxy.swallow();
    for guild in [6, 7, 8] {
        api.events.publish(joined(guild));
    }
    proxy.cut();
    assert_eq!(browser.next().await["name"], "error");
    proxy.heal();
    loop {
        let event = browser.next().await;
        match event["name"].as_str().unwrap() {
            "guild_joined" => {
                assert_eq!(event["data"]["guild_id"], "7");
                break;
            }
            "open" | "error" => {}
            other => panic!("{other}: {event}"),
        }
    }
    browser.stop().await;
    api.stop().await;
}
