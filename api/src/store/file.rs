//! The file of an SQLite database: of one api, and the one that is at its path.

use std::{
    fs::{self, File, Metadata, TryLockError},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A file that no other api uses, until this is dropped.
#[derive(Debug)]
pub(super) struct OwnFile {
    /// The file, and the lock beside it: who finds another there is not kept out by this one.
    places: [(PathBuf, Identity); 2],
    /// SQLite has locks on the file itself, which this process would lose with any that it closes.
    _lock: File,
}

/// What a file is known by, whatever its name.
type Identity = (u64, u64);

impl OwnFile {
    /// Takes a file that is there.
    ///
    /// # Errors
    /// If another api has it, for counts and incidents would be stored twice.
    pub(super) fn take(path: &Path) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", path.display());
        // Whatever leads to it.
        let path = fs::canonicalize(path).map_err(failed)?;
        let identity = identity_of(&fs::metadata(&path).map_err(failed)?);
        let mut beside = path.clone().into_os_string();
        beside.push("-lock");
        let lock = File::options().create(true).append(true).open(&beside).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {
                let locked = identity_of(&lock.metadata().map_err(failed)?);
                let places = [(path, identity), (beside.into(), locked)];
                Ok(Self { places, _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(format!(
                "another api has {} (it holds {}): give each a file of its own, or all one PostgreSQL",
                path.display(),
                beside.display()
            )),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Whether it is still at its path, for what is written into one that was deleted is lost; and so is its lock, for else
    /// another api takes it too.
    pub(super) fn check(&self) -> Result<(), String> {
        for (path, identity) in &self.places {
            if !fs::metadata(path).is_ok_and(|now| identity_of(&now) == *identity) {
                return Err(format!("{} was removed or replaced while in use", path.display()));
            }
        }
        Ok(())
    }
}

fn identity_of(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_apis_and_the_one_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.db");
        assert!(OwnFile::take(&path).is_err(), "it is not there");
        fs::write(&path, "").unwrap();
        let file = OwnFile::take(&path).unwrap();
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for other in [&path, &link] {
            let error = OwnFile::take(other).unwrap_err();
            assert!(error.contains("another api has") && error.contains("api.db-lock"), "{error}");
        }
        file.check().unwrap();
        // There before the first goes, so that it is another.
        fs::write(folder.path().join("new"), "").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(file.check().unwrap_err().ends_with("was removed or replaced while in use"));
        drop(file);
        let file = OwnFile::take(&path).unwrap();
        let lock = folder.path().join("api.db-lock");
        fs::remove_file(&lock).unwrap();
        assert!(file.check().unwrap_err().contains("api.db-lock was removed"));
        let _other = OwnFile::take(&path).unwrap();
        assert!(file.check().unwrap_err().contains("api.db-lock was removed or replaced"));
    }
}
