//! Whatever a stream says: no panic, and a message that ends the stream changes nothing.

use proptest::prelude::*;

use super::*;

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![8 => (0..20_u8).prop_map(f64::from), 1 => any::<f64>(), 1 => Just(f64::NAN)]
}

fn some_samples() -> impl Strategy<Value = Option<v1::Samples>> {
    let fitting =
        prop::collection::btree_map(0..4_u32, number(), 0..4).prop_map(|samples| v1::Samples {
            series: samples.keys().copied().collect(),
            values: samples.into_values().collect(),
        });
    let any = (prop::collection::vec(0..6_u32, 0..4), prop::collection::vec(number(), 0..6))
        .prop_map(|(series, values)| v1::Samples { series, values });
    prop_oneof![1 => Just(None), 8 => fitting.prop_map(Some), 1 => any.prop_map(Some)]
}

fn some_exemplars() -> impl Strategy<Value = Vec<v1::Exemplar>> {
    let at = (any::<i64>(), any::<i32>());
    let time =
        prop::option::of(at.prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }));
    let exemplar = (0..3_u32, 0..3_u32, "[ab._]{0,2}|a{200}", number(), time);
    let exemplar = exemplar.prop_map(|(series, bucket, name, value, time)| {
        let labels = vec![v1::Label { name, value: "x".into() }];
        v1::Exemplar {
            series: series.saturating_sub(1),
            bucket: bucket.saturating_sub(1),
            labels,
            value,
            time,
        }
    });
    prop::collection::vec(exemplar, 0..2)
}

fn definition() -> impl Strategy<Value = Said> {
    let series = (
        0..6_u32,
        prop::option::weighted(0.2, "[a-z_0-9-]{0,3}"),
        prop::collection::vec(number(), 0..2),
    );
    let family = ("[a-c]|[a-c]_sum|[a-c]_total|-", 0..7_i32, prop::collection::vec(series, 0..3));
    prop::collection::vec(family, 0..3).prop_map(|families| {
        let families = families.into_iter().map(|(name, kind, series)| v1::FamilyDefinition {
            name,
            r#type: kind,
            series: series
                .into_iter()
                .map(|(id, label, bounds)| v1::SeriesDefinition {
                    id,
                    labels: label
                        .into_iter()
                        .map(|name| v1::Label { name, value: "x".into() })
                        .collect(),
                    bounds,
                })
                .collect(),
            ..v1::FamilyDefinition::default()
        });
        Said::Definitions(v1::Definitions { families: families.collect() })
    })
}

/// With and without what only one format shows.
fn pages(sessions: &Sessions) -> [String; 2] {
    [Format::TEXT, Format::OPENMETRICS].map(|format| {
        let page = exposition::render(&sessions.registry, &[], sessions.clock.now(), format);
        String::from_utf8(page.to_vec()).unwrap()
    })
}

fn message() -> impl Strategy<Value = Said> {
    let hello = (0..3_u8, 0..3_u32, 0..3_u32).prop_map(|(instance, shard_id, shard_count)| {
        Said::Hello(v1::Hello { shard_id, shard_count, ..hello(instance) })
    });
    let samples = || (some_samples(), some_samples(), some_exemplars());
    let snapshot = (0..6_u64, 0..3_u32, any::<bool>(), samples()).prop_map(
        |(sequence, part, last, (samples, removed, exemplars))| {
            Said::Snapshot(v1::Snapshot {
                sequence,
                part: part.saturating_sub(1),
                last,
                samples,
                removed,
                exemplars,
            })
        },
    );
    let delta = (0..8_u64, samples()).prop_map(|(sequence, (samples, removed, exemplars))| {
        Said::Delta(v1::Delta { sequence, samples, removed, exemplars })
    });
    prop_oneof![
        1 => hello,
        4 => definition(),
        4 => snapshot,
        6 => delta,
        1 => (0..8_u64).prop_map(|sequence| Said::Goodbye(v1::Goodbye { sequence })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_what_is_refused_changes_nothing(
        streams in prop::collection::vec((any::<bool>(), prop::collection::vec(message(), 0..20)), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let sessions = sessions();
            for (ready, messages) in streams {
                let (answers, mut answered) = mpsc::channel(1000);
                let mut session = Session { sessions: &sessions, answers: &answers, attached: None };
                let good = [
                    Said::Hello(hello(1)),
                    define("a", v1::MetricType::Counter, 0),
                    define("b", v1::MetricType::Gauge, 1),
                ];
                let good = good.into_iter().take(if ready { 3 } else { 0 });
                for said in good.chain(messages) {
                    let before = pages(&sessions);
                    let told = format!("{said:?}");
                    if let Err(end) = session.answer(Some(said).into()).await {
                        let refused = matches!(end, End::Refused(_));
                        assert!(!refused || pages(&sessions) == before, "{told}");
                        break;
                    }
                    // One message, one answer at most; and one that asks for a snapshot has changed nothing.
                    match answered.try_recv() {
                        Ok(Ok(ReportResponse { message: Some(Answer::Resync(_)) })) => {
                            assert_eq!(pages(&sessions), before, "{told}");
                        }
                        Ok(answer) => assert!(answer.is_ok()),
                        Err(_) => {}
                    }
                    assert!(answered.try_recv().is_err());
                }
            }
        });
    }
}
