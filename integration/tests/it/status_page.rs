//! The status page as a browser shows it, with shards that report by streams of their own.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use shardmeter_manager::Config;
use shardmeter_process::testing::{is, soon, until};
use shardmeter_proto::v1::{Hello, MetricType, SeriesDefinition};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tonic::transport::Channel;

use crate::{
    event_stream::EventStream,
    report_stream::{ReportStream, family},
    script::Script,
    system::RunningManager,
    tools::lasting_addr,
};

/// A manager, and a connection for all its shards. No shard reports on its own here.
struct Fleet {
    manager: RunningManager,
    channel: Channel,
}

impl Fleet {
    async fn start(http_addr: SocketAddr) -> Self {
        let stale_after = Duration::from_secs(300);
        let config = Config { http_addr, stale_after, ..Config::default() };
        let manager = RunningManager::start_with(config).await;
        let endpoint = Channel::from_shared(format!("http://{}", manager.grpc)).unwrap();
        Self { channel: endpoint.connect().await.unwrap(), manager }
    }

    fn http(&self) -> SocketAddr {
        self.manager.http
    }

    /// A shard that says whether it is connected to Discord, its latency, and how many events it had.
    async fn shard(&self, shard_id: u32, shard_count: u32, connected: f64) -> ReportStream {
        let hello = Hello {
            shard_id,
            shard_count,
            instance_id: fastrand::u128(..).to_be_bytes().to_vec(),
            client_name: "test".to_owned(),
            ..Hello::default()
        };
        let series = |id| SeriesDefinition { id, ..SeriesDefinition::default() };
        let families = vec![
            family("gateway_connected", MetricType::Gauge, series(0)),
            family("gateway_latency_seconds", MetricType::Gauge, series(1)),
            family("gateway_events_total", MetricType::Counter, series(EVENTS)),
        ];
        ReportStream::start(&self.channel, hello, families, vec![connected, 0.05, 0.0]).await
    }

    async fn stop(self) {
        drop(self.channel);
        soon("the manager ends", self.manager.stop()).await;
    }
}

/// The id of the series of events.
const EVENTS: u32 = 2;

/// The page in a browser.
struct Page(Script);

impl Page {
    fn open(http: SocketAddr) -> Self {
        Self(Script::browser("page.mjs", &[&format!("http://{http}/")]))
    }

    /// Does something, as `page.mjs` lists it.
    async fn does(&mut self, what: Value) -> Value {
        self.0.say(&what).await;
        self.0.next().await
    }

    async fn evaluate(&mut self, expression: &str) -> Value {
        self.does(json!({ "evaluate": expression })).await
    }

    /// Waits until an expression has a value.
    async fn shows(&mut self, expression: &str, expected: Value) {
        let what = format!("{expression} becomes {expected}");
        until(&what, async || is(self.evaluate(expression).await, expected.clone())).await;
    }

    /// Waits until so many shards are in these states: up, offline, lost, stale, never seen.
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
        let is_of_outage = |e: &&Value| {
            !["net::ERR_", "502"].iter().any(|outage| e.as_str().unwrap().contains(outage))
        };
        let errors: Vec<_> =
            told["errors"].as_array().unwrap().iter().filter(is_of_outage).collect();
        assert!(errors.is_empty(), "{errors:?}");
        self.0.stop().await;
    }
}

