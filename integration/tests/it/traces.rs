//! Traces over several processes, as a receiver of OTLP that is not ours gets them; and what is left when there is none.

use std::{path::Path, time::Duration};

use reqwest::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shardmeter_gateway_sim::{Fault, Place, Route};
use shardmeter_process::testing::soon;
use shardmeter_pubsub::testing::RedisServer;
use tokio::{
    process::Command,
    time::{Instant, timeout_at},
};

use crate::{
    process::{ManagerProcess, Process, Scratch, ShardProcess, binary},
    scrape::{self, series},
    script::Script,
    system::Discord,
    tools::lasting_addr,
};

const STALE_AFTER: Duration = Duration::from_secs(60);

/// For a span to arrive: every process sends its own soon.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// What a caller says who traces.
const CAUSE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Debug, Deserialize)]
struct Span {
    service: String,
    name: String,
    kind: String,
    trace_id: String,
    span_id: String,
    parent: String,
    began: u64,
    ended: u64,
    status: String,
    message: String,
    attributes: Map<String, Value>,
    logged: Vec<String>,
}

impl Span {
    fn is_within(&self, other: &Self) -> bool {
        self.trace_id == other.trace_id && self.parent == other.span_id
    }
}

/// A receiver, and what it got.
struct Receiver {
    script: Script,
    endpoint: String,
    spans: Vec<Span>,
}

impl Receiver {
    async fn start(args: &[&str]) -> Self {
        let mut script = Script::python("otlp_receiver.py", args);
        let endpoint = format!("http://127.0.0.1:{}", script.next().await["port"]);
        Self { script, endpoint, spans: Vec::new() }
    }

    /// The first span that is like this, once it is here.
    async fn span(&mut self, is: impl Fn(&Span, &[Span]) -> bool) -> usize {
        let until = Instant::now() + FOUND_WITHIN;
        loop {
            // All of them: of which another is part may have come later.
            if let Some(at) = self.spans.iter().position(|span| is(span, &self.spans)) {
                return at;
            }
            let span = timeout_at(until, self.script.next()).await;
            let span = span.unwrap_or_else(|_| panic!("not among {:#?}", self.spans));
            self.spans.push(serde_json::from_value(span).unwrap());
        }
    }

    /// The first of that name within another.
    async fn within(&mut self, outer: usize, name: &str) -> usize {
        self.span(|span, all| span.name == name && span.is_within(&all[outer])).await
    }
}

/// What makes a process send its spans there, soon.
fn traced(endpoint: &str) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ]
}

/// A manager, and a bot with one shard, that send their spans there.
async fn start(
    folder: &Path,
    discord: &Discord,
    endpoint: &str,
    redis: Option<&RedisServer>,
) -> (ManagerProcess, ShardProcess) {
    let flags = [format!("--otlp-endpoint={endpoint}")];
    let manager = ManagerProcess::start_with(folder, STALE_AFTER, &flags).await;
    let mut environment = traced(endpoint);
    environment.extend(redis.map(|redis| ("REDIS_URL", redis.url().clone())));
    let shard = ShardProcess::start_with(folder, discord, (0, 1), manager.grpc, environment);
    discord.control.until_connected(1).await;
    (manager, shard)
}

