//! The tables of an export.

use crate::journal::{
    apply::UNCERTAIN_OWNER,
    sql::{
        Column, Row, SqlError,
        Type::{self, Bytes, Int, Text},
        tables::meta,
    },
    transfer::error::TransferError,
};

/// A table, as it is exported.
#[derive(Debug)]
pub(in crate::journal) struct Table {
    pub(in crate::journal) name: &'static str,
    pub(in crate::journal) columns: &'static [(&'static str, Type)],
    /// The number of columns of the primary key, which come first.
    pub(in crate::journal) key: usize,
}

/// The rows of a table, for an import.
pub(in crate::journal) trait Rows {
    /// Returns the next row. Its values have the types of the table's columns, or are NULL.
    fn next_row(&mut self) -> Result<Option<Vec<Column<'_>>>, TransferError>;
}

/// The owner of a change in a file. No process has the number 0, so the gateway settles changes in flight. A change that
/// was restored keeps its mark, see [`UNCERTAIN_OWNER`](crate::journal::apply::UNCERTAIN_OWNER).
const NO_OWNER: &str = "CASE WHEN owner = -1 THEN -1 ELSE 0 END AS owner";
const _: () = assert!(UNCERTAIN_OWNER == -1, "see NO_OWNER");

/// All tables that both engines have. A test compares them with the schema.
pub(in crate::journal) const TABLES: &[Table] = &[
    Table { name: "meta", columns: &[("name", Text), ("value", Bytes)], key: 1 },
    Table { name: "account", columns: &[("id", Int), ("name", Text)], key: 1 },
    Table {
        name: "removal",
        columns: &[("account", Int), ("number", Int), ("newest", Int)],
        key: 2,
    },
    Table {
        name: "event",
        columns: &[
            ("position", Int),
            ("stream", Int),
            ("account", Int),
            ("kind", Int),
            ("early_request", Int),
            ("body", Bytes),
            ("link", Bytes),
        ],
        key: 1,
    },
    Table { name: "callback_body", columns: &[("position", Int), ("raw_json", Bytes)], key: 1 },
    Table {
        name: "change",
        columns: &[
            ("id", Int),
            ("change_id", Bytes),
            ("account", Int),
            ("key", Text),
            ("fingerprint", Bytes),
            ("state", Int),
            ("accept_time", Int),
            ("update_time", Int),
            ("final_time", Int),
            ("record", Bytes),
            ("status", Bytes),
            ("device_states", Text),
            ("device_count", Int),
            ("key_count", Int),
            ("request", Int),
            ("on_plan", Bytes),
            ("trimmed", Int),
            ("devices", Bytes),
            ("owner", Int),
            ("attempt", Bytes),
        ],
        key: 1,
    },
    Table {
        name: "request",
        columns: &[
            ("id", Int),
            ("request_id", Text),
            ("change", Int),
            ("link_position", Int),
            ("evidence", Text),
            ("account", Int),
            ("service", Text),
            ("last_result", Int),
            ("last_result_time", Int),
            ("has_digests", Int),
        ],
        key: 1,
    },
    Table { name: "result_digest", columns: &[("request", Int), ("digest", Bytes)], key: 2 },
    Table { name: "device_block", columns: &[("id", Int), ("devices", Bytes)], key: 1 },
    Table { name: "key_part", columns: &[("id", Int), ("keys", Bytes)], key: 1 },
    Table { name: "device_key", columns: &[("key", Bytes), ("change", Int)], key: 2 },
    Table {
        name: "device_state",
        columns: &[
            ("id", Int),
            ("identifier_kinds", Int),
            ("precedence", Int),
            ("decided_by", Int),
            ("digests", Bytes),
        ],
        key: 1,
    },
    Table {
        name: "unmatched_result",
        columns: &[
            ("change", Int),
            ("first_result", Int),
            ("identifier_kinds", Int),
            ("precedence", Int),
            ("decided_by", Int),
        ],
        key: 2,
    },
    Table {
        name: "identifier_owner",
        columns: &[("change", Int), ("identifier", Text), ("owner", Int)],
        key: 2,
    },
    Table {
        name: "quarantine",
        columns: &[
            ("id", Int),
            ("receive_time", Int),
            ("service", Text),
            ("account", Text),
            ("reason", Text),
            ("body", Bytes),
            ("credential_mac", Bytes),
            ("reviewed", Int),
        ],
        key: 1,
    },
    Table {
        name: "forward_queue",
        columns: &[
            ("position", Int),
            ("queue_time", Int),
            ("due_time", Int),
            ("attempts", Int),
            ("service", Text),
        ],
        key: 1,
    },
];

impl Table {
    /// Returns true for the table that also an empty journal has rows in.
    pub(super) fn is_meta(&self) -> bool {
        self.name == "meta"
    }

    /// Returns the names of the columns, separated by commas.
    pub(in crate::journal) fn column_names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// Returns the values of a row of [`select`](Self::select), whose number is the one in that order. A value of another type
    /// than its column is an error.
    pub(super) fn values<'r>(
        &'r self,
        row: &'r dyn Row,
        number: u64,
    ) -> impl Iterator<Item = Result<Column<'r>, TransferError>> {
        self.columns.iter().enumerate().map(move |(index, (name, expected))| {
            row.column_of_type(index, *expected).map_err(|error| match error {
                SqlError::Invalid(_) => {
                    TransferError::DamagedDatabase(self.describe_value(row, number, name))
                }
                error => error.into(),
            })
        })
    }

    /// Returns the values of a row whose types differ from those of their columns, as a text for an operator.
    pub(in crate::journal) fn values_of_other_types(
        &self,
        row: &dyn Row,
        number: u64,
    ) -> impl Iterator<Item = String> {
        self.columns.iter().enumerate().filter_map(move |(index, (name, expected))| {
            let is_valid = row.column(index).is_ok_and(|column| column.is(*expected));
            (!is_valid).then(|| self.describe_value(row, number, name))
        })
    }

    fn describe_value(&self, row: &dyn Row, number: u64, column: &str) -> String {
        let table = self.name;
        // A text or bytes can identify a device.
        let key = self.columns.iter().enumerate().take(self.key).find_map(|(index, (name, _))| {
            row.get::<i64>(index).ok().map(|key| format!("the row with the {name} {key}"))
        });
        let row = key.unwrap_or_else(|| format!("row {number}"));
        format!("table {table}, {row}: the column {column} has a value of another type")
    }

    /// Returns the query for all rows as they are stored.
    pub(in crate::journal) fn select_stored(&self) -> String {
        format!("SELECT {} FROM {}", self.column_names(), self.name)
    }

    /// Returns the query for all rows to export, in the order of the key. `collation` follows the name of a text column; the
    /// order is that of the bytes.
    pub(in crate::journal) fn select(&self, collation: &str) -> String {
        let columns = self.column_names();
        let columns = match self.name {
            "change" => columns.replace("owner", NO_OWNER),
            _ => columns,
        };
        let condition =
            if self.is_meta() { format!(" WHERE {}", meta::IS_MOVED) } else { String::new() };
        let key = self.columns.iter().take(self.key).map(|(name, column)| match column {
            Text => format!("{name}{collation}"),
            Int | Bytes => (*name).to_owned(),
        });
        let key = key.collect::<Vec<_>>().join(", ");
        format!("SELECT {columns} FROM {}{condition} ORDER BY {key}", self.name)
    }
}
