//! `WatchShards` as services meet it: over kills of the manager, and when they do not read.

use serde_json::json;
use shardmeter_process::testing::{soon, until};
use shardmeter_proto::v1::{
    FleetState, ShardEvent, ShardEventKind as Kind, ShardEventReason as Reason, ShardState,
    WatchShardsRequest, WatchShardsResponse, fleet_service_client::FleetServiceClient,
    report_request::Message as Said, watch_shards_response::Message,
};
use tempfile::TempDir;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    process::Running,
    server::{Server, Stream, define, hello, snapshot},
};

/// A watcher that remembers where it is.
#[derive(Debug, Default)]
struct Watcher {
    epoch: String,
    revision: u64,
    stream: Option<Streaming<WatchShardsResponse>>,
}

impl Watcher {
    /// Goes on where it is.
    async fn open(&mut self, channel: Channel) -> Result<(), Status> {
        let request = WatchShardsRequest { epoch: self.epoch.clone(), revision: self.revision };
        let opened = FleetServiceClient::new(channel).watch_shards(request).await?;
        self.stream = Some(opened.into_inner());
        Ok(())
    }

    async fn next(&mut self) -> Result<Message, Status> {
        let message = soon("what comes next", self.stream.as_mut().unwrap().message()).await?;
        let said = message.expect("the stream ended").message.unwrap();
        match &said {
            Message::State(state) => {
                (self.epoch, self.revision) = (state.epoch.clone(), state.revision);
            }
            Message::Event(event) => {
                assert_eq!(event.revision, self.revision + 1, "{event:?}");
                self.revision = event.revision;
            }
        }
        Ok(said)
    }

    async fn event(&mut self) -> ShardEvent {
        match self.next().await.unwrap() {
            Message::Event(event) => event,
            Message::State(state) => panic!("{state:?}"),
        }
    }

    async fn state(&mut self) -> FleetState {
        match self.next().await.unwrap() {
            Message::State(state) => state,
            Message::Event(event) => panic!("{event:?}"),
        }
    }
}

fn start(dir: &TempDir) -> Running {
    Running::start(&["--data-dir", dir.path().to_str().unwrap()], &[])
}

async fn channel(manager: &Running) -> Channel {
    Channel::from_shared(manager.grpc.clone()).unwrap().connect().await.unwrap()
}

/// A shard that reported once: `instance` of shard 0 of 2.
async fn report(manager: &Running, instance: u8, sequence: u64) -> Stream {
    let mut stream = Stream::open(channel(manager).await, None).await.unwrap();
    stream.say(Said::Hello(hello(instance))).await;
    stream.answer().await;
    stream.say(define("c_total", shardmeter_proto::v1::MetricType::Counter, 0)).await;
    stream.say(snapshot(sequence, &[(0, 1.0)])).await;
    stream.ack().await;
    stream
}

