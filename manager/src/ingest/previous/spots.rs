//! Where the values of a body stand among bytes that must not change.

use std::{collections::BTreeMap, mem::size_of};

use crate::{
    ingest::{Text, ValueAt},
    registry::{NewValue, Placement},
};

/// The values of a body, in the order of its bytes.
#[derive(Debug)]
pub(super) struct Spots(Box<[Spot]>);

#[derive(Debug)]
struct Spot {
    /// Bytes between the value before it and it.
    gap: u32,
    len: u32,
    /// As in [`NewValue`].
    series: u32,
    at: u16,
    /// Another sample says the same value: `_count` and the `+Inf` bucket.
    has_twin: bool,
}

/// How a body differs from the one before it.
#[derive(Debug)]
pub(super) struct Difference {
    /// In rising order of series.
    pub(super) values: Vec<NewValue>,
    /// New lengths of values, by number of the spot.
    lengths: Vec<(usize, u32)>,
}

impl Spots {
    /// Where `values` of `text` stand in what was received. `None`: a next body cannot be compared with this one.
    pub(super) fn find(
        received: Text<'_>,
        text: &str,
        values: &[ValueAt],
        placement: &Placement,
    ) -> Option<Self> {
        let mut first = BTreeMap::new();
        let mut before = 0;
        for (shard_id, series) in placement.series() {
            first.insert(shard_id, before);
            before += series as u32;
        }
        let mut places = Places::new(received);
        let (mut spots, mut end) = (Vec::with_capacity(values.len()), 0);
        for value in values.iter().filter(|value| !value.is_start) {
            let token = text.get(value.token.clone())?;
            let start = places.of(value.token.start)?;
            // Neither a timestamp, which differs each time, nor an escape within the value.
            let is_token =
                received.received().get(start..start + token.len()) == Some(token.as_bytes());
            if !is_token || !ends_line(text, value.token.end) {
                return None;
            }
            spots.push(Spot {
                gap: (start - end) as u32,
                len: token.len() as u32,
                series: first.get(&value.shard_id)? + value.series,
                at: u16::try_from(value.at).ok()?,
                has_twin: false,
            });
            end = start + token.len();
        }
        let mut by_place: Vec<_> = spots.iter_mut().collect();
        by_place.sort_by_key(|spot| (spot.series, spot.at));
        for same in by_place.chunk_by_mut(|a, b| (a.series, a.at) == (b.series, b.at)) {
            let has_twin = same.len() > 1;
            same.iter_mut().for_each(|spot| spot.has_twin = has_twin);
        }
        Some(Self(spots.into()))
    }

    /// What differs, if only values do. Each is read as the text format says.
    pub(super) fn compare(&self, mut old: &[u8], mut new: &[u8]) -> Option<Difference> {
        let (mut changed, mut lengths) = (Vec::new(), Vec::new());
        for (number, spot) in self.0.iter().enumerate() {
            let (before, rest) = old.split_at_checked((spot.gap + spot.len) as usize)?;
            old = rest;
            match new.split_at_checked(before.len()) {
                Some((same, rest)) if same == before && !rest.first().is_some_and(is_of_number) => {
                    new = rest;
                    continue;
                }
                _ => {}
            }
            let (gap, rest) = new.split_at_checked(spot.gap as usize)?;
            if !before.starts_with(gap) {
                return None;
            }
            let len = rest.iter().take_while(|byte| is_of_number(byte)).count();
            let (token, rest) = rest.split_at(len);
            new = rest;
            let (series, at, value) = (spot.series, spot.at, read(token)?);
            changed.push((NewValue { series, at, value }, spot.has_twin));
            if len != spot.len as usize {
                lengths.push((number, len as u32));
            }
        }
        if old != new {
            return None;
        }
        Some(Difference { values: join_twins(changed)?, lengths })
    }

    /// From now on the body is the one that differed.
    pub(super) fn follow(&mut self, difference: &Difference) {
        for (number, len) in &difference.lengths {
            if let Some(spot) = self.0.get_mut(*number) {
                spot.len = *len;
            }
        }
    }

    /// The memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<Spot>()
    }
}

/// In order of series, and each value once. `None`: twins differ, or one of them changed alone.
fn join_twins(mut changed: Vec<(NewValue, bool)>) -> Option<Vec<NewValue>> {
    changed.sort_by_key(|(new, _)| (new.series, new.at));
    let mut values = Vec::with_capacity(changed.len());
    for same in changed.chunk_by(|(a, _), (b, _)| (a.series, a.at) == (b.series, b.at)) {
        values.push(match same {
            [(one, false)] => *one,
            [(one, true), (other, true)] if one.value.to_bits() == other.value.to_bits() => *one,
            _ => return None,
        });
    }
    Some(values)
}

/// Whether a value can have this byte; none that can follow a value is one.
const fn is_of_number(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(*byte, b'.' | b'+' | b'-')
}

/// A value, as the text format writes it.
fn read(token: &[u8]) -> Option<f64> {
    // Most are counts; so many digits are exact.
    if (1..=15).contains(&token.len()) && token.iter().all(u8::is_ascii_digit) {
        let number = token.iter().fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
        return Some(number as f64);
    }
    str::from_utf8(token).ok()?.parse().ok()
}

/// Whether nothing follows on the line.
fn ends_line(text: &str, at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default().trim_start_matches([' ', '\t']);
    let rest = rest.strip_prefix('\r').unwrap_or(rest);
    rest.is_empty() || rest.starts_with('\n')
}

/// Finds places of a text in what was received, one after the other.
struct Places<'a> {
    received: &'a [u8],
    is_json: bool,
    /// Up to where it was looked at, and which place of the text that is.
    at: usize,
    text_at: usize,
}

impl<'a> Places<'a> {
    fn new(text: Text<'a>) -> Self {
        let (is_json, at) = match text {
            Text::Plain(_) => (false, 0),
            // After the opening quote.
            Text::Json { body, metrics } => {
                (true, metrics.get().as_ptr().addr() - body.as_ptr().addr() + 1)
            }
        };
        Self { received: text.received(), is_json, at, text_at: 0 }
    }

    fn of(&mut self, text_at: usize) -> Option<usize> {
        if !self.is_json {
            return Some(text_at);
        }
        loop {
            let rest = self.received.get(self.at..)?;
            let unescaped = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            let wanted = text_at.checked_sub(self.text_at)?;
            if wanted <= unescaped {
                return Some(self.at + wanted);
            }
            let (escape, becomes) = escape(rest.get(unescaped..)?)?;
            self.at += unescaped + escape;
            self.text_at += unescaped + becomes;
        }
    }
}

/// The length of the escape that `json` begins with, and of what it stands for.
fn escape(json: &[u8]) -> Option<(usize, usize)> {
    if *json.get(1)? != b'u' {
        return Some((2, 1));
    }
    let digits = str::from_utf8(json.get(2..6)?).ok()?;
    Some(match u16::from_str_radix(digits, 16).ok()? {
        ..0x80 => (6, 1),
        0x80..0x800 => (6, 2),
        // With the other half of the pair.
        0xd800..0xdc00 => (12, 4),
        _ => (6, 3),
    })
}
