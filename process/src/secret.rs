//! What must not be seen.

use std::fmt;

/// A string that no log and no `Debug` shows.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The string itself; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
