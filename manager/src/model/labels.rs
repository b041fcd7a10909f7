//! Label sets in their one canonical form.

use std::{borrow::Cow, fmt};

use hashbrown::HashMap;

use super::names::{Escaping, is_legacy_label_name, is_name};

/// A series' labels as they stand on the page, without `shard_id`: sorted by name, values escaped, joined by commas,
/// `a="x",b="y"`; empty values (the same as no label) left out. Names that are not legacy names stand first, in double
/// quotes: `"a.b"="x",a="y"`. Two senders' label sets are the same exactly when these texts are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LabelSet(Box<str>);

/// Why a label set was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Empty, or with a NUL.
    #[error("{0:?} is no label name: it is empty or has a NUL")]
    Name(String),
    /// A name with a meaning of its own.
    #[error("label {0:?} is reserved here")]
    Reserved(String),
    /// Twice in one set.
    #[error("label {0:?} stands twice in one set")]
    Twice(String),
    /// Two names that are one in a format that escapes them.
    #[error("labels {0:?} and {1:?} are the same once their names are escaped; rename one")]
    Alike(String, String),
    /// A name that begins with two underscores in a format that escapes it.
    #[error(
        "label {0:?} begins with __ once its name is escaped, so Prometheus would drop it; rename it"
    )]
    Dropped(String),
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
    /// summary); or if one would do so once names are escaped.
    pub fn canonical<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        shard_id: u32,
        bound_label: Option<&str>,
    ) -> Result<Self, LabelError> {
        let is_reserved = |name: &str| {
            // Prometheus drops labels that begin so after a scrape.
            name.starts_with("__") || Some(name) == bound_label
        };
        let (mut set, all_legacy) = collect(labels, is_reserved)?;
        make_way(&mut set, shard_id);
        if !all_legacy {
            check_dropped(&set)?;
            check_alike(&set, &["shard_id"])?;
        }
        Ok(Self::of(set, all_legacy))
    }

    /// The canonical form of an exemplar's labels, of which none has a meaning here.
    pub(super) fn of_exemplar<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, LabelError> {
        let (set, all_legacy) = collect(labels, |_| false)?;
        if !all_legacy {
            check_alike(&set, &[])?;
        }
        Ok(Self::of(set, all_legacy))
    }

    /// Of sorted labels.
    fn of(mut set: Pairs<'_>, all_legacy: bool) -> Self {
        if !all_legacy {
            set.sort_by_key(|(name, _)| is_legacy_label_name(name));
        }
        let length = set.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        Self(join(set.iter().map(|(name, value)| (&**name, escape(value))), length))
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

    /// Whether all names are legacy names, so that escaping with underscores or values changes none.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        !self.0.starts_with('"')
    }

    /// The set without the labels of these names.
    #[must_use]
    pub fn without(&self, names: &[Box<str>]) -> Self {
        let stays = |name: &str| !names.iter().any(|dropped| **dropped == *name);
        let rest = pairs(&self.0).filter(|(name, _)| stays(name));
        let rest: Vec<_> = rest.collect();
        let rest = rest.iter().map(|(name, value)| (&**name, Cow::Borrowed(*value)));
        Self(join(rest, self.0.len()))
    }

    /// How many labels there are.
    #[must_use]
    pub fn count(&self) -> usize {
        pairs(&self.0).count()
    }

    /// The canonical text of the set with its names escaped.
    #[must_use]
    pub fn escaped(&self, escaping: Escaping) -> Box<str> {
        let mut pairs: Vec<_> = pairs(&self.0).collect();
        for (name, _) in &mut pairs {
            if let Cow::Owned(escaped) = escaping.label_name(name) {
                *name = Cow::Owned(escaped);
            }
        }
        pairs.sort_unstable();
        join(pairs.iter().map(|(name, value)| (&**name, Cow::Borrowed(*value))), self.0.len())
    }
}

impl Escaping {
    /// Whether it leaves all names of a canonical text as they are.
    #[must_use]
    pub fn keeps(self, canonical: &str) -> bool {
        match self {
            Self::AllowUtf8 => true,
            Self::Underscores | Self::Values => !canonical.starts_with('"'),
            Self::Dots => canonical.is_empty(),
        }
    }
}

