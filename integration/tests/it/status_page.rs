//! The status page as a browser shows it, with shards that report by streams of their own.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use shardmeter_manager::{Config, Manager};
use shardmeter_process::testing::{is, soon, until};
use shardmeter_proto::v1::{
    Definitions, Delta, FamilyDefinition, Hello, MetricType, ReportRequest, ReportResponse,
    Samples, SeriesDefinition, Snapshot, report_request::Message as Said,
    telemetry_service_client::TelemetryServiceClient,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};

use crate::tools::{self, lasting_addr, root};

struct RunningManager {
    http: SocketAddr,
    channel: Channel,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl RunningManager {
    async fn start(http: SocketAddr) -> Self {
        let config = Config {
            http_addr: http,
            grpc_addr: ([127, 0, 0, 1], 0).into(),
            stale_after: Duration::from_secs(300), // no shard reports on its own here
            ..Config::default()
        };
        let manager = Manager::build(config).await.unwrap();
        let endpoint = Channel::from_shared(format!("http://{}", manager.grpc_addr())).unwrap();
        let (http, stop) = (manager.http_addr(), CancellationToken::new());
        let stopped = stop.clone().cancelled_owned();
        let running = tokio::spawn(async move { manager.run(stopped).await.unwrap() });
        Self { http, channel: endpoint.connect().await.unwrap(), stop, running }
    }

    async fn stop(self) {
        drop(self.channel);
        self.stop.cancel();
        soon("the manager ends", self.running).await.unwrap();
    }
}

/// A shard that reports by a stream. When it is dropped its stream breaks off.
struct Shard {
    says: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
    sequence: u64,
}

impl Shard {
    /// Says Hello, and brings whether it is connected to Discord, the latency, and a count of events.
    async fn start(manager: &RunningManager, id: u32, count: u32, connected: f64) -> Self {
        let (says, said) = mpsc::channel(8);
        let mut client = TelemetryServiceClient::new(manager.channel.clone());
        let answers = client.report(ReceiverStream::new(said)).await.unwrap().into_inner();
        let mut shard = Self { says, answers, sequence: 0 };
        shard
            .say(Said::Hello(Hello {
                shard_id: id,
                shard_count: count,
                instance_id: fastrand::u128(..).to_be_bytes().to_vec(),
                client_name: "test".to_owned(),
                ..Hello::default()
            }))
            .await;
        shard.answers.message().await.unwrap().expect("a Welcome");
        let family = |name: &str, kind: MetricType, id: u32| FamilyDefinition {
            name: name.to_owned(),
            r#type: kind.into(),
            series: vec![SeriesDefinition { id, ..SeriesDefinition::default() }],
            ..FamilyDefinition::default()
        };
        let families = vec![
            family("gateway_connected", MetricType::Gauge, 0),
            family("gateway_latency_seconds", MetricType::Gauge, 1),
            family("gateway_events_total", MetricType::Counter, 2),
        ];
        shard.say(Said::Definitions(Definitions { families })).await;
        shard.sequence = 1;
        let samples = Some(Samples { series: vec![0, 1, 2], values: vec![connected, 0.05, 0.0] });
        let first = Snapshot { sequence: 1, last: true, samples, ..Snapshot::default() };
        shard.say(Said::Snapshot(first)).await;
        shard.answers.message().await.unwrap().expect("an Ack");
        shard
    }

    async fn say(&self, said: Said) {
        self.says.send(ReportRequest { message: Some(said) }).await.unwrap();
    }

