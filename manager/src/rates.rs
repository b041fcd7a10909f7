//! How often a shard may send frames and bodies: the rate that `[limits]` states.

/// The buckets of all shards, by their ids.
pub(crate) type Rates = shardmeter_access::Rates<u32>;

/// A shard's bucket. What all its streams, or all its posts, take comes out of one.
pub(crate) type Rate = shardmeter_access::Rate<u32>;

/// A shard sends too often.
pub(crate) type TooFast = shardmeter_access::TooFast<u32>;

/// What it is told.
pub(crate) fn refusal(too_fast: &TooFast) -> String {
    let TooFast { who, per_second, .. } = too_fast;
    format!(
        "shard {who} sends more than {per_second} reports a second, the manager's limit; one each report interval is enough"
    )
}
