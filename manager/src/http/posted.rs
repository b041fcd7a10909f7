//! What was posted: how a body is received, whichever route it came by.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::task::spawn_blocking;
use tracing::Span;

use super::{
    Http, MAX_BODY_BYTES,
    coding::{Broken, Coding},
    error::HttpError,
    received::Received,
};
use crate::{
    ingest::{Identity, Post, ShardIds, Taken},
    metrics::PostOutcome,
    registry::Rejected,
};

/// Longest name a sender may give itself, bytes.
const MAX_INSTANCE_NAME: usize = 128;

/// Longest pause between two reports of a sender.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// A repetition of the sender's previous body up to this long is taken where it arrives: that is over in a fifth of a
/// millisecond.
const MAX_INLINE_BYTES: usize = 128 << 10;

/// A compressed body up to this long is unpacked there too, as far as it makes no more than that.
const MAX_INLINE_PACKED_BYTES: usize = 16 << 10;

/// What a route makes of bodies.
pub(super) trait Route: Send + Sync + 'static {
    /// The shards that a body is of, as far as that is told without reading it.
    fn shards(&self, body: &[u8]) -> Option<ShardIds>;

    /// Takes a body that repeats its sender's previous one, at once.
    fn repeat(
        &self,
        http: &Http,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Taken>, HttpError>;

    /// Takes any body, in its time.
    fn read(&self, http: &Http, headers: &HeaderMap, body: &[u8]) -> Result<Taken, HttpError>;
}

/// Takes a body, and says what became of it.
pub(super) async fn take(
    http: Http,
    headers: HeaderMap,
    route: Result<impl Route, HttpError>,
    body: Result<Received, HttpError>,
) -> Response {
    let metrics = Arc::clone(&http.metrics);
    let taken = match (route, body) {
        (Ok(route), Ok(body)) => take_body(http, headers, route, body).await,
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    metrics.count_post(if taken.is_ok() { PostOutcome::Applied } else { PostOutcome::Refused });
    match taken {
        Ok(taken) => {
            metrics.samples.inc_by(taken.series as u64);
            Json(Answer::from(&taken)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn take_body(
    http: Http,
    headers: HeaderMap,
    route: impl Route,
    Received { bytes: mut body, weight }: Received,
) -> Result<Taken, HttpError> {
    let mut coding = Coding::of(&headers)?;
    // Before anything of it costs much.
    let plain = if coding == Coding::Identity { &body[..] } else { &[] };
    let mut counted = count(&http, &route, plain)?;
    if coding != Coding::Identity && body.len() <= MAX_INLINE_PACKED_BYTES {
        match coding.unpack(&body, MAX_INLINE_BYTES) {
            Ok(unpacked) => {
                (coding, body) = (Coding::Identity, unpacked);
                counted = counted || count(&http, &route, &body)?;
            }
            Err(Broken::TooLong(_)) => {}
            Err(broken) => return Err(broken.into()),
        }
    }
    if coding == Coding::Identity
        && body.len() <= MAX_INLINE_BYTES
        && let Some(taken) = route.repeat(&http, &headers, &body)?
    {
        return Ok(taken);
    }
    // Megabytes of text take milliseconds, and several times their size: not on a worker that serves others, and not all at
    // once.
    let turn = Arc::clone(&http.bodies).acquire_owned().await;
    let turn = turn.map_err(|_| HttpError::failed("waiting to take the body"))?;
    let request = Span::current();
    let taking = move || {
        let _kept = (turn, weight);
        let _within = request.entered();
        let body = coding.unpack(&body, MAX_BODY_BYTES)?;
        if !counted {
            count(&http, &route, &body)?;
        }
        route.read(&http, &headers, &body)
    };
    spawn_blocking(taking).await.unwrap_or_else(|_| Err(HttpError::failed("taking the body")))
}

/// Counts a body as a report of its shard, which may not send too many. Whether it is known whose it is.
fn count(http: &Http, route: &impl Route, body: &[u8]) -> Result<bool, HttpError> {
    let Some(shards) = route.shards(body) else { return Ok(false) };
    http.rates.of(shards.lowest()).take()?;
    Ok(true)
}

/// What headers say of a body of these shards.
pub(super) fn post(shards: ShardIds, headers: &HeaderMap) -> Result<Post<'_>, HttpError> {
    Ok(Post {
        shards,
        identity: Identity::from(instance_name(headers)?),
        sequence: report_sequence(headers)?,
        interval: report_interval(headers)?,
    })
}

/// What became of the body.
#[derive(Serialize)]
struct Answer<'a> {
    series: usize,
    identity: &'static str,
    late: bool,
    durable: bool,
    rejected: Vec<RejectedFamily<'a>>,
}

/// What of a family was not taken.
#[derive(Serialize)]
struct RejectedFamily<'a> {
    family: &'a str,
    reason: &'static str,
    series: u32,
    message: &'a str,
}

impl<'a> From<&'a Taken> for Answer<'a> {
    fn from(taken: &'a Taken) -> Self {
        Self {
            series: taken.series,
            identity: if taken.identified { "known" } else { "none" },
            late: taken.late,
            // Of a late report nothing was taken, whatever became of it before.
            durable: taken.durable && !taken.late,
            rejected: taken.rejected.iter().map(RejectedFamily::from).collect(),
        }
    }
}

impl<'a> From<&'a Rejected> for RejectedFamily<'a> {
    fn from(rejected: &'a Rejected) -> Self {
        let Rejected { family, reason, message, series } = rejected;
        Self { family, reason: reason.as_str(), series: *series, message }
    }
}

/// What the sender calls itself, if it does.
fn instance_name(headers: &HeaderMap) -> Result<Option<&str>, HttpError> {
    let Some(name) = headers.get("x-instance-id") else {
        return Ok(None);
    };
    let name = name.to_str().ok().filter(|n| !n.is_empty() && n.len() <= MAX_INSTANCE_NAME);
    name.map(Some).ok_or_else(|| {
        let what =
            format!("X-Instance-Id must be 1 to {MAX_INSTANCE_NAME} visible ASCII characters");
        HttpError::new(StatusCode::BAD_REQUEST, what)
    })
}

/// The number of the report, if the sender numbers them.
fn report_sequence(headers: &HeaderMap) -> Result<Option<u64>, HttpError> {
    let Some(stated) = headers.get("x-report-sequence") else {
        return Ok(None);
    };
    let sequence = stated.to_str().ok().and_then(|s| s.parse().ok()).filter(|s| *s > 0);
    sequence.map(Some).ok_or_else(|| {
        HttpError::new(
            StatusCode::BAD_REQUEST,
            "X-Report-Sequence must be a whole number from 1, greater with every report",
        )
    })
}

/// How often the sender reports, if it says so.
fn report_interval(headers: &HeaderMap) -> Result<Option<Duration>, HttpError> {
    let Some(stated) = headers.get("x-report-interval") else {
        return Ok(None);
    };
    let seconds = stated.to_str().ok().and_then(|s| s.parse().ok());
    let interval = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    interval.filter(|i| !i.is_zero() && *i <= MAX_INTERVAL).map(Some).ok_or_else(|| {
        let what = format!(
            "X-Report-Interval must be the seconds between two reports, at most {}",
            MAX_INTERVAL.as_secs()
        );
        HttpError::new(StatusCode::BAD_REQUEST, what)
    })
}
