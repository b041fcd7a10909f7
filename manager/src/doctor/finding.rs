//! What checks find, and how it is said.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::dial::{Target, Trouble};
use crate::clip::clip_to;

/// Longest that is said of one check, bytes: others may say anything, as long as they like.
const MAX_SAID: usize = 4_000;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The HTTP port answers.
    Http,
    /// Its certificate.
    HttpTls,
    /// The gRPC port answers.
    Grpc,
    /// Its certificate.
    GrpcTls,
    /// The view token.
    Token,
    /// Who may report.
    Ingest,
    /// Whether counts outlive a restart.
    Journal,
    /// The page.
    Scrape,
    /// The list of shards.
    Fleet,
    /// The manager's clock.
    Clock,
    /// That all shards report.
    Shards,
    /// What shards reported and was not taken.
    Rejects,
    /// That each shard is one process.
    Instances,
    /// The api.
    Api,
}

impl Check {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::HttpTls => "http-tls",
            Self::Grpc => "grpc",
            Self::GrpcTls => "grpc-tls",
            Self::Token => "token",
            Self::Ingest => "ingest",
            Self::Journal => "journal",
            Self::Scrape => "scrape",
            Self::Fleet => "fleet",
            Self::Clock => "clock",
            Self::Shards => "shards",
            Self::Rejects => "rejects",
            Self::Instances => "instances",
            Self::Api => "api",
        }
    }
}

/// How bad it is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not looked at: another check failed that it needs.
    Skipped,
    /// Works, and may not for long, or not as meant.
    Warning,
    /// Does not work, or lets in whom it should not.
    Failure,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skip",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub check: Check,
    /// How bad it is.
    pub verdict: Verdict,
    /// What is so.
    pub what: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a check says; whose it is, the report knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    verdict: Verdict,
    what: String,
    remedy: Option<String>,
}

impl Found {
    pub(super) fn ok(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), remedy: None }
    }

    /// There is no answer.
    pub(super) fn unanswered(target: &Target, trouble: &Trouble) -> Self {
        Self::failure(format!("{target}: {trouble}"), trouble.remedy(target))
    }

    pub(super) fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, what: what.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn failure(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, what: what.into(), remedy: Some(remedy.into()) }
    }
}

/// What all checks found, in the order they ran in.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// One for each check.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Runs a check, unless one that it `needs` failed.
    pub(super) async fn run(
        &mut self,
        check: Check,
        needs: &[Check],
        examine: impl Future<Output = Found>,
    ) {
        let lacks = |finding: &&Finding| {
            needs.contains(&finding.check)
                && matches!(finding.verdict, Verdict::Failure | Verdict::Skipped)
        };
        let Found { verdict, what, remedy } = match self.findings.iter().find(lacks) {
            None => examine.await,
            Some(Finding { check, verdict, .. }) => {
                let failed = if *verdict == Verdict::Failure { "failed" } else { "was skipped" };
                let what = format!("not looked at: {} {failed}", check.as_str());
                Found { verdict: Verdict::Skipped, what, remedy: None }
            }
        };
        let what = clip_to(MAX_SAID, what);
        let remedy = remedy.map(|remedy| clip_to(MAX_SAID, remedy));
        self.findings.push(Finding { check, verdict, what, remedy });
    }

    /// Whether a check found nothing wrong.
    pub(super) fn passed(&self, check: Check) -> bool {
        let lacks = [Verdict::Failure, Verdict::Skipped];
        let mut of_it = self.findings.iter().filter(|finding| finding.check == check);
        of_it.any(|finding| !lacks.contains(&finding.verdict))
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Failure)
    }

    /// As JSON.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            verdict: Verdict,
            findings: &'a [Finding],
        }
        let verdict = self.findings.iter().map(|finding| finding.verdict).max();
        let verdict = verdict.unwrap_or(Verdict::Ok);
        serde_json::to_string_pretty(&Whole { verdict, findings: &self.findings })
    }
}

/// A line for each check, and under it what to do. What others said in it ends no line and moves no cursor.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, verdict, what, remedy } in &self.findings {
            write!(f, "{:<6}{:<11}", verdict.as_str(), check.as_str())?;
            visible(f, what)?;
            if let Some(remedy) = remedy {
                write!(f, "{:<17}-> ", "")?;
                visible(f, remedy)?;
            }
        }
        Ok(())
    }
}

fn visible(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        f.write_char(if c.is_control() { ' ' } else { c })?;
    }
    f.write_char('\n')
}
