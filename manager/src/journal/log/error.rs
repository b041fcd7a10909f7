//! Why a log cannot be opened, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::format;

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two managers would write over each other.
    #[error(
        "{} is in use by another process: stop that process, or give this one another --data-dir",
        dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// Another version of the manager wrote it.
    #[error(
        "{} has journal format version {version}, and this manager knows version {}: run the manager that wrote it, \
         or give this one another --data-dir",
        path.display(),
        format::VERSION
    )]
    Version {
        /// The segment.
        path: PathBuf,
        /// The version it is in.
        version: u32,
    },
    /// To start without it could lose all totals.
    #[error(
        "{} is not the journal segment that its name says, or its header is damaged: restore it from a backup; or move \
         it to another directory to start without what it holds, and totals will be lower than they were",
        path.display()
    )]
    NotASegment {
        /// The file.
        path: PathBuf,
    },
    /// The disk or the permissions.
    #[error("cannot {doing} {}: {error}; check the disk, and that --data-dir belongs to the manager", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
}

impl OpenError {
    /// For `map_err`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io { doing, path: path.clone(), error }
    }
}
