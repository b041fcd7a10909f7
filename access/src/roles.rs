//! Who may do what: tokens, the roles that they give, and the check of a request.
//!
//! A role that has no token file is open to whoever reaches the port (which a product's configuration keeps to this machine,
//! unless it is told otherwise), except admin, which nobody has then but a caller on this machine, as long as there is no token
//! at all. Where no token is needed, [`Pages`] says which web pages may ask.

mod authorization;
mod pages;
mod tokens;

use std::{array, fmt, path::PathBuf};

use http::HeaderMap;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::{seldom::Seldom, serve::Peer};
use authorization::Presented;
pub use pages::Pages;
use pages::{Foreign, local};
pub use tokens::TokenError;
use tokens::TokenFile;

/// How a request may say who sends it, for `WWW-Authenticate` beside 401.
pub const CHALLENGES: [&str; 2] = ["Bearer realm=\"shardmeter\"", "Basic realm=\"shardmeter\""];

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To report: streams and bodies.
    Ingest,
    /// To scrape, and to see who reports.
    View,
    /// To change what is kept; and to view.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::View, Self::Admin];

    /// As flags, logs and metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::View => "view",
            Self::Admin => "admin",
        }
    }

    /// Whether whoever has this role may do what `needed` may.
    fn includes(self, needed: Self) -> bool {
        self == needed || (self == Self::Admin && needed == Self::View)
    }
}

/// Where the tokens of each role are: one a line, two at most, so that the one can replace the other.
#[derive(Debug, Clone, Default)]
pub struct TokenFiles {
    /// `--ingest-token-file`.
    pub ingest: Option<PathBuf>,
    /// `--view-token-file`.
    pub view: Option<PathBuf>,
    /// `--admin-token-file`.
    pub admin: Option<PathBuf>,
}

/// The tokens of every role.
#[derive(Debug)]
pub struct Access {
    /// In the order of [`Role::ALL`].
    tokens: [Option<TokenFile>; 3],
    /// Of which nothing needs a token.
    pages: Pages,
    /// Lines about those that are refused.
    lines: [Seldom; 3],
    metrics: AccessMetrics,
}

/// What is counted of those that are refused.
#[derive(Debug, Clone)]
pub struct AccessMetrics {
    /// Requests refused for want of a token, by the role that they needed.
    unauthorized: IntCounterVec,
}

impl AccessMetrics {
    /// At zero, named `{prefix}_unauthorized_total`, in a registry.
    ///
    /// # Errors
    /// If the registry has such a name already.
    pub fn register(prefix: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let about = "Requests refused because they lacked the token of the role that they needed.";
        let opts = Opts::new(format!("{prefix}_unauthorized_total"), about);
        let unauthorized = IntCounterVec::new(opts, &["role"])?;
        for role in Role::ALL {
            unauthorized.with_label_values(&[role.as_str()]);
        }
        registry.register(Box::new(unauthorized.clone()))?;
        Ok(Self { unauthorized })
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    role: Role,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// No token came.
    Missing,
    /// What came is no token.
    Unreadable,
    /// A token that nobody has, any more or at all.
    Unknown,
    /// A valid token of that role.
    Other(Role),
    /// Nobody has an admin token.
    NoAdmin,
    /// A web page of elsewhere.
    Page(Foreign),
}

impl From<Foreign> for Why {
    fn from(foreign: Foreign) -> Self {
        Self::Page(foreign)
    }
}

impl Denied {
    /// Whether another token would do: 401, else 403.
    #[must_use]
    pub fn wants_token(self) -> bool {
        matches!(self.why, Why::Missing | Why::Unreadable | Why::Unknown)
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role.as_str();
        let send = format_args!(
            "send `Authorization: Bearer TOKEN`, or Basic with the token as password; tokens are in the file of \
             --{role}-token-file"
        );
        match self.why {
            Why::Missing => write!(f, "this needs the {role} token: {send}"),
            Why::Unreadable => {
                write!(f, "this needs the {role} token, and Authorization cannot be read: {send}")
            }
            Why::Unknown => write!(f, "the token is not the {role} token: {send}"),
            Why::Other(other) => {
                write!(f, "this needs the {role} token, and the {} token came", other.as_str())
            }
            Why::NoAdmin => {
                f.write_str("there is no admin token: set --admin-token-file to allow this")
            }
            Why::Page(Foreign::Host) => {
                write!(
                    f,
                    "the Host header names another machine, and with no {role} token this port is for this machine \
                     alone: ask it as localhost or 127.0.0.1, or set --{role}-token-file"
                )?;
                match self.role {
                    Role::Admin => Ok(()),
                    _ => f.write_str(", or say --allow-unauthenticated if a proxy brings others"),
                }
            }
            Why::Page(Foreign::Origin) => write!(
                f,
                "a web page of another machine sent this (its Origin says so), and may not as long as there is no {role} token: set \
                 --{role}-token-file"
            ),
        }
    }
}

impl Access {
    /// Reads the token files.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn open(
        files: TokenFiles,
        pages: Pages,
        metrics: AccessMetrics,
    ) -> Result<Self, TokenError> {
        let open = |role, path: Option<_>| path.map(|path| TokenFile::open(role, path)).transpose();
        let tokens = [
            open(Role::Ingest, files.ingest)?,
            open(Role::View, files.view)?,
            open(Role::Admin, files.admin)?,
        ];
        Ok(Self { tokens, pages, lines: array::from_fn(|_| Seldom::new(1)), metrics })
    }

