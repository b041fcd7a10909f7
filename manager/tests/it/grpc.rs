//! The gRPC port.

use std::time::Duration;

use prost::Message as _;
use prost_types::{FileDescriptorProto, source_code_info::Location};
use shardmeter_process::testing::soon;
use shardmeter_proto::v1::{
    self, ReportResponse, report_request::Message as Said, report_response::Message as Answer,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    Code,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_reflection::pb::v1alpha;

use crate::server::{Server, define, delta, hello, snapshot};

#[tokio::test]
async fn a_stream_reports_and_the_page_shows_it() {
    let server = Server::start().await;
    let mut stream = server.stream().await;
    stream.say(Said::Hello(hello(1))).await;
    let expected = v1::Welcome {
        report_interval: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        limits: Some(v1::Limits { max_message_bytes: 4 << 20, max_series_ids: 1 << 20 }),
        last_sequence: 0,
        closed_at: None,
    };
    assert_eq!(stream.answer().await, Answer::Welcome(expected));
    stream.say(define("c_total", v1::MetricType::Counter, 0)).await;
    stream.say(snapshot(1, &[(0, 3.0)])).await;
    assert_eq!(stream.ack().await.sequence, 1);
    stream.say(delta(2, &[(0, 4.0)])).await;
    assert_eq!(stream.ack().await.sequence, 2);
    for line in [
        "c_total{shard_id=\"0\"} 4",
        "shard_up{shard_id=\"0\"} 1",
        "shard_up{shard_id=\"1\"} 0",
        "shard_reports_total{shard_id=\"0\",transport=\"grpc\"} 2",
        "shard_instance_start_timestamp_seconds{shard_id=\"0\"} 1700000000.5",
        "shardmeter_manager_streams 1",
        "shardmeter_manager_frames_total{outcome=\"applied\"} 2",
    ] {
        server.wait_for(line).await;
    }
    stream.say(Said::Goodbye(v1::Goodbye { sequence: 2 })).await;
    assert_eq!(stream.next().await.unwrap(), None);
    server.wait_for("shardmeter_manager_streams 0").await;
    server.stop().await;
}

#[tokio::test]
async fn a_reconnect_goes_on_where_it_was() {
    let server = Server::start().await;
    let mut stream = server.ready(1).await;
    stream.say(snapshot(5, &[(0, 3.0)])).await;
    stream.ack().await;
    drop(stream);
    server.wait_for("shardmeter_manager_streams 0").await;

    let mut stream = server.stream().await;
    stream.say(Said::Hello(hello(1))).await;
    match stream.answer().await {
        Answer::Welcome(welcome) => {
            assert_eq!((welcome.last_sequence, welcome.closed_at), (5, None));
        }
        other => panic!("{other:?}"),
    }
    stream.say(define("c_total", v1::MetricType::Counter, 0)).await;
    stream.say(snapshot(6, &[(0, 4.0)])).await;
    stream.ack().await;
    server.wait_for("c_total{shard_id=\"0\"} 4").await;

    // A second stream of the instance closes the first, though it is silent.
    let second = server.ready(1).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Aborted);
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn an_undefined_id_is_answered_with_one_resync() {
    let server = Server::start().await;
    let mut stream = server.ready(1).await;
    stream.say(snapshot(1, &[(0, 3.0)])).await;
    stream.ack().await;
    let before = server.shards_page().await;
    stream.say(delta(2, &[(0, 4.0), (9, 1.0)])).await;
    stream.say(delta(2, &[(0, 5.0)])).await;
    stream.say(delta(3, &[(9, 5.0)])).await;
    match stream.answer().await {
        Answer::Resync(resync) => {
            assert_eq!(resync.reason, "series id 9 is not defined on this stream");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.shards_page().await, before);
    stream.say(snapshot(4, &[(0, 6.0)])).await;
    assert_eq!(stream.ack().await.sequence, 4);
    server.wait_for("c_total{shard_id=\"0\"} 6").await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_misbehaves_ends_and_others_go_on() {
    let server = Server::start().await;
    let mut good = server.ready(9).await;
    good.say(snapshot(1, &[(0, 1.0)])).await;
    good.ack().await;
    let before = server.shards_page().await;

    let mut first_frame = server.stream().await;
    first_frame.say(snapshot(1, &[])).await;
    let status = first_frame.next().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "the first message must be Hello")
    );

    let mut twice = server.ready(1).await;
    twice.say(Said::Hello(hello(1))).await;
    assert_eq!(twice.next().await.unwrap_err().code(), Code::InvalidArgument);

    let mut fell = server.ready(2).await;
    fell.say(snapshot(1, &[(0, -1.0)])).await;
    let status = fell.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("a count is -1"), "{}", status.message());

    let mut long = server.ready(3).await;
    let too_long = vec![(0, 1.0); (4 << 20) / 9 + 1];
    long.say(snapshot(1, &too_long)).await;
    let status = long.next().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");

    let status = unreadable(&server).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    for (addr, noise) in [
        (server.grpc_addr, &b"GET / HTTP/1.1\r\n\r\n"[..]),
        (server.grpc_addr, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff"),
        (server.http_addr, b"\x00\x16\x03\x01 hello\r\n\r\n"),
    ] {
        let mut stranger = TcpStream::connect(addr).await.unwrap();
        stranger.write_all(noise).await.unwrap();
        let _ = soon("the stranger's end", stranger.read_to_end(&mut Vec::new())).await;
    }

    assert_eq!(server.shards_page().await, before);
    good.say(delta(2, &[(0, 2.0)])).await;
    assert_eq!(good.ack().await.sequence, 2);
    server.wait_for("shardmeter_manager_streams 1").await;
    server.stop().await;
}

/// Sends what is no protobuf message.
async fn unreadable(server: &Server) -> tonic::Status {
    let mut client = tonic::client::Grpc::new(server.channel().await);
    client.ready().await.unwrap();
    let path = "/shardmeter.telemetry.v1.TelemetryService/Report".parse().unwrap();
    let messages = tokio_stream::iter([b"\xff\xff\xff\xff".to_vec()]);
    let answers = client.streaming(tonic::Request::new(messages), path, Bytes).await;
    let mut answers = answers.unwrap().into_inner();
    soon("an answer", answers.message()).await.unwrap_err()
}

/// A codec that sends bytes as they are.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ReportResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ReportResponse;
    type Error = tonic::Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<ReportResponse>, tonic::Status> {
        Err(tonic::Status::unknown("an answer to what cannot be read"))
    }
}

