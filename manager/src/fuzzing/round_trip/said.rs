//! What pages must show of a body that was taken, worked out without the manager's own code, line by line and letter by
//! letter. It reads whatever is taken; what should not be is for other tests.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Type and bits of a value by family, name and labels.
pub(super) type Shown = BTreeMap<Key, (String, u64)>;

type Key = (String, String, BTreeMap<String, String>);

pub(super) struct Said {
    pub(super) shown: Shown,
}

/// A bound, however it is spelled.
pub(super) fn bound(text: &str) -> String {
    // 0 and -0 are one bound.
    format!("{:?}", text.parse::<f64>().expect("a bound") + 0.0)
}

/// What `text` says of the shards `lowest` to `highest`.
pub(super) fn said(text: &str, lowest: u32, highest: u32) -> Said {
    let trimmed = text.trim_end_matches([' ', '\t', '\n', '\r', '\u{c}']);
    let is_openmetrics = trimmed == "# EOF" || trimmed.ends_with("\n# EOF");
    let mut types = Types { is_openmetrics, ..Types::default() };
    let mut shown = Shown::new();
    let text = if is_openmetrics { trimmed } else { text };
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let mut rest = Rest(line);
        rest.blanks();
        if let Some(about) = rest.0.strip_prefix('#') {
            types.comment(about);
        } else if !rest.0.is_empty() {
            sample(&mut shown, &types, rest, lowest, highest);
        }
    }
    complete_histograms(&mut shown);
    Said { shown }
}

#[derive(Default)]
struct Types {
    is_openmetrics: bool,
    /// Of families, by their samples' name.
    kinds: HashMap<String, &'static str>,
    /// Families that may say since when.
    counted: HashSet<String>,
}

impl Types {
    fn comment(&mut self, about: &str) {
        let mut rest = Rest(about);
        rest.blanks();
        if rest.word() != "TYPE" {
            return;
        }
        rest.blanks();
        let name = if rest.0.starts_with('"') { rest.quoted() } else { rest.word().to_owned() };
        rest.blanks();
        let kind = rest.0.trim_end_matches([' ', '\t']);
        if matches!(kind, "counter" | "histogram" | "summary") {
            self.counted.insert(name.clone());
        }
        match (kind, self.is_openmetrics) {
            ("counter", true) => self.is(format!("{name}_total"), "counter"),
            ("info", true) => self.is(format!("{name}_info"), "gauge"),
            ("gaugehistogram", true) => {
                for suffix in ["_bucket", "_gsum", "_gcount"] {
                    self.is(format!("{name}{suffix}"), "gauge");
                }
            }
            ("counter", false) => self.is(name, "counter"),
            ("gauge" | "info" | "stateset", _) => self.is(name, "gauge"),
            ("histogram", _) => self.is(name, "histogram"),
            ("summary", _) => self.is(name, "summary"),
            ("untyped" | "unknown", _) => self.is(name, "untyped"),
            _ => panic!("a TYPE {kind:?} is taken"),
        }
    }

    fn is(&mut self, name: String, kind: &'static str) {
        if kind == "counter" {
            self.counted.insert(name.clone());
        }
        self.kinds.insert(name, kind);
    }

    /// Whether a family of text format 0.0.4 has a gauge that says when it began.
    fn has_created(&self, stem: &str) -> bool {
        let kind = |name: &str| self.kinds.get(name).copied();
        matches!(kind(stem), Some("histogram" | "summary"))
            || kind(&format!("{stem}_total")) == Some("counter")
    }

    /// Family and type of a sample; `None` of one that says since when.
    fn family(&self, name: &str) -> Option<(String, &'static str)> {
        let (stem, suffix) = name.rsplit_once('_').unwrap_or((name, ""));
        if let Some(kind) = self.kinds.get(name) {
            let is_created = !self.is_openmetrics && suffix == "created" && *kind == "gauge";
            return (!is_created || !self.has_created(stem)).then(|| (name.to_owned(), *kind));
        }
        match (self.kinds.get(stem).copied(), suffix) {
            (Some("histogram"), "bucket" | "sum" | "count") => Some((stem.to_owned(), "histogram")),
            (Some("summary"), "sum" | "count") => Some((stem.to_owned(), "summary")),
            (_, "created") if self.is_openmetrics && self.counted.contains(stem) => None,
            _ => Some((name.to_owned(), "untyped")),
        }
    }
}

