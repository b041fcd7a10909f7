//! A scrape as a map: reads Prometheus text format on its own terms, sharing no code with the manager.

use std::collections::BTreeMap;

/// Name and labels, labels sorted by name.
pub(crate) type Series = (String, BTreeMap<String, String>);

/// A page's samples.
pub(crate) type Samples = BTreeMap<Series, f64>;

/// Reads a page; `le` and `quantile` are compared as numbers, so they are spelled as Rust does.
pub(crate) fn parse(page: &str) -> Samples {
    let mut samples = Samples::new();
    for line in page.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (series, value) = parse_line(line);
        assert!(samples.insert(series, value).is_none(), "a series twice: {line}");
    }
    samples
}

/// The samples of a page that may never fall: counters, and the buckets, counts and sums of histograms and summaries.
pub(crate) fn counts(page: &str) -> Samples {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: BTreeMap<&str, &str> = types.collect();
    let is_count = |name: &str| {
        let of = |suffix| name.strip_suffix(suffix).and_then(|family| types.get(family).copied());
        types.get(name) == Some(&"counter")
            || of("_bucket") == Some("histogram")
            || ["_count", "_sum"].iter().any(|s| matches!(of(s), Some("histogram" | "summary")))
    };
    parse(page).into_iter().filter(|((name, _), _)| is_count(name)).collect()
}

/// Whether a page shows of a shard exactly the series of `most`, each no less than in `least` and no more than in `most`.
pub(crate) fn between(
    shown: &Samples,
    shard_id: u32,
    least: &Samples,
    most: &Samples,
) -> Result<(), String> {
    for (series, most) in most {
        let least = least.get(series).copied();
        match (shown.get(series), least) {
            (Some(value), _) if least.unwrap_or(0.0) <= *value && value <= most => {}
            (None, None) => {}
            (value, _) => return Err(format!("{series:?} is {value:?}, not {least:?} to {most}")),
        }
    }
    let shard_id = shard_id.to_string();
    let is_own = |(name, labels): &Series| {
        labels.get("shard_id") == Some(&shard_id) && !name.starts_with("shard_")
    };
    match shown.keys().find(|series| is_own(series) && !most.contains_key(*series)) {
        Some(series) => Err(format!("nobody sent {series:?}")),
        None => Ok(()),
    }
}

fn parse_line(line: &str) -> (Series, f64) {
    let name_end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap();
            let (value, after) = quoted(after);
            let value = match label {
                "le" | "quantile" => {
                    value.replace("+Inf", "inf").parse::<f64>().unwrap().to_string()
                }
                _ => value,
            };
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next().unwrap();
    ((name.to_owned(), labels), value.parse().unwrap_or_else(|_| panic!("no value: {line}")))
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().unwrap().1 {
                'n' => value.push('\n'),
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}");
}

/// A series by name and labels.
pub(crate) fn series<const N: usize>(name: &str, labels: [(&str, &str); N]) -> Series {
    (name.to_owned(), labels.map(|(n, v)| (n.to_owned(), v.to_owned())).into())
}
