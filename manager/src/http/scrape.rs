//! `GET /metrics`: the page, or a part of it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use shardmeter_access::HangUp;
use tokio::task::spawn_blocking;

use super::{Http, error::HttpError};
use crate::exposition::{self, Coding, Filter, Format, Negotiated, Page};

pub(super) async fn scrape(
    State(http): State<Http>,
    hang_up: Option<Extension<HangUp>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let filter = filter(&query.unwrap_or_default())?;
    let negotiated = Negotiated::from_accept(stated(&headers, header::ACCEPT).as_deref());
    let coding = Coding::negotiate(stated(&headers, header::ACCEPT_ENCODING).as_deref());
    let format = negotiated.format.with_created(http.openmetrics_created);
    let readers = Arc::clone(&http.readers);
    http.metrics.count_scrape(format.syntax);
    let page = if filter.is_everything() {
        let (exposition, kind) = (Arc::clone(&http.exposition), (format, coding));
        exposition.shared.page(kind, move || render(&http, kind)).await
    } else {
        // Rendering takes milliseconds of CPU: not on a worker that serves others, and not on all there are.
        let turn = Arc::clone(&http.parts).acquire_owned().await;
        let turn = turn.map_err(|_| HttpError::failed("waiting to render"))?;
        spawn_blocking(move || {
            let _turn = turn;
            render_part(&http, format, &filter).compressed(coding)
        })
        .await
    };
    let page = page.map_err(|_| HttpError::failed("rendering the page"))?;
    let mut answer = Response::new(readers.body(page.segments, hang_up.map(|ext| ext.0)));
    let about = answer.headers_mut();
    let content_type = HeaderValue::try_from(negotiated.content_type());
    let content_type = content_type.map_err(|_| HttpError::failed("naming the page's format"))?;
    about.insert(header::CONTENT_TYPE, content_type);
    about.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if let Some(coding) = page.coding.content_encoding() {
        about.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    Ok(answer)
}

fn render(http: &Http, kind: (Format, Coding)) -> Page {
    let own = http.metrics.gather();
    let _timer = http.metrics.render_seconds.start_timer();
    http.exposition.render(&http.registry, &own, http.clock.now(), kind)
}

fn render_part(http: &Http, format: Format, filter: &Filter) -> Page {
    let own = http.metrics.gather();
    let _timer = http.metrics.render_seconds.start_timer();
    exposition::render_some(&http.registry, &own, http.clock.now(), format, filter)
}

/// All values of a header that is a list, in one (RFC 9110, section 5.3).
fn stated(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// The part that `?name[]=...&shard_id=...` asks for, each as often as one likes.
fn filter(query: &str) -> Result<Filter, HttpError> {
    let mut filter = Filter::default();
    let refuse = |what: String| Err(HttpError::new(StatusCode::BAD_REQUEST, what));
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "name[]" => {
                filter.names.insert(value.into_owned());
            }
            "shard_id" => match value.parse() {
                Ok(id) => {
                    filter.shards.insert(id);
                }
                Err(_) => {
                    return refuse(format!(
                        "shard_id={value:?} is no shard id: a number, as in shard_id=3"
                    ));
                }
            },
            other => {
                return refuse(format!("no parameter {other:?}: there are name[] and shard_id"));
            }
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_part() {
        let part = filter("name[]=a&name%5B%5D=b.%C3%BC&shard_id=3&shard_id=07").unwrap();
        assert_eq!(part.names, ["a".to_owned(), "b.ü".to_owned()].into());
        assert_eq!(part.shards, [3, 7].into());
        assert!(filter("").unwrap().is_everything() && !part.is_everything());
    }
}