async fn command(discord: &Discord) {
    let before = discord.control.books().confirmed();
    discord.control.interaction(Place::Dm, "ping").await.unwrap();
    soon("the answer", discord.control.until(|now| now.confirmed() > before)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_one_trace_from_its_arrival_to_redis() {
    let scratch = Scratch::new("trace-of-a-command");
    let (redis, discord) = (RedisServer::start().await, Discord::start(1, 1, 0.0).await);
    let mut receiver = Receiver::start(&[]).await;
    let (_manager, shard) = start(scratch.path(), &discord, &receiver.endpoint, Some(&redis)).await;
    shard.process.says("Redis is connected").await;

    command(&discord).await;
    let publish = receiver.span(|span, _| span.name == "publish").await;
    let interaction = receiver.span(|span, all| all[publish].is_within(span)).await;
    let callback = receiver.within(interaction, "POST /interactions/{id}/{token}/callback").await;
    let [publish, interaction, callback] =
        [publish, interaction, callback].map(|at| &receiver.spans[at]);
    assert_eq!([&interaction.name, &interaction.parent], ["interaction", ""]);
    assert_eq!(
        [&interaction.kind, &callback.kind, &publish.kind],
        ["CONSUMER", "CLIENT", "PRODUCER"]
    );
    for span in [publish, interaction, callback] {
        assert_eq!([&span.service, &span.status], ["shardmeter-shard", "UNSET"]);
    }
    assert_eq!(interaction.attributes["shard_id"], 0);
    assert_eq!(interaction.attributes["command"], "ping");
    assert_eq!(publish.attributes["event"], "command_executed");
    let times = [interaction.began, callback.began, callback.ended, publish.began, publish.ended];
    assert!(times.is_sorted(), "{times:?}");

    // One that fails: what the log says of it leads to its trace.
    discord.control.inject(Route::Callback, Fault::Status(500), 1);
    discord.control.interaction(Place::Dm, "stats").await.unwrap();
    let failed = receiver.span(|span, _| span.status == "ERROR").await;
    let interaction = receiver.span(|span, all| all[failed].is_within(span)).await;
    let [failed, interaction] = [failed, interaction].map(|at| &receiver.spans[at]);
    assert!(failed.message.contains("500"), "{}", failed.message);
    assert_eq!(interaction.logged, ["a command was not answered"]);
    let log = shard.process.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line =
        lines.into_iter().find(|line| line["message"] == "a command was not answered").unwrap();
    assert_eq!(line["trace_id"], interaction.trace_id.as_str());
    assert_eq!(line["span_id"], interaction.span_id.as_str());
    assert_eq!([&line["shard_id"], &line["command"]], [&json!(0), &json!("stats")]);
    discord.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_is_one_trace_from_the_shard_to_the_journal() {
    let scratch = Scratch::new("trace-of-a-frame");
    let discord = Discord::start(1, 1, 0.0).await;
    let mut receiver = Receiver::start(&[]).await;
    let (_manager, _shard) = start(scratch.path(), &discord, &receiver.endpoint, None).await;

    let opened = receiver.span(|span, _| span.name == "open stream").await;
    let call = receiver.within(opened, "shardmeter.telemetry.v1.TelemetryService/Report").await;
    let hello = receiver.within(opened, "Hello").await;
    for at in [call, hello] {
        let span = &receiver.spans[at];
        assert_eq!([&span.service, &span.kind], ["shardmeter-manager", "SERVER"]);
    }

    let delta = receiver.span(|span, _| span.name == "Delta").await;
    let report = receiver.span(|span, all| all[delta].is_within(span)).await;
    let registry = receiver.within(delta, "registry").await;
    let journal = receiver.within(registry, "journal").await;
    let [report, delta, registry, journal] =
        [report, delta, registry, journal].map(|at| &receiver.spans[at]);
    assert_eq!([&report.name, &report.parent], ["report", ""]);
    assert_eq!([&report.service, &report.kind], ["shardmeter-shard", "CLIENT"]);
    assert_eq!([&delta.service, &delta.kind], ["shardmeter-manager", "SERVER"]);
    for span in [report, delta] {
        assert_eq!(span.attributes["shard_id"], 0);
    }
    assert!(registry.attributes["sequence"].as_i64() > Some(1), "{registry:?}");
    let times = [
        report.began,
        delta.began,
        registry.began,
        journal.began,
        journal.ended,
        registry.ended,
        delta.ended,
        report.ended,
    ];
    assert!(times.is_sorted(), "{times:?}");

    // Sampled: of five frames a second one, and what is not sampled says nothing.
    let reports: Vec<u64> =
        receiver.spans.iter().filter(|span| span.name == "report").map(|span| span.began).collect();
    assert!(reports.windows(2).all(|two| two[1] - two[0] > 900_000_000), "{reports:?}");
    let of_manager = receiver.spans.iter().filter(|span| span.service == "shardmeter-manager");
    let began: Vec<&Span> = of_manager.filter(|span| span.parent.is_empty()).collect();
    assert!(began.is_empty(), "{began:#?}");
    discord.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_trace_goes_on_in_api_and_manager() {
    let scratch = Scratch::new("trace-of-a-request");
    let mut receiver = Receiver::start(&[]).await;
    let flags = [format!("--otlp-endpoint={}", receiver.endpoint)];
    let manager = ManagerProcess::start_with(scratch.path(), STALE_AFTER, &flags).await;
    let addr = lasting_addr();
    let mut command = Command::new(binary("shardmeter-api", scratch.path()));
    command
        .envs(traced(&receiver.endpoint))
        .env("API_ADDR", addr.to_string())
        .env("DATABASE_URL", format!("sqlite://{}/api.db", scratch.path().display()))
        .env("MANAGER_ENDPOINT", format!("http://{}", manager.grpc));
    let api = Process::start(&mut command, scratch.path().join("api.log"));
    api.says("the database is there").await;

    let http = Client::new();
    let list = http.get(format!("http://{addr}/api/v1/shards")).header("traceparent", CAUSE);
    list.send().await.unwrap().error_for_status().unwrap();
    let of_nobody = ["/healthz", "/readyz", "/metrics"];
    for path in of_nobody {
        http.get(format!("http://{addr}{path}")).send().await.unwrap().error_for_status().unwrap();
    }
    let post = http.post(manager.url("/shard-metrics")).header("traceparent", CAUSE);
    let body = json!({ "shardId": 3, "metrics": "# TYPE a counter\na 1\n" });
    post.json(&body).send().await.unwrap().error_for_status().unwrap();
    let unsampled = CAUSE.replace("-01", "-00").replace("0af7", "0af8");
    http.get(manager.url("/metrics")).header("traceparent", unsampled).send().await.unwrap();
    http.get(manager.url("/api/v1/shards")).send().await.unwrap();

    let call = receiver
        .span(|span, _| span.name == "shardmeter.telemetry.v1.FleetService/ListShards")
        .await;
    let list = receiver.span(|span, all| all[call].is_within(span)).await;
    let posted = receiver.span(|span, _| span.name == "POST /shard-metrics").await;
    let journal = receiver.within(posted, "journal").await;
    let [list, posted] = [list, posted].map(|at| &receiver.spans[at]);
    assert_eq!([&list.service, &list.name], ["shardmeter-api", "GET /api/v1/shards"]);
    for span in [list, posted] {
        assert_eq!(
            [&span.trace_id, &span.parent],
            ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"]
        );
    }
    assert_eq!(receiver.spans[journal].service, "shardmeter-manager");
    for span in &receiver.spans {
        let is_probe = of_nobody.iter().any(|path| span.name.ends_with(path));
        assert!(!is_probe, "nobody asked to trace it: {span:?}");
        assert!(
            span.service != "shardmeter-manager" || !span.parent.is_empty(),
            "the manager began it: {span:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_costs_spans_alone() {
    let nobody = lasting_addr();
    let silent = Receiver::start(&["--silent"]).await;
    for (what, endpoint) in
        [("nobody", format!("http://{nobody}")), ("silence", silent.endpoint.clone())]
    {
        let scratch = Scratch::new("traces-to-nobody");
        let discord = Discord::start(1, 1, 0.0).await;
        let (manager, mut shard) = start(scratch.path(), &discord, &endpoint, None).await;
        for _ in 0..20 {
            command(&discord).await;
        }
        if what == "nobody" {
            shard.process.says("traces do not arrive").await;
            command(&discord).await;
            let told = shard.process.log().matches("traces do not arrive").count();
            assert_eq!(told, 1, "{}", shard.process.log());
            let mut receiver = Receiver::start(&[&nobody.to_string()]).await;
            command(&discord).await;
            receiver.span(|span, _| span.name == "interaction").await;
            shard.process.says("traces arrive again").await;
        }
        shard.process.terminate().await;
        let confirmed = discord.control.books().confirmed();
        let page = scrape::parse(&manager.page().await.unwrap());
        let counted = series(
            "commands_executed_total",
            [("command_name", "ping"), ("guild_id", "dm"), ("shard_id", "0")],
        );
        assert_eq!(page.get(&counted).copied(), Some(confirmed as f64), "{what}");
        discord.stop().await;
    }
}
