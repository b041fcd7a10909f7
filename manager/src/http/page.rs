//! The status page at `/`, and the live rows that it shows: `GET /api/v1/shards/live`.

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use shardmeter_access::{Peer, Place, event_stream};
use tokio_util::sync::CancellationToken;

use super::{Http, error::HttpError};
use crate::live::{COLUMNS, Follower};

/// Who may look at live rows at the same time: people, each on a connection. One address may have half.
pub(crate) const VIEWERS: usize = 256;

/// The page has all it needs, and nothing else may run on it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is asked of whoever keeps it: it may be another after an update.
const REVALIDATE: &str = "no-cache";

/// For browsers the page; for others what routes there are.
pub(super) async fn index(headers: HeaderMap) -> Response {
    let is_browser = |accept: &HeaderValue| accept.to_str().is_ok_and(|a| a.contains("text/html"));
    if !headers.get_all(header::ACCEPT).iter().any(is_browser) {
        return super::INDEX.into_response();
    }
    let policy = (header::CONTENT_SECURITY_POLICY, POLICY);
    ([policy], asset("text/html; charset=utf-8", include_str!("../../page/index.html")))
        .into_response()
}

pub(super) async fn script() -> impl IntoResponse {
    asset("text/javascript; charset=utf-8", include_str!("../../page/page.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    asset("text/css; charset=utf-8", include_str!("../../page/page.css"))
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, REVALIDATE),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}

/// Server-Sent Events: `columns` says what the values of a row are; each `rows` after it, one a second, has `time` (Unix
/// seconds) and the `rows` that are new, which at first are all; those of many shards come in parts, all but the last with
/// `more`. A row of an id alone: that shard is no longer listed.
pub(super) async fn live(
    State(http): State<Http>,
    peer: Option<Extension<Peer>>,
) -> Result<Response, HttpError> {
    let peer = peer.map(|peer| peer.addr.ip());
    let place = http.viewers.take(peer).map_err(HttpError::full)?;
    let viewer = Viewer {
        follower: http.live.follow(),
        has_begun: false,
        shutdown: http.shutdown.clone(),
        _place: place,
    };
    Ok(event_stream(viewer.texts()))
}

struct Viewer {
    follower: Follower,
    has_begun: bool,
    shutdown: CancellationToken,
    _place: Place,
}

impl Viewer {
    fn texts(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut viewer| async move {
            let text = viewer.next().await?;
            Some((Bytes::from(text), viewer))
        })
    }

    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.has_begun, true) {
            let columns = serde_json::json!(COLUMNS);
            return Some(format!("retry: 1000\nevent: columns\ndata: {columns}\n\n"));
        }
        let rows = tokio::select! {
            () = self.shutdown.cancelled() => return None,
            rows = self.follower.next() => rows?,
        };
        Some(format!("event: rows\ndata: {rows}\n\n"))
    }
}