    /// Reports how many events it had.
    async fn report(&mut self, events: f64) {
        self.sequence += 1;
        let samples = Some(Samples { series: vec![2], values: vec![events] });
        self.say(Said::Delta(Delta { sequence: self.sequence, samples, ..Delta::default() })).await;
        self.answers.message().await.unwrap().expect("an Ack");
    }
}

/// The page in a browser.
struct Page {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Page {
    fn open(http: SocketAddr) -> Self {
        let folder = root().join("integration/node");
        let installed = folder.join("node_modules/playwright-core").exists();
        assert!(installed, "playwright-core is not installed; run scripts/setup");
        let mut command = Command::new("node");
        command.current_dir(folder).args(["page.mjs", &format!("http://{http}/")]);
        let mut process = tools::start(&mut command);
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Does something, as `page.mjs` lists it.
    async fn does(&mut self, what: Value) -> Value {
        let line = format!("{what}\n");
        self.process.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
        let answer = soon("the browser answers", self.lines.next_line()).await.unwrap();
        serde_json::from_str(&answer.expect("the browser runs")).unwrap()
    }

    async fn evaluate(&mut self, expression: &str) -> Value {
        self.does(json!({ "evaluate": expression })).await
    }

    /// Waits until an expression has a value.
    async fn shows(&mut self, expression: &str, expected: Value) {
        let what = format!("{expression} becomes {expected}");
        until(&what, async || is(self.evaluate(expression).await, expected.clone())).await;
    }

    /// Waits until so many shards are in these states: up, offline, lost, silent, never seen.
    async fn counts(&mut self, expected: [u32; 5]) {
        let outputs =
            "[...document.querySelectorAll('fieldset output')].map((o) => Number(o.value))";
        self.shows(outputs, json!(expected)).await;
    }

    /// Ends it; nothing was asked of anybody else, and no script failed.
    async fn close(mut self, http: SocketAddr) {
        let told = self.does(json!({ "told": null })).await;
        for request in told["requests"].as_array().unwrap() {
            let url = request.as_str().unwrap();
            let is_ours = url.starts_with(&format!("http://{http}/")) || url.starts_with("data:");
            assert!(is_ours, "the page asks for {url}");
        }
        let is_of_outage = |e: &&Value| !e.as_str().unwrap().contains("net::ERR_");
        let errors: Vec<_> =
            told["errors"].as_array().unwrap().iter().filter(is_of_outage).collect();
        assert!(errors.is_empty(), "{errors:?}");
        drop(self.process.stdin.take());
        soon("the browser ends", self.process.wait()).await.unwrap();
    }
}

/// Rows as whoever follows them gets them.
struct Rows(reqwest::Response, String);

impl Rows {
    async fn follow(http: SocketAddr) -> Self {
        let answer = reqwest::get(format!("http://{http}/api/v1/shards/live")).await.unwrap();
        Self(answer.error_for_status().unwrap(), String::new())
    }

