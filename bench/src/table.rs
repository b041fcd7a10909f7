//! A table that reads well in a terminal and is Markdown too.

use std::fmt;

/// Rows of cells; the first column is names, the others figures.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Whether it is a head and nothing else.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = String>) {
        let mut row = vec![name.into()];
        row.extend(cells);
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |n: usize| {
            self.rows.iter().filter_map(|row| row.get(n)).map(|c| c.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or_default()).collect();
        for (n, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    write!(f, "| {cell:<width$} ")?;
                } else {
                    write!(f, "| {cell:>width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if n == 0 {
                // Figures stand on the right.
                for (column, width) in widths.iter().enumerate() {
                    let colon = if column == 0 { "-" } else { ":" };
                    write!(f, "|-{}{colon}", "-".repeat(*width))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// Three digits that say something; `-` for what was not measured.
pub(crate) fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 => thousands(value),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

/// How many times as much.
pub(crate) fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{} x", figure(Some(ratio))))
}

/// A whole number with its digits in groups.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.012_34, 1.234, 12.34, 123.4, 1_234_567.8, -1_234.0];
        let shown = figures.map(|value| figure(Some(value)));
        assert_eq!(shown, ["0.012", "1.23", "12.3", "123", "1,234,568", "-1,234"]);
        assert_eq!(figure(None), "-");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["", "us"]);
        table.row("manager", ["1.5".to_owned()]);
        assert_eq!(table.to_string(), "|         |  us |\n|---------|----:|\n| manager | 1.5 |\n");
    }
}
