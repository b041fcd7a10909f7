//! That each shard is one process, but for a moment.

use shardmeter_proto::v1::{Instance, Shard, Transport};

use super::{
    finding::Found,
    fleet::{Fleet, seconds},
    ids::folded,
};

/// The longest that a shard's next process and the one before run together, seconds.
const TOGETHER: f64 = 600.0;

pub(super) fn check(fleet: &Fleet) -> Found {
    let double = fleet.shards.iter().filter(|shard| together(shard, fleet.now) > TOGETHER);
    let double: Vec<u32> = double.map(|shard| shard.shard_id).collect();
    if double.is_empty() {
        return Found::ok("no shard reports by two streams for long");
    }
    Found::warning(
        format!(
            "by two streams or more, for over {:.0} minutes: shards {}",
            TOGETHER / 60.0,
            folded(double)
        ),
        "end the older process: two on one shard answer every command twice, and their counts add up; GET \
         /api/v1/shards/ID names both",
    )
}

/// For how long two instances have been connected at once, seconds. Posts are left out: they have several senders where people
/// want that.
fn together(shard: &Shard, now: f64) -> f64 {
    let is_stream =
        |instance: &&Instance| instance.connected && instance.transport() == Transport::Grpc;
    let began = shard.instances.iter().filter(is_stream).filter_map(|instance| instance.started_at);
    let mut began: Vec<f64> = began.map(seconds).collect();
    began.sort_unstable_by(f64::total_cmp);
    began.get(1).map_or(0.0, |second| now - second)
}
