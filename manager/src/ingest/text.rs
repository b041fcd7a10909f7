//! Reads Prometheus text format 0.0.4 and OpenMetrics 1.0 line by line, without copying what needs no unescaping.

use std::borrow::Cow;

use crate::model::{
    MetricType, closing_quote, is_legacy_label_name, is_legacy_metric_name, is_name,
};

/// Which of the two formats a body is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// The line that ends an OpenMetrics body.
const EOF: &str = "# EOF";

impl Syntax {
    /// OpenMetrics, if the last line says so.
    pub(crate) fn of(body: &str) -> Self {
        match body.trim_ascii_end().rsplit('\n').next() {
            Some(EOF) => Self::OpenMetrics,
            _ => Self::Text,
        }
    }
}

/// A type as a body says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Its samples are named as the text format does.
    Plain(MetricType),
    /// So too, but the TYPE line leaves this off.
    Suffixed(MetricType, &'static str),
    /// Three gauges.
    GaugeHistogram,
}

/// One line that says something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line<'a> {
    Help { name: Cow<'a, str>, text: Cow<'a, str> },
    Type { name: Cow<'a, str>, kind: Kind },
    Unit { name: Cow<'a, str>, unit: &'a str },
    Sample(Sample<'a>),
}

/// A sample line. Its timestamp is checked and dropped (design section 4: sample timestamps are ignored).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) labels: Labels<'a>,
    pub(crate) value: f64,
    /// The value as it stands there.
    pub(crate) token: &'a str,
    pub(crate) exemplar: Option<Exemplar<'a>>,
}

/// An exemplar behind a sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exemplar<'a> {
    pub(crate) labels: Labels<'a>,
    pub(crate) value: f64,
    /// Seconds since the epoch.
    pub(crate) timestamp: Option<f64>,
}

/// A line that is not in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Where a metric name must be.
    #[error(
        "{0:?} is no metric name ([a-zA-Z_:][a-zA-Z0-9_:]*; any other in braces and double quotes)"
    )]
    MetricName(String),
    /// Where a label name must be.
    #[error("{0:?} is no label name ([a-zA-Z_][a-zA-Z0-9_]*; any other in double quotes)")]
    LabelName(String),
    /// A name whose closing quote is missing.
    #[error("a name has no closing quote")]
    OpenName,
    /// A label name without `="..."`.
    #[error("label {0} has no value in double quotes")]
    NoLabelValue(String),
    /// A label value whose closing quote is missing.
    #[error("the value of label {0} has no closing quote")]
    OpenLabelValue(String),
    /// A backslash before something that needs none.
    #[error("\\{0} is no escape; only \\\\, \\\" and \\n are")]
    Escape(char),
    /// Label pairs that are not separated by a comma, or not closed.
    #[error("expected a comma or closing brace after label {0}")]
    OpenLabels(String),
    /// No value after name and labels.
    #[error("no value after {0}")]
    NoValue(String),
    /// A value that is no number.
    #[error("{0:?} is no value")]
    Value(String),
    /// A timestamp that is no whole number.
    #[error("{0:?} is no timestamp (milliseconds since 1970)")]
    Timestamp(String),
    /// A timestamp of OpenMetrics that is no number.
    #[error("{0:?} is no timestamp (seconds since 1970)")]
    Seconds(String),
    /// An exemplar in text format 0.0.4.
    #[error("an exemplar; only an OpenMetrics body can have some, and that ends in # EOF")]
    ExemplarInText,
    /// No label set after the `#` behind a sample.
    #[error("an exemplar has no labels in braces")]
    ExemplarLabels,
    /// Something after the end.
    #[error("something follows # EOF, which ends a body")]
    AfterEof,
    /// More on the line than name, labels, value and timestamp.
    #[error("unexpected {0:?} after the sample")]
    Trailing(String),
    /// A TYPE that is none.
    #[error("{0:?} is no metric type (counter, gauge, histogram, summary, untyped)")]
    Type(String),
}

/// The lines of a body with their numbers, from 1; blank lines and comments are passed over.
pub(crate) fn lines(
    body: &str,
    syntax: Syntax,
) -> impl Iterator<Item = Result<(usize, Line<'_>), ParseError>> {
    let body = match syntax {
        Syntax::Text => body,
        Syntax::OpenMetrics => body.trim_ascii_end().strip_suffix(EOF).unwrap_or(body),
    };
    (1..).zip(body.split('\n')).filter_map(move |(number, text)| {
        let text = text.strip_suffix('\r').unwrap_or(text).trim_start_matches(BLANK);
        let line = match text.strip_prefix('#') {
            Some(_) if text == EOF => Some(Err(Problem::AfterEof)),
            Some(comment) => about_family(comment, syntax).transpose(),
            None if text.is_empty() => None,
            None => Some(sample(text, syntax).map(Line::Sample)),
        }?;
        Some(
            line.map(|line| (number, line)).map_err(|problem| ParseError { line: number, problem }),
        )
    })
}

