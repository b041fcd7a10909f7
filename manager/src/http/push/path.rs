//! The grouping key in a path of Pushgateway's API: `/metrics/job/<job>{/<label>/<value>}`.
//!
//! Pushgateway decodes a path and then splits it, so that nothing can be sent that has a slash; here it is split first. All else
//! is as there.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use percent_encoding::percent_decode_str;

use crate::{
    http::error::HttpError,
    ingest::{Group, ShardIds},
    model::is_legacy_label_name,
};

/// The routes.
pub(in crate::http) const PATHS: [&str; 3] =
    ["/metrics/job/{*key}", "/metrics/job@base64/{*key}", "/metrics/job%40base64/{*key}"];

/// Behind a name whose value is encoded.
const BASE64: &str = "@base64";

/// As Go reads it: without padding, and whatever the last bits are.
const DECODER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Who pushes.
#[derive(Debug, PartialEq)]
pub(super) struct GroupingKey {
    pub(super) shards: ShardIds,
    /// All of it but the shards.
    pub(super) group: Group,
}

impl GroupingKey {
    pub(super) fn of(path: &str) -> Result<Self, HttpError> {
        let of_key = path.strip_prefix("/metrics/").unwrap_or(path);
        let mut parts = of_key.split('/').peekable();
        let job = match (parts.next(), parts.next()) {
            (Some(name), Some(value)) => pair(name, value)?.1,
            _ => String::new(),
        };
        if job.is_empty() {
            return Err(refuse("the job has no name"));
        }
        let mut labels = BTreeMap::new();
        while let Some(name) = parts.next() {
            let Some(value) = parts.next() else {
                if name.is_empty() && labels.is_empty() {
                    break; // a slash behind the job
                }
                return Err(refuse(&format!("label {name:?} has no value; {SHAPE}")));
            };
            let (name, value) = pair(name, value)?;
            if !is_legacy_label_name(&name) || name.starts_with("__") {
                return Err(refuse(&format!("{name:?} is no name of a label; {SHAPE}")));
            }
            labels.insert(name, value);
        }
        labels.insert("job".to_owned(), job);
        let shards = labels.remove("shard_id").ok_or_else(|| {
            refuse(
                "the grouping key has no shard_id: push to /metrics/job/<job>/shard_id/<id>, which client libraries do with \
                 shard_id in their grouping key",
            )
        })?;
        let shards =
            shards.parse().map_err(|error| refuse(&format!("shard_id of the path: {error}")))?;
        let group = Group::new(labels).map_err(|error| refuse(&error.to_string()))?;
        Ok(Self { shards, group })
    }
}

const SHAPE: &str =
    "the path is /metrics/job/<job>{/<label>/<value>}, an empty value <label>@base64/=";

/// A name, and its value decoded.
fn pair(name: &str, value: &str) -> Result<(String, String), HttpError> {
    let (name, value) = (percent_decoded(name)?, percent_decoded(value)?);
    let Some(plain) = name.strip_suffix(BASE64) else {
        return Ok((name, value));
    };
    let decoded = DECODER.decode(value.trim_end_matches('='));
    let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| {
        refuse(&format!("{value:?} of {plain:?} is no UTF-8 text in URL-safe base64"))
    })?;
    Ok((plain.to_owned(), text))
}

fn percent_decoded(part: &str) -> Result<String, HttpError> {
    let decoded = percent_decode_str(part).decode_utf8();
    let decoded = decoded.map_err(|_| refuse(&format!("{part:?} of the path is no UTF-8 text")))?;
    Ok(decoded.into_owned())
}

