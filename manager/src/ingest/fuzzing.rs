//! The parsers, on any bytes.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fuzz targets do"
)]

use super::{Body, IngestError, assemble::assemble, drafts::Drafts, text::Syntax};
use crate::registry::BodyPlace;

/// Text format 0.0.4.
pub fn text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if Syntax::of(text) == Syntax::Text {
        check(text);
    }
}

/// OpenMetrics; the line that ends it need not be there.
pub fn openmetrics(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Syntax::of(text) {
        Syntax::OpenMetrics => check(text),
        Syntax::Text => check(&format!("{text}\n# EOF\n")),
    }
}

fn check(text: &str) {
    for shards in ["0", "1-3"] {
        let read = |text: &str| assemble(text, Drafts::new(shards.parse().unwrap(), None));
        let body = read(text);
        match &body {
            Ok(body) => check_values(text, body),
            Err(error) => {
                let line = line_of(error);
                let lines = text.split('\n').count();
                assert!((1..=lines).contains(&line), "line {line} of {lines}: {error}");
                assert!(!error.to_string().is_empty());
            }
        }
        // How lines end, and a comment before them, make no difference.
        if !text.contains('\r') {
            assert_eq!(said(&read(&text.replace('\n', "\r\n")), 0), said(&body, 0), "{text:?}");
        }
        assert_eq!(said(&read(&format!("# a comment\n{text}")), 1), said(&body, 0), "{text:?}");
    }
}

fn line_of(error: &IngestError) -> usize {
    match error {
        IngestError::Parse(error) => error.line,
        IngestError::Assemble(error) => line(error.place),
        other => panic!("not of a parser: {other:?}"),
    }
}

fn line(place: BodyPlace) -> usize {
    match place {
        BodyPlace::Line(line) => line,
        BodyPlace::Message(_) => panic!("of a text"),
    }
}

/// What was said, with all lines so much higher up.
fn said(body: &Result<Body, IngestError>, higher: usize) -> String {
    match body {
        Ok(Body { shards, process_start, .. }) => {
            let mut shards = shards.clone();
            let series = shards.values_mut().flatten().flat_map(|family| &mut family.series);
            series.for_each(|series| series.place = BodyPlace::Line(line(series.place) - higher));
            format!("{process_start:?} {shards:?}")
        }
        // Some messages name another line too.
        Err(error) => format!("line {}", line_of(error) - higher),
    }
}

/// Every value is where it is said to be.
fn check_values(text: &str, body: &Body) {
    for value in &body.values {
        let token: f64 = text[value.token.clone()].parse().unwrap();
        let mut all = body.shards[&value.shard_id].iter().flat_map(|family| &family.series);
        let series = all.nth(value.series as usize).unwrap();
        let placed = series.values[value.at];
        assert!(placed == token || placed.is_nan() && token.is_nan(), "{value:?}: {placed}");
    }
    let series = body.shards.values().flatten().flat_map(|family| &family.series);
    for series in series {
        assert!(!series.values.is_empty());
    }
}