/// The canonical text, of about `length` bytes, of names and escaped values.
fn join<'a>(pairs: impl Iterator<Item = (&'a str, Cow<'a, str>)>, length: usize) -> Box<str> {
    let mut text = String::with_capacity(length);
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        if is_legacy_label_name(name) {
            text.push_str(name);
        } else {
            put_quoted(&mut text, name);
        }
        text.push_str("=\"");
        text.push_str(&value);
        text.push('"');
    }
    text.into()
}

/// The names of a canonical text, and its values as they stand there.
pub fn pairs(canonical: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let mut rest = canonical;
    std::iter::from_fn(move || {
        let pair = rest.strip_prefix(',').unwrap_or(rest);
        let (name, value) = match pair.strip_prefix('"') {
            Some(quoted) => {
                let (name, after) = quoted.split_at_checked(closing_quote(quoted)?)?;
                (unescape_value(name), after.strip_prefix("\"=\"")?)
            }
            None => {
                let (name, value) = pair.split_once("=\"")?;
                (Cow::Borrowed(name), value)
            }
        };
        let (value, after) = value.split_at_checked(closing_quote(value)?)?;
        rest = after.strip_prefix('"')?;
        Some((name, value))
    })
}

/// The names and values of a canonical text.
pub fn unescape(canonical: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    pairs(canonical).map(|(name, value)| (name, unescape_value(value)))
}

/// Where the double quote stands that no backslash escapes.
pub(crate) fn closing_quote(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', text.as_bytes().get(from..)?)?;
        match text.as_bytes().get(at)? {
            b'"' => return Some(at),
            _ => from = at + 2,
        }
    }
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

/// Names and values in the making.
type Pairs<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// The labels that have a value, sorted by name, and whether all names are legacy names.
fn collect<'a>(
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    is_reserved: impl Fn(&str) -> bool,
) -> Result<(Pairs<'a>, bool), LabelError> {
    let mut set = Pairs::new();
    let mut all_legacy = true;
    for (name, value) in labels {
        if !is_legacy_label_name(name) {
            if !is_name(name) {
                return Err(LabelError::Name(name.to_owned()));
            }
            all_legacy = false;
        }
        if is_reserved(name) {
            return Err(LabelError::Reserved(name.to_owned()));
        }
        set.push((Cow::Borrowed(name), value));
    }
    set.sort_unstable();
    if let Some(pair) = set.array_windows::<2>().find(|[a, b]| a.0 == b.0) {
        return Err(LabelError::Twice(pair[0].0.clone().into_owned()));
    }
    set.retain(|(_, value)| !value.is_empty());
    Ok((set, all_legacy))
}

