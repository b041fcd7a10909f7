//! Many numbers in few words.

use std::fmt::Write as _;

/// Ranges that are named; a thousand would say no more.
const MAX_RANGES: usize = 12;

/// Ids in order, those in a row as a range: `3, 10-14`.
pub(super) fn folded(ids: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let mut text = String::new();
    for (at, (first, last)) in ranges.iter().take(MAX_RANGES).enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = match first == last {
            true => write!(text, "{comma}{first}"),
            false => write!(text, "{comma}{first}-{last}"),
        };
    }
    let rest = ranges.iter().skip(MAX_RANGES);
    let rest: u64 = rest.map(|(first, last)| u64::from(last - first) + 1).sum();
    if rest > 0 {
        let _ = write!(text, " and {} more", grouped(rest));
    }
    text
}

/// A count with a comma between thousands.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_row_are_one_range() {
        assert_eq!(folded([]), "");
        assert_eq!(folded([3]), "3");
        assert_eq!(folded([3, 10, 11, 12, 13, 14, 16, 17]), "3, 10-14, 16-17");
        assert_eq!(folded([0, u32::MAX - 1, u32::MAX]), "0, 4294967294-4294967295");
        let odd = folded((0..30).map(|id| 2 * id + 1));
        assert!(odd.ends_with(", 21, 23 and 18 more"), "{odd}");
    }

    #[test]
    fn thousands_are_set_off() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (65_536, "65,536"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(count), text);
        }
    }
}
