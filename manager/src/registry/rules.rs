//! What operators want done with families (`[[rules]]` of the configuration file): not kept at all, without some labels, or
//! all shards put together.

use std::fmt::{self, Write as _};

use regex::Regex;
use serde::Deserialize;

use crate::model::{MetricType, is_name};

/// All rules. The first that matches a family decides what is done with it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Rules(Vec<Rule>);

/// One rule: which families it is for, and what it does.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Spec")]
pub struct Rule {
    /// Matches whole names.
    family: Regex,
    /// `None`: families of any type.
    kind: Option<MetricType>,
    treatment: Treatment,
}

/// What is done with a family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Treatment {
    /// It is not kept.
    pub drop: bool,
    /// Labels that it is kept without.
    pub drop_labels: Box<[Box<str>]>,
    /// What all shards have is put together, without `shard_id`.
    pub collapse_shards: bool,
    /// How gauges that fall together become one. Of counters and histograms it is always the sum.
    pub gauges: Option<Combine>,
}

/// How gauges become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// All added up.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The mean.
    Avg,
}

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    family: String,
    #[serde(rename = "type")]
    kind: Option<Kind>,
    #[serde(default)]
    action: Action,
    #[serde(default)]
    drop_labels: Vec<String>,
    #[serde(default)]
    collapse_shards: bool,
    gauges: Option<Combine>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    #[default]
    Keep,
    Drop,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

/// A rule that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Names are matched by regular expressions.
    #[error("family = {family:?} is no regular expression: {error}")]
    Pattern {
        /// As written.
        family: String,
        /// What is wrong with it.
        error: String,
    },
    /// What is dropped cannot be changed too.
    #[error("family = {0:?}: action = \"drop\" and something to do with what is kept")]
    DropAndMore(String),
    /// Gauges fall together, and nothing says what becomes of them.
    #[error(
        "family = {0:?}: series fall together; say what becomes of gauges, gauges = \"sum\", \"min\", \"max\" or \"avg\" \
         (counters and histograms are always added up), or that the rule is for others alone, type = \"counter\", \
         \"histogram\" or \"summary\""
    )]
    NoGauges(String),
    /// Nothing falls together.
    #[error(
        "family = {0:?}: gauges = ... where no series fall together: there is neither drop_labels nor collapse_shards"
    )]
    NothingToCombine(String),
    /// A label that cannot be dropped.
    #[error("family = {family:?}: drop_labels has {label:?}: {why}")]
    Label {
        /// Whose.
        family: String,
        /// Which.
        label: String,
        /// Why not.
        why: &'static str,
    },
}

impl Rules {
    /// Whether any puts shards together.
    pub(super) fn collapse(&self) -> bool {
        self.0.iter().any(|rule| rule.treatment.collapse_shards)
    }

    /// What is done with a family.
    pub(super) fn treatment(&self, name: &str, kind: MetricType) -> Treatment {
        let fits =
            |rule: &&Rule| rule.kind.is_none_or(|only| only == kind) && rule.family.is_match(name);
        let mut treatment =
            self.0.iter().find(fits).map(|rule| rule.treatment.clone()).unwrap_or_default();
        if !matches!(kind, MetricType::Gauge | MetricType::Untyped) {
            treatment.gauges = None;
        }
        treatment
    }
}

impl Treatment {
    /// Whether its series are merged from those that shards report.
    pub(super) fn merges(&self) -> bool {
        !self.drop_labels.is_empty()
    }
}

/// In few words; the same for the same, over restarts.
impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        if self.drop {
            said.push("dropped".to_owned());
        }
        if !self.drop_labels.is_empty() {
            said.push(format!("without {}", self.drop_labels.join(", ")));
        }
        if self.collapse_shards {
            said.push("all shards together".to_owned());
        }
        if let Some(gauges) = self.gauges {
            let mut text = String::new();
            write!(text, "{gauges:?}")?;
            said.push(format!("gauges: {}", text.to_lowercase()));
        }
        f.write_str(&said.join("; "))
    }
}

impl Combine {
    /// The gauge that these make; `None` of none.
    pub(super) fn of(self, values: impl Iterator<Item = f64>) -> Option<f64> {
        let (mut number, mut all) = (0.0, None);
        for value in values {
            number += 1.0;
            all = Some(match (all, self) {
                (None, _) => value,
                (Some(all), Self::Sum | Self::Avg) => all + value,
                (Some(all), Self::Min) => f64::min(all, value),
                (Some(all), Self::Max) => f64::max(all, value),
            });
        }
        if self == Self::Avg { all.map(|sum| sum / number) } else { all }
    }
}

impl TryFrom<Spec> for Rule {
    type Error = RuleError;

    fn try_from(spec: Spec) -> Result<Self, RuleError> {
        let Spec { family, kind, action, mut drop_labels, collapse_shards, gauges } = spec;
        let falls_together = collapse_shards || !drop_labels.is_empty();
        let may_be_gauge = matches!(kind, None | Some(Kind::Gauge | Kind::Untyped));
        // By itself first: what closes the group around it would match more.
        let pattern = Regex::new(&family).and_then(|_| Regex::new(&format!("^(?:{family})$")));
        let pattern = pattern.map_err(|error| RuleError::Pattern {
            family: family.clone(),
            error: error.to_string(),
        })?;
        for label in &drop_labels {
            if let Some(why) = why_kept(label) {
                return Err(RuleError::Label { family, label: label.clone(), why });
            }
        }
        match action {
            Action::Drop if falls_together || gauges.is_some() => {
                return Err(RuleError::DropAndMore(family));
            }
            _ if falls_together && may_be_gauge && gauges.is_none() => {
                return Err(RuleError::NoGauges(family));
            }
            _ if !falls_together && gauges.is_some() => {
                return Err(RuleError::NothingToCombine(family));
            }
            _ => {}
        }
        drop_labels.sort();
        drop_labels.dedup();
        let treatment = Treatment {
            drop: action == Action::Drop,
            drop_labels: drop_labels.into_iter().map(Into::into).collect(),
            collapse_shards,
            gauges,
        };
        let kind = kind.map(|kind| match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Summary => MetricType::Summary,
            Kind::Untyped => MetricType::Untyped,
        });
        Ok(Self { family: pattern, kind, treatment })
    }
}

/// Why a label cannot be dropped, if it cannot.
fn why_kept(label: &str) -> Option<&'static str> {
    match label {
        "shard_id" => Some("the manager sets it; collapse_shards = true leaves it out"),
        "le" | "quantile" => Some("it is part of what the type is"),
        "job" | "instance" => Some("on the page it is exported_job or exported_instance"),
        name if !is_name(name) => Some("it is no label name"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
