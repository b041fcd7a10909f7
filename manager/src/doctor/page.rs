//! What must hold for a page, beyond that each of its lines can be read.

use std::collections::HashSet;

use xxhash_rust::xxh3::Xxh3;

use crate::{
    ingest::text::{Kind, Line, Sample, Syntax, lines},
    model::MetricType,
};

/// How long a page is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Length {
    pub(super) lines: usize,
    pub(super) series: usize,
}

/// A page as far as it was read.
#[derive(Default)]
struct Page {
    family: Family,
    /// Names of all families before.
    families: HashSet<String>,
    /// Hashes of names and labels: a page may have ten million.
    series: HashSet<u64>,
}

/// The family whose lines are read.
#[derive(Default)]
struct Family {
    name: String,
    kind: Option<Kind>,
    has_help: bool,
    has_unit: bool,
    has_samples: bool,
}

/// Reads a page in a format.
///
/// # Errors
/// What is wrong first, with its line.
pub(super) fn check(page: &str, syntax: Syntax) -> Result<Length, String> {
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line has no end: the page is cut".to_owned());
    }
    if syntax == Syntax::OpenMetrics && !(page.ends_with("\n# EOF\n") || page == "# EOF\n") {
        return Err("the last line is not # EOF: the page is cut".to_owned());
    }
    let mut read = Page::default();
    for line in lines(page, syntax) {
        let (number, line) = line.map_err(|error| error.to_string())?;
        read.take(line).map_err(|problem| format!("line {number}: {problem}"))?;
    }
    Ok(Length { lines: page.lines().count(), series: read.series.len() })
}

impl Page {
    fn take(&mut self, line: Line<'_>) -> Result<(), String> {
        match line {
            Line::Help { name, .. } => {
                self.describe(&name)?;
                once(std::mem::replace(&mut self.family.has_help, true), "HELP", &name)
            }
            Line::Unit { name, .. } => {
                self.describe(&name)?;
                once(std::mem::replace(&mut self.family.has_unit, true), "UNIT", &name)
            }
            Line::Type { name, kind } => {
                self.describe(&name)?;
                once(self.family.kind.replace(kind).is_some(), "TYPE", &name)
            }
            Line::Sample(sample) => self.sample(sample),
        }
    }

    /// A line about a family: of the one that is read, as long as that has no samples, or of the next.
    fn describe(&mut self, name: &str) -> Result<(), String> {
        if self.family.name == name && !self.family.has_samples {
            return Ok(());
        }
        self.begin(name)
    }

    fn begin(&mut self, name: &str) -> Result<(), String> {
        self.family = Family { name: name.to_owned(), ..Family::default() };
        if self.families.insert(name.to_owned()) {
            return Ok(());
        }
        Err(format!("family {name} was there before"))
    }

    fn sample(&mut self, sample: Sample<'_>) -> Result<(), String> {
        if !self.family.has(&sample.name) {
            // One that is not described is of no type.
            self.begin(&sample.name)?;
        }
        self.family.has_samples = true;
        let mut labels = sample.labels;
        labels.sort_unstable();
        let mut hash = Xxh3::new();
        let mut previous = None;
        hash.update(sample.name.as_bytes());
        for (name, value) in &labels {
            if previous.replace(name) == Some(name) {
                return Err(format!("{} has label {name} twice", sample.name));
            }
            // No byte of UTF-8 is this one.
            for part in [name, value] {
                hash.update(&[0xff]);
                hash.update(part.as_bytes());
            }
        }
        if self.series.insert(hash.digest()) {
            return Ok(());
        }
        Err(format!("{} was there with the same labels before", sample.name))
    }
}

impl Family {
    /// Whether a sample of this name is one of its.
    fn has(&self, sample: &str) -> bool {
        let Some(suffix) = sample.strip_prefix(&*self.name).filter(|_| !self.name.is_empty())
        else {
            return false;
        };
        match self.kind {
            Some(Kind::Plain(MetricType::Histogram)) => {
                matches!(suffix, "_bucket" | "_sum" | "_count" | "_created")
            }
            Some(Kind::Plain(MetricType::Summary)) => {
                matches!(suffix, "" | "_sum" | "_count" | "_created")
            }
            Some(Kind::Suffixed(_, own)) => suffix == own || suffix == "_created",
            Some(Kind::GaugeHistogram) => matches!(suffix, "_bucket" | "_gsum" | "_gcount"),
            Some(Kind::Plain(_)) | None => suffix.is_empty(),
        }
    }
}

fn once(again: bool, keyword: &str, name: &str) -> Result<(), String> {
    if again { Err(format!("a second {keyword} of {name}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_strictly_as_a_scraper_may() {
        let text = |page: &str| check(page, Syntax::Text).map(|length| length.series);
        let open = |page: &str| check(page, Syntax::OpenMetrics).map(|length| length.series);
        assert_eq!(text(""), Ok(0));
        assert_eq!(text("# HELP a x\n# TYPE a counter\na 1\na{b=\"c\"} 2\nd 3\n"), Ok(3));
        assert_eq!(
            text(
                "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n# TYPE h_max gauge\nh_max 1\n"
            ),
            Ok(4)
        );
        assert_eq!(open("# TYPE a counter\na_total 1\na_created 1\n# EOF\n"), Ok(2));
        assert_eq!(open("# EOF\n"), Ok(0));
        for (page, problem) in [
            ("a 1", "the page is cut"),
            ("a one\n", "line 1: \"one\" is no value"),
            ("<html>\n", "line 1: \"<html>\" is no metric name"),
            ("a 1\na 2\n", "line 2: a was there with the same labels before"),
            ("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n", "line 2: a was there with the same"),
            ("a{x=\"1\",x=\"2\"} 1\n", "line 1: a has label x twice"),
            ("a 1\nb 1\na{x=\"1\"} 1\n", "line 3: family a was there before"),
            ("# TYPE a gauge\n# TYPE a gauge\n", "line 2: a second TYPE of a"),
            ("# HELP a x\n# HELP a y\n", "line 2: a second HELP of a"),
            ("a 1\n# TYPE a gauge\n", "line 2: family a was there before"),
            (
                "# TYPE a counter\na 1\na_sum 1\n# TYPE a_sum gauge\n",
                "line 4: family a_sum was there",
            ),
        ] {
            let said = text(page).unwrap_err();
            assert!(said.contains(problem), "{page}: {said}");
        }
        for (page, problem) in [
            ("a 1\n", "not # EOF"),
            ("# TYPE a counter\na 1\n# EOF\n", "line 2: family a was there before"),
            ("a 1\n# EOF\nb 1\n# EOF\n", "line 2: something follows # EOF"),
        ] {
            let said = open(page).unwrap_err();
            assert!(said.contains(problem), "{page}: {said}");
        }
    }
}
