//! A shard's `Report` stream by the generated client alone: it says what it is told to, and breaks off when it is dropped.

use shardmeter_proto::v1::{
    Definitions, Delta, FamilyDefinition, Hello, MetricType, ReportRequest, ReportResponse,
    Samples, SeriesDefinition, Snapshot, report_request::Message as Said,
    telemetry_service_client::TelemetryServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

pub(crate) struct ReportStream {
    says: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
    sequence: u64,
}

/// A family with one series.
pub(crate) fn family(name: &str, kind: MetricType, series: SeriesDefinition) -> FamilyDefinition {
    FamilyDefinition {
        name: name.to_owned(),
        r#type: kind.into(),
        series: vec![series],
        ..FamilyDefinition::default()
    }
}

impl ReportStream {
    /// Says Hello, defines families, whose ids count from 0, and reports a value of each.
    pub(crate) async fn start(
        channel: &Channel,
        hello: Hello,
        families: Vec<FamilyDefinition>,
        values: Vec<f64>,
    ) -> Self {
        let (says, said) = mpsc::channel(8);
        let mut client = TelemetryServiceClient::new(channel.clone());
        let answers = client.report(ReceiverStream::new(said)).await.unwrap().into_inner();
        let mut stream = Self { says, answers, sequence: 1 };
        stream.say(Said::Hello(hello)).await;
        stream.answer().await;
        stream.say(Said::Definitions(Definitions { families })).await;
        let samples = Some(Samples { series: (0..values.len() as u32).collect(), values });
        let first = Snapshot { sequence: 1, last: true, samples, ..Snapshot::default() };
        stream.say(Said::Snapshot(first)).await;
        stream.answer().await;
        stream
    }

    /// Reports a new value of one series.
    pub(crate) async fn report(&mut self, id: u32, value: f64) {
        self.sequence += 1;
        let samples = Some(Samples { series: vec![id], values: vec![value] });
        self.say(Said::Delta(Delta { sequence: self.sequence, samples, ..Delta::default() })).await;
        self.answer().await;
    }

    /// Says goodbye.
    pub(crate) async fn end(mut self) {
        self.say(Said::Goodbye(shardmeter_proto::v1::Goodbye { sequence: self.sequence })).await;
        assert!(self.answers.message().await.unwrap().is_none(), "the stream ends");
    }

    async fn say(&self, said: Said) {
        self.says
            .send(ReportRequest { message: Some(said), ..ReportRequest::default() })
            .await
            .unwrap();
    }

    async fn answer(&mut self) {
        self.answers.message().await.unwrap().expect("an answer");
    }
}
