//! What admins do, however they say it. Each use is logged with who and what.

use shardmeter_access::Peer;

use crate::{
    clock::UnixTime,
    registry::{Forgotten, Registry},
};

/// Forgets what a shard counted. `None`: it is not known.
pub(crate) fn forget_shard(
    registry: &Registry,
    shard_id: u32,
    now: UnixTime,
    peer: Option<&Peer>,
) -> Option<Forgotten> {
    let forgotten = registry.forget(shard_id, now);
    let subject = peer.and_then(|peer| peer.certificate.as_deref());
    let peer = peer.map(|peer| tracing::field::display(peer.addr));
    let series = forgotten.map(|forgotten| forgotten.series);
    let alive = forgotten.map(|forgotten| forgotten.alive);
    tracing::warn!(role = "admin", peer, subject, shard_id, series, alive, "forget shard");
    forgotten
}
