//! From protobuf to the manager's model and back. What cannot be converted is refused with the place and the reason.

use std::time::Duration;

use shardmeter_proto::{rules::INSTANCE_ID_LEN, v1};
use tonic::Status;

use crate::{
    clip::clip,
    clock::UnixTime,
    model::{Bounds, Exemplar, FamilyHead, LabelSet, MetricType, Samples, is_name},
    registry::{FamilyDefinition, Hello, Reason, Rejected, ReportedExemplar, SeriesDefinition},
};

/// Longest name and version of a client library together; they are kept as long as the instance.
const MAX_CLIENT_BYTES: usize = 128;

pub(super) fn hello<'a>(
    hello: &v1::Hello,
    client: &'a str,
    now: UnixTime,
) -> Result<Hello<'a>, Status> {
    let instance_id =
        <[u8; INSTANCE_ID_LEN]>::try_from(hello.instance_id.as_slice()).map_err(|_| {
            let got = hello.instance_id.len();
            Status::invalid_argument(format!(
                "Hello.instance_id has {got} bytes, not {INSTANCE_ID_LEN}"
            ))
        })?;
    if client.len() > MAX_CLIENT_BYTES {
        return Err(Status::invalid_argument(format!(
            "Hello.client_name and client_version have over {MAX_CLIENT_BYTES} bytes"
        )));
    }
    Ok(Hello {
        shard_id: hello.shard_id,
        shard_count: hello.shard_count,
        instance_id,
        started_at: hello.started_at.as_ref().and_then(time).unwrap_or(now),
        client,
    })
}

fn time(timestamp: &prost_types::Timestamp) -> Option<UnixTime> {
    let since_epoch =
        Duration::new(timestamp.seconds.try_into().ok()?, timestamp.nanos.try_into().ok()?);
    Some(UnixTime::from_duration(since_epoch))
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

pub(super) fn samples(samples: Option<&v1::Samples>) -> Samples<'_> {
    samples.map_or_else(Samples::default, |s| Samples { ids: &s.series, values: &s.values })
}

/// Exemplars with the ids of their series. What is wrong with one alone goes with it, and costs nothing else.
pub(super) fn exemplars(exemplars: &[v1::Exemplar]) -> Vec<(u32, ReportedExemplar)> {
    let exemplar = |said: &v1::Exemplar| {
        let labels = said.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
        let at = said.time.as_ref().and_then(time);
        let exemplar = Exemplar::new(labels, said.value, at);
        (said.series, ReportedExemplar { bucket: said.bucket, exemplar })
    };
    exemplars.iter().map(exemplar).collect()
}

pub(super) fn definitions(
    definitions: &v1::Definitions,
    shard_id: u32,
) -> Result<Vec<FamilyDefinition<'_>>, Status> {
    definitions.families.iter().map(|f| family(f, shard_id)).collect()
}

fn family(family: &v1::FamilyDefinition, shard_id: u32) -> Result<FamilyDefinition<'_>, Status> {
    let name = &family.name;
    let refuse =
        |what: String| Status::invalid_argument(format!("definition of family {name:?}: {what}"));
    if !is_name(name) {
        return Err(refuse("the name is empty or has a NUL".to_owned()));
    }
    let kind = match family.r#type() {
        v1::MetricType::Unspecified => {
            return Err(refuse(format!("no metric type has number {}", family.r#type)));
        }
        v1::MetricType::Counter => MetricType::Counter,
        v1::MetricType::Gauge => MetricType::Gauge,
        v1::MetricType::Histogram => MetricType::Histogram,
        v1::MetricType::Summary => MetricType::Summary,
        v1::MetricType::Untyped => MetricType::Untyped,
    };
    let series = family.series.iter().map(|series| {
        self::series(series, kind, shard_id)
            .map_err(|what| refuse(format!("series {}: {what}", series.id)))
    });
    Ok(FamilyDefinition {
        head: FamilyHead { name, kind, help: &family.help, unit: &family.unit },
        series: series.collect::<Result<_, _>>()?,
    })
}

fn series(
    series: &v1::SeriesDefinition,
    kind: MetricType,
    shard_id: u32,
) -> Result<SeriesDefinition, String> {
    let bound_label = match kind {
        MetricType::Histogram => Some("le"),
        MetricType::Summary => Some("quantile"),
        MetricType::Counter | MetricType::Gauge | MetricType::Untyped => None,
    };
    let labels = series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
    let labels = LabelSet::canonical(labels, shard_id, bound_label).map_err(|e| e.to_string())?;
    let bounds = Bounds::new(&series.bounds).map_err(|e| e.to_string())?;
    let quantiles = bounds.values().iter().all(|q| (0.0..=1.0).contains(q));
    if kind == MetricType::Summary && !quantiles {
        return Err("quantiles are within 0 and 1".to_owned());
    }
    Ok(SeriesDefinition { id: series.id, labels, bounds })
}

pub(super) fn rejected(rejected: Rejected) -> v1::Rejected {
    let reason = match rejected.reason {
        Reason::TypeConflict => v1::RejectReason::TypeConflict,
        Reason::NameCollision => v1::RejectReason::NameCollision,
        Reason::DuplicateSeries => v1::RejectReason::DuplicateSeries,
        // What a rule drops is not said.
        Reason::Limit | Reason::Rule => v1::RejectReason::Limit,
        Reason::Overflow => v1::RejectReason::Overflow,
    };
    v1::Rejected {
        family: rejected.family.into(),
        reason: reason.into(),
        message: clip(rejected.message),
        series: rejected.series,
    }
}
