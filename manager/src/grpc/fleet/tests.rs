use tonic::Code;

use super::*;
use crate::{
    metrics::Metrics,
    registry::{
        InstanceKey, Registry, Report, Scope, Settings,
        tests::{COUNTER, HISTOGRAM, open_shard},
    },
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

#[tokio::test]
async fn a_series_is_explained_as_the_registry_does() {
    let registry = Registry::new(Settings::default(), []);
    let sessions = Arc::new(Sessions::of(registry, Arc::new(Metrics::new().unwrap())));
    let now = sessions.clock.now();
    let mut stream = open_shard(&sessions.registry, 0, 1, now);
    let h = stream.define_bounded(HISTOGRAM, "h", &[("a", "x\"y")], &[0.5]);
    let own = stream.define(COUNTER, "shardmeter_manager_x_total", &[]);
    stream.snapshot(1, &[(h, &[1.0, 2.0, 3.5]), (own, &[1.0])], now).unwrap();

    let fleet = Fleet::new(Arc::clone(&sessions));
    let ask = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let family = "h".to_owned();
        fleet.explain_series(Request::new(ExplainSeriesRequest { shard_id: 0, family, labels }))
    };
    let answer = ask(&[("a", "x\"y")]).await.unwrap().into_inner();
    let [series] = &answer.series[..] else { panic!("{answer:?}") };
    assert_eq!(series.labels, [("a".to_owned(), "x\"y".to_owned())].into());
    assert_eq!((series.r#type(), answer.more, &*series.hidden), (v1::MetricType::Histogram, 0, ""));
    let samples: Vec<_> =
        series.samples.iter().map(|s| (&*s.sample, s.shown(), &s.of_instances[..])).collect();
    assert_eq!(
        samples,
        [("_bucket{le=\"0.5\"}", 1.0, &[1.0][..]), ("_count", 2.0, &[2.0]), ("_sum", 3.5, &[3.5])]
    );
    assert_eq!(series.instances[0].instance, "01".repeat(16));
    assert_eq!(answer.rejected_samples, [("name_collision".to_owned(), 1)].into());
    let none = ask(&[("a", "z")]).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
}
