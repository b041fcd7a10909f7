use tonic::Code;

use super::*;
use crate::{
    metrics::Metrics,
    registry::{InstanceKey, Registry, Report, Scope, Settings},
};

#[tokio::test]
async fn shards_are_listed_as_the_registry_has_them() {
    let registry = Registry::new(Settings::default(), []);
    let sessions = Arc::new(Sessions::of(registry, Arc::new(Metrics::new().unwrap())));
    let now = sessions.clock.now();
    let report = Report {
        shard_id: 3,
        sender: InstanceKey::Named("bot".into()),
        sequence: Some(7),
        started_at: None,
        interval: None,
        scope: Scope::Everything,
        families: &[],
    };
    sessions.registry.report(&[report], now).unwrap();

    let fleet = Fleet::new(Arc::clone(&sessions));
    let list = fleet.list_shards(Request::new(ListShardsRequest {})).await.unwrap().into_inner();
    let [shard] = &list.shards[..] else { panic!("{list:?}") };
    assert_eq!((shard.shard_id, shard.state()), (3, v1::ShardState::Up));
    assert_eq!(shard.reports, [("grpc".to_owned(), 0), ("http".to_owned(), 1)].into());
    assert_eq!(shard.last_report, Some(timestamp(now)));
    let [instance] = &shard.instances[..] else { panic!("{shard:?}") };
    assert_eq!((&*instance.instance, instance.transport()), ("bot", v1::Transport::Http));
    assert_eq!((instance.last_sequence, instance.owns_gauges), (7, true));

    let get = |shard_id| fleet.get_shard(Request::new(GetShardRequest { shard_id }));
    assert_eq!(get(3).await.unwrap().into_inner().shard.as_ref(), Some(shard));
    assert_eq!(get(2).await.unwrap_err().code(), Code::NotFound);
}
