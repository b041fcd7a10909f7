//! `POST /shard-metrics`: what bots in other languages send.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Http,
    error::{self, HttpError},
};
use crate::{
    ingest::{IngestError, Post, ShardIds, Taken, Text},
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

pub(super) async fn take(
    State(http): State<Http>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let metrics = Arc::clone(&http.metrics);
    let answer = match body {
        Ok(body) => take_body(http, headers, body).await,
        Err(rejection) => Err(rejection.into()),
    };
    metrics.count_post(if answer.is_ok() { PostOutcome::Applied } else { PostOutcome::Refused });
    match answer {
        Ok(taken) => {
            metrics.samples.inc_by(taken.series as u64);
            Json(Answer::from(&taken)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn take_body(http: Http, headers: HeaderMap, body: Bytes) -> Result<Taken, HttpError> {
    error::expect_json(&headers)?;
    let presumed = presumed_shard_id(&body);
    if let Some(shards) = presumed {
        http.rates.of(shards.lowest()).take()?;
    }
    if body.len() <= MAX_INLINE_BYTES
        && let Some(shard_id) = presumed
    {
        let post = post(shard_id, &headers)?;
        let taken = http.previous_bodies.repeat(&http.registry, &post, &body, http.clock.now());
        if let Some(taken) = taken {
            return Ok(taken);
        }
    }
    // Megabytes of text take milliseconds: not on a worker that serves others.
    let taking = move || {
        let posted = Posted::read(&body)?;
        if presumed.is_none() {
            http.rates.of(posted.shard_id.lowest()).take()?;
        }
        let post = post(posted.shard_id, &headers)?;
        let text = Text::Json { body: &body, metrics: posted.metrics };
        let taken = http.previous_bodies.ingest(&http.registry, &post, text, http.clock.now());
        taken.map_err(|error| {
            tracing::debug!(shards = %posted.shard_id, %error, "body refused");
            match error {
                IngestError::NotAString => HttpError::bad_metrics(&body),
                error => error.into(),
            }
        })
    };
    let taken = tokio::task::spawn_blocking(taking).await;
    taken.unwrap_or_else(|_| Err(HttpError::failed("taking the body")))
}

/// The body: JSON around text that is not looked at yet.
#[derive(Deserialize)]
struct Posted<'a> {
    #[serde(rename = "shardId")]
    shard_id: ShardIds,
    #[serde(borrow)]
    metrics: &'a RawValue,
}

impl<'a> Posted<'a> {
    fn read(body: &'a [u8]) -> Result<Self, HttpError> {
        if body.trim_ascii_start().first() == Some(&b'[') {
            // serde would take an array for an object too.
            return Err(HttpError::not_an_object());
        }
        serde_json::from_slice(body).map_err(HttpError::bad_json)
    }
}

/// What `shardId` seems to be, without a look at the text, which is long. Should that be wrong, then the body is compared
/// with another sender's, and differs.
fn presumed_shard_id(body: &[u8]) -> Option<ShardIds> {
    const KEY: &[u8] = b"\"shardId\"";
    const NEAR: usize = 100;
    let head = body.get(..NEAR).unwrap_or(body);
    let tail = body.get(body.len().saturating_sub(NEAR)..).unwrap_or_default();
    let behind_key = |part: &'_ [u8]| Some(memchr::memmem::find(part, KEY)? + KEY.len());
    let value = behind_key(head)
        .and_then(|at| head.get(at..))
        .or_else(|| behind_key(tail).and_then(|at| tail.get(at..)))?;
    let value = value.trim_ascii_start().strip_prefix(b":")?;
    serde_json::Deserializer::from_slice(value).into_iter().next()?.ok()
}

fn post(shards: ShardIds, headers: &HeaderMap) -> Result<Post<'_>, HttpError> {
    Ok(Post {
        shards,
        instance: instance_name(headers)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_id_is_found_at_either_end() {
        let text = "x".repeat(1000);
        for (body, ids) in [
            (format!("{{\"shardId\": 3, \"metrics\": \"{text}\"}}"), Some("3")),
            (format!("{{\"metrics\":\"{text}\",\"shardId\":3}}"), Some("3")),
            (format!("{{\"metrics\":\"{text}\", \"shardId\" : \"0-3\" }}\n"), Some("0-3")),
            ("{\"metrics\":\"\",\"shardId\":3}".to_owned(), Some("3")),
            ("{\"shardId\":3,\"shardId\":4}".to_owned(), Some("3")),
            (format!("{{\"shardId\":-3,\"metrics\":\"{text}\"}}"), None),
            (format!("{{\"metrics\":\"{text}\",\"y\":\"shardId\"}}"), None),
            (format!("{{\"y\":\"{text}\",\"shardId\":3,\"metrics\":\"{text}\"}}"), None),
            ("\"shardId\"".to_owned(), None),
            ("\"shardId\":".to_owned(), None),
            (String::new(), None),
        ] {
            let presumed = presumed_shard_id(body.as_bytes()).map(|ids| ids.to_string());
            assert_eq!(presumed.as_deref(), ids, "{body}");
        }
    }
}