    /// Reads the files again if they changed. One that cannot be used leaves its role's tokens as they are.
    ///
    /// Takes as long as the disk does; meant to be called every second.
    pub fn reload(&self) {
        for file in self.tokens.iter().flatten() {
            file.reload();
        }
    }

    /// Whether whoever sends these headers may do what `needed` may.
    ///
    /// # Errors
    /// If they may not, which is counted and logged.
    pub fn check(
        &self,
        needed: Role,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<(), Denied> {
        let allowed = self.decide(needed, headers, peer);
        allowed.map_err(|why| {
            let denied = Denied { role: needed, why };
            self.note(denied, peer);
            denied
        })
    }

    fn decide(&self, needed: Role, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(), Why> {
        let [ingest, view, admin] = &self.tokens;
        match needed {
            Role::Ingest if ingest.is_none() => return Ok(self.pages.check(needed, headers)?),
            Role::View if view.is_none() => return Ok(self.pages.check(needed, headers)?),
            Role::Admin if admin.is_none() => {
                let alone = self.tokens.iter().all(Option::is_none);
                let here = peer.is_some_and(|peer| peer.addr.ip().to_canonical().is_loopback());
                return match &self.pages {
                    _ if !(alone && here) => Err(Why::NoAdmin),
                    Pages::Local(origins) => Ok(local(needed, headers, origins)?),
                    // Anybody may ask; who is here is asked all the same.
                    Pages::Any => Ok(local(needed, headers, &[])?),
                };
            }
            _ => {}
        }
        let presented = match authorization::presented(headers) {
            Presented::Token(token) => token,
            Presented::Nothing => return Err(Why::Missing),
            Presented::Unreadable => return Err(Why::Unreadable),
        };
        let digest = tokens::digest(&presented);
        // Each is looked at, whatever the others say: how long it takes tells nothing.
        let has = [ingest, view, admin]
            .map(|file| file.as_ref().is_some_and(|file| file.contains(&digest)));
        let mut held = Role::ALL.into_iter().zip(has).filter_map(|(role, has)| has.then_some(role));
        match held.clone().any(|role| role.includes(needed)) {
            true => Ok(()),
            false => Err(held.next().map_or(Why::Unknown, Why::Other)),
        }
    }

    /// Counts what was refused, and logs it if nothing was lately.
    fn note(&self, denied: Denied, peer: Option<&Peer>) {
        let role = denied.role.as_str();
        self.metrics.unauthorized.with_label_values(&[role]).inc();
        if let Some(lines) = self.lines.get(denied.role as usize) {
            let peer = peer.map(tracing::field::display);
            lines.say(|left_out| tracing::warn!(role, peer, left_out, "unauthorized: {denied}"));
        }
    }
}

#[cfg(test)]
mod tests;
