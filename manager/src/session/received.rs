//! A message as it comes from the wire: read at once if it is short, as bytes if it is long, for that takes as long as others
//! should not wait.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use shardmeter_process::traces::Cause;
use shardmeter_proto::v1::{ReportRequest, ReportResponse, report_request::Message as Said};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;
use tracing::{Span, info_span};

/// Bytes from which a message is long: reading and taking it takes about a millisecond.
pub(super) const LONG_BYTES: usize = 64 << 10;

/// A message of a shard.
#[derive(Debug)]
pub(crate) enum Received {
    Read(ReportRequest),
    /// Not yet read.
    Long(Bytes),
}

impl Received {
    /// What it says.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it says nothing that can be read.
    pub(super) fn read(self) -> Result<Message, Status> {
        let ReportRequest { message, traceparent } = match self {
            Self::Read(request) => request,
            Self::Long(bytes) => ReportRequest::decode(bytes).map_err(unreadable)?,
        };
        let nothing = || Status::invalid_argument("a ReportRequest without a message");
        Ok(Message { said: message.ok_or_else(nothing)?, traceparent })
    }
}

/// A message that was read.
pub(super) struct Message {
    pub(super) said: Said,
    /// What caused it, if that is recorded.
    traceparent: String,
}

impl Message {
    /// What is done with the message of a shard, if that is part of a trace.
    pub(super) fn span(&self, shard_id: u32) -> Span {
        let Some(cause) = Cause::parse(&self.traceparent) else { return Span::none() };
        let name = match self.said {
            Said::Hello(_) => "Hello",
            Said::Definitions(_) => "Definitions",
            Said::Snapshot(_) => "Snapshot",
            Said::Delta(_) => "Delta",
            Said::Goodbye(_) => "Goodbye",
        };
        let span = info_span!(
            "message",
            otel.name = name,
            otel.kind = "server",
            shard_id = i64::from(shard_id)
        );
        cause.causes(&span);
        span
    }
}

/// As it would come from the wire.
#[cfg(any(test, feature = "fuzzing"))]
impl From<Option<Said>> for Received {
    fn from(message: Option<Said>) -> Self {
        let request = ReportRequest { message, ..ReportRequest::default() };
        if request.encoded_len() < LONG_BYTES {
            Self::Read(request)
        } else {
            Self::Long(request.encode_to_vec().into())
        }
    }
}

pub(super) fn unreadable(why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("unreadable message: {why}"))
}

/// How messages are read from the stream, and answers written.
#[derive(Debug, Default)]
pub(crate) struct ReportCodec {
    whole: ProstCodec<ReportResponse, ReportRequest>,
}

impl Codec for ReportCodec {
    type Encode = ReportResponse;
    type Decode = Received;
    type Encoder = <ProstCodec<ReportResponse, ReportRequest> as Codec>::Encoder;
    type Decoder = ReadShort;

    fn encoder(&mut self) -> Self::Encoder {
        self.whole.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ReadShort(self.whole.decoder())
    }
}

/// Reads short messages, and leaves long ones as they are.
#[derive(Debug)]
pub(crate) struct ReadShort(<ProstCodec<ReportResponse, ReportRequest> as Codec>::Decoder);

impl Decoder for ReadShort {
    type Item = Received;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Received>, Status> {
        let bytes = buf.remaining();
        if bytes < LONG_BYTES {
            return Ok(self.0.decode(buf)?.map(Received::Read));
        }
        Ok(Some(Received::Long(buf.copy_to_bytes(bytes))))
    }
}
