//! The page: that it comes, in time, and can be read in what scrapers ask for.

use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, Uri, header};

use super::{Deployment, ask, ask::Answer, finding::Found, ids::grouped, page, token};
use crate::ingest::text::Syntax;

/// After which Prometheus gives up, unless it is told otherwise.
const SCRAPED_WITHIN: Duration = Duration::from_secs(10);

/// Half of it is gone: twice the shards, and nothing would come.
const SLOW: Duration = Duration::from_secs(5);

/// What scrapers ask for, and what then comes.
const FORMATS: [(Syntax, &str, &str); 2] = [
    (Syntax::Text, "text/plain;version=0.0.4", "text/plain"),
    (
        Syntax::OpenMetrics,
        "application/openmetrics-text;version=1.0.0",
        "application/openmetrics-text",
    ),
];

pub(super) async fn check(deployment: &Deployment) -> Found {
    let mut lines = 0;
    let mut took = Duration::ZERO;
    for (syntax, accept, kind) in FORMATS {
        let answer = match ask(deployment, accept).await {
            Ok(answer) => answer,
            Err(found) => return found,
        };
        let length = match read(&answer, syntax, kind) {
            Ok(length) => length,
            Err(problem) => {
                return Found::failure(
                    format!("a scraper that accepts {accept} gets what it cannot read: {problem}"),
                    "is it a manager, and nothing between that changes the page? then it is a mistake of the manager: \
                     please report it, with the page",
                );
            }
        };
        lines = lines.max(length.lines);
        took = took.max(answer.took);
    }
    let what = format!("{} lines, valid, {} ms", grouped(lines as u64), took.as_millis());
    if took > SLOW {
        return Found::warning(
            format!("{what}: Prometheus gives up after {} s", SCRAPED_WITHIN.as_secs()),
            "raise scrape_timeout, scrape parts (?shard_id=..., ?name[]=...), or drop labels by [[rules]]",
        );
    }
    Found::ok(what)
}

async fn ask(deployment: &Deployment, accept: &'static str) -> Result<Answer, Found> {
    let target = &deployment.http;
    let mut request = Request::new(String::new());
    *request.uri_mut() = Uri::from_static("/metrics");
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
    if let Some(token) = &deployment.token {
        token::authorize(&mut request, token);
    }
    let config = &deployment.trust.own;
    let answer = ask::http_long(target, config, request, SCRAPED_WITHIN, ask::MAX_PAGE_BYTES).await;
    let answer = answer.map_err(|trouble| {
        Found::failure(format!("{target}/metrics: {trouble}"), trouble.remedy(target))
    })?;
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    let what = format!("{target}/metrics answers {}: {}", answer.status, answer.reason());
    Err(Found::failure(what, "do what the message says"))
}

fn read(answer: &Answer, syntax: Syntax, kind: &str) -> Result<page::Length, String> {
    let stated = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !stated.is_some_and(|stated| stated.starts_with(kind)) {
        return Err(format!("its Content-Type is {}", stated.unwrap_or("not there")));
    }
    let page = str::from_utf8(&answer.body);
    let page = page.map_err(|error| format!("byte {} is not of UTF-8", error.valid_up_to()))?;
    page::check(page, syntax)
}
