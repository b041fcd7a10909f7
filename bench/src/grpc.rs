//! Shards that report by gRPC: one Report stream each, over a few connections, with the generated client and nothing above.

use std::time::Duration;

use anyhow::{Context as _, bail};
use shardmeter_proto::v1::{
    self, ReportRequest, ReportResponse, report_request::Message as Said,
    report_response::Message as Answer, telemetry_service_client::TelemetryServiceClient,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    load::Load,
    shard::{Change, Shard},
    workload::Kind,
};

/// Connections all streams share, as of bot processes with many shards.
const CONNECTIONS: usize = 8;

/// A server that takes longer for one answer is broken.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// All shards' streams to one server.
pub(crate) struct Fleet {
    streams: Vec<Stream>,
}

impl Fleet {
    /// Connects, and reports everything once.
    pub(crate) async fn open(addr: &str, shards: u32) -> anyhow::Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{addr}"))?.tcp_nodelay(true);
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(endpoint.connect().await?);
        }
        let mut streams = Vec::new();
        for (id, channel) in (0..shards).zip(channels.iter().cycle()) {
            streams.push(Stream::open(channel.clone(), id, shards).await?);
        }
        Ok(Self { streams })
    }

    pub(crate) fn shards(&self) -> u32 {
        self.streams.len() as u32
    }

    /// Every shard sends that many frames, each as soon as the one before is acknowledged.
    pub(crate) async fn saturate(&mut self, change: Change, frames: usize) -> anyhow::Result<Load> {
        let began = Instant::now();
        self.drive(|_, mut stream| async move {
            let mut latencies = Vec::with_capacity(frames);
            for _ in 0..frames {
                latencies.push(stream.report(change).await?);
            }
            Ok((stream, latencies))
        })
        .await
        .map(|latencies| Load { latencies, wall: began.elapsed() })
    }

    /// One shard after the other sends a frame, one every `gap`, for that long.
    pub(crate) async fn pace(
        &mut self,
        change: Change,
        gap: Duration,
        lasts: Duration,
    ) -> anyhow::Result<Load> {
        let began = Instant::now();
        let end = began + lasts;
        let turn = gap * self.streams.len() as u32;
        self.drive(|n, mut stream| async move {
            let mut latencies = Vec::new();
            let mut at = began + gap * n as u32;
            while at < end {
                sleep_until(at).await;
                latencies.push(stream.report(change).await?);
                at += turn;
            }
            Ok((stream, latencies))
        })
        .await
        .map(|latencies| Load { latencies, wall: began.elapsed() })
    }

    /// Runs a task for each stream, and collects what they say.
    async fn drive<F>(&mut self, task: impl Fn(usize, Stream) -> F) -> anyhow::Result<Vec<Duration>>
    where
        F: Future<Output = anyhow::Result<(Stream, Vec<Duration>)>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (n, stream) in self.streams.drain(..).enumerate() {
            tasks.spawn(task(n, stream));
        }
        let mut all = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (stream, latencies) = done??;
            self.streams.push(stream);
            all.extend(latencies);
        }
        self.streams.sort_unstable_by_key(|stream| stream.shard.id);
        Ok(all)
    }
}

/// One shard's stream.
pub(crate) struct Stream {
    shard: Shard,
    says: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
    sequence: u64,
}

impl Stream {
    /// A stream that has said Hello, on a connection of its own.
    pub(crate) async fn connect(addr: &str, id: u32, shard_count: u32) -> anyhow::Result<Self> {
        let channel = Channel::from_shared(format!("http://{addr}"))?.tcp_nodelay(true);
        Self::begin(channel.connect().await?, id, shard_count).await
    }

    pub(crate) async fn define(&mut self, definitions: v1::Definitions) -> anyhow::Result<()> {
        self.say(Said::Definitions(definitions)).await
    }

