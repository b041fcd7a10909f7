//! Bodies that are metrics and nothing else: `POST /metrics?shard_id=3`, and Pushgateway's API under `/metrics/job/<job>`.

mod path;

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use mediatype::{MediaType, Name, ReadParams as _};

use super::{
    Http,
    error::HttpError,
    posted::{self, Route},
    received::Received,
};
use crate::{
    ingest::{self, Group, Identity, Post, ShardIds, Taken, Text},
    registry::{InstanceKey, Scope},
};
use path::GroupingKey;
pub(super) use path::PATHS;

/// What is taken, for whoever sends something else.
const TAKEN: &str = "text/plain, application/openmetrics-text, or application/vnd.google.protobuf; \
                     proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// `POST /metrics?shard_id=3`.
pub(super) async fn take(
    State(http): State<Http>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Received, HttpError>,
) -> Response {
    let addressed = || {
        let format = Format::of(&headers)?;
        Ok(Push { shards: shards(query.as_deref().unwrap_or_default())?, group: None, format })
    };
    let push = addressed();
    posted::take(http, headers, push, body).await
}

/// PUT and POST of Pushgateway's API.
pub(super) async fn take_group(
    State(http): State<Http>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Received, HttpError>,
) -> Response {
    let scope = if method == Method::PUT { Scope::Everything } else { Scope::NamedFamilies };
    let addressed = || {
        let GroupingKey { shards, group } = GroupingKey::of(uri.path())?;
        // Pushgateway takes anything as text, and some that push to it say nothing true.
        let format = Format::of(&headers).unwrap_or(Format::Text);
        Ok(Push { shards, group: Some((group, scope)), format })
    };
    let push = addressed();
    posted::take(http, headers, push, body).await
}

/// DELETE of Pushgateway's API: a group's gauges go, its counts stay.
pub(super) async fn end_group(
    State(http): State<Http>,
    uri: Uri,
) -> Result<impl IntoResponse, HttpError> {
    let GroupingKey { shards, group } = GroupingKey::of(uri.path())?;
    http.rates.of(shards.lowest()).take()?;
    let (sender, shards) = (InstanceKey::from(&group), shards.lowest()..=shards.highest());
    let ended = http.registry.end(&sender, shards, http.clock.now());
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "ended": ended }))))
}

/// A body of metrics on its way.
struct Push {
    shards: ShardIds,
    group: Option<(Group, Scope)>,
    format: Format,
}

/// What a body is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Text format 0.0.4, or OpenMetrics if it ends so.
    Text,
    OpenMetrics,
    /// Delimited messages.
    Protobuf,
}

impl Route for Push {
    fn shards(&self, _: &[u8]) -> Option<ShardIds> {
        Some(self.shards)
    }

    fn repeat(
        &self,
        http: &Http,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Taken>, HttpError> {
        let post = self.post(headers)?;
        if self.format == Format::Protobuf {
            return Ok(None);
        }
        if self.format == Format::OpenMetrics {
            expect_eof(body)?;
        }
        Ok(http.previous_bodies.repeat(&http.registry, &post, body, http.clock.now()))
    }

    fn read(&self, http: &Http, headers: &HeaderMap, body: &[u8]) -> Result<Taken, HttpError> {
        let (post, now) = (self.post(headers)?, http.clock.now());
        let taken = match self.format {
            Format::Protobuf => ingest::ingest_protobuf(&http.registry, &post, body, now),
            Format::Text | Format::OpenMetrics => {
                let text = utf8(body)?;
                if self.format == Format::OpenMetrics {
                    expect_eof(body)?;
                }
                http.previous_bodies.ingest(&http.registry, &post, Text::Plain(text), now)
            }
        };
        taken.map_err(|error| {
            tracing::debug!(shards = %self.shards, %error, "body refused");
            error.into()
        })
    }
}

impl Push {
    fn post<'a>(&'a self, headers: &'a HeaderMap) -> Result<Post<'a>, HttpError> {
        let post = posted::post(self.shards, headers)?;
        Ok(match &self.group {
            // Whatever it calls itself.
            Some((group, scope)) => {
                Post { identity: Identity::Group { group, scope: *scope }, ..post }
            }
            None => post,
        })
    }
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Self, HttpError> {
        let Some(stated) = headers.get(header::CONTENT_TYPE) else {
            return Ok(Self::Text);
        };
        let stated = stated.to_str().unwrap_or_default();
        Self::named(stated).ok_or_else(|| {
            let message = format!("Content-Type is {stated:?}; send {TAKEN}");
            HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
        })
    }

