//! Many rows in one statement, so that a database far away is asked a few times for a batch, not once for each row.

use std::{fmt::Write as _, iter};

use sqlx::{Any, AssertSqlSafe, any::AnyArguments, query, query::Query};

/// Rows in a statement. With eight columns that is an eighth of the parameters that SQLite takes, the fewest of the two.
pub(super) const ROWS: usize = 500;

/// `head VALUES ($1, $2), ($3, $4), ... tail`. Its own work, because sqlx's builder writes `?` where PostgreSQL wants `$1`.
/// The statement is not kept prepared: another batch has another number of rows.
pub(super) fn insert<'q>(
    head: &'static str,
    columns: usize,
    rows: usize,
    tail: &'static str,
) -> Query<'q, Any, AnyArguments> {
    let mut sql = format!("{head} VALUES ");
    let mut parameters = 1..;
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        let separators = iter::once("$").chain(iter::repeat(", $"));
        for (separator, parameter) in separators.zip(parameters.by_ref().take(columns)) {
            // Writing to a string never fails.
            let _ = write!(sql, "{separator}{parameter}");
        }
        sql.push(')');
    }
    sql.push(' ');
    sql.push_str(tail);
    // Made of constants and numbers.
    query(AssertSqlSafe(sql)).persistent(false)
}

#[cfg(test)]
mod tests {
    use sqlx::Execute as _;

    use super::*;

    #[test]
    fn every_value_has_its_parameter() {
        let statement = insert("INSERT INTO t (a, b)", 2, 3, "ON CONFLICT DO NOTHING");
        let expected =
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4), ($5, $6) ON CONFLICT DO NOTHING";
        assert_eq!(statement.sql().as_str(), expected);
    }
}
