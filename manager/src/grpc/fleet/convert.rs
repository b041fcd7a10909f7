//! What the registry says of shards, as protobuf.

use std::collections::HashMap;

use shardmeter_proto::v1;

use crate::{
    clock::UnixTime,
    registry::{
        Departure, EventKind, InstanceStatus, KnownShards, Reason, ShardEvent, ShardState,
        ShardStatus, Successor, Transport,
    },
};

impl From<ShardStatus> for v1::Shard {
    fn from(status: ShardStatus) -> Self {
        Self {
            shard_id: status.id,
            state: v1::ShardState::from(status.state).into(),
            last_report: status.last_report.map(timestamp),
            series: status.series as u64,
            reports: status.reports.into_iter().map(|(t, n)| (t.as_str().to_owned(), n)).collect(),
            rejected_samples: rejected(status.rejected),
            instances: status.instances.into_iter().map(v1::Instance::from).collect(),
        }
    }
}

/// Those that there are.
pub(super) fn rejected(samples: [(Reason, u64); Reason::COUNTED.len()]) -> HashMap<String, u64> {
    let some = samples.into_iter().filter(|(_, n)| *n > 0);
    some.map(|(reason, n)| (reason.as_str().to_owned(), n)).collect()
}

impl From<InstanceStatus> for v1::Instance {
    fn from(status: InstanceStatus) -> Self {
        Self {
            instance: status.key.to_string(),
            transport: v1::Transport::from(status.transport).into(),
            client: status.client.into(),
            started_at: status.started_at.map(timestamp),
            last_report: Some(timestamp(status.last_report)),
            last_sequence: status.last_sequence,
            connected: status.connected,
            owns_gauges: status.owner,
        }
    }
}

impl From<ShardState> for v1::ShardState {
    fn from(state: ShardState) -> Self {
        match state {
            ShardState::Up => Self::Up,
            ShardState::Stale => Self::Stale,
            ShardState::NeverSeen => Self::NeverSeen,
        }
    }
}

impl From<Transport> for v1::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Grpc => Self::Grpc,
            Transport::Http => Self::Http,
        }
    }
}

pub(super) fn timestamp(time: UnixTime) -> prost_types::Timestamp {
    let nanos = time.as_nanos();
    prost_types::Timestamp {
        seconds: (nanos / 1_000_000_000).cast_signed(),
        nanos: (nanos % 1_000_000_000) as i32,
    }
}

pub(super) fn state(known: KnownShards, gap: bool) -> v1::FleetState {
    let KnownShards { epoch, revision, kept_after, shards, shard_count } = known;
    let shards = shards.into_iter().map(|(shard_id, state)| v1::KnownShard {
        shard_id,
        state: v1::ShardState::from(state).into(),
    });
    v1::FleetState {
        epoch: epoch.as_ref().to_owned(),
        revision,
        gap,
        shards: shards.collect(),
        shard_count,
        kept_after,
    }
}

pub(super) fn event(event: &ShardEvent) -> v1::ShardEvent {
    let (instance, transport) = match &event.instance {
        Some((key, transport)) => (key.to_string(), v1::Transport::from(*transport)),
        None => (String::new(), v1::Transport::Unspecified),
    };
    let (kind, reason, count) = kind(event.kind);
    v1::ShardEvent {
        revision: event.revision,
        time: Some(timestamp(event.at)),
        shard_id: event.shard_id,
        kind: kind.into(),
        instance,
        transport: transport.into(),
        reason: reason.into(),
        count,
        state: v1::ShardState::from(event.state).into(),
    }
}

const fn kind(kind: EventKind) -> (v1::ShardEventKind, v1::ShardEventReason, u64) {
    use v1::{ShardEventKind as Kind, ShardEventReason as Reason};
    match kind {
        EventKind::Connected => (Kind::Connected, Reason::Unspecified, 1),
        EventKind::Disconnected(why) => {
            let reason = match why {
                Departure::Goodbye => Reason::Goodbye,
                Departure::Broken => Reason::StreamBroke,
                Departure::Idle => Reason::Idle,
                Departure::Refused => Reason::Refused,
                Departure::Restarted => Reason::Restarted,
            };
            (Kind::Disconnected, reason, 1)
        }
        EventKind::Stale => (Kind::Stale, Reason::Unspecified, 1),
        EventKind::Superseded(Successor::Instance) => (Kind::Superseded, Reason::NewerInstance, 1),
        EventKind::Superseded(Successor::Stream) => (Kind::Superseded, Reason::NewerStream, 1),
        EventKind::Resumed(count) => (Kind::Resumed, Reason::Unspecified, count),
        EventKind::Invalidated(count) => (Kind::Invalidated, Reason::Unspecified, count),
        EventKind::Forgotten => (Kind::Forgotten, Reason::Unspecified, 1),
    }
}
