//! A message as it comes from the wire: read at once if it is short, as bytes if it is long, for that takes as long as others
//! should not wait.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use shardmeter_proto::v1::{ReportRequest, ReportResponse, report_request::Message as Said};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

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
    pub(super) fn read(self) -> Result<Said, Status> {
        match self {
            Self::Read(request) => said(request),
            Self::Long(bytes) => said(ReportRequest::decode(bytes).map_err(unreadable)?),
        }
    }
}

/// As it would come from the wire.
#[cfg(any(test, feature = "fuzzing"))]
impl From<Option<Said>> for Received {
    fn from(message: Option<Said>) -> Self {
        let request = ReportRequest { message };
        if request.encoded_len() < LONG_BYTES {
            Self::Read(request)
        } else {
            Self::Long(request.encode_to_vec().into())
        }
    }
}

/// What a message says, if it says something.
pub(super) fn said(request: ReportRequest) -> Result<Said, Status> {
    let nothing = || Status::invalid_argument("a ReportRequest without a message");
    request.message.ok_or_else(nothing)
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