fn sample(shown: &mut Shown, types: &Types, mut rest: Rest<'_>, lowest: u32, highest: u32) {
    let mut name = rest.until(&['{', ' ', '\t']).to_owned();
    rest.blanks();
    let mut labels = Vec::new();
    if rest.eat('{') {
        loop {
            rest.blanks();
            if rest.eat('}') {
                break;
            }
            let is_quoted = rest.0.starts_with('"');
            let label =
                if is_quoted { rest.quoted() } else { rest.until(&['=', ' ', '\t']).to_owned() };
            rest.blanks();
            if rest.eat('=') {
                rest.blanks();
                labels.push((label, rest.quoted()));
                rest.blanks();
            } else {
                assert!(is_quoted && name.is_empty(), "{rest:?}");
                name = label;
            }
            assert!(rest.eat(',') || rest.0.starts_with('}'), "{rest:?}");
        }
    }
    rest.blanks();
    let value: f64 = rest.word().parse().expect("a value");
    let Some((family, kind)) = types.family(&name) else { return };
    let shard_id = labels.iter().find_map(|(name, value)| {
        let id = if name == "shard_id" { value.parse().ok()? } else { return None };
        (lowest..=highest).contains(&id).then_some(id)
    });
    let labels = shown_labels(kind, labels, shard_id.unwrap_or(lowest));
    let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
    // What is added up is added to 0, which -0 does not change.
    let is_added = kind != "gauge" && kind != "untyped" && !(kind == "summary" && name == family);
    let bits = if value == 0.0 && is_added { 0 } else { bits };
    let twice = shown.insert((family, name, labels), (kind.to_owned(), bits));
    assert!(twice.is_none(), "a sample twice: {twice:?}");
}

/// As a page shows them.
fn shown_labels(
    kind: &str,
    labels: Vec<(String, String)>,
    shard_id: u32,
) -> BTreeMap<String, String> {
    let of_bound = match kind {
        "histogram" => "le",
        "summary" => "quantile",
        _ => "",
    };
    let mut shown = BTreeMap::new();
    for (name, value) in labels {
        let value = if name == of_bound { bound(&value) } else { value };
        let is_its_own = name == "shard_id" && value.parse() == Ok(shard_id);
        if !value.is_empty() && !is_its_own {
            shown.insert(name, value);
        }
    }
    for taken in ["shard_id", "job", "instance"] {
        let Some(value) = shown.remove(taken) else { continue };
        let mut free = format!("exported_{taken}");
        while shown.keys().any(|name| with_underscores(name) == free) {
            free = format!("exported_{free}");
        }
        shown.insert(free, value);
    }
    shown.insert("shard_id".to_owned(), shard_id.to_string());
    shown
}

fn with_underscores(name: &str) -> String {
    let fits = |at, c: char| c.is_ascii_alphabetic() || c == '_' || at > 0 && c.is_ascii_digit();
    name.chars().enumerate().map(|(at, c)| if fits(at, c) { c } else { '_' }).collect()
}

/// A page has the bucket of all and the count, also where a body has only one of them.
fn complete_histograms(shown: &mut Shown) {
    let histograms: Vec<_> = shown.iter().filter(|(_, (kind, _))| kind == "histogram").collect();
    let mut more = Vec::new();
    for ((family, _, labels), (kind, _)) in histograms {
        let mut of_series = labels.clone();
        of_series.remove("le");
        let count = (family.clone(), format!("{family}_count"), of_series.clone());
        of_series.insert("le".to_owned(), bound("+Inf"));
        let inf = (family.clone(), format!("{family}_bucket"), of_series);
        let bits = shown.get(&inf).or(shown.get(&count)).expect("a count").1;
        more.extend([inf, count].map(|key| (key, (kind.clone(), bits))));
    }
    shown.extend(more);
}

/// What is left of a line.
#[derive(Debug)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn blanks(&mut self) {
        while self.eat(' ') || self.eat('\t') {}
    }

    fn eat(&mut self, c: char) -> bool {
        match self.0.strip_prefix(c) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn until(&mut self, ends: &[char]) -> &'a str {
        let (before, rest) = self.0.split_at(self.0.find(ends).unwrap_or(self.0.len()));
        self.0 = rest;
        before
    }

    fn word(&mut self) -> &'a str {
        self.until(&[' ', '\t'])
    }

    fn quoted(&mut self) -> String {
        assert!(self.eat('"'), "{self:?}");
        let mut text = String::new();
        loop {
            text.push_str(self.until(&['"', '\\']));
            if self.eat('"') {
                return text;
            }
            assert!(self.eat('\\'), "no closing quote");
            text.push(match self.0.chars().next() {
                Some('n') => '\n',
                Some(c @ ('"' | '\\')) => c,
                other => panic!("\\{other:?}"),
            });
            self.0 = &self.0[1..];
        }
    }
}
