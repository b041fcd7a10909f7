//! Label sets in their one canonical form.

use std::{borrow::Cow, fmt};

/// A series' labels as they stand on the page, without `shard_id`: sorted by name, values escaped, joined by commas,
/// `a="x",b="y"`; empty values (the same as no label) left out. Two senders' label sets are the same exactly when these
/// texts are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LabelSet(Box<str>);

/// Why a label set was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[error("label name {0:?} does not match [a-zA-Z_][a-zA-Z0-9_]*")]
    Name(String),
    /// A name with a meaning of its own.
    #[error("label {0:?} is reserved here")]
    Reserved(String),
    /// Twice in one set.
    #[error("label {0:?} stands twice in one set")]
    Twice(String),
}

impl LabelSet {
    /// The canonical form of what a sender of shard `shard_id` said.
    ///
    /// The labels the manager and Prometheus set themselves make way (design section 4): a `shard_id` equal to the
    /// sender's own is left out, for it is set anyway; another becomes `exported_shard_id`; `job` and `instance` become
    /// `exported_job` and `exported_instance`.
    ///
    /// # Errors
    /// If a name is invalid, stands twice, begins with `__`, or is `bound_label` (`le` of a histogram, `quantile` of a
    /// summary).
    pub fn canonical<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        shard_id: u32,
        bound_label: Option<&str>,
    ) -> Result<Self, LabelError> {
        let mut set: Vec<(Cow<'a, str>, &'a str)> = Vec::new();
        for (name, value) in labels {
            if !is_label_name(name) {
                return Err(LabelError::Name(name.to_owned()));
            }
            // Prometheus drops labels that begin so after a scrape.
            if name.starts_with("__") || Some(name) == bound_label {
                return Err(LabelError::Reserved(name.to_owned()));
            }
            set.push((Cow::Borrowed(name), value));
        }
        set.sort_unstable();
        if let Some(pair) = set.array_windows::<2>().find(|[a, b]| a.0 == b.0) {
            return Err(LabelError::Twice(pair[0].0.clone().into_owned()));
        }
        set.retain(|(_, value)| !value.is_empty());
        make_way(&mut set, shard_id);

        let mut text = String::with_capacity(set.iter().map(|(n, v)| n.len() + v.len() + 4).sum());
        for (name, value) in &set {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            escape_into(&mut text, value);
            text.push('"');
        }
        Ok(Self(text.into()))
    }

    /// The set that [`LabelSet::as_str`] told of.
    pub(crate) fn restore(canonical: &str) -> Self {
        Self(canonical.into())
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names and values of a canonical text.
pub fn unescape(canonical: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let mut rest = canonical;
    std::iter::from_fn(move || {
        let (name, after) = rest.trim_start_matches(',').split_once("=\"")?;
        let mut end = 0;
        while !after.get(end..)?.starts_with('"') {
            // An escaped character is never the closing quote.
            end += if after.get(end..)?.starts_with('\\') { 2 } else { 1 };
            while !after.is_char_boundary(end) {
                end += 1;
            }
        }
        let (value, after) = after.split_at_checked(end)?;
        rest = after.strip_prefix('"')?;
        Some((name, unescape_value(value)))
    })
}

fn unescape_value(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut chars = value.chars();
    let mut out = String::with_capacity(value.len());
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => out.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            (c, false) => out.push(c),
        }
    }
    Cow::Owned(out)
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0)
    }
}

/// Whether `name` can name a label: `[a-zA-Z_][a-zA-Z0-9_]*`.
#[must_use]
pub fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Renames labels that the manager or Prometheus will set, as Prometheus does with `honor_labels: false`: `exported_` is
/// put before the name until it is free.
fn make_way(set: &mut Vec<(Cow<'_, str>, &str)>, shard_id: u32) {
    set.retain(|(name, value)| name != "shard_id" || value.parse() != Ok(shard_id));
    let mut renamed = false;
    for taken in ["shard_id", "job", "instance"] {
        let Some(at) = set.iter().position(|(name, _)| name == taken) else {
            continue;
        };
        let mut free = format!("exported_{taken}");
        while set.iter().any(|(name, _)| *name == free) {
            free.insert_str(0, "exported_");
        }
        if let Some((name, _)) = set.get_mut(at) {
            *name = Cow::Owned(free);
            renamed = true;
        }
    }
    if renamed {
        set.sort_unstable();
    }
}

/// Escapes a label value for both text formats: backslash, double quote, line feed.
fn escape_into(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(labels: &[(&str, &str)]) -> Result<String, LabelError> {
        LabelSet::canonical(labels.iter().copied(), 3, Some("le")).map(|l| l.as_str().to_owned())
    }

    #[test]
    fn order_and_empty_values_make_no_difference() {
        assert_eq!(canonical(&[("b", "2"), ("a", "1"), ("c", "")]).unwrap(), r#"a="1",b="2""#);
        assert_eq!(canonical(&[("a", "1"), ("b", "2")]).unwrap(), r#"a="1",b="2""#);
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(canonical(&[("a", "q\"b\\n\nü🦀")]).unwrap(), "a=\"q\\\"b\\\\n\\nü🦀\"");
    }

    #[test]
    fn the_managers_labels_are_kept_free() {
        assert_eq!(canonical(&[("shard_id", "3")]).unwrap(), "");
        assert_eq!(canonical(&[("shard_id", "4")]).unwrap(), r#"exported_shard_id="4""#);
        assert_eq!(
            canonical(&[("job", "x"), ("exported_job", "y"), ("instance", "z")]).unwrap(),
            r#"exported_exported_job="x",exported_instance="z",exported_job="y""#
        );
    }

    #[test]
    fn a_canonical_text_reads_back() {
        let pairs = [("a", "q\"b\\n\nü🦀"), ("b", "x,y=\"z\""), ("c", "\\")];
        let set = LabelSet::canonical(pairs, 3, None).unwrap();
        let read: Vec<_> = unescape(set.as_str()).map(|(n, v)| (n, v.into_owned())).collect();
        assert_eq!(read, pairs.map(|(n, v)| (n, v.to_owned())));
        assert_eq!(unescape("").count(), 0);
    }

    #[test]
    fn what_cannot_be_a_label_is_refused() {
        assert_eq!(canonical(&[("a-b", "")]), Err(LabelError::Name("a-b".into())));
        assert_eq!(canonical(&[("le", "1")]), Err(LabelError::Reserved("le".into())));
        assert_eq!(canonical(&[("__name__", "x")]), Err(LabelError::Reserved("__name__".into())));
        assert_eq!(canonical(&[("a", "1"), ("a", "2")]), Err(LabelError::Twice("a".into())));
    }
}