/// How many steps it takes until a shard is in a state. A step is a second.
async fn steps_until(rows: &mut EventStream, id: u32, state: &str) -> u32 {
    for step in 1.. {
        let (name, told) = rows.next().await;
        assert_eq!(name, "rows");
        let rows = told["rows"].as_array().unwrap();
        if rows.iter().any(|row| row[0] == id && row[1] == state) {
            return step;
        }
    }
    unreachable!("rows go on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_die_and_return_on_the_page() {
    let fleet = Fleet::start(([127, 0, 0, 1], 0).into()).await;
    let http = fleet.http();
    let mut page = Page::open(http);
    page.counts([0; 5]).await;
    let mut shards = Vec::new();
    for id in 0..20 {
        let connected = if id == 5 { 0.0 } else { 1.0 };
        shards.push(Some(fleet.shard(id, 24, connected).await));
    }
    page.counts([19, 1, 0, 0, 4]).await;
    page.shows("document.querySelector('#shard-5').className", json!("offline")).await;
    page.shows("document.querySelector('#up output').value", json!("19 / 24")).await;

    let mut rows = EventStream::follow(&format!("http://{http}/api/v1/shards/live")).await;
    assert_eq!(rows.next().await.0, "columns");
    assert_eq!(rows.next().await.1["rows"].as_array().unwrap().len(), 24);
    shards[7] = None;
    assert!(steps_until(&mut rows, 7, "lost").await <= 2, "two seconds");
    page.shows("document.querySelector('#shard-7').className", json!("lost")).await;
    shards[7] = Some(fleet.shard(7, 24, 1.0).await);
    assert!(steps_until(&mut rows, 7, "up").await <= 2, "two seconds");
    page.shows("document.querySelector('#shard-7').className", json!("up")).await;
    drop((shards, rows));
    page.counts([0, 0, 20, 0, 4]).await;
    page.close(http).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_shard_is_found_and_looked_at_by_keyboard() {
    let fleet = Fleet::start(([127, 0, 0, 1], 0).into()).await;
    let http = fleet.http();
    let mut shards = Vec::new();
    for id in 0..30 {
        shards.push(fleet.shard(id, 30, 1.0).await);
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

    let is_at_map = page.evaluate("document.activeElement.id === 'map'");
    assert_eq!(is_at_map.await, json!(false));
    until("the map has the focus", async || {
        page.does(json!({ "press": "Tab" })).await;
        is(page.evaluate("document.activeElement.id").await, json!("map"))
    })
    .await;
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
    shards[1].report(EVENTS, 100.0).await;
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
    fleet.stop().await;
}

/// Answers the next request for rows as proxies do.
async fn no_manager_behind_a_proxy(addr: SocketAddr) {
    let listener = TcpListener::bind(addr).await.unwrap();
    let answered = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let answer =
                b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            if head[..length].starts_with(b"GET /api/v1/shards/live ") {
                return;
            }
        }
    };
    soon("the page asks for rows", answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_a_shard_is_in_its_detail() {
    let fleet = Fleet::start(([127, 0, 0, 1], 0).into()).await;
    let http = fleet.http();
    let two_hours_ago = SystemTime::now() - Duration::from_secs(2 * 3_600);
    let hello = Hello {
        shard_count: 2,
        instance_id: vec![7; 16],
        started_at: Some(two_hours_ago.into()),
        ..Hello::default()
    };
    let (counter, gauge) = (MetricType::Counter, MetricType::Gauge);
    let reported = [
        ("gateway_latency_seconds", gauge, 0.05),
        ("commands_executed_total", counter, 10.0),
        ("gateway_events_total", counter, 10.0),
        ("gateway_sessions_total", counter, 3.0),
        ("command_errors_total", counter, 4.0),
        ("shardmeter_manager_is_not_ours", gauge, 1.0),
    ];
    let families = reported.iter().zip(0..).map(|((name, kind, _), id)| {
        family(name, *kind, SeriesDefinition { id, ..SeriesDefinition::default() })
    });
    let values = reported.iter().map(|(.., value)| *value).collect();
    let mut shard = ReportStream::start(&fleet.channel, hello, families.collect(), values).await;
    let _other = fleet.shard(1, 2, 1.0).await;
    let mut page = Page::open(http);
    page.counts([2, 0, 0, 0, 0]).await;
    page.does(json!({ "click": "#rejecting" })).await;
    let visible =
        "[...document.querySelectorAll('#map > b:not([hidden])')].map((b) => b.id).join()";
    page.shows(visible, json!("shard-0")).await;
    page.does(json!({ "click": "#shard-0" })).await;
    page.shows("document.querySelector('#detail h2').textContent", json!("Shard 0: up")).await;
    let known = "[...document.querySelectorAll('#detail dl > div')].map((d) => \
                 d.children[0].textContent + ': ' + d.children[1].textContent)";
    let facts = page.evaluate(known).await;
    for fact in [
        "gateway latency: 50 ms",
        "began: 2 h ago",
        "gateway sessions begun: 3",
        "command errors: 4",
        "samples rejected: 1",
        "series: 5",
    ] {
        assert!(facts.as_array().unwrap().contains(&json!(fact)), "{fact}: {facts}");
    }
    let rejected = "document.querySelector('#reasons').textContent";
    page.shows(rejected, json!("Rejected: 1 by name_collision")).await;

    // What it counted since its last report, by second.
    shard.report(1, 1_000_010.0).await;
    shard.report(2, 2_000_010.0).await;
    for what in ["events", "commands"] {
        let rate = format!("{known}.some((fact) => /^{what} a second: [1-9]/.test(fact))");
        page.shows(&rate, json!(true)).await;
        let line = format!("document.querySelector('#{what} path').getTotalLength() > 0");
        page.shows(&line, json!(true)).await;
    }
    page.close(http).await;
    shard.end().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_says_when_it_is_old_and_comes_back_with_the_manager() {
    let addr = lasting_addr();
    let fleet = Fleet::start(addr).await;
    let shards = [fleet.shard(0, 2, 1.0).await, fleet.shard(1, 2, 1.0).await];
    let mut page = Page::open(addr);
    page.counts([2, 0, 0, 0, 0]).await;
    drop(shards);
    fleet.stop().await;
    let link = "document.querySelector('#link').textContent";
    page.shows(link, json!("no link to the manager: what is shown is old")).await;
    // A browser does not ask again by itself after that.
    no_manager_behind_a_proxy(addr).await;

    // The bot is smaller now.
    let fleet = Fleet::start(addr).await;
    let _shard = fleet.shard(0, 1, 1.0).await;
    page.counts([1, 0, 0, 0, 0]).await;
    page.shows("document.querySelector('#link').className", json!("")).await;
    page.close(addr).await;
    fleet.stop().await;
}

/// How smooth it is, in numbers: they are printed, for the machine decides them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_shards_are_on_the_page() {
    const SHARDS: u32 = 2_000;
    let fleet = Fleet::start(([127, 0, 0, 1], 0).into()).await;
    let http = fleet.http();
    let mut shards = Vec::new();
    for id in 0..SHARDS {
        shards.push(fleet.shard(id, SHARDS, 1.0).await);
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
            shard.report(EVENTS, f64::from(step * 10)).await;
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
    fleet.stop().await;
}
