//! Live events as Server-Sent Events (the HTML standard, section 9.2).

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use prometheus::Registry;
use serde::Deserialize;
use shardmeter_access::event_stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::IntoParams;

use super::{
    Http,
    extract::{GuildId, Query},
    problem::{Document, ErrorType, Problem},
};
use crate::{
    events::{Ended, Heard, Last, Subscription},
    metrics::ListenerMetrics,
};

/// Clients that listen at the same time. Each is a connection, of which there are not endless many.
const MAX_CLIENTS: usize = 4096;

/// How long a client is asked to wait before it comes back, in milliseconds.
const RETRY: u32 = 1_000;

/// A client that left with something unread for so long had stopped reading.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// Who listens.
#[derive(Clone)]
pub(crate) struct Listeners {
    places: Arc<Semaphore>,
    metrics: ListenerMetrics,
}

impl Listeners {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = ListenerMetrics::register(registry)?;
        for reason in [Cut::Behind, Cut::Stalled] {
            metrics.sse_clients_cut_total.with_label_values(&[reason.label()]);
        }
        Ok(Self { places: Arc::new(Semaphore::new(MAX_CLIENTS)), metrics })
    }

    fn admit(&self, subscription: Subscription) -> Result<Client, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::new(ErrorType::Full, format!("{MAX_CLIENTS} clients listen already"))
                .retry_after(RETRY / 1_000)
        })?;
        self.metrics.sse_active_connections.inc();
        let metrics = self.metrics.clone();
        Ok(Client { subscription, metrics, is_open: false, has_ended: false, _place: place })
    }
}

/// Why a client was cut; also the label value.
#[derive(Clone, Copy)]
enum Cut {
    /// What it had not read yet is not kept any more.
    Behind,
    /// It read nothing until its connection was closed.
    Stalled,
}

impl Cut {
    const fn label(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Stalled => "stalled",
        }
    }
}

/// Which events, and from which on.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only those of this guild.
    guild_id: Option<GuildId>,
    /// As the header `Last-Event-ID`, for those who cannot send it.
    #[param(example = "5f3a9c01-123")]
    last_event_id: Option<String>,
}

