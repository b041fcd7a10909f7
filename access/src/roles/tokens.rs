//! A file of tokens: one a line, two at most, so that a new one can be brought in before the old one goes.
//!
//! Only their digests are kept. All have one length, so comparing them takes as long whatever was sent, and no log can have
//! what memory does not.

use std::{fmt, io, path::PathBuf};

use parking_lot::{Mutex, RwLock};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN};
use subtle::{Choice, ConstantTimeEq as _};

use super::Role;
use crate::files;

/// Valid at once: the one and its successor.
const MAX_TOKENS: usize = 2;

/// Longest token, bytes. Longer ones do not fit the headers that some clients send.
const MAX_TOKEN_BYTES: usize = 512;

pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(ring::digest::digest(&SHA256, bytes).as_ref());
    digest
}

/// Why a token file cannot be used. Names the file and the line, never what is on it.
#[derive(Debug, thiserror::Error)]
#[error("--{}-token-file {}: {problem}", role.as_str(), path.display())]
pub struct TokenError {
    role: Role,
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Read(io::Error),
    #[error("it has no token; `openssl rand -hex 32` makes one")]
    Empty,
    #[error("line {0} has a third token; there can be two, the one and the next")]
    TooMany(usize),
    #[error("line {0} is over {MAX_TOKEN_BYTES} bytes")]
    TooLong(usize),
    #[error("line {0} has a character that no token can have: only visible ASCII, without spaces")]
    BadCharacter(usize),
}

/// See the module.
pub(super) struct TokenFile {
    role: Role,
    path: PathBuf,
    tokens: RwLock<Vec<Digest>>,
    /// What the file was when it was last read, of use or not.
    seen: Mutex<Result<Digest, io::ErrorKind>>,
}

/// Without digests: who has them can try words at home.
impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TokenFile {
    pub(super) fn open(role: Role, path: PathBuf) -> Result<Self, TokenError> {
        let read = files::read(&path);
        let seen = Mutex::new(seen(&read));
        match read.map_err(Problem::Read).and_then(|text| parse(&text)) {
            Ok(tokens) => Ok(Self { role, path, tokens: RwLock::new(tokens), seen }),
            Err(problem) => Err(TokenError { role, path, problem }),
        }
    }

    /// Whether a token with this digest is valid.
    pub(super) fn contains(&self, presented: &Digest) -> bool {
        let tokens = self.tokens.read();
        let among = |found: Choice, token: &Digest| found | token.ct_eq(presented);
        tokens.iter().fold(Choice::from(0), among).into()
    }

    /// Takes over what the file has now. If that cannot be used, it says so once and leaves the tokens as they are.
    pub(super) fn reload(&self) {
        let read = files::read(&self.path);
        let ends = read.as_ref().map_or(true, |text| text.ends_with(b"\n"));
        if !ends && files::is_young(&self.path) {
            return; // half a token would be one
        }
        let now = seen(&read);
        let before = std::mem::replace(&mut *self.seen.lock(), now);
        if before == now {
            return;
        }
        let Self { role, path, .. } = self;
        let file = path.display();
        match read.map_err(Problem::Read).and_then(|text| parse(&text)) {
            Ok(tokens) => {
                let count = tokens.len();
                *self.tokens.write() = tokens;
                tracing::info!(role = role.as_str(), %file, tokens = count, "tokens read again");
            }
            Err(problem) => tracing::error!(
                role = role.as_str(), %file, %problem,
                "the token file changed and cannot be used; the tokens stay as they were"
            ),
        }
    }
}

fn seen(read: &io::Result<Vec<u8>>) -> Result<Digest, io::ErrorKind> {
    read.as_ref().map(|text| digest(text)).map_err(io::Error::kind)
}

fn parse(text: &[u8]) -> Result<Vec<Digest>, Problem> {
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let token = line.strip_suffix(b"\r").unwrap_or(line);
        if token.is_empty() {
            continue;
        }
        if tokens.len() == MAX_TOKENS {
            return Err(Problem::TooMany(number));
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Problem::TooLong(number));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(Problem::BadCharacter(number));
        }
        tokens.push(digest(token));
    }
    if tokens.is_empty() { Err(Problem::Empty) } else { Ok(tokens) }
}