const BLANK: [char; 2] = [' ', '\t'];

/// The first word of a line and what follows the blanks after it.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(BLANK).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start_matches(BLANK))
}

/// What follows a `#`: HELP, TYPE, UNIT, or a comment.
fn about_family(comment: &str, syntax: Syntax) -> Result<Option<Line<'_>>, Problem> {
    let (keyword, rest) = word(comment.trim_start_matches(BLANK));
    let is_openmetrics = syntax == Syntax::OpenMetrics;
    if keyword != "HELP" && keyword != "TYPE" && !(keyword == "UNIT" && is_openmetrics) {
        return Ok(None);
    }
    let (name, rest) = match rest.strip_prefix('"') {
        Some(inner) => {
            let (name, rest) = quoted_name(inner)?;
            (metric_name(name)?, rest.trim_start_matches(BLANK))
        }
        None => {
            let (name, rest) = word(rest);
            (legacy_metric_name(name)?, rest)
        }
    };
    Ok(Some(match keyword {
        "HELP" => Line::Help { name, text: unescape_help(rest, is_openmetrics) },
        "UNIT" => Line::Unit { name, unit: rest.trim_end_matches(BLANK) },
        _ => Line::Type { name, kind: kind(rest.trim_end_matches(BLANK), is_openmetrics)? },
    }))
}

/// The type of this name. What is no type of the registry's becomes gauges (design section 4).
fn kind(name: &str, is_openmetrics: bool) -> Result<Kind, Problem> {
    Ok(Kind::Plain(match name {
        "counter" if is_openmetrics => return Ok(Kind::Suffixed(MetricType::Counter, "_total")),
        "info" if is_openmetrics => return Ok(Kind::Suffixed(MetricType::Gauge, "_info")),
        "gaugehistogram" if is_openmetrics => return Ok(Kind::GaugeHistogram),
        "counter" => MetricType::Counter,
        "gauge" | "info" | "stateset" => MetricType::Gauge,
        "histogram" => MetricType::Histogram,
        "summary" => MetricType::Summary,
        "untyped" | "unknown" => MetricType::Untyped,
        other => return Err(Problem::Type(other.to_owned())),
    }))
}

fn sample(text: &str, syntax: Syntax) -> Result<Sample<'_>, Problem> {
    let end = text.find(|c| c == '{' || BLANK.contains(&c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let in_braces = rest.trim_start_matches(BLANK).strip_prefix('{');
    let mut name = match name {
        "" if in_braces.is_some() => None,
        name => Some(legacy_metric_name(name)?),
    };
    let (labels, rest) = match in_braces {
        Some(inner) => labels(inner, &mut name)?,
        None => (Vec::new(), rest),
    };
    let name = name.ok_or_else(|| Problem::MetricName(String::new()))?;
    let (token, rest) = word(rest.trim_start_matches(BLANK));
    if token.is_empty() {
        return Err(Problem::NoValue(name.into_owned()));
    }
    let value = token.parse().map_err(|_| Problem::Value(token.to_owned()))?;
    let (timestamp, rest) = if rest.starts_with('#') { ("", rest) } else { word(rest) };
    match syntax {
        Syntax::Text if !timestamp.is_empty() && timestamp.parse::<i64>().is_err() => {
            return Err(Problem::Timestamp(timestamp.to_owned()));
        }
        Syntax::Text => {}
        Syntax::OpenMetrics => drop(seconds(timestamp)?),
    }
    let exemplar = match (rest.strip_prefix('#'), syntax) {
        (Some(text), Syntax::OpenMetrics) => Some(exemplar(text)?),
        (Some(_), Syntax::Text) => return Err(Problem::ExemplarInText),
        (None, _) if rest.is_empty() => None,
        (None, _) => return Err(Problem::Trailing(rest.to_owned())),
    };
    Ok(Sample { name, labels, value, token, exemplar })
}

/// A timestamp, if there is one.
fn seconds(timestamp: &str) -> Result<Option<f64>, Problem> {
    if timestamp.is_empty() {
        return Ok(None);
    }
    let seconds = timestamp.parse().ok().filter(|seconds: &f64| seconds.is_finite());
    seconds.map(Some).ok_or_else(|| Problem::Seconds(timestamp.to_owned()))
}

/// What follows the `#` behind a sample.
fn exemplar(text: &str) -> Result<Exemplar<'_>, Problem> {
    let inner = text.trim_start_matches(BLANK).strip_prefix('{').ok_or(Problem::ExemplarLabels)?;
    // As if there were a metric's name already: none can stand in these braces.
    let (labels, rest) = labels(inner, &mut Some(Cow::Borrowed("")))?;
    let (token, rest) = word(rest.trim_start_matches(BLANK));
    if token.is_empty() {
        return Err(Problem::NoValue("the exemplar's labels".to_owned()));
    }
    let value = token.parse().map_err(|_| Problem::Value(token.to_owned()))?;
    let (timestamp, rest) = word(rest);
    if !rest.is_empty() {
        return Err(Problem::Trailing(rest.to_owned()));
    }
    Ok(Exemplar { labels, value, timestamp: seconds(timestamp)? })
}

