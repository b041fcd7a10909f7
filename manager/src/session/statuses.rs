//! What the registry and the rates say, as gRPC statuses.

use tonic::Status;

use crate::{
    rates::{self, TooFast},
    registry::FrameError,
};

/// What gRPC clients know as the server's word on when to retry, milliseconds.
pub(super) const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What a shard is told that sends too often.
pub(super) fn too_fast(too_fast: TooFast) -> Status {
    let mut status = Status::resource_exhausted(rates::refusal(&too_fast));
    let wait = too_fast.retry_after.as_millis().saturating_add(1);
    // Digits fit any metadata.
    if let Ok(wait) = wait.to_string().parse() {
        status.metadata_mut().insert(RETRY_PUSHBACK, wait);
    }
    status
}

/// How a broken rule ends the stream.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
pub(super) fn refusal(error: FrameError) -> Status {
    let message = error.to_string();
    match error {
        FrameError::Superseded => Status::aborted(message),
        FrameError::Rearranged => Status::unavailable(message),
        FrameError::Closed => Status::failed_precondition(message),
        FrameError::SequenceZero
        | FrameError::Twice(_)
        | FrameError::ValueCount { .. }
        | FrameError::Bad { .. }
        | FrameError::BadPart { .. }
        | FrameError::Exemplar { .. } => Status::invalid_argument(message),
    }
}
