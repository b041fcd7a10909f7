//! Pages as somebody else reads them, and what must hold for every one: written after the formats' specifications, without
//! the manager's own code.

pub(crate) mod protobuf;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    exposition::{Format, Syntax},
    model::Escaping,
};

/// A family on a page.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) unit: String,
    pub(crate) samples: Vec<Sample>,
    pub(crate) exemplars: Vec<Exemplar>,
}

/// Names and values, in the order they stand in.
pub(crate) type Pairs = Vec<(String, String)>;

/// An exemplar with the name and labels of its sample, the bits of its value, and its time in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Exemplar {
    pub(crate) name: String,
    pub(crate) of: Pairs,
    pub(crate) labels: Pairs,
    pub(crate) bits: u64,
    pub(crate) at: i64,
}

/// A sample with its labels in the order they stand in, and the bits of its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) bits: u64,
}

impl Sample {
    pub(crate) fn new(name: String, labels: Vec<(String, String)>, value: f64) -> Self {
        // There are many NaN.
        let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
        Self { name, labels, bits }
    }
}

/// Every format.
#[cfg(test)]
pub(crate) fn formats() -> impl Iterator<Item = Format> {
    let all = Syntax::ALL.into_iter().flat_map(|syntax| {
        Escaping::ALL.into_iter().map(move |escaping| Format::new(syntax, escaping))
    });
    all.flat_map(|format| match format.syntax {
        Syntax::OpenMetrics => vec![format, format.with_created(true)],
        _ => vec![format],
    })
}

/// Reads a page, whatever its format.
pub(crate) fn read(format: Format, page: &[u8]) -> Vec<Family> {
    match format.syntax {
        Syntax::Protobuf => protobuf::read(page),
        Syntax::Text => {
            let families = read_text(std::str::from_utf8(page).unwrap());
            assert!(families.iter().all(|family| family.exemplars.is_empty()));
            families
        }
        Syntax::OpenMetrics => {
            let page = std::str::from_utf8(page).unwrap();
            read_text(page.strip_suffix("# EOF\n").expect("no # EOF at the end"))
        }
    }
}

fn read_text(page: &str) -> Vec<Family> {
    assert!(page.is_empty() || page.ends_with('\n'));
    let mut families: Vec<Family> = Vec::new();
    for line in page.split_terminator('\n') {
        let Some(about) = line.strip_prefix("# ") else {
            let family = families.last_mut().unwrap();
            let (sample, exemplar) = sample(line);
            family.samples.push(sample);
            family.exemplars.extend(exemplar);
            continue;
        };
        let (keyword, rest) = about.split_once(' ').unwrap();
        let mut rest = rest;
        let name = if rest.starts_with('"') {
            quoted(&mut rest)
        } else {
            let end = rest.find(' ').unwrap();
            let (name, after) = rest.split_at(end);
            rest = after;
            name.to_owned()
        };
        let rest = rest.strip_prefix(' ').unwrap();
        let begins = families.last().is_none_or(|f| f.name != name || !f.samples.is_empty());
        if begins {
            families.push(Family { name, ..Family::default() });
        }
        let family = families.last_mut().unwrap();
        let place = match keyword {
            "HELP" => &mut family.help,
            "TYPE" => &mut family.kind,
            "UNIT" => &mut family.unit,
            other => panic!("# {other}"),
        };
        assert_eq!(std::mem::replace(place, rest.to_owned()), "", "{line}");
    }
    families
}

/// `name{label="value",...} value`, or `{"name",label="value",...} value`; behind it ` # {label="value",...} value time`.
fn sample(line: &str) -> (Sample, Option<Exemplar>) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let (mut name, mut labels) = (name.to_owned(), Vec::new());
    if rest.starts_with('{') {
        labels = braces(&mut rest, &mut name);
    }
    let mut rest = rest.strip_prefix(' ').unwrap();
    let number = |rest: &mut &str| {
        let (number, after) = rest.split_once(' ').unwrap_or((rest, ""));
        *rest = after;
        number.parse::<f64>().unwrap_or_else(|_| panic!("{line}"))
    };
    let sample = Sample::new(name.clone(), labels.clone(), number(&mut rest));
    if rest.is_empty() {
        return (sample, None);
    }
    rest = rest.strip_prefix("# ").unwrap();
    let of_exemplar = braces(&mut rest, &mut "no name".to_owned());
    rest = rest.strip_prefix(' ').unwrap();
    let value = Sample::new(String::new(), Vec::new(), number(&mut rest));
    let at = (number(&mut rest) * 1e3).round() as i64;
    assert_eq!(rest, "", "{line}");
    (sample, Some(Exemplar { name, of: labels, labels: of_exemplar, bits: value.bits, at }))
}

