//! What a bot may have to handle.

use crate::Shard;
use std::time::Duration;

/// Why a [`Connection`](crate::Connection) or a [`Reporter`](crate::Reporter) could not be made. All of these are
/// mistakes in the bot's set-up; that the manager is away is none of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The manager's address is not a usable one.
    #[error("manager endpoint {endpoint:?} is not usable: {reason}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot be used. Says why, not what it is.
    #[error("the token for the manager is not usable: {0}")]
    Token(String),
    /// A certificate, or its key, cannot be used.
    #[error("the certificates for the manager are not usable: {0}")]
    Certificate(String),
    /// Called outside a tokio runtime.
    #[error("a tokio runtime must be running here: the report task lives on it")]
    NoRuntime,
    /// The shard's id is not below the count.
    #[error("shard {} of {}: ids count from 0 and stay below the count", .0.id, .0.count)]
    Shard(Shard),
    /// The reporter was given no registry.
    #[error("a reporter needs at least one registry")]
    NoRegistry,
    /// A registry has, or had, a reporter already. What it counted was reported then; a second reporter would count it
    /// twice.
    #[error(
        "one of the registries already has, or had, a reporter: its counts would be counted twice"
    )]
    RegistryTaken,
    /// A registry does not accept the collector that marks it as taken.
    #[error("a registry cannot be marked as taken: {0}")]
    Mark(#[source] prometheus::Error),
    /// The operating system gave no random bytes to name the instance with.
    #[error("no random bytes for the instance id: {0}")]
    Random(#[source] getrandom::Error),
}

/// Why [`Reporter::shutdown`](crate::Reporter::shutdown) could not confirm that the manager has every count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// The manager was never reached, or refuses this reporter.
    #[error("the manager did not take the last frame: {reason}")]
    NotTaken {
        /// Of the last attempt.
        reason: String,
    },
    /// The last frame and its Goodbye were not both confirmed in time.
    #[error("the manager did not confirm the last frame and the Goodbye within {0:?}")]
    Deadline(Duration),
    /// The report task had ended before: a collector panicked, or the runtime is shutting down.
    #[error("the report task had already ended")]
    TaskEnded,
}
