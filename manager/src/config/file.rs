//! The configuration file: what has no flag because few need it.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::registry::{Rules, Settings};

/// Most of anything that is counted here: far more than a machine holds, and small enough to calculate with.
const MAX: usize = 1 << 30;

/// The file's tables. Each may be left out, and so may each of their keys; a key that is not known is refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) limits: Limits,
    /// `[[rules]]`: what is done with families.
    pub(crate) rules: Rules,
}

/// `[limits]`: what the manager has room for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Series a shard may have in one family.
    pub series_per_family: NonZeroUsize,
    /// Series a shard may have in all.
    pub series_per_shard: NonZeroUsize,
    /// Series at which no new shard is taken.
    pub series: NonZeroUsize,
    /// Report streams that may be open. As many gRPC connections may be, for a stream may have one to itself.
    pub streams: NonZeroUsize,
    /// Report streams, and gRPC connections, that one address may have open.
    pub streams_per_peer: NonZeroUsize,
    /// HTTP connections that may be open; one address may have half of them.
    pub connections: NonZeroUsize,
    /// Frames and bodies that a shard may send a second, over time; five times as many may come at once.
    pub frames_per_second: NonZeroU32,
}

/// 10,000 shards fit, also when all of them come through one proxy, and then others still do.
const STREAMS: usize = 20_000;
const STREAMS_PER_PEER: usize = 10_000;

/// Each bot without gRPC posts on one, and scrapers are few.
const CONNECTIONS: usize = 1_024;

/// Shards report ten times a second at most, and once more when they are asked for a snapshot.
const FRAMES_PER_SECOND: u32 = 20;

impl Default for Limits {
    fn default() -> Self {
        let count = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let registry = Settings::default();
        Self {
            series_per_family: count(registry.max_series_per_family),
            series_per_shard: count(registry.max_series_per_shard),
            series: count(registry.max_series),
            streams: count(STREAMS),
            streams_per_peer: count(STREAMS_PER_PEER),
            connections: count(CONNECTIONS),
            frames_per_second: NonZeroU32::new(FRAMES_PER_SECOND).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("--config {}: {error}", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// It is no TOML, or has what is not known.
    #[error("--config {}: {error}", path.display())]
    Parse {
        /// As given.
        path: PathBuf,
        /// Where, and what is known there.
        error: Box<toml::de::Error>,
    },
    /// A limit beyond what any machine has.
    #[error("--config {}: limits.{key} = {value} is over {MAX}", path.display())]
    Limit {
        /// As given.
        path: PathBuf,
        /// Which.
        key: &'static str,
        /// As given.
        value: usize,
    },
}

impl File {
    /// Reads and checks it; without one, everything has its default.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, FileError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| FileError::Read { path: path.to_owned(), error })?;
        let file: Self = toml::from_str(&text).map_err(|error| {
            let error = Box::new(error);
            FileError::Parse { path: path.to_owned(), error }
        })?;
        file.limits.check().map_err(|(key, value)| {
            let path = path.to_owned();
            FileError::Limit { path, key, value }
        })?;
        Ok(file)
    }
}

impl Limits {
    /// Which limit cannot work.
    fn check(&self) -> Result<(), (&'static str, usize)> {
        let frames = usize::try_from(self.frames_per_second.get()).unwrap_or(usize::MAX);
        for (key, value) in [
            ("series_per_family", self.series_per_family.get()),
            ("series_per_shard", self.series_per_shard.get()),
            ("series", self.series.get()),
            ("streams", self.streams.get()),
            ("streams_per_peer", self.streams_per_peer.get()),
            ("connections", self.connections.get()),
            ("frames_per_second", frames),
        ] {
            if value > MAX {
                return Err((key, value));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Limits, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager.toml");
        std::fs::write(&path, text).unwrap();
        let file = File::read(Some(&path)).map_err(|error| error.to_string())?;
        Ok(file.limits)
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(read(""), Ok(Limits::default()));
        assert_eq!(read("[limits]"), Ok(Limits::default()));
        let streams = NonZeroUsize::new(30_000).unwrap();
        assert_eq!(read("[limits]\nstreams = 30_000"), Ok(Limits { streams, ..Limits::default() }));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        for (text, reasons) in [
            ("[limit]", &["line 1", "unknown field `limit`", "`limits`"][..]),
            (
                "[limits]\nstreams = 3\nshards = 3",
                &["line 3", "unknown field `shards`", "`frames_per_second`"],
            ),
            ("[limits]\nstreams = 0", &["line 2", "nonzero"]),
            ("[limits]\nstreams = -1", &["line 2", "-1"]),
            ("[limits]\nstreams = \"many\"", &["line 2", "many"]),
            ("[limits]\nstreams = 1\nstreams = 2", &["line 3", "duplicate key"]),
            ("limits", &["line 1"]),
            ("[[rules]]\naction = \"drop\"", &["line 1", "missing field `family`"]),
            (
                "[[rules]]\nfamily = \"x\"\ndrop_labels = [\"guild_id\"]",
                &["line 1", "family = \"x\"", "say what becomes of gauges"],
            ),
            ("[limits]\nconnections = 9_000_000_000", &["connections", "is over"]),
        ] {
            let error = read(text).unwrap_err();
            for reason in reasons.iter().chain(&["manager.toml"]) {
                assert!(error.contains(reason), "{text}: {error}");
            }
        }
        let missing = File::read(Some(Path::new("/no/such/file"))).unwrap_err().to_string();
        assert!(missing.contains("--config /no/such/file: No such file"), "{missing}");
    }
}