/// Live events, as Server-Sent Events.
///
/// `command_executed`, `guild_joined`, `guild_left` and `guild_settings_updated`, as they happen; `data` is a JSON object
/// whose `type` is the event's name. `shard_event` is what happened to a shard, as in its history; who listens to one guild
/// does not hear of it. Who comes back with the id of the last event it has (`Last-Event-ID`, which browsers
/// send by themselves) gets all since. Where that cannot be, an event `gap` comes first: what one knows should be read
/// anew. The last 32,768 events are kept, in this process: after its restart, or on another one, there is a gap.
/// Every 15 s comes a comment. Who reads too slowly is cut.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(
        Wanted,
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that the client has", example = "5f3a9c01-123"),
    ),
    responses(
        (status = 200, description = "Events, without end", body = String, content_type = "text/event-stream", example = "id: 5f3a9c01-124\nevent: guild_left\ndata: {\"type\":\"guild_left\",\"shard_id\":1,\"guild_id\":\"117483251847168000\"}\n\n"),
        (status = 503, description = "Too many clients listen", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn listen(
    State(http): State<Http>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // The header is newer: browsers ask for the same query again when they come back.
    let last = match headers.get("last-event-id") {
        Some(id) => Some(id.to_str().map_or(Last::Unknown, Last::read)),
        None => wanted.last_event_id.as_deref().map(Last::read),
    };
    let guild = wanted.guild_id.and_then(|GuildId(id)| shardmeter_proto::events::GuildId::new(id));
    let client = http.listeners.admit(http.events.subscribe(guild, last))?;
    Ok(event_stream(client.texts()))
}

/// One who listens over HTTP.
struct Client {
    subscription: Subscription,
    metrics: ListenerMetrics,
    is_open: bool,
    /// It was told that there is no more, or cut.
    has_ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Client {
    fn texts(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut client| async move {
            let text = client.next().await?;
            Some((text, client))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.is_open, true) {
            // An id without data is no event, but is remembered; so who is cut before the first event misses none.
            let opening = format!("retry: {RETRY}\nid: {}\n\n", self.subscription.last());
            return Some(opening.into());
        }
        match self.subscription.next().await {
            Ok(Heard::Events(passage)) => Some(passage.text()),
            Ok(Heard::Gap) => {
                let id = self.subscription.last();
                Some(format!("id: {id}\nevent: gap\ndata: {{\"type\":\"gap\"}}\n\n").into())
            }
            // With the id, so that who listens to a quiet guild keeps up with the others.
            Ok(Heard::Heartbeat) => Some(format!(":\nid: {}\n\n", self.subscription.last()).into()),
            Err(ended) => {
                self.has_ended = true;
                if ended == Ended::Behind {
                    self.cut(Cut::Behind);
                }
                None
            }
        }
    }

    fn cut(&self, reason: Cut) {
        self.metrics.sse_clients_cut_total.with_label_values(&[reason.label()]).inc();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.metrics.sse_active_connections.dec();
        let waiting = || self.subscription.waiting_since();
        if !self.has_ended && waiting().is_some_and(|since| since.elapsed() > STALLED_AFTER) {
            self.cut(Cut::Stalled);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use shardmeter_proto::events::Event;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::events::Events;

    fn joined(guild: u64) -> Event {
        let guild_id = shardmeter_proto::events::GuildId::new(guild).unwrap();
        Event::GuildJoined { shard_id: 0, guild_id }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_is_sent() {
        let (events, _tasks) = Events::within_process(CancellationToken::new());
        let listeners = Listeners::new(&Registry::new()).unwrap();
        let guild = shardmeter_proto::events::GuildId::new(7);
        let mut client = listeners.admit(events.subscribe(guild, None)).ok().unwrap();
        let mut next = async || String::from_utf8(client.next().await.unwrap().to_vec()).unwrap();
        let opening = next().await;
        let (epoch, _) = opening.rsplit_once("-0\n\n").unwrap();
        let epoch = epoch.strip_prefix("retry: 1000\nid: ").unwrap().to_owned();
        events.publish(joined(6));
        assert_eq!(next().await, format!(":\nid: {epoch}-1\n\n"), "after 15 s of silence");
        events.publish(joined(7));
        let data = r#"{"type":"guild_joined","shard_id":0,"guild_id":"7"}"#;
        assert_eq!(next().await, format!("id: {epoch}-2\nevent: guild_joined\ndata: {data}\n\n"));
        let mut back = listeners.admit(events.subscribe(guild, Some(Last::Unknown))).ok().unwrap();
        back.next().await;
        let gap = back.next().await.unwrap();
        assert_eq!(gap, format!("id: {epoch}-2\nevent: gap\ndata: {{\"type\":\"gap\"}}\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_counted_and_there_are_not_endless_many() {
        let (events, _tasks) = Events::within_process(CancellationToken::new());
        let listeners = Listeners::new(&Registry::new()).unwrap();
        let admit = || listeners.admit(events.subscribe(None, None));
        let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| admit().ok().unwrap()).collect();
        assert_eq!(admit().err().unwrap().into_response().status(), 503);
        let now = || listeners.metrics.sse_active_connections.get();
        assert_eq!(now(), 4096);
        clients.pop();
        assert!(admit().is_ok());
        assert_eq!(now(), 4095);

        // Of those that leave with something unread, only who had not read for long was too slow.
        let stalled = listeners.metrics.sse_clients_cut_total.with_label_values(&["stalled"]);
        events.publish(joined(1));
        tokio::time::sleep(Duration::from_secs(9)).await;
        clients.pop();
        assert_eq!(stalled.get(), 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        clients.pop();
        assert_eq!(stalled.get(), 1);
        let mut reader = clients.pop().unwrap();
        for _opening_and_event in 0..2 {
            reader.next().await;
        }
        drop(reader);
        assert_eq!(stalled.get(), 1);
    }
}
