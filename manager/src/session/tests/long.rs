//! Messages that take long.

use std::sync::mpsc::sync_channel;

use tokio::sync::Notify;

use super::*;
use crate::registry::{Change, Step};

/// Much longer than anything here takes, and then the test fails.
const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn others_are_answered_while_a_message_takes_long() {
    let sessions = sessions();
    let taking = Arc::new(Notify::new());
    let (release, released) = sync_channel(1);
    let released = std::sync::Mutex::new(released);
    let was_released = Arc::new(std::sync::Mutex::new(None));
    let (begins, ends) = (Arc::clone(&taking), Arc::clone(&was_released));
    sessions.registry.record_to(Box::new(move |changes| {
        if let [Change::Shard(0, Step::Report(_))] = changes {
            begins.notify_one();
            *ends.lock().unwrap() = Some(released.lock().unwrap().recv_timeout(WITHIN).is_ok());
        }
        true
    }));

    let mut long = Peer::join(&sessions, 1).await;
    let ids = 0..LONG as u32;
    let label = |id| v1::Label { name: "a".to_owned(), value: format!("{id}") };
    let series =
        ids.clone().map(|id| v1::SeriesDefinition { id, labels: vec![label(id)], bounds: vec![] });
    let family = v1::FamilyDefinition {
        name: "c_total".to_owned(),
        r#type: v1::MetricType::Counter.into(),
        series: series.collect(),
        ..v1::FamilyDefinition::default()
    };
    long.say(Said::Definitions(v1::Definitions { families: vec![family] })).await;
    // In two parts, so that the last one is short.
    let all: Vec<_> = ids.map(|id| (id, 1.0)).collect();
    let (most, last) = all.split_at(LONG - 1);
    long.say(part(1, 0, false, most)).await;
    long.say(part(1, 1, true, last)).await;
    taking.notified().await;

    let mut other = Peer::connect(&sessions);
    other.say(Said::Hello(v1::Hello { shard_id: 1, ..hello(2) })).await;
    assert!(matches!(other.answer().await, Answer::Welcome(_)));
    other.say(snapshot(1, &[])).await;
    assert_eq!(other.ack().await.sequence, 1);
    assert_eq!(*was_released.lock().unwrap(), None, "the other was answered after the long one");

    release.send(()).unwrap();
    assert_eq!(long.ack().await.sequence, 1);
    assert_eq!(*was_released.lock().unwrap(), Some(true));
}