/// Posts as a sender of shard 1, whose sessions were resumed so often.
async fn post(manager: &Running, resumed: u64) {
    let text = format!(
        "# TYPE gateway_sessions_total counter\ngateway_sessions_total{{outcome=\"resumed\"}} {resumed}\n"
    );
    let body = json!({ "shardId": 1, "metrics": text });
    let request = reqwest::Client::new().post(format!("{}/shard-metrics", manager.http));
    let answer = request.header("x-instance-id", "a").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_watcher_goes_on_after_every_kill() {
    let dir = TempDir::new().unwrap();
    let mut manager = start(&dir);
    let mut watcher = Watcher::default();
    watcher.open(channel(&manager).await).await.unwrap();
    let state = watcher.state().await;
    assert_eq!((state.gap, state.revision, state.shards.len()), (false, 0, 0));

    let mut stream = report(&manager, 1, 1).await;
    let event = watcher.event().await;
    assert_eq!((event.kind(), event.shard_id, event.state()), (Kind::Connected, 0, ShardState::Up));
    assert_eq!(event.instance, "01".repeat(16));
    post(&manager, 2).await;
    assert_eq!(watcher.event().await.kind(), Kind::Connected);
    assert_eq!(watcher.event().await.count, 2);
    for resumed in 3..8 {
        // Posted while nobody watches, and the manager is killed.
        watcher.stream = None;
        post(&manager, resumed).await;
        drop(manager);
        manager = start(&dir);
        post(&manager, resumed).await; // once more, as a sender does that got no answer
        watcher.open(channel(&manager).await).await.unwrap();
        let event = watcher.event().await;
        assert_eq!((event.kind(), event.count, event.shard_id), (Kind::Resumed, 1, 1));
        // The shard is back in time: nothing happened to it.
        drop(stream);
        stream = report(&manager, 1, resumed).await;
    }
    stream.say(Said::Goodbye(shardmeter_proto::v1::Goodbye { sequence: 7 })).await;
    let event = watcher.event().await;
    assert_eq!(
        (event.kind(), event.reason(), event.shard_id),
        (Kind::Disconnected, Reason::Goodbye, 0)
    );

    // Another directory's revisions are others.
    let other = start(&TempDir::new().unwrap());
    watcher.open(channel(&other).await).await.unwrap();
    assert!(watcher.state().await.gap);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_of_the_gap() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("manager.toml");
    std::fs::write(&config, "[limits]\nframes_per_second = 1_000_000\n").unwrap();
    let manager = Running::start(&["--config", config.to_str().unwrap()], &[]);
    let (mut reads, mut sleeps) = (Watcher::default(), Watcher::default());
    for watcher in [&mut reads, &mut sleeps] {
        // A client that takes little at once: what waits on the way is less than what the manager keeps.
        let small = Channel::from_shared(manager.grpc.clone()).unwrap();
        let small = small.initial_stream_window_size(65_535);
        watcher.open(small.connect().await.unwrap()).await.unwrap();
        watcher.state().await;
    }
    // A process of 50 shards that is started again and again: each time, two events of each.
    let client = reqwest::Client::new();
    for start in 0..250 {
        let samples = (0..50).map(|shard| format!("c_total{{shard_id=\"{shard}\"}} 1\n"));
        let head = format!("process_start_time_seconds {}\n# TYPE c_total counter\n", 10 * start);
        let text: String = std::iter::once(head).chain(samples).collect();
        let body = json!({ "shardId": "0-49", "metrics": text });
        let request = client.post(format!("{}/shard-metrics", manager.http));
        let answer = request.header("x-instance-id", "a").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        while reads.revision < 50 + 100 * start {
            reads.event().await;
        }
    }
    let mut last = 0;
    let gap = loop {
        match sleeps.next().await.unwrap() {
            Message::Event(event) => last = event.revision,
            Message::State(state) => break state,
        }
    };
    assert!(gap.gap && gap.revision - last > 10_000, "{last} {}", gap.revision);
    let page = reqwest::get(format!("{}/metrics", manager.http)).await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("shardmeter_manager_watchers 2"), "{page}");
}

#[tokio::test]
async fn watchers_are_so_many_and_end_with_the_manager() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let mut watchers = Vec::new();
    let refused = loop {
        let mut watcher = Watcher::default();
        match watcher.open(channel.clone()).await {
            Ok(()) => watchers.push(watcher),
            Err(status) => break status,
        }
        assert!(watchers.len() < 1000);
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().ends_with("the limit of one address"), "{refused}");
    // Others still find room.
    let elsewhere = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    let elsewhere = elsewhere.local_address(Some([127, 0, 0, 2].into())).connect().await.unwrap();
    Watcher::default().open(elsewhere).await.unwrap();
    watchers.pop();
    let mut next = Watcher::default();
    until("there is room", async || next.open(channel.clone()).await).await;
    next.state().await;
    // While it waits for what comes next.
    let stopping = server.tell_to_stop();
    assert_eq!(next.next().await.unwrap_err().code(), Code::Unavailable);
    drop((next, watchers));
    soon("the manager stops", stopping).await.unwrap().unwrap();
}
