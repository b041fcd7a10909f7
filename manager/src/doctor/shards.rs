//! Which shards are missing from `0..count`.

use shardmeter_proto::v1::{Shard, ShardState, Transport};

use super::{
    finding::Found,
    fleet::{Fleet, seconds},
    ids::{folded, grouped},
};

pub(super) fn check(fleet: &Fleet) -> Found {
    let Fleet { shards, count, .. } = fleet;
    let ids = |fits: &dyn Fn(&&Shard) -> bool| {
        let mut ids: Vec<u32> = shards.iter().filter(fits).map(|shard| shard.shard_id).collect();
        ids.sort_unstable();
        ids
    };
    let expected = |shard: &&Shard| *count == 0 || shard.shard_id < *count;
    let is_up = |shard: &&Shard| shard.state() == ShardState::Up && expected(shard);
    let up = ids(&|shard| is_up(shard) && !is_lost(shard));
    let lost = ids(&|shard| is_up(shard) && is_lost(shard));
    let never = ids(&|shard| shard.state() == ShardState::NeverSeen && expected(shard));
    let stale = ids(&|shard| shard.state() == ShardState::Stale && expected(shard));
    let beyond = ids(&|shard| shard.state() == ShardState::Up && !expected(shard));
    let mut missing = Vec::new();
    if !never.is_empty() {
        missing.push(format!("{} never did", folded(never.iter().copied())));
    }
    if !stale.is_empty() {
        let since =
            shards.iter().filter(|shard| shard.state() == ShardState::Stale && expected(shard));
        let last = since.filter_map(|shard| shard.last_report).map(seconds).fold(0.0, f64::max);
        let age = (fleet.now - last).max(0.0);
        missing.push(format!("{} no longer, last {age:.0} s ago", folded(stale.iter().copied())));
    }
    let all = up.len() + lost.len() + never.len() + stale.len();
    let reporting = format!("{} of {} report", grouped(up.len() as u64), grouped(all as u64));
    if all == 0 && beyond.is_empty() {
        return Found::warning(
            "no shard has ever reported",
            "start the bot, with its manager endpoint and ingest token set to this manager; its log says what refuses it",
        );
    }
    let gone = !missing.is_empty();
    if !lost.is_empty() {
        missing.push(format!("{} lost their streams just now", folded(lost)));
    }
    let missing = missing.join("; ");
    if gone {
        return Found::failure(
            format!("{reporting}: {missing}"),
            "see whether these shards' processes run, reach the manager, and what their logs say; after a reshard to fewer, \
             restart the bot so that all say the same shard count",
        );
    }
    if !missing.is_empty() {
        return Found::warning(
            format!("{reporting}: {missing}"),
            "ask again in a moment: if they are not being restarted, see what ended their processes or connections",
        );
    }
    if !beyond.is_empty() {
        return Found::warning(
            format!("{reporting}, and {} beyond the bot's shard count", folded(beyond)),
            "end the processes of before the reshard: they count what the new ones count too",
        );
    }
    if *count == 0 {
        return Found::warning(
            format!("{reporting}, and nobody says how many there should be"),
            "say --shards COUNT here, for posts cannot say it; one process that reports by gRPC can",
        );
    }
    Found::ok(reporting)
}

/// Whether it reported by streams and none is open, though it is too soon to call it stale.
fn is_lost(shard: &Shard) -> bool {
    let newest = shard.instances.last();
    newest.is_none_or(|newest| newest.transport() == Transport::Grpc)
        && !shard.instances.iter().any(|instance| instance.connected)
}