/// Renames labels that the manager or Prometheus will set, as Prometheus does with `honor_labels: false`: `exported_` is
/// put before the name until it is free.
fn make_way(set: &mut Pairs<'_>, shard_id: u32) {
    set.retain(|(name, value)| name != "shard_id" || value.parse() != Ok(shard_id));
    let mut renamed = false;
    for taken in ["shard_id", "job", "instance"] {
        let Some(at) = set.iter().position(|(name, _)| name == taken) else {
            continue;
        };
        let mut free = format!("exported_{taken}");
        while set.iter().any(|(name, _)| Escaping::Underscores.label_name(name) == free) {
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

/// Whether no name becomes one that Prometheus drops, however names are escaped. With dots even a legacy name that begins
/// with an underscore begins with two, which is left to whoever asks for them.
fn check_dropped(set: &[(Cow<'_, str>, &str)]) -> Result<(), LabelError> {
    let dropped = |name: &str| {
        [Escaping::Underscores, Escaping::Values]
            .iter()
            .any(|escaping| escaping.label_name(name).starts_with("__"))
    };
    match set.iter().find(|(name, _)| dropped(name)) {
        Some((name, _)) => Err(LabelError::Dropped(name.clone().into_owned())),
        None => Ok(()),
    }
}

/// Whether the names stay distinct, and none becomes one of `taken`, however they are escaped. Dots need no look: what is
/// the same with them is with underscores.
fn check_alike(set: &[(Cow<'_, str>, &str)], taken: &[&str]) -> Result<(), LabelError> {
    for escaping in [Escaping::Underscores, Escaping::Values] {
        let mut seen: HashMap<Cow<'_, str>, &str> = HashMap::new();
        seen.extend(taken.iter().map(|taken| (Cow::Borrowed(*taken), *taken)));
        for (name, _) in set {
            if let Some(other) = seen.insert(escaping.label_name(name), name) {
                return Err(LabelError::Alike(other.to_owned(), name.clone().into_owned()));
            }
        }
    }
    Ok(())
}

/// `text` in double quotes, as both text formats have it.
pub(crate) fn put_quoted(out: &mut String, text: &str) {
    out.push('"');
    out.push_str(&escape(text));
    out.push('"');
}

/// Escapes a value, or a name in quotes, for both text formats: backslash, double quote, line feed.
fn escape(text: &str) -> Cow<'_, str> {
    if memchr::memchr3(b'\\', b'"', b'\n', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(labels: &[(&str, &str)]) -> Result<String, LabelError> {
        LabelSet::canonical(labels.iter().copied(), 3, Some("le")).map(|l| l.as_str().to_owned())
    }

    fn read(set: &LabelSet) -> Vec<(String, String)> {
        unescape(set.as_str()).map(|(n, v)| (n.into_owned(), v.into_owned())).collect()
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
        assert_eq!(read(&set), pairs.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(unescape("").count(), 0);
    }

    #[test]
    fn what_cannot_be_a_label_is_refused() {
        assert_eq!(canonical(&[("", "x")]), Err(LabelError::Name(String::new())));
        assert_eq!(canonical(&[("a\0", "")]), Err(LabelError::Name("a\0".into())));
        assert_eq!(canonical(&[("le", "1")]), Err(LabelError::Reserved("le".into())));
        assert_eq!(canonical(&[("__name__", "x")]), Err(LabelError::Reserved("__name__".into())));
        assert_eq!(canonical(&[("a", "1"), ("a", "2")]), Err(LabelError::Twice("a".into())));
    }

    #[test]
    fn names_beyond_the_legacy_rule_are_quoted_and_first() {
        let labels = [("a", "1"), ("z.z", "2"), ("b.\"\\\n", "q\""), ("job", "3"), ("e", "")];
        let text = r#""b.\"\\\n"="q\"","z.z"="2",a="1",exported_job="3""#;
        let set = LabelSet::canonical(labels, 3, None).unwrap();
        assert_eq!(set.as_str(), text);
        assert!(!set.is_legacy() && LabelSet::default().is_legacy());
        let pairs = [("b.\"\\\n", "q\""), ("z.z", "2"), ("a", "1"), ("exported_job", "3")];
        assert_eq!(read(&set), pairs.map(|(n, v)| (n.to_owned(), v.to_owned())));
        let escaped = set.escaped(Escaping::Underscores);
        assert_eq!(&*escaped, r#"a="1",b____="q\"",exported_job="3",z_z="2""#);
    }

    #[test]
    fn names_that_become_the_same_are_refused() {
        let alike = |a: &str, b: &str| Err(LabelError::Alike(a.into(), b.into()));
        assert_eq!(canonical(&[("a_b", "1"), ("a.b", "2")]), alike("a.b", "a_b"));
        assert_eq!(canonical(&[("a-b", "1"), ("a.b", "2")]), alike("a-b", "a.b"));
        assert_eq!(canonical(&[("a:b", "1"), ("a_b", "2")]), alike("a:b", "a_b"));
        assert_eq!(canonical(&[("U__a_2e_b", "1"), ("a.b", "2")]), alike("U__a_2e_b", "a.b"));
        assert_eq!(canonical(&[("shard.id", "3")]), alike("shard_id", "shard.id"));
        for dropped in ["花火", "_.a", "._"] {
            assert_eq!(canonical(&[(dropped, "1")]), Err(LabelError::Dropped(dropped.into())));
        }
        // An empty value is no label, and the manager's make way for these too.
        assert_eq!(canonical(&[("a_b", ""), ("a.b", "2")]).unwrap(), r#""a.b"="2""#);
        let moved = canonical(&[("exported.job", "1"), ("job", "2")]).unwrap();
        assert_eq!(moved, r#""exported.job"="1",exported_exported_job="2""#);
    }
}