    fn named(stated: &str) -> Option<Self> {
        let kind = MediaType::parse(stated).ok()?;
        let says = |name: &str, value: &str| {
            let stated = Name::new(name).and_then(|name| kind.get_param(name));
            stated.is_some_and(|stated| stated.unquoted_str() == value)
        };
        // Names are the same in any case.
        let is = |ty: &str, subty: &str| kind.ty == ty && kind.subty == subty;
        // The latter is what curl says of any body.
        if is("text", "plain") || is("application", "x-www-form-urlencoded") {
            return Some(Self::Text);
        }
        if is("application", "openmetrics-text") {
            return Some(Self::OpenMetrics);
        }
        let is_known = is("application", "vnd.google.protobuf")
            && says("proto", "io.prometheus.client.MetricFamily")
            && says("encoding", "delimited");
        is_known.then_some(Self::Protobuf)
    }
}

/// The shards of `?shard_id=3` or `?shard_id=0-3`.
fn shards(query: &str) -> Result<ShardIds, HttpError> {
    let refuse = |what: String| HttpError::new(StatusCode::BAD_REQUEST, what);
    let mut shards = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "shard_id" {
            return Err(refuse(format!("no parameter {name:?}: there is shard_id")));
        }
        let ids = value.parse().map_err(|error| refuse(format!("shard_id: {error}")))?;
        if shards.replace(ids).is_some() {
            return Err(refuse("shard_id stands twice; give a range, as in shard_id=0-3".into()));
        }
    }
    shards.ok_or_else(|| refuse("of which shard? post to /metrics?shard_id=3".into()))
}

fn utf8(body: &[u8]) -> Result<&str, HttpError> {
    str::from_utf8(body).map_err(|error| {
        let message = format!("metrics: byte {} is not of UTF-8 text", error.valid_up_to());
        HttpError::new(StatusCode::BAD_REQUEST, message)
    })
}

/// A body that says it is OpenMetrics is whole if its last line says so.
fn expect_eof(body: &[u8]) -> Result<(), HttpError> {
    let last = body.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    if last == Some(b"# EOF") {
        return Ok(());
    }
    let message = "metrics: an OpenMetrics body ends in # EOF, and this does not; was it cut?";
    Err(HttpError::new(StatusCode::BAD_REQUEST, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_says_the_format() {
        let proto = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily";
        for (stated, format) in [
            ("text/plain", Some(Format::Text)),
            ("Text/Plain; version=0.0.4; charset=utf-8", Some(Format::Text)),
            ("application/x-www-form-urlencoded", Some(Format::Text)),
            ("application/openmetrics-text; version=1.0.0", Some(Format::OpenMetrics)),
            (&format!("{proto}; encoding=delimited"), Some(Format::Protobuf)),
            (&format!("{proto};encoding=\"delimited\""), Some(Format::Protobuf)),
            (&format!("{proto}; encoding=text"), None),
            (proto, None),
            ("application/vnd.google.protobuf", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(Format::named(stated), format, "{stated}");
        }
    }

    #[test]
    fn a_query_says_which_shards() {
        let said = |query| shards(query).map(|ids| ids.to_string()).ok();
        assert_eq!(said("shard_id=3").as_deref(), Some("3"));
        assert_eq!(said("shard%5Fid=0-3").as_deref(), Some("0-3"));
        for bad in ["", "shard_id", "shard_id=", "shard_id=x", "shard_id=1&shard_id=2", "shard=1"] {
            assert_eq!(said(bad), None, "{bad}");
        }
    }
}
