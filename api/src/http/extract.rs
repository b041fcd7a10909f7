//! What handlers take from a request: axum's extractors, whose refusals are problem documents.

use axum::extract::{FromRequest, FromRequestParts};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;

/// Parts of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

/// The query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// A body of JSON.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Json<T>(pub(super) T);

/// A guild's id: what Discord calls a snowflake, below 9 * 10^18. A string also in JSON, for JavaScript's numbers are too
/// short for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(
    value_type = String,
    pattern = "^([1-9][0-9]{0,17}|[1-8][0-9]{18})$",
    example = "117483251847168000"
)]
pub(super) struct GuildId(pub(super) u64);

/// The guild in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct GuildPath {
    /// Discord's id of the guild.
    pub(super) guild_id: GuildId,
}

const FIRST_THAT_IS_TOO_GREAT: u64 = 9_000_000_000_000_000_000;

impl<'de> Deserialize<'de> for GuildId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(id) if digits && id < FIRST_THAT_IS_TOO_GREAT => Ok(Self(id)),
            _ => Err(D::Error::custom("a guild's id is a number of up to 19 digits")),
        }
    }
}

impl Serialize for GuildId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