/// Label pairs, in the order they stand in.
type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Label pairs up to the closing brace, and what follows it. A name in quotes that has no value is the metric's, if that
/// stands not before the braces.
fn labels<'a>(
    mut text: &'a str,
    metric: &mut Option<Cow<'a, str>>,
) -> Result<(Labels<'a>, &'a str), Problem> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches(BLANK);
        if let Some(rest) = text.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, rest) = match text.strip_prefix('"') {
            Some(inner) => quoted_name(inner)?,
            None => legacy_label_name(text)?,
        };
        let rest = rest.trim_start_matches(BLANK);
        let is_of_metric = metric.is_none() && text.starts_with('"') && !rest.starts_with('=');
        text = if is_of_metric {
            *metric = Some(metric_name(name.clone())?);
            rest
        } else {
            let value = rest.strip_prefix('=').map(|value| value.trim_start_matches(BLANK));
            let value = value.and_then(|value| value.strip_prefix('"'));
            let value = value.ok_or_else(|| Problem::NoLabelValue(name.clone().into_owned()))?;
            let (value, rest) =
                quoted(value)?.ok_or_else(|| Problem::OpenLabelValue(name.clone().into_owned()))?;
            labels.push((name.clone(), value));
            rest.trim_start_matches(BLANK)
        };
        match text.strip_prefix(',') {
            Some(rest) => text = rest,
            None if text.starts_with('}') => {}
            None => return Err(Problem::OpenLabels(name.into_owned())),
        }
    }
}

fn legacy_metric_name(name: &str) -> Result<Cow<'_, str>, Problem> {
    if is_legacy_metric_name(name) {
        return Ok(Cow::Borrowed(name));
    }
    Err(Problem::MetricName(name.to_owned()))
}

fn metric_name(name: Cow<'_, str>) -> Result<Cow<'_, str>, Problem> {
    if is_name(&name) { Ok(name) } else { Err(Problem::MetricName(name.into_owned())) }
}

/// The label name that `text` begins with, and what follows it.
fn legacy_label_name(text: &str) -> Result<(Cow<'_, str>, &str), Problem> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if is_legacy_label_name(name) {
        return Ok((Cow::Borrowed(name), rest));
    }
    Err(Problem::LabelName(text.chars().take(40).collect()))
}

/// A name up to its closing quote, and what follows that.
fn quoted_name(inner: &str) -> Result<(Cow<'_, str>, &str), Problem> {
    quoted(inner)?.ok_or(Problem::OpenName)
}

/// What stands before the closing quote, unescaped, and what follows that; `None` if there is none.
fn quoted(inner: &str) -> Result<Option<(Cow<'_, str>, &str)>, Problem> {
    let Some((text, rest)) = closing_quote(inner).and_then(|end| inner.split_at_checked(end))
    else {
        return Ok(None);
    };
    Ok(Some((unescape_label(text)?, rest.strip_prefix('"').unwrap_or(rest))))
}

fn unescape_label(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => return Err(Problem::Escape(other.unwrap_or('\\'))),
            },
            c => c,
        });
    }
    Ok(Cow::Owned(plain))
}

/// HELP knows two escapes, in OpenMetrics that of the double quote too; a backslash before anything else stands for itself.
fn unescape_help(text: &str, has_quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        rest = match after.as_bytes().first() {
            Some(b'n') => {
                plain.push('\n');
                after.get(1..).unwrap_or_default()
            }
            Some(b'\\') => {
                plain.push('\\');
                after.get(1..).unwrap_or_default()
            }
            Some(b'"') if has_quotes => after,
            _ => {
                plain.push('\\');
                after
            }
        };
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}
