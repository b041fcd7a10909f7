//! Shardmeter's wire contract: what a shard and the manager say to each other.
//!
//! The contract itself is in `proto/shardmeter/telemetry/v1/`: `telemetry.proto` is what shards speak, `fleet.proto` what
//! people and services ask; their comments are the manual. This crate holds the code generated from both and the few rules
//! that both ends apply alike, so that they cannot drift apart. With feature `events` also what shards and the api say to
//! each other over Redis, with feature `trace` how traces go on from one process to the next.
//!
//! The generated code is checked in: a build needs no protoc. `tests/generated.rs` generates it anew and compares.

#[cfg(feature = "events")]
pub mod events;
pub mod rules;
#[cfg(feature = "trace")]
pub mod trace;

/// Generated types of package `shardmeter.telemetry.v1`.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        rustdoc::broken_intra_doc_links,
        rustdoc::invalid_html_tags,
        clippy::all,
        clippy::needless_pass_by_value,
        clippy::too_many_lines
    )]
    include!("generated/shardmeter.telemetry.v1.rs");
}

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