/// Labels in braces, between which `name` stands too if it does not before them.
fn braces(rest: &mut &str, name: &mut String) -> Pairs {
    let line = *rest;
    let mut labels = Vec::new();
    *rest = rest.strip_prefix('{').unwrap();
    if let Some(after) = rest.strip_prefix('}') {
        *rest = after;
        return labels;
    }
    loop {
        if rest.starts_with('"') {
            let text = quoted(rest);
            if let Some(after) = rest.strip_prefix('=') {
                *rest = after;
                labels.push((text, quoted(rest)));
            } else {
                assert_eq!(name, "", "{line}");
                *name = text;
            }
        } else {
            let (label, after) = rest.split_once('=').unwrap();
            *rest = after;
            labels.push((label.to_owned(), quoted(rest)));
        }
        match (rest.strip_prefix(','), rest.strip_prefix('}')) {
            (Some(after), _) => *rest = after,
            (_, Some(after)) => {
                *rest = after;
                return labels;
            }
            _ => panic!("{line}"),
        }
    }
}

fn quoted(rest: &mut &str) -> String {
    let mut text = String::new();
    let mut chars = rest.strip_prefix('"').unwrap().chars();
    loop {
        match chars.next().expect("no closing quote") {
            '"' => break,
            '\\' => text.push(match chars.next().unwrap() {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                c => panic!("\\{c}"),
            }),
            c => text.push(c),
        }
    }
    *rest = chars.as_str();
    text
}

/// What the names of a family's samples can be.
fn sample_names(format: Format, family: &Family) -> Vec<String> {
    let name = &family.name;
    let is_openmetrics = format.syntax == Syntax::OpenMetrics;
    let suffixes: &[&str] = match family.kind.as_str() {
        "counter" if is_openmetrics => &["_total", "_created"],
        "histogram" => &["_bucket", "_sum", "_count", "_created"],
        "summary" => &["", "_sum", "_count", "_created"],
        _ => &[""],
    };
    suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
}

fn is_legacy(name: &str, more: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}

/// What holds for every page.
pub(crate) fn check(format: Format, families: &[Family]) -> Result<(), String> {
    let kinds = ["counter", "gauge", "histogram", "summary", "untyped", "unknown"];
    let (mut names, mut series) = (HashMap::new(), HashSet::new());
    for family in families {
        let fail = |what: &str| Err(format!("{format:?}: {what}: {family:?}"));
        if family.samples.is_empty() || !kinds.contains(&family.kind.as_str()) {
            return fail("no samples, or no type");
        }
        let of_samples = sample_names(format, family);
        for name in of_samples.iter().chain([&family.name]) {
            if names.insert(name.clone(), &family.name).is_some_and(|other| *other != family.name) {
                return fail("a name that another family has too");
            }
        }
        if families.iter().filter(|other| other.name == family.name).count() != 1 {
            return fail("not the only one of its name");
        }
        if format.syntax == Syntax::OpenMetrics && !family.name.ends_with(&family.unit) {
            return fail("another unit than in its name");
        }
        for sample in &family.samples {
            if !of_samples.contains(&sample.name) {
                return fail("a sample of no such family");
            }
            let labels: BTreeMap<_, _> = sample.labels.iter().cloned().collect();
            if labels.len() != sample.labels.len() {
                return fail("a label twice");
            }
            if !series.insert((sample.name.clone(), labels)) {
                return fail("a series twice");
            }
            if format.escaping == Escaping::AllowUtf8 {
                continue;
            }
            if !is_legacy(&sample.name, ":") || !sample.labels.iter().all(|(n, _)| is_legacy(n, ""))
            {
                return fail("a name that is not escaped");
            }
            let dropped = sample.labels.iter().any(|(name, _)| name.starts_with("__"));
            if dropped && format.escaping != Escaping::Dots {
                return fail("a label that Prometheus drops");
            }
        }
        for Exemplar { name, labels, .. } in &family.exemplars {
            let has_some = match family.kind.as_str() {
                "counter" => format.syntax == Syntax::Protobuf || name.ends_with("_total"),
                "histogram" => name.ends_with("_bucket"),
                _ => false,
            };
            let length: usize =
                labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
            let escaped = format.escaping == Escaping::AllowUtf8
                || labels.iter().all(|(n, _)| is_legacy(n, ""));
            let names: HashSet<_> = labels.iter().map(|(name, _)| name).collect();
            if !has_some || length > 128 || !escaped || names.len() != labels.len() {
                return fail("a bad exemplar");
            }
        }
    }
    Ok(())
}