fn refuse(what: &str) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Option<String> {
        let key = GroupingKey::of(path).ok()?;
        Some(format!("{} {}", key.shards, key.group.key()))
    }

    /// What Pushgateway 1.5 takes, with a shard's id.
    #[test]
    fn a_path_is_a_grouping_key() {
        for (path, said) in [
            ("job/x/shard_id/3", r#"3 job="x""#),
            ("job/x/shard_id/0-3", r#"0-3 job="x""#),
            ("job/x/a/b/shard_id/3", r#"3 a="b",job="x""#),
            ("job/x/shard_id/3/b/1/a/2", r#"3 a="2",b="1",job="x""#),
            ("job/x/a/1/shard_id/3/a/2", r#"3 a="2",job="x""#),
            ("job/x/job/y/shard_id/3", r#"3 job="x""#),
            ("job/x/shard_id/3/a/", r#"3 a="",job="x""#),
            ("job/x/shard_id/3/a@base64/=", r#"3 a="",job="x""#),
            ("job/x/shard_id/3/a@base64/", r#"3 a="",job="x""#),
            ("job/x/shard_id/3/a/b%20c+d%22", r#"3 a="b c+d\"",job="x""#),
            ("job/x/%73hard_id/3/%61/b", r#"3 a="b",job="x""#),
            ("job@base64/eA==/shard_id@base64/Mw", r#"3 job="x""#),
            ("job@base64/eA=/shard_id/3", r#"3 job="x""#),
            ("job%40base64/eA/shard_id%40base64/Mw%3D%3D", r#"3 job="x""#),
            ("job@base64/zqDPgc6_zrzOt864zrXPjc-C/shard_id/3", r#"3 job="Προμηθεύς""#),
            ("job/x/shard_id/3/path@base64/L3Zhci90bXA", r#"3 job="x",path="/var/tmp""#),
            ("job/x/shard_id/3/a@base64/YR", r#"3 a="a",job="x""#),
            ("job/x/shard_id/3/le/1", r#"3 job="x",le="1""#),
            // Not there.
            ("job/x%2Fy/shard_id/3/a/b%2Fc", r#"3 a="b/c",job="x/y""#),
        ] {
            assert_eq!(key(&format!("/metrics/{path}")).as_deref(), Some(said), "{path}");
        }
    }

    #[test]
    fn what_is_no_grouping_key_is_refused() {
        let long = format!("job/x/shard_id/3/a/{}", "x".repeat(1024));
        for (path, reason) in [
            ("job/x", "no shard_id"),
            ("job/x/", "no shard_id"),
            ("job/x/shard_id", "\"shard_id\" has no value"),
            ("job/x/shard_id/3/", "\"\" has no value"),
            ("job/x/shard_id/3/a", "\"a\" has no value"),
            ("job/x//shard_id/3", "\"\" is no name"),
            ("job/x/shard_id/", "no shard id"),
            ("job/x/shard_id/x", "no shard id"),
            ("job/x/shard_id/-1", "no shard id"),
            ("job//shard_id/3", "the job has no name"),
            ("job@base64/=/shard_id/3", "the job has no name"),
            ("job/x/shard_id/3/__a/1", "\"__a\" is no name"),
            ("job/x/shard_id/3/a.b/1", "\"a.b\" is no name"),
            ("job/x/shard_id/3/a%2Db/1", "\"a-b\" is no name"),
            ("job/x/shard_id/3/1a/1", "\"1a\" is no name"),
            ("job/x/shard_id/3/@base64/eA", "\"\" is no name"),
            ("job/x/shard_id/3/a@base64@base64/eA", "\"a@base64\" is no name"),
            ("job/x/shard_id/3/a@base64/e+", "URL-safe base64"),
            ("job/x/shard_id/3/a@base64/e@A", "URL-safe base64"),
            ("job/x/shard_id/3/a@base64/Y", "URL-safe base64"),
            ("job/x/shard_id/3/a@base64/_w", "no UTF-8"),
            ("job/x/shard_id/3/a/%ff", "no UTF-8"),
            (&long, "1024 is the limit"),
        ] {
            let refused = GroupingKey::of(&format!("/metrics/{path}")).unwrap_err();
            assert!(refused.message().contains(reason), "{path}: {refused:?}");
        }
    }
}
