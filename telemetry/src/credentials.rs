//! What the reporter shows the manager: a token.

use crate::BuildError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, fs, io};
use tonic::metadata::{Ascii, MetadataValue};
use tracing::warn;

type Header = MetadataValue<Ascii>;

/// A token that a stream begins with.
#[derive(Clone)]
pub(crate) enum Token {
    Fixed(Header),
    /// Read for each stream, so that a token can be replaced while the bot runs. Kept is what it was last.
    File(PathBuf, Arc<Mutex<Header>>),
}

impl Token {
    pub(crate) fn fixed(token: &str) -> Result<Self, BuildError> {
        header(token)
            .map(Self::Fixed)
            .ok_or_else(|| BuildError::Token("it is not visible ASCII".to_owned()))
    }

    pub(crate) fn file(path: PathBuf) -> Result<Self, BuildError> {
        match read(&path) {
            Ok(token) => Ok(Self::File(path, Arc::new(Mutex::new(token)))),
            Err(error) => Err(BuildError::Token(format!("{}: {error}", path.display()))),
        }
    }

    /// What goes with a call.
    pub(crate) fn header(&self) -> Header {
        match self {
            Self::Fixed(token) => token.clone(),
            Self::File(path, last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                match read(path) {
                    Ok(token) => *last = token,
                    Err(error) => warn!("token file {}: {error}", path.display()),
                }
                last.clone()
            }
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The first line that is not empty.
fn read(path: &Path) -> io::Result<Header> {
    let text = fs::read_to_string(path)?;
    let token = text.lines().find(|line| !line.is_empty());
    let token = token.ok_or_else(|| io::Error::other("it has no token"))?;
    header(token).ok_or_else(|| io::Error::other("its token is not visible ASCII"))
}

fn header(token: &str) -> Option<Header> {
    let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut header: Header = visible.then(|| format!("Bearer {token}").parse().ok())??;
    // Neither HTTP/2's compression nor a Debug keeps it.
    header.set_sensitive(true);
    Some(header)
}
