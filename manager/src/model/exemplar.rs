//! Exemplars: an example of what a counter or a bucket counted, with labels that lead to it.

use std::{borrow::Cow, time::Duration};

use super::{Escaping, LabelError, LabelSet, unescape};
use crate::clock::UnixTime;

/// Characters that an exemplar's label names and values may have together (OpenMetrics 1.0, "Exemplars").
pub const MAX_EXEMPLAR_CHARS: usize = 128;

/// Since the epoch; no timestamp of protobuf is so late.
const YEAR_10_000: Duration = Duration::from_secs(253_402_300_800);

/// One exemplar.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Its labels, which are about something outside of the registry: none is reserved or renamed.
    pub labels: LabelSet,
    /// What was observed, or by how much a counter rose.
    pub value: f64,
    /// When, if the sender says.
    pub at: Option<UnixTime>,
}

/// Why an exemplar is not taken. Its sample is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExemplarError {
    /// It would make a page invalid.
    #[error("its labels have {0} characters; {MAX_EXEMPLAR_CHARS} is the limit, so leave some out")]
    TooLong(usize),
    /// Bad labels.
    #[error(transparent)]
    Labels(#[from] LabelError),
}

impl Exemplar {
    /// An exemplar with these labels, in any order. A time that cannot be, or not be shown, is none.
    ///
    /// # Errors
    /// If they are too long, or no label set.
    pub fn new<'a>(
        labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        value: f64,
        at: Option<UnixTime>,
    ) -> Result<Self, ExemplarError> {
        // First, so that no message quotes what is too long.
        let length = length(labels.clone());
        if length > MAX_EXEMPLAR_CHARS {
            return Err(ExemplarError::TooLong(length));
        }
        let epoch = UnixTime::default();
        let at = at.filter(|at| *at > epoch && at.since(epoch) < YEAR_10_000);
        Ok(Self { labels: LabelSet::of_exemplar(labels)?, value, at })
    }

    /// The canonical text of its labels with their names escaped; `None` if that makes them too long for a page.
    #[must_use]
    pub fn escaped_labels(&self, escaping: Escaping) -> Option<Cow<'_, str>> {
        if escaping.keeps(self.labels.as_str()) {
            return Some(Cow::Borrowed(self.labels.as_str()));
        }
        let escaped = self.labels.escaped(escaping);
        let fits = length(unescape(&escaped)) <= MAX_EXEMPLAR_CHARS;
        fits.then(|| Cow::Owned(escaped.into()))
    }
}

/// Characters of all names and values.
fn length<T: AsRef<str>>(labels: impl Iterator<Item = (T, T)>) -> usize {
    let chars = |text: T| text.as_ref().chars().count();
    labels.map(|(name, value)| chars(name) + chars(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Result<String, ExemplarError> {
        let exemplar = Exemplar::new(pairs.iter().copied(), 1.0, None)?;
        Ok(exemplar.labels.as_str().to_owned())
    }

    #[test]
    fn names_and_values_have_128_characters_together() {
        // Characters, not bytes.
        let value = "ü".repeat(120);
        assert!(labels(&[("trace_id", &value)]).is_ok());
        assert_eq!(labels(&[("trace_ids", &value)]), Err(ExemplarError::TooLong(129)));
        assert_eq!(labels(&[("a", &value), ("b", "1234567")]), Err(ExemplarError::TooLong(129)));
    }

    #[test]
    fn no_name_is_reserved() {
        let pairs = [("shard_id", "3"), ("le", "1"), ("job", "x"), ("__name__", "y"), ("e", "")];
        assert_eq!(labels(&pairs).unwrap(), r#"__name__="y",job="x",le="1",shard_id="3""#);
        assert_eq!(labels(&[("span.id", "q\""), ("a", "b")]).unwrap(), r#""span.id"="q\"",a="b""#);
        assert_eq!(labels(&[]).unwrap(), "");
    }

    #[test]
    fn names_are_distinct_however_they_are_escaped() {
        let twice = LabelError::Twice("a".into());
        assert_eq!(labels(&[("a", "1"), ("a", "1")]), Err(ExemplarError::Labels(twice)));
        let alike = LabelError::Alike("a.b".into(), "a_b".into());
        assert_eq!(labels(&[("a_b", "1"), ("a.b", "1")]), Err(ExemplarError::Labels(alike)));
        let no_name = LabelError::Name(String::new());
        assert_eq!(labels(&[("", "1")]), Err(ExemplarError::Labels(no_name)));
    }

    #[test]
    fn what_is_too_long_once_escaped_is_left_out() {
        let exemplar = |name: &str| {
            let value = "x".repeat(MAX_EXEMPLAR_CHARS - 3);
            Exemplar::new([(name, value.as_str())].into_iter(), 1.0, None).unwrap()
        };
        let (dotted, plain) = (exemplar("a.b"), exemplar("a_b"));
        assert!(dotted.escaped_labels(Escaping::AllowUtf8).is_some());
        assert!(dotted.escaped_labels(Escaping::Underscores).is_some());
        assert_eq!(dotted.escaped_labels(Escaping::Values), None);
        assert!(plain.escaped_labels(Escaping::Values).is_some());
        assert_eq!(plain.escaped_labels(Escaping::Dots), None);
    }
}
