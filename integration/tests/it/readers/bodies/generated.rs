//! Bodies of the numbers of a seed: families as client libraries print them, and then some letters or lines are changed.

use std::fmt::Write as _;

use fastrand::Rng;

const NAMES: [&str; 9] = [
    "a",
    "b_total",
    "c_seconds",
    "d:e",
    "f_info",
    "\"g.h\"",
    "\"g h\\\"\\\\\\n\"",
    "i_count",
    "_j",
];
const LABELS: [&str; 8] = ["k", "l_", "M9", "le", "quantile", "\"n.o\"", "\"ü\"", "p"];
const VALUES: [&str; 10] = ["", "x", "0", "\\\"", "\\\\", "\\n", "ü🦀", "{}", ",=", "a b # c"];
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "5",
    "-1",
    "0.5",
    "1.0",
    "1e3",
    "1E-3",
    "+Inf",
    "-Inf",
    "NaN",
    "nan",
    "inf",
    "Infinity",
    "+1",
    "-0",
    "007",
    ".5",
    "5.",
    "1e400",
    "123456789012345678901234567890",
    "9007199254740993",
];
const TYPES: [&str; 9] = [
    "counter",
    "gauge",
    "histogram",
    "summary",
    "untyped",
    "unknown",
    "info",
    "stateset",
    "gaugehistogram",
];
const LETTERS: [char; 30] = [
    ' ', '\t', '\n', '\r', '{', '}', '"', ',', '=', '#', '\\', '_', ':', '0', '1', '.', '-', '+',
    'e', 'a', 'n', 'N', 'x', 'é', '🦀', '\u{a0}', '\u{2028}', '\u{661}', '\u{c}', '\0',
];

/// Mostly text 0.0.4, or OpenMetrics that ends as it must.
pub(super) fn body(rng: &mut Rng) -> String {
    let is_openmetrics = rng.bool();
    let mut body = String::new();
    let mut names = NAMES.to_vec();
    rng.shuffle(&mut names);
    for name in &names[..rng.usize(1..4)] {
        family(&mut body, rng, name, is_openmetrics);
    }
    if is_openmetrics {
        body.push_str("# EOF\n");
    }
    for _ in 0..rng.usize(..4) / 2 {
        mutate(&mut body, rng);
    }
    body
}

fn family(body: &mut String, rng: &mut Rng, name: &str, is_openmetrics: bool) {
    let kind = *rng.choice(&TYPES[..if is_openmetrics { 9 } else { 6 }]).unwrap();
    if rng.bool() {
        writeln!(body, "# HELP {name} Some {}help.", rng.choice(VALUES).unwrap()).unwrap();
    }
    if rng.u8(..8) > 0 {
        writeln!(body, "# TYPE {name} {kind}").unwrap();
    }
    if is_openmetrics && rng.u8(..8) == 0 {
        writeln!(body, "# UNIT {name} seconds").unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..rng.usize(..3) {
        let labels = labels(rng);
        if seen.contains(&labels) && rng.u8(..8) > 0 {
            continue;
        }
        series(body, rng, (name, kind, is_openmetrics), &labels);
        seen.push(labels);
    }
}

fn labels(rng: &mut Rng) -> Vec<String> {
    let mut names = LABELS.to_vec();
    rng.shuffle(&mut names);
    let labels = names[..rng.usize(..3)].iter();
    labels.map(|name| format!("{name}=\"{}\"", rng.choice(VALUES).unwrap())).collect()
}

fn series(
    body: &mut String,
    rng: &mut Rng,
    (name, kind, is_openmetrics): (&str, &str, bool),
    labels: &[String],
) {
    let count = |rng: &mut Rng| rng.u32(..9).to_string();
    let mut sample = |rng: &mut Rng, suffix: &str, bound: Option<String>, value: String| {
        let mut labels: Vec<_> = labels.iter().cloned().chain(bound).collect();
        let mut name = match name.strip_suffix('"') {
            Some(open) => format!("{open}{suffix}\""),
            None => format!("{name}{suffix}"),
        };
        if name.starts_with('"') {
            labels.insert(0, std::mem::take(&mut name));
        }
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        write!(body, "{name}{labels} {value}").unwrap();
        if rng.u8(..16) == 0 {
            body.push_str(if is_openmetrics { " 1700000000.5" } else { " 1700000000500" });
        }
        if is_openmetrics && rng.u8(..4) == 0 && (suffix == "_total" || suffix == "_bucket") {
            let time = if rng.bool() { " 5" } else { "" };
            write!(body, " # {{t=\"{}\"}} 1{time}", rng.choice(VALUES).unwrap()).unwrap();
        }
        body.push('\n');
    };
    let any = |rng: &mut Rng| (*rng.choice(NUMBERS).unwrap()).to_owned();
    match kind {
        "counter" if is_openmetrics => {
            let value = if rng.bool() { count(rng) } else { any(rng) };
            sample(rng, "_total", None, value);
        }
        "counter" => {
            let value = if rng.bool() { count(rng) } else { any(rng) };
            sample(rng, "", None, value);
        }
        "histogram" => {
            let (low, more) = (rng.u32(..9), rng.u32(..9));
            let all = (low + more).to_string();
            sample(rng, "_bucket", Some("le=\"0.5\"".to_owned()), low.to_string());
            sample(rng, "_bucket", Some("le=\"+Inf\"".to_owned()), all.clone());
            let sum = any(rng);
            sample(rng, "_sum", None, sum);
            sample(rng, "_count", None, all);
        }
        "summary" => {
            let value = any(rng);
            sample(rng, "", Some("quantile=\"0.5\"".to_owned()), value);
            let sum = any(rng);
            sample(rng, "_sum", None, sum);
            let all = count(rng);
            sample(rng, "_count", None, all);
        }
        "info" => sample(rng, "_info", None, "1".to_owned()),
        "stateset" => {
            let state = format!("{name}=\"on\"");
            sample(rng, "", Some(state), "1".to_owned());
        }
        "gaugehistogram" => {
            sample(rng, "_bucket", Some("le=\"+Inf\"".to_owned()), "3".to_owned());
            sample(rng, "_gcount", None, "3".to_owned());
            let sum = any(rng);
            sample(rng, "_gsum", None, sum);
        }
        _ => {
            let value = any(rng);
            sample(rng, "", None, value);
        }
    }
}

/// Changes a letter or a line.
fn mutate(body: &mut String, rng: &mut Rng) {
    let letters = body.chars().count();
    let at =
        if letters == 0 { 0 } else { body.char_indices().nth(rng.usize(..letters)).unwrap().0 };
    match rng.u8(..8) {
        0 if letters > 0 => drop(body.remove(at)),
        1 | 2 => body.insert(at, rng.choice(LETTERS).unwrap()),
        3 if letters > 0 => {
            body.remove(at);
            body.insert(at, rng.choice(LETTERS).unwrap());
        }
        4 => body.insert_str(at, rng.choice(NUMBERS).unwrap()),
        5 => body.truncate(at),
        _ => {
            let mut lines: Vec<_> = body.split_inclusive('\n').map(str::to_owned).collect();
            if lines.is_empty() {
                return;
            }
            let (one, other) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
            match rng.u8(..4) {
                0 => lines.insert(one, lines[other].clone()),
                1 => drop(lines.remove(one)),
                2 => lines[one] = lines[one].trim_end().to_owned() + "\r\n",
                _ => lines.swap(one, other),
            }
            *body = lines.concat();
        }
    }
}
