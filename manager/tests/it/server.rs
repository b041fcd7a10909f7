//! A running manager and raw clients of it.

use std::{net::SocketAddr, time::Duration};

use shardmeter_manager::{Config, Manager};
use shardmeter_process::testing::{DEADLINE, soon, until};
use shardmeter_proto::v1::{
    self, ReportRequest, ReportResponse, report_request::Message as Said,
    report_response::Message as Answer, telemetry_service_client::TelemetryServiceClient,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, transport::Channel};

pub(crate) struct Server {
    pub(crate) http: String,
    pub(crate) http_addr: SocketAddr,
    pub(crate) grpc_addr: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let manager = Manager::build(config).await.unwrap();
        let (http_addr, grpc_addr) = (manager.http_addr(), manager.grpc_addr());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(manager.run(async {
            let _ = stopped.await;
        }));
        Self { http: format!("http://{http_addr}"), http_addr, grpc_addr, stop, running }
    }

    /// Stops it, and fails if that takes long.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        soon("the manager stops", self.running).await.unwrap().unwrap();
    }

    pub(crate) fn tell_to_stop(self) -> JoinHandle<std::io::Result<()>> {
        let _ = self.stop.send(());
        self.running
    }

    /// The whole page in text format.
    pub(crate) async fn page(&self) -> String {
        let answer = reqwest::get(format!("{}/metrics", self.http)).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    }

    /// The page without the manager's metrics of itself.
    pub(crate) async fn shards_page(&self) -> String {
        let page = self.page().await;
        page.lines()
            .filter(|line| !line.contains("shardmeter_manager_"))
            .flat_map(|line| [line, "\n"])
            .collect()
    }

    /// Waits until a line is on the page.
    pub(crate) async fn wait_for(&self, line: &str) {
        until(line, async || {
            let page = self.page().await;
            if page.lines().any(|l| l == line) { Ok(()) } else { Err(page) }
        })
        .await;
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc_addr)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Opens a Report stream on a connection of its own.
    pub(crate) async fn stream(&self) -> Stream {
        Stream::open(self.channel().await, None).await.unwrap()
    }

    /// The same, saying who one is.
    pub(crate) async fn stream_with(&self, authorization: &str) -> Stream {
        Stream::open(self.channel().await, Some(authorization)).await.unwrap()
    }

    /// A stream of `instance` of shard 0 of 2 that said Hello and defined the counter `c_total` as id 0.
    pub(crate) async fn ready(&self, instance: u8) -> Stream {
        let mut stream = self.stream().await;
        stream.say(Said::Hello(hello(instance))).await;
        assert!(matches!(stream.answer().await, Answer::Welcome(_)));
        stream.say(define("c_total", v1::MetricType::Counter, 0)).await;
        stream
    }
}

/// One Report stream, as any client could run it.
pub(crate) struct Stream {
    pub(crate) says: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
}

impl Stream {
    pub(crate) async fn open(
        channel: Channel,
        authorization: Option<&str>,
    ) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(16);
        let mut call = Request::new(ReceiverStream::new(said));
        if let Some(authorization) = authorization {
            let value = authorization.parse().unwrap();
            call.metadata_mut().insert("authorization", value);
        }
        let answers = TelemetryServiceClient::new(channel).report(call).await?;
        Ok(Self { says, answers: answers.into_inner() })
    }

    pub(crate) async fn say(&self, said: Said) {
        let message = Some(said);
        // If the session has ended, the test sees it in the answers.
        let _ = self.says.send(ReportRequest { message, ..ReportRequest::default() }).await;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Answer>, Status> {
        self.next_within(DEADLINE).await
    }

    async fn next_within(&mut self, time: Duration) -> Result<Option<Answer>, Status> {
        let answer = timeout(time, self.answers.message()).await.expect("no answer")?;
        Ok(answer.map(|a| a.message.expect("an empty answer")))
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.next().await.unwrap().expect("the stream ended")
    }

    pub(crate) async fn ack(&mut self) -> v1::Ack {
        self.ack_within(DEADLINE).await
    }

    /// The answer to something that is much.
    pub(crate) async fn ack_within(&mut self, time: Duration) -> v1::Ack {
        match self.next_within(time).await.unwrap().expect("the stream ended") {
            Answer::Ack(ack) => ack,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn hello(instance: u8) -> v1::Hello {
    v1::Hello {
        shard_count: 2,
        instance_id: vec![instance; 16],
        started_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
        client_name: "raw".into(),
        client_version: "1".into(),
        ..v1::Hello::default()
    }
}

pub(crate) fn define(name: &str, kind: v1::MetricType, id: u32) -> Said {
    let series = vec![v1::SeriesDefinition { id, ..v1::SeriesDefinition::default() }];
    Said::Definitions(v1::Definitions {
        families: vec![v1::FamilyDefinition {
            name: name.to_owned(),
            r#type: kind.into(),
            series,
            ..v1::FamilyDefinition::default()
        }],
    })
}

pub(crate) fn samples(samples: &[(u32, f64)]) -> Option<v1::Samples> {
    Some(v1::Samples {
        series: samples.iter().map(|s| s.0).collect(),
        values: samples.iter().map(|s| s.1).collect(),
    })
}

pub(crate) fn snapshot(sequence: u64, all: &[(u32, f64)]) -> Said {
    Said::Snapshot(v1::Snapshot {
        sequence,
        part: 0,
        last: true,
        samples: samples(all),
        ..v1::Snapshot::default()
    })
}

pub(crate) fn delta(sequence: u64, changed: &[(u32, f64)]) -> Said {
    Said::Delta(v1::Delta { sequence, samples: samples(changed), ..v1::Delta::default() })
}