    /// The sequence of the frame that is said next.
    pub(crate) const fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) async fn snapshot(&mut self, part: v1::Snapshot) -> anyhow::Result<()> {
        self.say(Said::Snapshot(part)).await
    }

    async fn open(channel: Channel, id: u32, shard_count: u32) -> anyhow::Result<Self> {
        let mut stream = Self::begin(channel, id, shard_count).await?;
        stream.define(definitions(&stream.shard)).await?;
        let series = stream.shard.all();
        let values = stream.shard.column(&series);
        let samples = Some(v1::Samples { series, values });
        let sequence = stream.next_sequence();
        stream
            .snapshot(v1::Snapshot { sequence, last: true, samples, ..v1::Snapshot::default() })
            .await?;
        stream.acknowledged().await?;
        Ok(stream)
    }

    async fn begin(channel: Channel, id: u32, shard_count: u32) -> anyhow::Result<Self> {
        let (says, said) = mpsc::channel(4);
        let mut client = TelemetryServiceClient::new(channel);
        let answers = client.report(ReceiverStream::new(said)).await?.into_inner();
        let mut stream = Self { shard: Shard::new(id), says, answers, sequence: 0 };
        let mut instance_id = vec![0xb; 16];
        instance_id[..4].copy_from_slice(&id.to_be_bytes());
        let hello = v1::Hello {
            shard_id: id,
            shard_count,
            instance_id,
            started_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            client_name: "shardmeter-bench".into(),
            ..v1::Hello::default()
        };
        stream.say(Said::Hello(hello)).await?;
        let Answer::Welcome(welcome) = stream.answer().await? else { bail!("no Welcome") };
        stream.sequence = welcome.last_sequence;
        Ok(stream)
    }

    /// Sends a frame. How long it took from there to its ack.
    async fn report(&mut self, change: Change) -> anyhow::Result<Duration> {
        self.sequence += 1;
        let series = self.shard.advance(change);
        let values = self.shard.column(&series);
        let samples = Some(v1::Samples { series, values });
        let delta = v1::Delta { sequence: self.sequence, samples, ..v1::Delta::default() };
        let sent = Instant::now();
        self.say(Said::Delta(delta)).await?;
        self.acknowledged().await?;
        Ok(sent.elapsed())
    }

    async fn say(&self, said: Said) -> anyhow::Result<()> {
        let request = ReportRequest { message: Some(said), ..ReportRequest::default() };
        self.says.send(request).await.context("the server ended a stream")
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        let answer = timeout(ANSWER_WITHIN, self.answers.message()).await;
        let answer = answer.context("no answer")??.context("the server ended a stream")?;
        answer.message.context("an empty answer")
    }

    pub(crate) async fn acknowledged(&mut self) -> anyhow::Result<()> {
        match self.answer().await? {
            Answer::Ack(ack) if ack.sequence == self.sequence && all_counted(&ack) => Ok(()),
            other => bail!("not the ack of frame {}: {other:?}", self.sequence),
        }
    }
}

/// Whether nothing of a frame is lost.
fn all_counted(ack: &v1::Ack) -> bool {
    ack.rejected.iter().all(|rejected| rejected.reason() == v1::RejectReason::Overflow)
}

fn definitions(shard: &Shard) -> v1::Definitions {
    let mut ids = 0..;
    let families = shard.families.iter().map(|family| {
        let series = family.series.iter().zip(&mut ids).map(|(labels, id)| v1::SeriesDefinition {
            id,
            labels: labels
                .iter()
                .map(|(name, value)| v1::Label { name: (*name).to_owned(), value: value.clone() })
                .collect(),
            bounds: family.kind.bounds().to_vec(),
        });
        v1::FamilyDefinition {
            name: family.name.to_owned(),
            r#type: metric_type(family.kind).into(),
            help: family.help.to_owned(),
            unit: String::new(),
            series: series.collect(),
        }
    });
    v1::Definitions { families: families.collect() }
}

const fn metric_type(kind: Kind) -> v1::MetricType {
    match kind {
        Kind::Counter => v1::MetricType::Counter,
        Kind::Gauge => v1::MetricType::Gauge,
        Kind::Histogram => v1::MetricType::Histogram,
    }
}