#[tokio::test]
async fn shutdown_tells_every_stream_and_is_prompt() {
    let server = Server::start().await;
    let mut reporting = server.ready(1).await;
    reporting.say(snapshot(1, &[])).await;
    reporting.ack().await;
    let mut silent = server.stream().await;
    // A connection that is only kept open must not keep the manager up.
    let _idle = TcpStream::connect(server.http_addr).await.unwrap();
    let client = reqwest::Client::new();
    client.get(format!("{}/healthz", server.http)).send().await.unwrap();

    let running = server.tell_to_stop();
    for stream in [&mut reporting, &mut silent] {
        let status = stream.next().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    // Well before the manager would cut off what does not end.
    let ended = timeout(Duration::from_secs(3), running).await.expect("the manager does not stop");
    ended.unwrap().unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let server = Server::start().await;
    let service = "shardmeter.telemetry.v1.TelemetryService";
    let mut health = HealthClient::new(server.channel().await);
    for name in ["", service] {
        let request = HealthCheckRequest { service: name.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status.as_str_name(), "SERVING");
    }

    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut older =
        v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let answers = older.server_reflection_info(tokio_stream::iter([request])).await;
    assert!(answers.unwrap().into_inner().message().await.unwrap().is_some());
    let symbol = "shardmeter.telemetry.v1.FleetService".to_owned();
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(symbol)),
    };
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let fleet = FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap();
    let places = fleet.source_code_info.unwrap().location;
    let comments: Vec<_> = places.iter().map(Location::leading_comments).collect();
    for comment in [" One shard.\n", " Never sent.\n", " That of the last `state` message.\n"] {
        assert!(comments.contains(&comment), "grpcurl describe says {comment:?}");
    }
    assert!(names.contains(&service) && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    server.stop().await;
}
