//! One `WatchShards` stream: reads what it says next from the registry when the peer has taken what came before, so a peer
//! that does not read costs nothing.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{StreamExt as _, stream};
use shardmeter_access::Place;
use shardmeter_proto::v1::{WatchShardsResponse, watch_shards_response::Message};
use tonic::Status;

use super::{Fleet, FleetService, convert};
use crate::{
    registry::{Followed, Follower, ShardEvent},
    session::Sessions,
};

/// Events that are taken from the registry at once.
const AT_ONCE: usize = 100;

/// See the module.
pub(super) struct Watcher {
    sessions: Arc<Sessions>,
    follower: Follower,
    /// Taken, and not said yet.
    events: VecDeque<Arc<ShardEvent>>,
    _place: Place,
}

impl Watcher {
    pub(super) fn new(sessions: Arc<Sessions>, follower: Follower, place: Place) -> Self {
        sessions.metrics.watchers.inc();
        Self { sessions, follower, events: VecDeque::new(), _place: place }
    }

    /// What it says, until the manager shuts down.
    pub(super) fn into_stream(self) -> <Fleet as FleetService>::WatchShardsStream {
        let ends = Some(self);
        stream::unfold(ends, async |watcher| {
            let mut watcher = watcher?;
            match watcher.next().await {
                Some(message) => {
                    let said = WatchShardsResponse { message: Some(message) };
                    Some((Ok(said), Some(watcher)))
                }
                None => {
                    let status = Status::unavailable("the manager is shutting down; go on later");
                    Some((Err(status), None))
                }
            }
        })
        .boxed()
    }

    /// What comes next; nothing once the manager shuts down.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Message::Event(convert::event(&event)));
            }
            match self.follower.next(AT_ONCE) {
                Followed::State { known, gap } => {
                    return Some(Message::State(convert::state(known, gap)));
                }
                Followed::Events(events) if events.is_empty() => tokio::select! {
                    () = self.sessions.shutdown.cancelled() => return None,
                    () = self.follower.changed() => {}
                },
                Followed::Events(events) => self.events.extend(events),
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.sessions.metrics.watchers.dec();
    }
}
