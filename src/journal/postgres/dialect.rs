//! Translates statements from the dialect of SQLite.

use std::fmt::Write as _;

use crate::journal::sql::{Statement, Type};

/// The rows of a batch, as a table `k` with the columns `p1`, `p2` and so on.
struct Rows<'t>(&'t [Type]);

/// Translates a statement that runs once.
pub(super) fn translate(sql: &str) -> String {
    replace_parameters(sql, "$")
}

/// Translates a statement that runs for each row of a batch. Each parameter is the array of its values. A query
/// returns the number of the row, from 1, as its first column.
pub(super) fn translate_batch(statement: &Statement) -> String {
    let sql = replace_parameters(statement.sql, "k.p");
    let rows = Rows(statement.params);
    let command = sql.split_whitespace().next().unwrap_or_default();
    match command {
        "SELECT" => format!(
            "SELECT k.n, q.* FROM {} WITH ORDINALITY AS k({}, n), LATERAL ({sql}) AS q",
            rows.unnest(),
            rows.columns("")
        ),
        "INSERT" => {
            let (before, values) = sql.split_once("VALUES (").unwrap_or((&sql, ""));
            let (_, after) = values.split_once(')').unwrap_or_default();
            format!("{before}SELECT {} FROM {}{after}", rows.columns("k."), rows.table())
        }
        _ => {
            let keyword = if command == "UPDATE" { "FROM" } else { "USING" };
            let (before, condition) = sql.split_once("WHERE").unwrap_or((&sql, "true"));
            format!("{before}{keyword} {} WHERE{condition}", rows.table())
        }
    }
}

/// Translates the definitions of tables and indexes.
pub(super) fn translate_definitions(tables: &str) -> String {
    tables
        .replace(
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        )
        .replace("INTEGER", "BIGINT")
        .replace("BLOB", "BYTEA")
        .replace(" WITHOUT ROWID", "")
        // Primary keys that every index of SQLite ends with.
        .replace(" /*", "")
        .replace(" */", "")
}

/// Numbers the parameters as SQLite does, and removes the names of indexes.
fn replace_parameters(sql: &str, prefix: &str) -> String {
    let mut translated = String::with_capacity(sql.len() + 16);
    let mut last = 0_u32;
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once('?') {
        translated.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = after.split_at_checked(digits).unwrap_or(("", after));
        let number = number.parse().unwrap_or(last + 1);
        last = last.max(number);
        // Writing to a String cannot fail.
        let _ = write!(translated, "{prefix}{number}");
        rest = after;
    }
    translated.push_str(rest);
    remove_index_names(&translated)
}

fn remove_index_names(sql: &str) -> String {
    let mut parts = sql.split("INDEXED BY ");
    let mut translated = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(char::is_whitespace).unwrap_or(part.len());
        translated.push_str(part.get(end..).unwrap_or_default());
    }
    translated
}

impl Rows<'_> {
    fn unnest(&self) -> String {
        let arrays = (1..).zip(self.0).map(|(number, param)| {
            let array = match param {
                Type::Int => "bigint",
                Type::Text => "text",
                Type::Bytes => "bytea",
            };
            format!("${number}::{array}[]")
        });
        format!("unnest({})", arrays.collect::<Vec<_>>().join(", "))
    }

    fn columns(&self, prefix: &str) -> String {
        let columns = (1..=self.0.len()).map(|number| format!("{prefix}p{number}"));
        columns.collect::<Vec<_>>().join(", ")
    }

    fn table(&self) -> String {
        format!("{} AS k({})", self.unnest(), self.columns(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_and_index_names_removed() {
        let sql = "SELECT a FROM t INDEXED BY t_a WHERE a = ? AND b = ?2 AND c = ? LIMIT ?1";
        assert_eq!(translate(sql), "SELECT a FROM t  WHERE a = $1 AND b = $2 AND c = $3 LIMIT $1");
    }

    #[test]
    fn a_statement_for_a_batch_takes_an_array_for_each_parameter() {
        let select = Statement { sql: "SELECT a FROM t WHERE b = ?", params: &[Type::Int] };
        assert_eq!(
            translate_batch(&select),
            "SELECT k.n, q.* FROM unnest($1::bigint[]) WITH ORDINALITY AS k(p1, n), \
             LATERAL (SELECT a FROM t WHERE b = k.p1) AS q"
        );
        let params = &[Type::Text, Type::Bytes];
        let insert =
            Statement { sql: "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT DO NOTHING", params };
        assert_eq!(
            translate_batch(&insert),
            "INSERT INTO t (a, b) SELECT k.p1, k.p2 FROM unnest($1::text[], $2::bytea[]) AS \
             k(p1, p2) ON CONFLICT DO NOTHING"
        );
        let update = Statement { sql: "UPDATE t SET a = ? WHERE b = ?", params };
        assert_eq!(
            translate_batch(&update),
            "UPDATE t SET a = k.p1 FROM unnest($1::text[], $2::bytea[]) AS k(p1, p2) \
             WHERE b = k.p2"
        );
        let delete = Statement { sql: "DELETE FROM t WHERE a = ?", params: &[Type::Text] };
        assert_eq!(
            translate_batch(&delete),
            "DELETE FROM t USING unnest($1::text[]) AS k(p1) WHERE a = k.p1"
        );
    }
}
