//! Sessions saved at a clean shutdown and resumed at the next start: one JSON file per shard, replaced atomically.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::{fs, io::AsyncWriteExt as _};
use twilight_gateway::{Session, ShardId};
use twilight_model::id::{Id, marker::ApplicationMarker};

use crate::guilds::SavedGuilds;

/// Raised when the file's meaning changes; another number is a foreign file.
const FORMAT: u32 = 1;

/// A larger file was not written by this process: 2,500 guilds, the most a shard may have, are some 100 kB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Where a shard left off.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    format: u32,
    /// The gateway the session was begun at; the token must not be sent to another's resume address.
    gateway: String,
    shard: ShardId,
    /// Who the bot is; READY says it, RESUMED does not.
    pub(crate) application: Id<ApplicationMarker>,
    pub(crate) session: Session,
    pub(crate) resume_url: String,
    pub(crate) guilds: SavedGuilds,
}

/// Why a saved session cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is larger than any session")]
    TooLarge,
    #[error("it is no saved session")]
    Parse(#[from] serde_json::Error),
    #[error("it is of format {0}")]
    Format(u32),
    #[error("it is of another shard, shard count or gateway")]
    Foreign,
    #[error("its resume address is none")]
    ResumeUrl,
}

/// The file of one shard's session.
pub(crate) struct SessionFile {
    path: PathBuf,
    gateway: String,
    shard: ShardId,
}

impl SessionFile {
    /// The file of `shard`, whose sessions are begun at `gateway`, in the folder `state_dir`.
    pub(crate) fn new(state_dir: &Path, gateway: &str, shard: ShardId) -> Self {
        let path = state_dir.join(format!("shard-{}.json", shard.number()));
        Self { path, gateway: gateway.to_owned(), shard }
    }

    /// Takes the saved session out of its file: a session is good for one resume, and a file that outlived a crash would
    /// be tried in vain. A file that cannot be used is left alone, with a warning.
    pub(crate) async fn take(&self) -> Option<SavedSession> {
        match self.read().await {
            Ok(saved) => {
                if let Err(error) = fs::remove_file(&self.path).await {
                    tracing::warn!(%error, path = %self.path.display(), "a used session stays saved");
                }
                Some(saved)
            }
            Err(Unusable::Read(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, path = %self.path.display(), "a saved session is ignored");
                None
            }
        }
    }

    /// Saves a session: written beside the old file, then renamed over it.
    pub(crate) async fn save(
        &self,
        application: Id<ApplicationMarker>,
        session: Session,
        resume_url: String,
        guilds: SavedGuilds,
    ) -> io::Result<()> {
        let saved = SavedSession {
            format: FORMAT,
            gateway: self.gateway.clone(),
            shard: self.shard,
            application,
            session,
            resume_url,
            guilds,
        };
        let beside = self.path.with_extension("json.tmp");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // Who knows a session's id can take part in it.
        #[cfg(unix)]
        options.mode(0o600);
        let mut file = options.open(&beside).await?;
        file.write_all(&serde_json::to_vec(&saved)?).await?;
        file.sync_all().await?;
        fs::rename(&beside, &self.path).await
    }

    async fn read(&self) -> Result<SavedSession, Unusable> {
        if fs::metadata(&self.path).await?.len() > MAX_FILE_BYTES {
            return Err(Unusable::TooLarge);
        }
        let saved: SavedSession = serde_json::from_slice(&fs::read(&self.path).await?)?;
        if saved.format != FORMAT {
            return Err(Unusable::Format(saved.format));
        }
        if saved.gateway != self.gateway || saved.shard != self.shard {
            return Err(Unusable::Foreign);
        }
        // twilight takes the address on trust and would panic.
        if !is_gateway_url(&saved.resume_url) {
            return Err(Unusable::ResumeUrl);
        }
        Ok(saved)
    }
}

/// Whether twilight can connect to this address: `ws` or `wss`, with a host, and without a path that would end before
/// twilight's query.
pub(crate) fn is_gateway_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("ws" | "wss"))
            && uri.host().is_some()
            && uri.query().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path) -> SessionFile {
        SessionFile::new(dir, "wss://gateway.example", ShardId::new(3, 8))
    }

    async fn save(file: &SessionFile) {
        let session = Session::new(42, "session".to_owned());
        let resume_url = "wss://resume.example".to_owned();
        file.save(Id::new(7), session, resume_url, SavedGuilds::default()).await.unwrap();
    }

    #[tokio::test]
    async fn a_saved_session_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert!(file.take().await.is_none());
        save(&file).await;
        let saved = file.take().await.unwrap();
        assert_eq!(saved.session, Session::new(42, "session".to_owned()));
        assert_eq!(saved.resume_url, "wss://resume.example");
        assert_eq!(saved.application, Id::new(7));
        assert!(file.take().await.is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left beside it");
    }

    #[tokio::test]
    async fn a_foreign_or_broken_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        save(&file).await;
        let good = std::fs::read_to_string(&file.path).unwrap();
        for (what, text) in [
            ("cut off", good[..good.len() / 2].to_owned()),
            ("empty", String::new()),
            ("another gateway", good.replace("wss://gateway.example", "ws://127.0.0.1:9")),
            ("another shard", good.replace("[3,8]", "[4,8]")),
            ("another shard count", good.replace("[3,8]", "[3,9]")),
            ("an impossible shard", good.replace("[3,8]", "[9,8]")),
            ("another format", good.replace(r#""format":1"#, r#""format":2"#)),
            ("no address", good.replace("wss://resume.example", "not an address")),
            (
                "an address of another kind",
                good.replace("wss://resume.example", "http://resume.example"),
            ),
        ] {
            assert_ne!(text, good, "{what}");
            std::fs::write(&file.path, text).unwrap();
            assert!(file.take().await.is_none(), "{what}");
        }
        std::fs::write(&file.path, good).unwrap();
        assert!(file.take().await.is_some());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_saved_session_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        save(&file).await;
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
