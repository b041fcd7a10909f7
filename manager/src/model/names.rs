//! Names of metrics and labels: any UTF-8 text, and how formats that know only the legacy names write the others
//! (prometheus.io, "Escaping schemes").

use std::{borrow::Cow, fmt::Write as _};

/// How names beyond the legacy rule are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Escaping {
    /// As they are, in double quotes.
    AllowUtf8,
    /// An underscore for whatever a legacy name cannot have.
    Underscores,
    /// `_dot_` for a dot, two underscores for an underscore or anything else a legacy name cannot have. Legacy names change
    /// too.
    Dots,
    /// `U__` before the name, `_<code point in hexadecimal>_` for what a legacy name cannot have, two underscores for one.
    Values,
}

/// What a name names: a label's cannot have colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Metric,
    Label,
}

impl Of {
    /// Whether a legacy name can have `c` so many bytes after its beginning.
    const fn allows(self, at: usize, c: char) -> bool {
        matches!(c, 'a'..='z' | 'A'..='Z' | '_')
            || (c.is_ascii_digit() && at > 0)
            || (c == ':' && matches!(self, Self::Metric))
    }

    fn is_legacy(self, name: &str) -> bool {
        // The bytes of any other character stand for none that is allowed.
        !name.is_empty() && name.bytes().enumerate().all(|(at, b)| self.allows(at, char::from(b)))
    }
}

/// Whether `name` can name a metric or label: any text of one character or more. Prometheus allows NUL too, but cannot read
/// it back in a name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}

/// Whether `name` can name a metric in every format: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
#[must_use]
pub fn is_legacy_metric_name(name: &str) -> bool {
    Of::Metric.is_legacy(name)
}

/// Whether `name` can name a label in every format: `[a-zA-Z_][a-zA-Z0-9_]*`.
#[must_use]
pub fn is_legacy_label_name(name: &str) -> bool {
    Of::Label.is_legacy(name)
}

impl Escaping {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values];

    /// The parameter's value in `Accept` and `Content-Type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// A metric's name as this escaping has it.
    #[must_use]
    pub fn metric_name(self, name: &str) -> Cow<'_, str> {
        self.escape(name, Of::Metric)
    }

    /// A label's name as this escaping has it.
    #[must_use]
    pub fn label_name(self, name: &str) -> Cow<'_, str> {
        self.escape(name, Of::Label)
    }

    fn escape(self, name: &str, of: Of) -> Cow<'_, str> {
        let stays = match self {
            Self::AllowUtf8 => true,
            Self::Underscores | Self::Values => of.is_legacy(name),
            Self::Dots => !name.contains('_') && of.is_legacy(name),
        };
        if stays {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(2 * name.len() + 3);
        if self == Self::Values {
            out.push_str("U__");
        }
        for (at, c) in name.char_indices() {
            match (self, c) {
                (Self::Underscores, c) => out.push(if of.allows(at, c) { c } else { '_' }),
                (Self::Dots, '.') => out.push_str("_dot_"),
                (Self::Dots | Self::Values, '_') => out.push_str("__"),
                (_, c) if of.allows(at, c) => out.push(c),
                (Self::Values, c) => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "_{:x}_", u32::from(c));
                }
                _ => out.push_str("__"),
            }
        }
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A name, and what underscores, dots and values make of it.
    const METRICS: [(&str, &str, &str, &str); 13] = [
        (
            "no:escaping_required",
            "no:escaping_required",
            "no:escaping__required",
            "no:escaping_required",
        ),
        (
            "mysystem.prod.west.cpu.load",
            "mysystem_prod_west_cpu_load",
            "mysystem_dot_prod_dot_west_dot_cpu_dot_load",
            "U__mysystem_2e_prod_2e_west_2e_cpu_2e_load",
        ),
        (
            "mysystem.prod.west.cpu.load_total",
            "mysystem_prod_west_cpu_load_total",
            "mysystem_dot_prod_dot_west_dot_cpu_dot_load__total",
            "U__mysystem_2e_prod_2e_west_2e_cpu_2e_load__total",
        ),
        ("http.status:sum", "http_status:sum", "http_dot_status:sum", "U__http_2e_status:sum"),
        ("label with 😱", "label_with__", "label__with____", "U__label_20_with_20__1f631_"),
        ("花火", "__", "____", "U___82b1__706b_"),
        ("label with \u{100}", "label_with__", "label__with____", "U__label_20_with_20__100_"),
        ("9lives", "_lives", "__lives", "U___39_lives"),
        ("a9", "a9", "a9", "a9"),
        (".", "_", "_dot_", "U___2e_"),
        ("_", "_", "__", "_"),
        ("a\nb\"", "a_b_", "a__b__", "U__a_a_b_22_"),
        ("U__a_2e_b", "U__a_2e_b", "U____a__2e__b", "U__a_2e_b"),
    ];

    #[test]
    fn names_are_escaped_as_prometheus_does() {
        for (name, underscores, dots, values) in METRICS {
            let escaped = Escaping::ALL.map(|escaping| escaping.metric_name(name));
            assert_eq!(escaped, [name, underscores, dots, values], "{name}");
        }
        let colon = Escaping::ALL.map(|escaping| escaping.label_name("a:b"));
        assert_eq!(colon, ["a:b", "a_b", "a__b", "U__a_3a_b"]);
    }

    #[test]
    fn what_is_legacy_is_known() {
        for legacy in ["a", "_", "a9_Z", "le"] {
            assert!(is_legacy_metric_name(legacy) && is_legacy_label_name(legacy), "{legacy}");
        }
        assert!(is_legacy_metric_name(":a:") && !is_legacy_label_name(":a:"));
        for other in ["", "9", "a-b", "a.b", "é", "a b", "\u{ff11}"] {
            assert!(!is_legacy_metric_name(other) && !is_legacy_label_name(other), "{other}");
        }
        assert!(is_name("a.b") && is_name(" ") && !is_name("") && !is_name("a\0"));
    }

    /// Prometheus' own way back, for what `Values` wrote.
    fn unescape_values(escaped: &str) -> String {
        let Some(mut rest) = escaped.strip_prefix("U__") else { return escaped.to_owned() };
        let mut name = String::new();
        while let Some((before, after)) = rest.split_once('_') {
            name.push_str(before);
            let (code, after) = after.split_once('_').unwrap();
            if code.is_empty() {
                name.push('_');
            } else {
                name.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
            }
            rest = after;
        }
        name + rest
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn escaped_names_are_legacy(name in "[^\0]{1,8}|[a.:_9 ]{1,6}") {
            for escaping in [Escaping::Underscores, Escaping::Dots, Escaping::Values] {
                prop_assert!(is_legacy_metric_name(&escaping.metric_name(&name)));
                prop_assert!(is_legacy_label_name(&escaping.label_name(&name)));
            }
            if !is_legacy_metric_name(&name) {
                prop_assert_eq!(unescape_values(&Escaping::Values.metric_name(&name)), name);
            }
        }

        /// So that whoever sees to it that no two are the same with underscores has seen to dots.
        #[test]
        fn what_is_the_same_with_dots_is_with_underscores(a in "[a._ dot]{1,7}", b in "[a._ dot]{1,7}") {
            let same = |escaping: Escaping| escaping.label_name(&a) == escaping.label_name(&b);
            prop_assert!(!same(Escaping::Dots) || same(Escaping::Underscores));
        }
    }
}