    /// The next step's rows.
    async fn next(&mut self) -> Vec<Value> {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let data = event.strip_prefix("event: rows\ndata: ").map(str::to_owned);
                self.1 = rest.to_owned();
                if let Some(data) = data {
                    let mut rows: Value = serde_json::from_str(&data).unwrap();
                    return serde_json::from_value(rows["rows"].take()).unwrap();
                }
                continue;
            }
            let chunk = soon("rows", self.0.chunk()).await.unwrap().expect("rows go on");
            self.1.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// How many steps it takes until a shard is in a state. A step is a second.
    async fn steps_until(&mut self, id: u32, state: &str) -> u32 {
        for step in 1.. {
            if self.next().await.iter().any(|row| row[0] == id && row[1] == state) {
                return step;
            }
        }
        unreachable!("rows go on")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_die_and_return_on_the_page() {
    let manager = RunningManager::start(([127, 0, 0, 1], 0).into()).await;
    let http = manager.http;
    let mut page = Page::open(http);
    page.counts([0; 5]).await;
    let mut shards = Vec::new();
    for id in 0..20 {
        let connected = if id == 5 { 0.0 } else { 1.0 };
        shards.push(Some(Shard::start(&manager, id, 24, connected).await));
    }
    page.counts([19, 1, 0, 0, 4]).await;
    page.shows("document.querySelector('#shard-5').className", json!("offline")).await;
    page.shows("document.querySelector('#up output').value", json!("19 / 24")).await;

    let mut rows = Rows::follow(http).await;
    rows.next().await;
    shards[7] = None;
    assert!(rows.steps_until(7, "lost").await <= 2, "two seconds");
    page.shows("document.querySelector('#shard-7').className", json!("lost")).await;
    shards[7] = Some(Shard::start(&manager, 7, 24, 1.0).await);
    assert!(rows.steps_until(7, "up").await <= 2, "two seconds");
    page.shows("document.querySelector('#shard-7').className", json!("up")).await;
    drop((shards, rows));
    page.counts([0, 0, 20, 0, 4]).await;
    page.close(http).await;
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_shard_is_found_and_looked_at_by_keyboard() {
    let manager = RunningManager::start(([127, 0, 0, 1], 0).into()).await;
    let http = manager.http;
    let mut shards = Vec::new();
    for id in 0..30 {
        shards.push(Shard::start(&manager, id, 30, 1.0).await);
    }
    let mut page = Page::open(http);
    page.shows("document.querySelectorAll('#map > b').length", json!(30)).await;

    page.does(json!({ "fill": ["#ids", "3, 10-12"] })).await;
    let visible =
        "[...document.querySelectorAll('#map > b:not([hidden])')].map((b) => b.textContent).join()";
    page.shows(visible, json!("3,10,11,12")).await;
    page.does(json!({ "fill": ["#ids", "3, ten"] })).await;
    let alert = "document.querySelector('#ids-wrong').textContent";
    page.shows(alert, json!("“ten” is neither an id nor a range such as 10-20")).await;
    page.shows("document.querySelectorAll('#map > b:not([hidden])').length", json!(30)).await;
    page.does(json!({ "fill": ["#ids", ""] })).await;
    page.does(json!({ "click": "input[value=up]" })).await;
    page.shows(visible, json!("")).await;
    page.does(json!({ "click": "input[value=up]" })).await;

    page.evaluate("document.querySelector('#map').focus()").await;
    for key in ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "Enter"] {
        page.does(json!({ "press": key })).await;
    }
    let title = "document.querySelector('#detail h2').textContent";
    page.shows(title, json!("Shard 1: up")).await;
    page.shows(
        "document.querySelector('#detail tbody td:nth-child(3)')?.textContent",
        json!("open"),
    )
    .await;
    shards[1].report(100.0).await;
    let latency = "document.querySelector('#detail dd').textContent";
    page.shows(latency, json!("50 ms")).await;
    page.does(json!({ "press": "End" })).await;
    page.shows(title, json!("Shard 29: up")).await;
    page.does(json!({ "press": "Escape" })).await;
    page.shows("document.querySelector('#detail').hidden", json!(true)).await;

    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        page.does(json!({ "media": scheme })).await;
        papers.push(page.evaluate("getComputedStyle(document.body).backgroundColor").await);
    }
    assert_ne!(papers[0], papers[1]);
    page.close(http).await;
    drop(shards);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_says_when_it_is_old_and_comes_back_with_the_manager() {
    let addr = lasting_addr();
    let manager = RunningManager::start(addr).await;
    let shards = [Shard::start(&manager, 0, 2, 1.0).await, Shard::start(&manager, 1, 2, 1.0).await];
    let mut page = Page::open(addr);
    page.counts([2, 0, 0, 0, 0]).await;
    drop(shards);
    manager.stop().await;
    let link = "document.querySelector('#link').textContent";
    page.shows(link, json!("no link to the manager: what is shown is old")).await;

    // The bot is smaller now.
    let manager = RunningManager::start(addr).await;
    let _shard = Shard::start(&manager, 0, 1, 1.0).await;
    page.counts([1, 0, 0, 0, 0]).await;
    page.shows("document.querySelector('#link').className", json!("")).await;
    page.close(addr).await;
    manager.stop().await;
}

/// How smooth it is, in numbers: they are printed, for the machine decides them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_shards_are_on_the_page() {
    const SHARDS: u32 = 2_000;
    let manager = RunningManager::start(([127, 0, 0, 1], 0).into()).await;
    let http = manager.http;
    let mut shards = Vec::new();
    for id in 0..SHARDS {
        shards.push(Shard::start(&manager, id, SHARDS, 1.0).await);
    }
    let mut page = Page::open(http);
    page.shows("document.querySelectorAll('#map > b.up').length", json!(SHARDS)).await;
    page.evaluate(
        "window.gaps = []; let last = performance.now(); (function frame() { const now = performance.now(); \
         gaps.push(now - last); last = now; requestAnimationFrame(frame); })()",
    )
    .await;
    for step in 1..=5 {
        for shard in &mut shards {
            shard.report(f64::from(step * 10)).await;
        }
    }
    page.shows("document.querySelectorAll('#map > b.up').length", json!(SHARDS)).await;
    if let Ok(path) = std::env::var("SCREENSHOT") {
        page.does(json!({ "screenshot": path })).await;
    }
    let gaps = page.evaluate("gaps.sort((a, b) => a - b)").await;
    let gaps: Vec<f64> = serde_json::from_value(gaps).unwrap();
    let at = |part: usize| gaps[(gaps.len() - 1) * part / 100];
    eprintln!("ms between frames: p50 {:.1}, p99 {:.1}, max {:.1}", at(50), at(99), at(100));
    page.close(http).await;
    drop(shards);
    manager.stop().await;
}
