//! `POST /shard-metrics`: what bots in other languages send.

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Http,
    error::{self, HttpError},
    posted::{self, Route, post},
    received::Received,
};
use crate::ingest::{IngestError, ShardIds, Taken, Text};

pub(super) async fn take(
    State(http): State<Http>,
    headers: HeaderMap,
    body: Result<Received, HttpError>,
) -> Response {
    let route = error::expect_json(&headers).map(|()| InJson);
    posted::take(http, headers, route, body).await
}

/// Text in JSON, which says of which shard it is.
struct InJson;

impl Route for InJson {
    fn shards(&self, body: &[u8]) -> Option<ShardIds> {
        presumed_shard_id(body)
    }

    fn repeat(
        &self,
        http: &Http,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Taken>, HttpError> {
        let Some(shard_id) = presumed_shard_id(body) else { return Ok(None) };
        let post = post(shard_id, headers)?;
        Ok(http.previous_bodies.repeat(&http.registry, &post, body, http.clock.now()))
    }

    fn read(&self, http: &Http, headers: &HeaderMap, body: &[u8]) -> Result<Taken, HttpError> {
        let posted = Posted::read(body)?;
        if presumed_shard_id(body) != Some(posted.shard_id) {
            http.rates.of(posted.shard_id.lowest()).take()?;
        }
        let post = post(posted.shard_id, headers)?;
        let text = Text::Json { body, metrics: posted.metrics };
        let taken = http.previous_bodies.ingest(&http.registry, &post, text, http.clock.now());
        taken.map_err(|error| {
            tracing::debug!(shards = %posted.shard_id, %error, "body refused");
            match error {
                IngestError::NotAString => HttpError::bad_metrics(body),
                error => error.into(),
            }
        })
    }
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
