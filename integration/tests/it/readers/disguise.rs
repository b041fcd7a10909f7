//! A scrape as another client would send it: a proxy that puts its own `Accept` in place of the scraper's.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::Response,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Passes scrapes on; ends when dropped.
pub(crate) struct Disguise {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Option<Scrape>>>,
    _serving: AbortOnDropHandle<()>,
}

/// What was said in the last scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scrape {
    /// What the scraper asked for.
    pub(crate) accept: String,
    pub(crate) accept_encoding: String,
    /// What it was given.
    pub(crate) content_type: String,
    pub(crate) content_encoding: String,
}

#[derive(Clone)]
struct Line {
    target: SocketAddr,
    accept: Option<&'static str>,
    client: reqwest::Client,
    seen: Arc<Mutex<Option<Scrape>>>,
}

impl Disguise {
    /// Without an `accept`, the scraper's own is passed on.
    pub(crate) async fn start(target: SocketAddr, accept: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::default();
        let line = Line { target, accept, client: reqwest::Client::new(), seen: Arc::clone(&seen) };
        let routes = Router::new().fallback(pass).with_state(line);
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { addr, seen, _serving: AbortOnDropHandle::new(serving) }
    }

    /// The last scrape that was answered.
    pub(crate) fn last(&self) -> Option<Scrape> {
        self.seen.lock().clone()
    }
}

async fn pass(State(line): State<Line>, uri: Uri, asked: HeaderMap) -> Response {
    let accept = said(&asked, header::ACCEPT);
    let accept_encoding = said(&asked, header::ACCEPT_ENCODING);
    let answer = line
        .client
        .get(format!("http://{}{}", line.target, uri))
        .header(header::ACCEPT, line.accept.unwrap_or(&accept))
        .header(header::ACCEPT_ENCODING, &accept_encoding)
        .send()
        .await
        .unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut passed = Response::new(Body::from(answer.bytes().await.unwrap()));
    *passed.status_mut() = status;
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
        if let Some(value) = headers.get(&name) {
            passed.headers_mut().insert(name, value.clone());
        }
    }
    *line.seen.lock() = Some(Scrape {
        accept,
        accept_encoding,
        content_type: said(&headers, header::CONTENT_TYPE),
        content_encoding: said(&headers, header::CONTENT_ENCODING),
    });
    passed
}

fn said(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}
