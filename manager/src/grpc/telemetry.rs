//! `TelemetryService`, as the generated server has it but for how messages are read: see [`ReportCodec`].

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use shardmeter_proto::v1::{ReportResponse, telemetry_service_server::SERVICE_NAME};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, StreamingService},
};

use crate::session::{self, MAX_MESSAGE_BYTES, Received, ReportCodec, Sessions};

#[derive(Debug, Clone)]
pub(super) struct Telemetry(pub(super) Arc<Sessions>);

impl NamedService for Telemetry {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Telemetry {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let report = Report(Arc::clone(&self.0));
        Box::pin(async move {
            let method = request.uri().path().rsplit_once('/').map(|(_, method)| method);
            if method != Some("Report") {
                return Ok(Status::unimplemented("TelemetryService has only Report").into_http());
            }
            let codec = ReportCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_BYTES);
            Ok(grpc.streaming(report, request).await)
        })
    }
}

/// The method.
struct Report(Arc<Sessions>);

impl StreamingService<Received> for Report {
    type Response = ReportResponse;
    type ResponseStream = ReceiverStream<Result<ReportResponse, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Received>>) -> Self::Future {
        let answers = session::begin(&self.0, request).map(Response::new);
        Box::pin(async { answers })
    }
}
