//! Messages that take long.

use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use prost::Message as _;
use shardmeter_proto::v1::ReportRequest;
use tokio::sync::Notify;
use tonic::codec::Codec as _;

use super::{
    super::{long::LONG, received::LONG_BYTES},
    *,
};
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

#[tokio::test]
async fn a_long_message_is_not_read_before_its_turn() {
    let sessions = sessions();
    let joined = Peer::join(&sessions, 1).await;
    for peer in [joined, Peer::connect(&sessions)] {
        not_before_its_turn(&sessions, peer).await;
    }
}

async fn not_before_its_turn(sessions: &Arc<Sessions>, mut peer: Peer) {
    let turns = sessions.long.0.acquire_many(2).await.unwrap();
    let bytes = Bytes::from(vec![0xff; LONG_BYTES]);
    peer.says.send(Ok(Received::Long(bytes.clone()))).await.unwrap();
    // Another stream goes on meanwhile, so this one has been looked at.
    let mut other = Peer::connect(sessions);
    other.say(Said::Hello(v1::Hello { shard_id: 1, ..hello(2) })).await;
    assert!(matches!(other.answer().await, Answer::Welcome(_)));
    assert!(peer.answers.try_recv().is_err());
    assert!(!bytes.is_unique(), "still as it came");

    drop(turns);
    let status = peer.refusal().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("unreadable message: "), "{status}");
    assert!(bytes.is_unique());
}

#[tokio::test]
async fn only_short_messages_are_read_as_they_come() {
    let framed = |message: &[u8]| {
        let mut frame = vec![0];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        frame
    };
    let short = ReportRequest { message: Some(Said::Hello(hello(1))), ..ReportRequest::default() }
        .encode_to_vec();
    let long = vec![0xff; LONG_BYTES];
    let body = axum::body::Body::from([framed(&short), framed(&long)].concat());
    let decoder = ReportCodec::default().decoder();
    let mut stream = Streaming::new_request(decoder, body, None, None);
    let first = stream.next().await.unwrap().unwrap();
    assert!(matches!(first, Received::Read(_)));
    match stream.next().await.unwrap().unwrap() {
        Received::Long(bytes) => assert_eq!(bytes, long),
        Received::Read(_) => panic!("it was read"),
    }
    assert!(stream.next().await.is_none());
}
