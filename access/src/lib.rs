//! Who may come in, alike for every product that listens: connections that are capped and do not wait for ever, TLS, tokens and
//! what they allow, rates.
//!
//! ```text
//! socket -> accept (places, TLS) -> serve_http (patience) -> Access::check (role) -> Rates -> the product
//! ```
//!
//! It knows no product: metrics are named by a prefix, and what is refused is an error that the product puts into its own words.

// What came from the network must not be able to end anything.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod files;
mod http;
mod rates;
mod roles;
mod seldom;
mod serve;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
mod tls;

pub use http::{BodyError, cause, event_stream, serve as serve_http};
pub use rates::{Rate, Rates, TooFast};
pub use roles::{Access, AccessMetrics, CHALLENGES, Denied, Pages, Role, TokenError, TokenFiles};
pub use seldom::Seldom;
pub use serve::{
    Connection, Door, Farewell, Full, HangUp, Peer, Place, Places, Socket, accept, network,
};
pub use tls::{Protocol, Tls, TlsConfig, TlsError, TlsIncomplete};
